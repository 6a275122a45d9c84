"""The scoped view: the memories of one scope, as one caller may use them. It composes and computes nothing itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeAlias, Unpack

from tercet import converse, keeping
from tercet.activation.compose import SHARE
from tercet.activation.memory import Form
from tercet.converse import Reply
from tercet.cube import Kind, Label, MemCube, Scalar
from tercet.errors import InvalidRequest
from tercet.govern import injections
from tercet.govern.injections import Injection
from tercet.govern.intake import ECHO
from tercet.govern.retention import ending
from tercet.govern.shares import Lent
from tercet.keeping import WaitFor
from tercet.scope import Caller, Right, Scope
from tercet.sharing import Sharing
from tercet.steering import Steering
from tercet.text.prepare import answering_space
from tercet.text.read.chat import instant
from tercet.text.read.drafts import Item, Value, drafts, file_drafts, labelled, labels, valued
from tercet.text.recall import context as contexts
from tercet.text.recall.hits import Hits, shown
from tercet.text.recall.moving import look
from tercet.text.recall.policies import Policy
from tercet.text.recall.recall import check_question, find_policy, recall
from tercet.text.recall.settle import settle, spare
from tercet.vault.allowed import Allowed
from tercet.vault.branches import HERE, OPEN, Moment, check_known
from tercet.vault.erase import Receipt
from tercet.vault.filters import Where, check_where
from tercet.vault.journal import Change
from tercet.vault.reader import Page, Reader, check_limit
from tercet.vault.sqlite import Tenant
from tercet.vault.states import check_reason
from tercet.weights import FromWeights, Weights, chosen

if TYPE_CHECKING:
    from tercet.kernel import Tercet
    from tercet.parametric.promote import Teaching

USES_AT_ONCE = 256
"""Uses gathered in memory before they are written; they order nothing, so losing some in a crash loses no memory."""

Cubes: TypeAlias = list[MemCube]
Progress = Callable[[int, int], None]
"""Called with how many are done and how many there are."""


class ScopedMemory(Steering, Sharing, Weights):
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
        sensitivity
            "public", "internal", "private" (left out) or "secret": a label that rules read.

        Raises
        ------
        InvalidRequest
            For an empty or unusable text, a time without a zone, unknown fields, a ref that names another text, or a
            text that only repeats what `context` gave.
        Refused
            If it holds something that the vault's redaction refuses.
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
        kept = keeping.put(self, made, wait_for)
        if not kept:
            raise InvalidRequest(ECHO)
        return kept[0]

    def remember_many(
        self, items: Iterable[Item], *, at: datetime | str | None = None, wait_for: WaitFor = "vectors"
    ) -> Cubes:
        """Keep many at once: one transaction, one batch of embeddings; all of them or none.

        `at` is when those were said that do not tell themselves. Items that only repeat what `context` gave are left
        out of what is kept and returned. See `remember` for the rest and the errors.
        """
        return keeping.put(self, drafts(items, scope=self.scope, now=self.tercet.clock(), at=at), wait_for)

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
                kept += keeping.put(self, part[start : start + 1000])
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
            Conditions on tags, metadata, type, speaker, … (see the manual's page on filters). What is in quarantine
            is left out unless it is asked for: `{"quarantined": True}`, for a person to read.
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
        tenant, embedder = self._tenant, self.tercet.embedder
        conditions = {**check_where(where), **({"kind": Kind(kind).value} if kind is not None else {})}
        chosen, now = find_policy(policy), self.tercet.clock()
        check_question(question)
        space = answering_space(embedder)
        bounds = [None if one is None else instant(one, name) for one, name in ((since, "since"), (until, "until"))]

        def ask(reader: Reader, lend: Callable[[], Lent]) -> Hits:
            see = partial(
                tenant.view,
                reader,
                self.scope,
                where=conditions,
                since=bounds[0],
                until=bounds[1],
                now=now,
                allowed=lambda _: lend().allowed,
            )
            view, asked = look(
                question, see, space, embedder if chosen.needs != "words" else None, keeping.beside(self, reader, space)
            )
            more = limit + spare(reader, limit)
            hits = recall(view, reader.cubes, asked, chosen, limit=more, min_score=min_score)
            if more == limit:  # there are no facts with a slot
                return hits
            return settle(hits, reader.under(lend().allowed), view, self.scope, at=self.valid or now, limit=limit)

        hits = keeping.answered(self, ask, shown)
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
    ) -> contexts.Context:
        """The best hits as a passage for a prompt: in time order, with speakers and dates, at most `budget` tokens.

        `tokenizer` names what counts them ("bytes": a bound that holds for any byte-level tokenizer; "minilm"), or is
        a callable from text to a number. The passage is a string that is framed as data, with `.hits` and, for
        `trace`, `.answer`; nothing that is in quarantine enters it. Raises InvalidRequest as `recall` does.
        """
        contexts.check_budget(budget)  # before recall, which counts a use
        count = contexts.find_counter(tokenizer)
        asked = {key: value for key, value in check_where(where).items() if key != "quarantined"}
        passage = contexts.render(
            self.recall(question, limit=limit, where=asked, policy=policy), budget=budget, count=count
        )
        if passage.hits:
            told = [(hit.cube.id, hit.cube.version, hit.score) for hit in passage.hits]
            passage.answer = self.tercet.injections.note(
                self._tenant, question, told, scope=self.scope, by=self.by.signed
            )
        return passage

    def get(self, id: str) -> MemCube:
        """The newest version of a cube. Raises MissingMemory if this scope does not see it."""
        return keeping.seen(self, lambda reader: reader.head(id, self.scope)[1], lambda cube: [cube])

    def list(self, *, limit: int = 100, cursor: str | None = None, where: Where | None = None) -> Page:
        """Cubes oldest first, a page at a time: `.total`, and `.cursor` for the next page (None at the end)."""
        return keeping.seen(
            self, lambda reader: reader.page(self.scope, limit=limit, cursor=cursor, where=where), list[MemCube]
        )

    def history(self, id: str) -> Cubes:
        """Every version of a cube, oldest first. Raises MissingMemory."""
        with self._reading() as reader:
            return reader.history(id, self.scope)

    def changes(self, *, since: int = 0, limit: int = 1000) -> Sequence[Change]:
        """What happened to the cubes of this scope after sequence number `since`, oldest first.

        Erased cubes are named too, for whoever keeps a copy. Pass the last `.seq` to go on.
        """
        with self._reading() as reader:
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
        sensitivity: Label = None,
    ) -> MemCube:
        """Write the next version of a cube; what is left out stays as it is.

        To lower its `sensitivity` shows it to others, and takes the right to share it; to raise it raises that of all
        that was made from it.

        Raises
        ------
        StaleWrite
            If `expect` is given and is not the newest version.
        MissingMemory
            If this scope does not see the cube.
        InvalidRequest, IllegalTransition
            If the text cannot be used; if the cube is frozen.
        """
        self.enter("revise")
        old = self._own(id)
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
        new = labelled(replace(old, payload=draft.payload, descriptive=described), sensitivity)
        return keeping.revise(self, old, new, expect, "revise")

    def trace(self, id: str) -> Sequence[Injection]:
        """The answers that a memory went into, oldest first; or, for the id of an answer, that one with its memories.

        Raises MissingMemory if it is neither, as far as this scope sees.
        """
        self.enter("read")
        self.tercet.injections.flush(self._tenant)
        with self._reading() as reader:
            return injections.trace(reader, id, self.scope)

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
        self.enter("forget")
        if despite_hold is not None:
            self.enter("administer")
            check_reason(despite_hold)
        if (id is not None) + (where is not None) + bool(everything) != 1:
            raise InvalidRequest("Say what to forget: an id, a list of ids, or a condition (`where`), or `everything`.")
        if where is not None and not check_where(where):
            raise InvalidRequest("An empty condition would forget everything here; say everything=True to mean that.")
        ids = [id] if isinstance(id, str) else [] if id is None else id
        if not isinstance(ids, Sequence) or not all(isinstance(one, str) for one in ids):
            raise InvalidRequest(f"Ids are strings; {id!r:.80} is none, nor a list of them.")

        def asked(reader: Reader) -> list[int]:
            reach = reader.under(self._allowed(reader, "forget")).reach
            found = reach(self.scope, where) if id is None else list[int]()
            for one in () if id is None else dict.fromkeys(ids):
                rows = reach(self.scope, id=one)
                if not rows:
                    keeping.find(self, reader, one, "forget")  # which says why it is not to be had
                found += rows
            return found

        return keeping.erase(self, asked, despite_hold=despite_hold, probe=probe)

    def promote(
        self,
        cubes: str | MemCube | Sequence[str | MemCube],
        *,
        to: str = "activation",
        engine: str | None = None,
        precision: str = "bf16",
        joinable: bool = True,
        compressor: str | None = None,
        share: float = 0.5,
        teaching: Teaching | None = None,
    ) -> MemCube:
        """Let a model read memories once, and keep what it made of them, so that it need not read them again.

        Parameters
        ----------
        cubes
            Ids or cubes, in the order in which they are to be read.
        to
            "activation": a KV cache, prefilled now. "parameters": an adapter, trained now and judged; it is kept only
            if it recalls what it was taught in other words, and little else moved.
        engine
            One of the names given to `open` or in `tercet.toml`; may be left out where there is one.
        precision
            Of a KV cache: "fp32", "bf16", "int8" or "int4".
        joinable
            Whether to keep, beside the exact cache, one that was read to stand behind other memories: joined prompts
            come nearer to what a fresh reading gives, for twice the bytes and a second reading.
        compressor
            "streaming-llm", "k-norm", "snap-kv", "tova", "expected-attention", "ada-kv" or "scale-kv": it chooses which
            rows to keep. A compressed cache is an approximation, is not joined with others, and not cut.
        share
            Of the rows, that the compressor keeps: above 0 and at most 1.
        teaching
            Of an adapter: its recipe, budgets, the gate's bounds, who signs, which adapter it replaces, progress.

        Raises
        ------
        MissingMemory
            If this scope does not see a cube.
        Refused
            If one of them may not be promoted by this caller, or is in quarantine.
        InvalidRequest
            For an unknown engine, precision or compressor, a share out of range, a cube that is no text, or a
            context longer than the model takes.
        Unsupported
            If the engine keeps no caches, takes no adapters, or something is not installed.
        Refused, GateFailed
            If a text is quarantined; if the adapter does not pass its gate, and why.
        """
        self.enter("promote")
        given = [cubes] if isinstance(cubes, str | MemCube) else list(cubes)
        ids = [one.id if isinstance(one, MemCube) else one for one in given]
        find = partial(keeping.promotable, self, ids)
        form = Form(precision, joinable, compressor, share)
        return converse.promote(self, find, to=to, engine=engine, form=form, teaching=teaching)

    def demote(self, id: str, *, externalise: bool = False, engine: str | None = None) -> Receipt:
        """Drop a KV cache or adapter; the texts it was made from stay.

        With `externalise` an adapter is asked first, by the engine of its model, and what it knows is kept as texts.
        Raises MissingMemory, InvalidRequest, Held, Refused.
        """
        self.enter("promote")
        if self._own(id).kind is Kind.TEXT:
            raise InvalidRequest(f"Memory {id} is text, which is as far down as it goes; `forget` erases it.")
        if externalise:
            self.externalise(id, engine=engine)
        return keeping.erase(self, lambda reader: [keeping.find(self, reader, id, "promote")])

    def chat(
        self,
        messages: str | Sequence[Mapping[str, str]],
        *,
        engine: str | None = None,
        limit: int = 8,
        max_tokens: int = 256,
        share: float = SHARE,
        remember: bool = False,
        on_piece: Callable[[str], None] | None = None,
        **weights: Unpack[FromWeights],
    ) -> Reply:
        """Answer with what is remembered in the prompt: as KV caches where they stand ready, else as text.

        Parameters
        ----------
        messages
            What was said, as {"role", "content"}; a string is one user's message. The last one is the question.
        limit
            How many memories are recalled for it; 0 for none.
        share
            Per cent of the tokens computed anew where several KV memories are joined; 100 is exact.
        remember
            Whether to keep the question, and the answer as the model's, once it is whole.
        on_piece
            Called with each piece of the answer as it comes.
        adapters
            Ids of adapters that the model answers with in this turn, all added up; ID@VERSION pins a version.
        recite
            Whether the adapters first say in full what they were taught that the question is about. What comes back as
            its source was written, by its checksum, is read before answering; the rest is not used.

        Raises
        ------
        InvalidRequest
            For an unknown engine, messages that are none, or more than the model takes.
        Refused
            If this caller may not read, or not write what is to be remembered; if the vault's redaction refuses that
            (the answer has been given to `on_piece` then).
        """
        if remember:
            self.enter("write")
        adapters, how = chosen(**weights)
        with converse.adapted(self, engine, adapters):
            said = converse.recited(self, messages, engine, adapters, how) if how else converse.NOTHING_RECITED
            reply = converse.chat(
                self, messages, engine=engine, limit=limit, max_tokens=max_tokens, share=share, on_piece=on_piece,
                recited=said,
            )  # fmt: skip
        if remember:
            converse.keep(self, messages, reply.text)
        if adapters:
            self._tenant.use([one.partition("@")[0] for one in adapters], self.tercet.clock())
        return replace(reply, adapters=tuple(adapters))

    def enter(self, right: Right, *, lent: bool = False) -> None:
        """Before anything is opened: whether this caller may come in with a right, or by a grant (`lent`).

        Raises Refused, InvalidRequest.
        """
        if right != "read" and self.moment.known is not None:
            raise InvalidRequest("This is a view of the past and can only be read; write to the scope itself.")
        self.tercet.gate.enter(self.by, right, self.scope, lent=lent)

    @property
    def _tenant(self) -> Tenant:
        return self.tercet.vault.tenant(self.scope.tenant)

    def _allowed(self, reader: Reader, right: Right = "read") -> Allowed:
        return keeping.allowed(self, reader, right)

    @contextmanager
    def _reading(self) -> Iterator[Reader]:
        """What this caller may read of the tenant, as of one moment."""
        self.enter("read")
        with self._tenant.reading(self.moment) as reader:
            yield reader.under(self._allowed(reader))

    def _own(self, id: str) -> MemCube:
        """As `get`, of what this caller may read by its own right: nothing is built upon what is only lent."""
        with self._reading() as reader:
            return reader.head(id, self.scope)[1]
