"""What a scope does with adapters beside promoting to them: merge them, ask them, move them, learn unasked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast

from tercet import keeping, relearning
from tercet.cube import MemCube
from tercet.errors import InvalidRequest
from tercet.relearning import AGREE
from tercet.schedule import migration, personal
from tercet.schedule.migration import Plan
from tercet.schedule.personal import Personal
from tercet.schedule.worker import run_due
from tercet.text.recall.recite import Recite

if TYPE_CHECKING:
    from tercet.kernel import Tercet
    from tercet.parametric.promote import Teaching
    from tercet.scoped import ScopedMemory


class FromWeights(TypedDict, total=False):
    """What a turn takes from adapters; see `ScopedMemory.chat`."""

    adapters: Sequence[str]
    """Ids of adapters that the model answers with; ID@VERSION pins a version."""
    recite: Recite | bool
    """Whether they first say in full what they were taught that the question is about."""


class MergeOptions(TypedDict, total=False):
    """What methods of merging take beside weights; see `ScopedMemory.merge`."""

    rank: int
    """Of "svd", "ties" and "dare": the rank that is kept."""
    density: float
    """Of "ties" and "dare": the share of entries that stay."""
    scale: float
    """Of "ties": what the mean is multiplied by."""
    seed: int
    """Of "dare": what the draw depends on."""


def chosen(*, adapters: Sequence[str] = (), recite: Recite | bool = False) -> tuple[Sequence[str], Recite | None]:
    """What `FromWeights` says; a name that is none of its is a TypeError, as in any call."""
    return adapters, Recite() if recite is True else recite or None


class Weights:
    """A part of `ScopedMemory`."""

    tercet: Tercet

    @property
    def _learner(self) -> ScopedMemory:
        return cast("ScopedMemory", self)

    def merge(
        self, ids: Sequence[str], *, method: str = "concatenate", weights: Sequence[float] | None = None,
        engine: str | None = None, teaching: Teaching | None = None, **options: Unpack[MergeOptions],
    ) -> MemCube:  # fmt: skip
        """Make one adapter of several, and keep it if it passes the gate, asked about what all of them were taught.

        It is made from their texts: it goes with one of those, and stays when one of the adapters is demoted. Where a
        text of it is erased, a job teaches what is left anew. The same merge twice is the same cube.

        Parameters
        ----------
        ids
            Two adapters or more of one owner and one model, each ID or ID@VERSION, that may be used now.
        method
            "concatenate" is the exact weighted sum, and ranks add up. "svd" is the nearest to it at a `rank`; "linear"
            (of equal ranks), "ties" and "dare" are other things.
        weights
            One for each; below zero takes an adapter out. Left out: 1 each.
        engine
            One of the model that they were made for; may be left out where there is one.
        teaching
            The gate's bounds, who signs, which adapter it replaces, and in which form it is stored.

        Raises
        ------
        MissingMemory
            If this scope does not see one of them, or this caller may not read a text of theirs.
        InvalidRequest
            If they are fewer than two, one comes twice, is no adapter, or another model's; for an unknown method or
            option; if their rank would be too high.
        Refused, GateFailed
            If one of them or of their texts was withdrawn or may not be promoted by this caller, its signature is not
            to be trusted, or they have different owners; if what came of it does not pass, and why.
        """
        from tercet.parametric.merging import Merge

        if isinstance(ids, str) or len(ids) < 2 or not all(isinstance(one, str) for one in ids):
            raise InvalidRequest("Merging takes a list of two ids of adapters or more (or ID@VERSION).")
        way = Merge.asked(method, weights, cast("Mapping[str, float]", options), parts=len(ids))
        return relearning.merged(self._learner, ids, way, engine, teaching)

    def externalise(self, id: str, *, engine: str | None = None, agree: float = AGREE) -> list[MemCube]:
        """Ask an adapter for what it was taught, and keep as texts what it still says and its sources support.

        Each text names the adapter in its origin and is made from the source that says it: it stays when the adapter
        goes, and goes with the source. Asked twice, the same texts are there once.

        Parameters
        ----------
        engine
            One of the model that the adapter was made for; may be left out where there is one.
        agree
            The share of wordings of a question in which the same answer must come.

        Raises
        ------
        MissingMemory
            If this scope does not see it.
        InvalidRequest
            If it is no adapter, or another model's.
        Refused
            If this caller may not promote it or not write, or the adapter's signature is not to be trusted.
        """
        return relearning.externalised(self._learner, id, engine, agree)

    def report(self, id: str) -> tuple[dict[str, Any], str]:
        """What the gate measured of an adapter (ID, or ID@VERSION), before and after, and a picture of it (SVG).

        It holds the questions and their answers, so it is to be read as long as the adapter may be used. Raises
        MissingMemory, Refused, InvalidRequest as such a use does.
        """
        return relearning.reported(self._learner, id)

    def migrate_model(self, old: str, new: str, *, externalise: bool = False, later: bool = False) -> Plan:
        """Make what this scope has of one model again for another: adapters are taught anew, KV caches read anew.

        An adapter is taught what its sources say today, by the recipe that it was made by, and must pass its gate; it
        becomes the next version of the same cube, so the old one can still be pinned or rolled back. A KV cache is
        made anew in the same form, and the old one dropped once it is there. Each is a job: a move that was cut off is
        taken up by the next call, or by a worker, and a refused one leaves what there was.

        Parameters
        ----------
        old
            The engine that they were made for, or the name or revision of its model, which need not be here any more.
        new
            The engine that they are to be for.
        externalise
            Whether adapters are taught what the old one still says and its sources support, in place of the sources
            themselves; it takes the old engine.
        later
            Whether to leave the work to `work` or a worker.

        Raises
        ------
        InvalidRequest
            For an unknown engine, or two that are of the same model.
        Refused
            If this caller may not promote something of it.
        Unsupported
            If the new engine keeps no caches or takes no adapters, and there are some.
        """
        view = self._learner
        view.enter("promote")
        tenant = view.tercet.vault.tenant(view.scope.tenant)
        found = relearning.to_migrate(view, old, new, externalise=externalise)
        with tenant.writing(by=view.by.signed) as writer:
            migration.begin(writer, old, new, found, externalise=externalise, at=view.tercet.clock())
        if not later:
            handler = partial(relearning.migrate, view.tercet)
            run_due(tenant, {migration.JOB: handler}, view.tercet.clock)
        return self.migrated(old, new)

    def migrated(self, old: str, new: str) -> Plan:
        """What has come of moving from one model to another in this tenant. Raises InvalidRequest if none was begun."""
        view = self._learner
        view.enter("promote")
        with view.tercet.vault.tenant(view.scope.tenant).reading() as reader:
            plan = migration.read(reader, old, new)
        if plan is None:
            raise InvalidRequest(f"Nothing has been moved from {old} to {new} here.")
        return plan

    def learn(
        self, *, engine: str | None = None, every: timedelta = timedelta(days=1), stable: timedelta = timedelta(days=1),
        most: int = 400, stop: bool = False,
    ) -> Personal | None:  # fmt: skip
        """Let a model learn what this user's memories say, by a job, until told to `stop`; nothing does so unasked.

        Every so often a worker looks at the texts that have stood unchanged for as long as `stable`; if they are others
        than the adapter was taught, its next version is trained, and kept if it passes the gate. `learnt` says how far
        it is. Quarantined texts and what models said are left out.

        Raises
        ------
        InvalidRequest
            If the scope is not just one user's, or there is nothing of that user.
        Refused
            If this caller may not promote here.
        """
        view = self._learner
        view.enter("promote")
        if engine is not None:
            view.tercet.engines.check(engine)
        wish = Personal(engine, every.total_seconds() / 3600, stable.total_seconds() / 86_400, most)
        with view.tercet.vault.tenant(view.scope.tenant).writing(by=view.by.signed) as writer:
            keeping.allowed(view, writer.reader, "promote")
            if stop:
                personal.stop(writer, view.scope)
                return None
            return personal.ask(writer, view.scope, wish, at=view.tercet.clock())

    def learnt(self) -> Personal | None:
        """What was wished by `learn`, the adapter's id and what came of the last look; None if nothing was.

        Raises InvalidRequest if the scope is not just one user's, or there is nothing of that user.
        """
        view = self._learner
        view.enter("read")
        with view.tercet.vault.tenant(view.scope.tenant).reading() as reader:
            keeping.allowed(view, reader)
            return personal.read(reader, personal.owner_of(reader.connection, view.scope))
