"""The scoped view: the memories of one scope, as one caller may use them. It composes and computes nothing itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypeAlias, Unpack, get_args

from tercet.cube import Kind, MemCube, Scalar
from tercet.errors import InvalidRequest, MissingMemory
from tercet.govern.access import Right
from tercet.govern.forgetting import forget
from tercet.govern.retention import ending
from tercet.scope import Caller, Scope
from tercet.text.embed.base import Embedder
from tercet.text.prepare import answering_space, prepare
from tercet.text.read.chat import instant
from tercet.text.read.drafts import Item, Value, drafts, file_drafts, labels, valued
from tercet.text.recall import context as contexts
from tercet.text.recall.hits import Hits
from tercet.text.recall.moving import look
from tercet.text.recall.policies import Policy
from tercet.text.recall.recall import check_question, find_policy, recall
from tercet.text.recall.settle import settle, spare
from tercet.vault import spaces, states
from tercet.vault.branches import HERE, OPEN, Moment, check_known
from tercet.vault.erase import Receipt
from tercet.vault.filters import Where, check_where
from tercet.vault.journal import Change
from tercet.vault.reader import Page, Reader, check_limit
from tercet.vault.spaces import Space
from tercet.vault.sqlite import Tenant
from tercet.vault.states import check_reason
from tercet.vault.writer import Writer

if TYPE_CHECKING:
    from tercet.kernel import Tercet

USES_AT_ONCE = 256
"""Uses gathered in memory before they are written; they order nothing, so losing some in a crash loses no memory."""

Cubes: TypeAlias = list[MemCube]
WaitFor = Literal["vectors", "words"]
Progress = Callable[[int, int], None]
"""Called with how many are done and how many there are."""


class ScopedMemory:
    """The memories of one scope, for one caller. Made by `Tercet.scope`; costs nothing to make.

    `moment` is the branch it reads and writes and, of a look into the past, what was known; `valid` is when the facts
    that it shows held.
    """

    def __init__(
        self, tercet: Tercet, scope: Scope, by: Caller, *, moment: Moment = HERE, valid: datetime | None = None
    ) -> None:
        self.tercet, self.scope, self.by, self.moment, self.valid = tercet, scope, by, moment, valid

    def as_of(self, *, known: datetime | str | int | None = None, valid: datetime | str | None = None) -> Self:
        """These memories as they were: to be read, not written.

        Parameters
        ----------
        known
            What had been remembered, revised or moved up to then: a time with a zone, or a line of the journal (a
            change's `.seq`). Where the clock went back, the order of the journal decides. Left out, or in the future:
            all. What was erased since is not there.
        valid
            When facts with a slot are to have held; left out: now.

        Raises
        ------
        InvalidRequest
            For a time without a zone; and whoever writes to what this returns gets one, too.
        """
        when = instant(known, "known") if isinstance(known, str | datetime) else known
        moment = replace(self.moment, known=check_known(OPEN if when is None else when))
        held = None if valid is None else instant(valid, "valid")
        return type(self)(self.tercet, self.scope, self.by, moment=moment, valid=held)

    def remember(
        self,
        item: Item,
        *,
        at: datetime | str | None = None,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Scalar] | None = None,
        ref: str | None = None,
        type: str | None = None,
        wait_for: WaitFor = "vectors",
        expires: datetime | timedelta | str | None = None,
        **value: Unpack[Value],
    ) -> MemCube:
        """Keep a text, a message or a draft; it is on the disk when this returns.

        Parameters
        ----------
        item
            A string, a `Message`, a mapping in OpenAI's shape, or a draft `MemCube`.
        at
            When it was said or seen, with a time zone; left out: now.
        ref
            The caller's own name for it: the same ref twice in a scope is kept once.
        type
            What it is: fact, preference, event, instruction, message, document, …
        wait_for
            What it can be found by when this returns: "vectors" and words, or "words" alone, which takes about a
            millisecond however slow the embedder is; a job then makes the vectors.
        expires
            When it ends: a moment with a zone, or how long it lives from now. From then on recall does not give it, and
            a sweep erases it. Left out: what the draft says, or else the vault's `Retention`.
        slot
            The subject and the attribute that it gives the value of, as in ("alice", "city"). A later value of the
            same user and agent supersedes an earlier one, which stays with the interval in which it held.
        valid_from, valid_to
            From when and until when it holds; left out: from when it was observed, without end.

        Raises
        ------
        InvalidRequest
            For an empty or unusable text, a time without a zone, unknown fields, or a ref that names another text.
        """
        made = drafts(
            [item],
            scope=self.scope,
            now=self.tercet.clock(),
            at=at,
            tags=labels(tags),
            metadata=metadata,
            ref=ref,
            type=type,
        )
        if expires is not None:
            made = [ending(one, expires, now=self.tercet.clock()) for one in made]
        if value:
            made = [valued(one, **value) for one in made]
        return self._put(made, wait_for)[0]

    def remember_many(
        self, items: Iterable[Item], *, at: datetime | str | None = None, wait_for: WaitFor = "vectors"
    ) -> Cubes:
        """Keep many at once: one transaction, one batch of embeddings; all of them or none.

        `at` is when those were said that do not tell themselves. See `remember` for the rest and the errors.
        """
        return self._put(drafts(items, scope=self.scope, now=self.tercet.clock(), at=at), wait_for)

    def remember_document(
        self,
        path: str | os.PathLike[str],
        *,
        format: str | None = None,
        at: datetime | str | None = None,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Scalar] | None = None,
        progress: Progress | None = None,
    ) -> Cubes:
        """Read a file (text, Markdown, PDF, DOCX, a chat export) and keep its passages or messages, verbatim.

        `at` is when those were said or seen that do not tell; tags and metadata are added to each. Reading the same
        file again adds nothing.

        Raises
        ------
        InvalidRequest
            If it cannot be read; it says why.
        Unsupported
            If reading it needs `pip install 'tercet[documents]'`.
        """
        now, kept = self.tercet.clock(), Cubes()
        parts = file_drafts(
            Path(path),
            format=format,
            scope=self.scope,
            now=now if at is None else instant(at),
            tags=labels(tags),
            metadata=metadata,
        )
        total = sum(len(part) for part in parts)
        for part in parts:
            for start in range(0, len(part), 1000):
                kept += self._put(part[start : start + 1000])
                if progress is not None:
                    progress(len(kept), total)
        return kept

    def recall(
        self,
        question: str,
        *,
        limit: int = 10,
        where: Where | None = None,
        kind: str | None = None,
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        min_score: float | None = None,
        policy: str | Policy | None = None,
    ) -> Hits:
        """The cubes that answer a question best, each with a score in [0, 1] and the reasons for it.

        Parameters
        ----------
        where
            Conditions on tags, metadata, type, speaker, … (see the manual's page on filters).
        since, until
            Observed at or after, and before.
        policy
            A name in the manual's table of policies, or a `Policy`.

        Raises
        ------
        InvalidRequest
            For an empty question, a limit outside 1 to 10,000, a time without a zone, an unknown policy or operator.
        """
        check_limit(limit)
        if min_score is not None and not isinstance(min_score, int | float):
            raise InvalidRequest(f"min_score is a number from 0 to 1, not {min_score!r:.40}.")
        if kind is not None and kind not in Kind.__members__.values():
            raise InvalidRequest(f"Unknown kind {kind!r}; kinds are {', '.join(Kind)}.")
        self._check("read")
        tenant, embedder = self._tenant, self.tercet.embedder
        conditions = {**check_where(where), **({"kind": Kind(kind).value} if kind is not None else {})}
        chosen, now = find_policy(policy), self.tercet.clock()
        check_question(question)
        space = answering_space(embedder)
        with tenant.reading(self.moment) as reader:
            see = partial(
                tenant.view,
                reader,
                self.scope,
                where=conditions,
                since=None if since is None else instant(since, "since"),
                until=None if until is None else instant(until, "until"),
                now=now,
            )
            view, asked = look(
                question, see, space, embedder if chosen.needs != "words" else None, self._beside(reader, space)
            )
            more = limit + spare(reader, limit)
            hits = recall(view, reader.cubes, asked, chosen, limit=more, min_score=min_score)
            if more > limit:  # there are facts with a slot
                hits = settle(hits, reader, view, self.scope, at=self.valid or now, limit=limit)
        # A look into the past or a branch uses nothing: it must not move what the main line shows.
        if self.moment == HERE and tenant.use([hit.cube.id for hit in hits], now) >= USES_AT_ONCE:
            self.tercet.flush_uses(tenant)
        return hits

    def context(
        self,
        question: str,
        *,
        budget: int = 1200,
        tokenizer: str | contexts.Counter = "bytes",
        limit: int = 50,
        where: Where | None = None,
        policy: str | Policy | None = None,
    ) -> str:
        """The best hits as a passage for a prompt: in time order, with speakers and dates, at most `budget` tokens.

        `tokenizer` names what counts them ("bytes": a bound that holds for any byte-level tokenizer; "minilm"), or is
        a callable from text to a number. Raises InvalidRequest as `recall` does.
        """
        contexts.check_budget(budget)  # before recall, which counts a use
        count = contexts.find_counter(tokenizer)
        hits = self.recall(question, limit=limit, where=where, policy=policy)
        return contexts.render(hits, budget=budget, count=count)

    def get(self, id: str) -> MemCube:
        """The newest version of a cube. Raises MissingMemory if this scope does not see it."""
        self._check("read")
        with self._tenant.reading(self.moment) as reader:
            return reader.head(id, self.scope)[1]

    def list(self, *, limit: int = 100, cursor: str | None = None, where: Where | None = None) -> Page:
        """Cubes oldest first, a page at a time: `.total`, and `.cursor` for the next page (None at the end)."""
        self._check("read")
        with self._tenant.reading(self.moment) as reader:
            return reader.page(self.scope, limit=limit, cursor=cursor, where=where)

    def history(self, id: str) -> Cubes:
        """Every version of a cube, oldest first. Raises MissingMemory."""
        self._check("read")
        with self._tenant.reading(self.moment) as reader:
            return reader.history(id, self.scope)

    def changes(self, *, since: int = 0, limit: int = 1000) -> Sequence[Change]:
        """What happened to the cubes of this scope after sequence number `since`, oldest first.

        Erased cubes are named too, for whoever keeps a copy. Pass the last `.seq` to go on.
        """
        self._check("read")
        with self._tenant.reading(self.moment) as reader:
            return reader.changes(self.scope, since=since, limit=limit)

    def revise(
        self,
        id: str,
        text: str,
        *,
        expect: int | None = None,
        at: datetime | str | None = None,
        tags: Sequence[str] | None = None,
        metadata: Mapping[str, Scalar] | None = None,
    ) -> MemCube:
        """Write the next version of a cube; what is left out stays as it is.

        Raises
        ------
        StaleWrite
            If `expect` is given and is not the newest version.
        MissingMemory
            If this scope does not see the cube.
        InvalidRequest, IllegalTransition
            If the text cannot be used; if the cube is frozen.
        """
        self._check("revise")
        old = self.get(id)
        # A revision is an observation of its own: what its words say of time is resolved against now, not then.
        [draft] = drafts(
            [text],
            scope=old.scope,
            now=self.tercet.clock(),
            at=at,
            tags=old.tags if tags is None else labels(tags),
            metadata=old.metadata if metadata is None else metadata,
            type=old.descriptive.type,
        )
        origin = replace(old.descriptive.origin, span=None, episode=None)
        described = replace(draft.descriptive, origin=origin, slot=old.descriptive.slot)
        return self._revise(old, replace(old, payload=draft.payload, descriptive=described), expect, "revise")

    def rollback(self, id: str, *, version: int) -> MemCube:
        """Make an earlier version the newest again, as a new version. Raises MissingMemory, InvalidRequest."""
        self._check("revise")
        versions = self.history(id)
        chosen = next((cube for cube in versions if cube.version == version), None)
        if chosen is None:
            raise InvalidRequest(
                f"Memory {id} has versions 1 to {versions[-1].version}; there is no version {version}."
            )
        again = replace(chosen, descriptive=replace(chosen.descriptive, recorded=None))
        return self._revise(versions[-1], again, versions[-1].version, "rollback")

    def freeze(self, id: str) -> MemCube:
        """Let nothing change a cube: no edit, no decay, no end, until `unfreeze`. Forgetting it stays possible.

        Raises MissingMemory, IllegalTransition (it is frozen already).
        """
        return self._steer(id, "revise", lambda writer, n, _: states.freeze(writer, n))

    def unfreeze(self, id: str) -> MemCube:
        """Give a frozen cube back the state that it had. Raises MissingMemory, IllegalTransition."""
        until = self.tercet.retention.archived_until(self.tercet.clock())
        return self._steer(id, "revise", lambda writer, n, _: states.unfreeze(writer, n, archived_until=until))

    def archive(self, id: str) -> MemCube:
        """Take a cube out of what recall looks at, unless it is asked for by `where={"state": "archived"}`.

        A use brings it back; the vault's `Retention` says how long it waits for one. Raises MissingMemory,
        IllegalTransition (it is archived, or frozen).
        """
        until = self.tercet.retention.archived_until(self.tercet.clock())
        return self._steer(id, "revise", lambda writer, n, _: states.archive(writer, n, until=until))

    def unarchive(self, id: str) -> MemCube:
        """Bring a cube back from the archive, as a use does. Raises MissingMemory, IllegalTransition."""
        return self._steer(id, "revise", lambda writer, n, _: states.unarchive(writer, n))

    def hold(self, id: str, reason: str) -> MemCube:
        """Let nothing erase a cube, nor anything that would drag it along, until `release`. It makes a version.

        Raises MissingMemory, InvalidRequest (no reason is given, or a hold stands already).
        """
        return self._steer(id, "administer", lambda writer, n, cube: states.hold(writer, n, cube, reason))

    def release(self, id: str) -> MemCube:
        """Take the hold off. Raises MissingMemory, InvalidRequest (there is none)."""
        return self._steer(id, "administer", states.release)

    def forget(
        self,
        id: str | Sequence[str] | None = None,
        *,
        where: Where | None = None,
        everything: bool = False,
        despite_hold: str | None = None,
        probe: bool = True,
    ) -> Receipt:
        """Erase cubes, by id or all that meet `where`, with everything made from them; then scrub the bytes.

        It reaches every branch, and what a restore has hidden; asked of a branch, what that shows. It is whole, or it
        raises and changes nothing. In a small vault the bytes are scrubbed before it returns; in a
        large one, or while another process reads, `scrubbed_at` is None and `work` finishes it.

        Parameters
        ----------
        everything
            All that this scope holds. An empty condition is refused: it is more often a slip than a wish.
        despite_hold
            The reason, kept in the journal, for erasing what a hold stands on; it takes the right to administer.
        probe
            Whether to look for the content after the scrub, by words, by vectors and in the bytes of every file.

        Raises
        ------
        MissingMemory
            If an id is not seen from this scope.
        Held
            If a hold stands on anything that would have to go.
        InvalidRequest
            If it is not said what to forget, or in two ways.
        """
        self._check("forget")
        if despite_hold is not None:
            self._check("administer")
            check_reason(despite_hold)
        if (id is not None) + (where is not None) + bool(everything) != 1:
            raise InvalidRequest("Say what to forget: an id, a list of ids, or a condition (`where`), or `everything`.")
        if where is not None and not check_where(where):
            raise InvalidRequest("An empty condition would forget everything here; say everything=True to mean that.")
        ids = [id] if isinstance(id, str) else [] if id is None else id
        if not isinstance(ids, Sequence) or not all(isinstance(one, str) for one in ids):
            raise InvalidRequest(f"Ids are strings; {id!r:.80} is none, nor a list of them.")

        def asked(reader: Reader) -> list[int]:
            found: list[int] = []
            for one in [None] if id is None else dict.fromkeys(ids):
                rows = reader.reach(self.scope, where, id=one)
                if one is not None and not rows:
                    raise MissingMemory(one)
                found += rows
            return found

        with self._tenant.reading(self.moment) as reader:
            asked(reader)  # what is not there is said before a tenant's file is made
        signer = self.tercet.signer  # a key that cannot be read is told of before anything is erased
        receipt = forget(
            self._tenant, asked, by=self.by.name, branch=self.moment.branch, despite_hold=despite_hold, probe=probe
        )
        return receipt if signer is None else signer.receipt(receipt)

    def _beside(self, reader: Reader, space: Space | None) -> Sequence[tuple[Space, Callable[[], Embedder | None]]]:
        """The spaces beside the embedder's that the vault is not done with, and how to find the embedder of each."""
        return [
            (one.space, partial(self.tercet.embedder_of, one.space.name))
            for one in (spaces.known(reader.connection) if space is not None else ())
            if one.space != space and not (one.left and one.left.keep)
        ]

    @property
    def _tenant(self) -> Tenant:
        return self.tercet.vault.tenant(self.scope.tenant)

    def _check(self, right: Right) -> None:
        if right != "read" and self.moment.known is not None:
            raise InvalidRequest("This is a view of the past and can only be read; write to the scope itself.")
        self.tercet.access.check(self.by, right, self.scope)

    def _steer(self, id: str, right: Right, change: Callable[[Writer, int, MemCube], None]) -> MemCube:
        """Change the state or the hold of a cube; returns it as it is then."""
        self._check(right)
        self.get(id)  # what is not there is said before a tenant's file is made
        self.tercet.flush_uses(self._tenant)  # a use that is still gathered came before
        with self._tenant.writing(by=self.by.name) as writer:
            n, cube = writer.reader.head(id, self.scope)
            change(writer, n, cube)
            return writer.reader.cubes([n])[0]

    def _put(self, found: Sequence[MemCube], wait_for: WaitFor = "vectors") -> Cubes:
        self._check("write")
        if wait_for not in get_args(WaitFor):
            raise InvalidRequest(f"wait_for is 'vectors' or 'words', not {wait_for!r}.")
        for draft in found:
            if not self.scope.covers(draft.scope):
                raise InvalidRequest(f"The draft's scope {draft.scope} lies outside this one, {self.scope}.")
        if not found:
            return []
        now = self.tercet.clock()
        found = [self.tercet.retention.applied(draft, now=now) for draft in found]
        embedder = self.tercet.embedder if wait_for == "vectors" else None
        entries, space = prepare(found, embedder), answering_space(embedder)
        with self._tenant.writing(by=self.by.name, branch=self.moment.branch) as writer:
            for link in {link for draft in found for link in draft.behavioural.derivations}:
                writer.reader.head(link.id, self.scope)
            return writer.put(entries, space)

    def _revise(self, old: MemCube, new: MemCube, expect: int | None, action: str) -> MemCube:
        behavioural = replace(old.behavioural, parent=None)
        draft = replace(new, governance=old.governance, behavioural=behavioural)
        embedder = self.tercet.embedder
        [entry], space = prepare([draft], embedder), answering_space(embedder)
        with self._tenant.writing(by=self.by.name, branch=self.moment.branch) as writer:
            return writer.revise(old.id, entry, space, expect=expect, action=action)
