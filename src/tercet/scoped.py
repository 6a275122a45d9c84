"""The scoped view: the memories of one scope, as one caller may use them. It composes and computes nothing itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from tercet import converse
from tercet.activation.compose import SHARE
from tercet.converse import Reply
from tercet.cube import Kind, MemCube, Scalar
from tercet.errors import InvalidRequest
from tercet.govern.access import Right
from tercet.parametric.runs import purge
from tercet.scope import Caller, Scope
from tercet.text.prepare import answering_space, prepare
from tercet.text.read.chat import instant
from tercet.text.read.drafts import Item, drafts, file_drafts, labels
from tercet.text.recall import context as contexts
from tercet.text.recall.hits import Hits
from tercet.text.recall.policies import Policy
from tercet.text.recall.recall import ask, check_question, find_policy, recall
from tercet.vault.erase import Receipt, erase
from tercet.vault.filters import Where, check_where
from tercet.vault.journal import Change
from tercet.vault.reader import Page, Reader, check_limit
from tercet.vault.sqlite import Tenant

if TYPE_CHECKING:
    from tercet.kernel import Tercet
    from tercet.parametric.promote import Teaching

USES_AT_ONCE = 256
"""Uses gathered in memory before they are written; they order nothing, so losing some in a crash loses no memory."""

Cubes: TypeAlias = list[MemCube]
WaitFor = Literal["vectors", "words"]
Progress = Callable[[int, int], None]
"""Called with how many are done and how many there are."""


class ScopedMemory:
    """The memories of one scope, for one caller. Made by `Tercet.scope`; costs nothing to make."""

    def __init__(self, tercet: Tercet, scope: Scope, by: Caller) -> None:
        self.tercet, self.scope, self.by = tercet, scope, by

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
        chosen = find_policy(policy)
        check_question(question)
        space = answering_space(embedder)
        with tenant.reading() as reader:
            view = tenant.view(
                reader,
                self.scope,
                space,
                where=conditions,
                since=None if since is None else instant(since, "since"),
                until=None if until is None else instant(until, "until"),
            )
            asked = ask(question, view, embedder if chosen.needs != "words" else None)
            hits = recall(view, reader.cubes, asked, chosen, limit=limit, min_score=min_score)
        if tenant.use([hit.cube.id for hit in hits], self.tercet.clock()) >= USES_AT_ONCE:
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
        with self._tenant.reading() as reader:
            return reader.head(id, self.scope)[1]

    def list(self, *, limit: int = 100, cursor: str | None = None, where: Where | None = None) -> Page:
        """Cubes oldest first, a page at a time: `.total`, and `.cursor` for the next page (None at the end)."""
        self._check("read")
        with self._tenant.reading() as reader:
            return reader.page(self.scope, limit=limit, cursor=cursor, where=where)

    def history(self, id: str) -> Cubes:
        """Every version of a cube, oldest first. Raises MissingMemory."""
        self._check("read")
        with self._tenant.reading() as reader:
            return reader.history(id, self.scope)

    def changes(self, *, since: int = 0, limit: int = 1000) -> Sequence[Change]:
        """What happened to the cubes of this scope after sequence number `since`, oldest first.

        Erased cubes are named too, for whoever keeps a copy. Pass the last `.seq` to go on.
        """
        self._check("read")
        with self._tenant.reading() as reader:
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

    def forget(self, id: str | Sequence[str] | None = None, *, where: Where | None = None) -> Receipt:
        """Erase cubes, by id or all that meet `where`, with everything made from them; then scrub the bytes.

        It is whole, or it raises and changes nothing. In a small vault the bytes are scrubbed before it returns; in a
        large one, or while another process reads, `scrubbed_at` is None and `work` finishes it.

        Raises
        ------
        MissingMemory
            If an id is not seen from this scope.
        Held
            If a hold stands on anything that would have to go.
        InvalidRequest
            If neither ids nor a condition are given.
        """
        self._check("forget")
        if (id is None) == (where is None):
            raise InvalidRequest("Say what to forget: an id, a list of ids, or a condition (`where`).")
        ids = [id] if isinstance(id, str) else [] if id is None else id
        if not isinstance(ids, Sequence) or not all(isinstance(one, str) for one in ids):
            raise InvalidRequest(f"Ids are strings; {id!r:.80} is none, nor a list of them.")
        tenant = self._tenant

        def asked(reader: Reader) -> list[int]:
            if id is None:
                return reader.numbers(self.scope, where)
            return [reader.head(one, self.scope)[0] for one in dict.fromkeys(ids)]

        with tenant.reading() as reader:
            asked(reader)  # what is not there is said before a tenant's file is made
        with tenant.writing(by=self.by.name) as writer:
            receipt = erase(writer, asked(writer.reader))
        tenant.forget_cache()
        for gone in receipt.erased:
            self.tercet.kv.forget(gone)
            self.tercet.lora.forget(gone)
        purge(tenant.path, receipt.erased)
        waiting = tenant.scrub()
        return replace(receipt, scrubbed_at=None if waiting else self.tercet.clock(), waiting_for=waiting)

    def promote(
        self,
        cubes: str | MemCube | Sequence[str | MemCube],
        *,
        to: str = "activation",
        engine: str | None = None,
        precision: str = "bf16",
        joinable: bool = True,
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
        teaching
            Of an adapter: its recipe, budgets, the gate's bounds, who signs, which adapter it replaces, progress.

        Raises
        ------
        MissingMemory
            If this scope does not see a cube.
        InvalidRequest
            For an unknown engine or precision, a cube that is no text, or a context longer than the model takes.
        Unsupported
            If the engine keeps no caches, takes no adapters, or something is not installed.
        Refused, GateFailed
            If a text is quarantined; if the adapter does not pass its gate, and why.
        """
        self._check("write")
        return converse.promote(
            self, cubes, to=to, engine=engine, precision=precision, joinable=joinable, teaching=teaching
        )

    def demote(self, id: str) -> Receipt:
        """Drop a KV cache or adapter; the texts it was made from stay. Raises MissingMemory, InvalidRequest, Held."""
        self._check("write")
        if self.get(id).kind is Kind.TEXT:
            raise InvalidRequest(f"Memory {id} is text, which is as far down as it goes; `forget` erases it.")
        return self.forget(id)

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
        adapters: Sequence[str] = (),
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

        Raises
        ------
        InvalidRequest
            For an unknown engine, messages that are none, or more than the model takes.
        """
        with converse.adapted(self, engine, adapters):
            reply = converse.chat(
                self, messages, engine=engine, limit=limit, max_tokens=max_tokens, share=share, remember=remember,
                on_piece=on_piece,
            )  # fmt: skip
        if adapters:
            self._tenant.use([one.partition("@")[0] for one in adapters], self.tercet.clock())
        return replace(reply, adapters=tuple(adapters))

    @property
    def _tenant(self) -> Tenant:
        return self.tercet.vault.tenant(self.scope.tenant)

    def _check(self, right: Right) -> None:
        self.tercet.access.check(self.by, right, self.scope)

    def _put(self, found: Sequence[MemCube], wait_for: WaitFor = "vectors") -> Cubes:
        self._check("write")
        if wait_for not in get_args(WaitFor):
            raise InvalidRequest(f"wait_for is 'vectors' or 'words', not {wait_for!r}.")
        for draft in found:
            if not self.scope.covers(draft.scope):
                raise InvalidRequest(f"The draft's scope {draft.scope} lies outside this one, {self.scope}.")
        if not found:
            return []
        embedder = self.tercet.embedder if wait_for == "vectors" else None
        entries, space = prepare(found, embedder), answering_space(embedder)
        with self._tenant.writing(by=self.by.name) as writer:
            for link in {link for draft in found for link in draft.behavioural.derivations}:
                writer.reader.head(link.id, self.scope)
            return writer.put(entries, space)

    def _revise(self, old: MemCube, new: MemCube, expect: int | None, action: str) -> MemCube:
        made = new if new.kind is Kind.PARAMETERS else old  # an adapter's sources are those of the version itself
        behavioural = replace(old.behavioural, parent=None, derivations=made.behavioural.derivations)
        draft = replace(new, governance=old.governance, behavioural=behavioural)
        embedder = self.tercet.embedder
        [entry], space = prepare([draft], embedder), answering_space(embedder)
        with self._tenant.writing(by=self.by.name) as writer:
            return writer.revise(old.id, entry, space, expect=expect, action=action)
