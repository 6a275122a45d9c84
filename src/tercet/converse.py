"""A chat turn: recall, render, generate, remember. It goes over memories as KV caches where they stand ready."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol, cast

from tercet.activation import memory as kv
from tercet.activation.compose import Piece, blend, stands_far
from tercet.activation.memory import KVMemory, Used
from tercet.cube import Link, MemCube
from tercet.engine.base import Turn, require
from tercet.errors import InvalidRequest, MissingMemory, Refused, Unsupported, VaultDamaged
from tercet.parametric import memory as adapters_memory
from tercet.text.recall.context import lines_of
from tercet.text.recall.frame import CLOSING, OPENING
from tercet.text.recall.hits import Hits
from tercet.text.recall.recite import Key, Recite, Recited, written
from tercet.vault.allowed import NOTHING
from tercet.vault.branches import HERE, Moment

if TYPE_CHECKING:
    from tercet.engine.base import AdapterEngine, CacheEngine, Engine, Run
    from tercet.parametric.promote import Teaching
    from tercet.scope import Caller, Scope
    from tercet.vault.allowed import Allowed
    from tercet.vault.reader import Reader
    from tercet.vault.sqlite import Tenant

log = logging.getLogger(__name__)

INTRO = f"You are a helpful assistant. This is what you remember:\n{OPENING}\n"
"""It opens one frame around all memories, so that what was read apart stands within it, too."""
MARK = "\u27e6memories\u27e7"
LEAST = 32
"""Tokens that a stored cache must share with a prompt to be worth opening."""
ROLES = frozenset({"system", "user", "assistant"})
NOTHING_RECITED = Recited()


class Memory(Protocol):
    """What a turn needs of a scoped view."""

    scope: Scope
    by: Caller
    moment: Moment
    tercet: Any

    def recall(self, question: str, *, limit: int) -> Hits:
        """As ScopedMemory.recall."""

    def remember_many(self, items: Sequence[Mapping[str, Any]]) -> object:
        """As ScopedMemory.remember_many."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and what it stood on.

    `memories` are the ids in the prompt, `kv` those of them that were KV caches. `tokens` were in the prompt, of which
    `reused` came from caches. `first` is the time to the first token in seconds; `saved` is what reading the reused
    tokens took when the caches were built, less what fetching and joining them took now (it can be negative). `answer`
    names it in the trace. `recited` are the memories that the adapters gave back word for word; `unverified` counts the
    passages that came back as something else and were not used.
    """

    text: str
    memories: tuple[str, ...]
    kv: tuple[str, ...] = ()
    tokens: int | None = None
    reused: int = 0
    first: float = 0.0
    saved: float = 0.0
    left_out: tuple[str, ...] = field(default=())
    answer: str = ""
    adapters: tuple[str, ...] = field(default=())
    recited: tuple[str, ...] = field(default=())
    unverified: int = 0


def frame(engine: CacheEngine, messages: Sequence[Turn]) -> tuple[str, str]:
    """The prompt before and behind the memories: the first is the same for all messages, so that caches fit it."""
    system = "\n\n".join(turn["content"] for turn in messages if turn["role"] == "system")
    rest = [turn for turn in messages if turn["role"] != "system"]
    content = f"{INTRO}{MARK}{CLOSING}{system and chr(10)}{system}"
    try:
        text = engine.render([{"role": "system", "content": content}, *rest])
    except InvalidRequest:  # a template without a system's turn: it goes before the first words of the user
        first, *others = rest
        text = engine.render([{**first, "content": f"{content}\n{first['content']}"}, *others])
    before, mark, behind = text.partition(MARK)
    if not mark:
        raise Unsupported(f"The template of {engine.identity.name} shows neither a system's nor a user's words.")
    return before, behind


def promote(
    view: Memory,
    find: Callable[[Reader], list[MemCube]],
    *,
    to: str,
    engine: str | None,
    form: kv.Form,
    teaching: Teaching | None = None,
) -> MemCube:
    """See `ScopedMemory.promote`. `find` gives the cubes that may be promoted, as of a snapshot."""
    if to not in {"activation", "parameters"}:
        raise InvalidRequest(f"Memories are promoted to 'activation' or 'parameters', not to {to!r}.")
    if view.moment != HERE:
        raise InvalidRequest("What a model reads ahead is the main line as it is now; promote there.")
    tenant = _tenant(view)
    with tenant.reading() as reader:
        sources = find(reader)
    if not sources:
        raise InvalidRequest("Say what to promote: ids, or cubes.")
    model = view.tercet.engines.get(engine)
    if to == "parameters":
        require(model, "adapters", "An adapter")
        require(model, "logits", "Training an adapter")
        return teach(view, sources, model, teaching)
    require(model, "cache", "A KV memory")
    opening, _ = frame(model, [{"role": "user", "content": "?"}])
    return kv.promote(
        tenant, sources, model, words=(opening, segment(sources)), form=form, by=view.by.signed, find=find,
    )  # fmt: skip


def teach(view: Memory, sources: Sequence[MemCube], engine: AdapterEngine, teaching: Any) -> MemCube:  # noqa: ANN401
    """Teach texts to an adapter, in the prompts that a chat has: with the words before memories, and without."""
    from tercet.parametric.promote import promote

    return promote(_tenant(view), view.scope, sources, engine, how_taught(view, teaching), by=view.by.signed)


def teach_again(view: Memory, sources: Sequence[str], engine: Engine) -> MemCube | None:
    """Teach what is left of an adapter that lost a source, as a job does; None if nothing is left."""
    from tercet.parametric.promote import retrain

    require(engine, "adapters", "An adapter")
    able = cast("AdapterEngine", engine)
    return retrain(_tenant(view), view.scope, able, sources, how_taught(view, None), by=view.by.signed)


def how_taught(view: Memory, given: Teaching | None) -> Teaching:
    """What is given, or else the vault's, or else the default, with the prompts that a chat has and a signer."""
    from tercet.parametric.promote import Teaching

    how: Teaching = given or view.tercet.teaching or Teaching()
    writer = view.tercet.engines.get(how.writer) if isinstance(how.writer, str) else how.writer
    return replace(how, systems=(None, INTRO), signer=how.signer or view.tercet.signer, writer=writer)


def segment(cubes: Sequence[MemCube]) -> str:
    """Memories as they stand within the frame: whole lines, so that segments can follow each other."""
    return "".join(f"{line}\n" for line in lines_of(cubes))


def chat(
    view: Memory, messages: str | Sequence[Mapping[str, str]], *, engine: str | None, limit: int, max_tokens: int,
    share: float, on_piece: Callable[[str], None] | None, recited: Recited = NOTHING_RECITED,
) -> Reply:  # fmt: skip
    """See `ScopedMemory.chat`. `recited` stands before what is recalled."""
    turns = checked(messages)
    model: Engine = view.tercet.engines.get(engine)
    return _answered(view, model, turns, limit, max_tokens, share, on_piece, recited)


def keep(view: Memory, messages: str | Sequence[Mapping[str, str]], answer: str) -> None:
    """Remember a question and its whole answer."""
    if answer.strip():
        asked = checked(messages)[-1]["content"]
        view.remember_many([{"role": "user", "content": asked}, {"role": "assistant", "content": answer}])


def adapted(view: Memory, engine: str | None, adapters: Sequence[str]) -> AbstractContextManager[None]:
    """With the adapters that a turn asks for, each read anew; they hold for this thread and this turn alone."""
    if isinstance(adapters, str):
        raise InvalidRequest("adapters is a list of ids (or ID@VERSION), not one string.")
    if not adapters:
        return nullcontext()
    able: AdapterEngine = view.tercet.engines.get(engine)
    tenant = _tenant(view)
    used: AbstractContextManager[None] = view.tercet.lora.using(tenant, view.scope, adapters, able, _allowed(view))
    return used


def recited(
    view: Memory, messages: str | Sequence[Mapping[str, str]], engine: str | None, adapters: Sequence[str], how: Recite
) -> Recited:
    """What the adapters in use recite of the question: recall finds the key, the weights give the passage.

    Raises InvalidRequest if no adapter is in use.
    """
    from tercet.parametric.samples import requests

    if not adapters:
        raise InvalidRequest("Reciting takes an adapter to recite from: name one in `adapters`.")
    question = checked(messages)[-1]["content"]
    found = [hit.cube for hit in view.recall(question, limit=4 * how.passages)]
    with _tenant(view).reading() as reader:
        seen = reader.under(_allowed(view)(reader))
        heads = [adapters_memory.standing(seen, view.scope, *adapters_memory.pinned(name)) for name in adapters]
        links = {link for head in heads for link in head.behavioural.derivations}
    keys = [Key(Link(cube.id, cube.version), requests(cube)) for cube in found]

    def check(source: Link, passage: str) -> MemCube | None:
        with _tenant(view).reading() as reader:
            return written(reader.under(_allowed(view)(reader)), view.scope, source, passage)

    return how.recite(view.tercet.engines.get(engine), [key for key in keys if key.source in links], check)


def _answered(
    view: Memory, model: Engine, turns: Sequence[Turn], limit: int, max_tokens: int, share: float,
    on_piece: Callable[[str], None] | None, recited: Recited,
) -> Reply:  # fmt: skip
    question = turns[-1]["content"]
    hits = view.recall(question, limit=limit) if limit else Hits([], total=0, truncated=False)
    by_heart = {cube.id for cube in recited.cubes}
    cubes = [*recited.cubes, *(hit.cube for hit in hits if hit.cube.id not in by_heart)]
    begin = time.perf_counter()
    if "cache" in model.abilities and hasattr(model, "run"):
        made, told, pieces = _with_caches(view, cast("CacheEngine", model), turns, cubes, max_tokens, share)
    else:
        content = f"{INTRO}{segment(cubes)}{CLOSING}" if cubes else ""
        opening = [{"role": "system", "content": content}] if content else []
        made, told = Reply("", tuple(cube.id for cube in cubes)), dict[str, int]()
        pieces = model.generate([*opening, *turns], max_tokens=max_tokens)
    kept = tuple(cube.id for cube in recited.cubes if cube.id in made.memories)
    noted = _noted(view, question, made, {**{cube.id: cube.version for cube in cubes}, **told}, hits)
    made = replace(made, answer=noted, recited=kept, unverified=recited.unverified)
    answer, first = list[str](), 0.0
    for piece in pieces:
        first = first or time.perf_counter() - begin
        answer.append(piece)
        if on_piece is not None:
            on_piece(piece)
    return replace(made, text="".join(answer), first=first)


def _noted(view: Memory, question: str, made: Reply, versions: Mapping[str, int], hits: Hits) -> str:
    """Note which versions are in the prompt; returns the id of the answer, none where nothing is."""
    if not made.memories:
        return ""
    scores = {hit.cube.id: hit.score for hit in hits}
    memories = [(id, versions[id], scores.get(id)) for id in made.memories]
    noted: str = view.tercet.injections.note(_tenant(view), question, memories, scope=view.scope, by=view.by.signed)
    return noted


def checked(messages: str | Sequence[Mapping[str, str]]) -> list[Turn]:
    """Messages as turns, the last of them the user's. Raises InvalidRequest."""
    given = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
    for turn in given:
        if not isinstance(turn, Mapping) or turn.get("role") not in ROLES or not isinstance(turn.get("content"), str):
            raise InvalidRequest(f"A message is {{'role': system|user|assistant, 'content': text}}, not {turn!r:.80}.")
    if not given or given[-1]["role"] != "user" or not given[-1]["content"].strip():
        raise InvalidRequest("The last message must be the user's, with words in it.")
    return [{"role": turn["role"], "content": turn["content"]} for turn in given]


def _tenant(view: Memory) -> Tenant:
    found: Tenant = view.tercet.vault.tenant(view.scope.tenant)
    return found


def _allowed(view: Memory) -> Callable[[Reader], Allowed]:
    """What the caller may read, as of a snapshot: it holds for caches and all that they were made from."""

    def asked(reader: Reader) -> Allowed:
        found: Allowed = view.tercet.gate.allowed(reader, view.by, "read", view.scope)
        return found

    return asked


def _cached(view: Memory) -> Callable[[Reader], Allowed]:
    """As `_allowed`, where nothing is an answer: who is only lent memories has them as text, and no cache."""
    asked = _allowed(view)

    def found(reader: Reader) -> Allowed:
        try:
            return asked(reader)
        except Refused:
            return NOTHING

    return found


def _with_caches(
    view: Memory, engine: CacheEngine, turns: Sequence[Turn], cubes: Sequence[MemCube], max_tokens: int, share: float
) -> tuple[Reply, dict[str, int], Iterator[str]]:
    """The answer's pieces, over KV memories of what was recalled and text of the rest, and what the former tell."""
    begin = time.perf_counter()
    tenant, memory = _tenant(view), view.tercet.kv
    opening, behind = frame(engine, turns)
    used = _caches(view, memory, engine, cubes)
    head, tail = engine.encode(opening), engine.encode(behind)
    used = [one for one in used if one.cache.tokens[: one.manifest.head] == head and one.manifest.head == len(head)]
    room = engine.context - max_tokens - len(head) - len(tail)
    fitting, taken = list[Used](), 0
    for one in used:
        size = len(one.cache.tokens) - len(head)
        if taken + size <= room and (not fitting or (one.cache.divisible and fitting[0].cache.divisible)):
            fitting.append(one)
            taken += size
    told = {link.id: link.version for one in fitting for link in one.cube.behavioural.derivations}
    rest = [cube for cube in cubes if cube.id not in told]
    kept = list(rest)
    while kept and taken + len(engine.encode(segment(kept))) > room:
        kept.pop()  # the least of the hits first
    suffix = (*engine.encode(segment(kept) if kept else ""), *tail)
    run, scores, reused = _started(engine, memory, view, fitting, head, suffix, share)
    spent = sum(one.seconds for one in fitting)
    paid = sum(one.manifest.seconds * (len(one.cache.tokens) - (len(head) if place else 0)) / len(one.cache.tokens)
               for place, one in enumerate(fitting))  # fmt: skip
    joined = time.perf_counter() - begin if len(fitting) > 1 else spent
    tenant.use([one.cube.id for one in fitting], view.tercet.clock())
    made = Reply(
        "", (*sorted(told), *(cube.id for cube in kept)), tuple(one.cube.id for one in fitting),
        tokens=len(run.tokens), reused=reused, saved=paid - joined if fitting else 0.0,
        left_out=tuple(cube.id for cube in rest[len(kept) :]),
    )  # fmt: skip
    return made, told, run.pieces(scores, max_tokens=max_tokens)


def _caches(view: Memory, memory: KVMemory, engine: CacheEngine, cubes: Sequence[MemCube]) -> list[Used]:
    """KV memories of what was recalled, in the order of the hits, none telling what another tells already."""
    if not cubes or view.moment != HERE:  # a cache was read from the main line as it is now
        return []
    with _tenant(view).reading() as reader:
        seen = reader.under(_cached(view)(reader))
        found = memory.covering(seen, view.scope, engine, [cube.id for cube in cubes])
    place = {cube.id: number for number, cube in enumerate(cubes)}
    chosen, told = list[MemCube](), set[str]()
    for cube in found:
        sources = {link.id for link in cube.behavioural.derivations}
        if not sources & told:
            chosen.append(cube)
            told |= sources
    chosen.sort(key=lambda cube: min(place.get(link.id, len(place)) for link in cube.behavioural.derivations))
    used = [_usable(view, memory, engine, cube.id) for cube in chosen]
    return [one for one in used if one is not None]


def _usable(view: Memory, memory: KVMemory, engine: CacheEngine, id: str, *, joined: bool = False) -> Used | None:
    """A cache, or None where it was withdrawn or is damaged: then its text is read instead."""
    try:
        return memory.use(_tenant(view), view.scope, id, engine, joined=joined, allowed=_allowed(view))
    except (MissingMemory, Refused, VaultDamaged) as error:
        log.warning("a KV memory was not used: %s", error)
        memory.forget(id)
        return None


def _started(
    engine: CacheEngine, memory: KVMemory, view: Memory, used: Sequence[Used], head: Sequence[int],
    suffix: Sequence[int], share: float,
) -> tuple[Run, Any, int]:  # fmt: skip
    """A run that has read the prompt, the scores of the next token, and how many tokens came from caches."""
    if len(used) > 1 and "compose" in engine.abilities:
        pieces, at = list[Piece](), 0
        for one in used:
            far = bool(pieces) and stands_far(engine, at - len(head))
            apart = _usable(view, memory, engine, one.cube.id, joined=True) if far else None
            pieces.append(Piece((apart or one).cache, len(head) if pieces else 0, at))
            at = pieces[-1].end
        joined, scores = blend(engine, pieces, suffix, share=share)
        return joined, scores, at
    prompt = (*(used[0].cache.tokens if used else head), *suffix)
    cache = used[0].cache if used else None
    if cache is None:
        found = memory.longest(_tenant(view), view.scope, engine, prompt, allowed=_cached(view))
        near = _usable(view, memory, engine, found[0]) if found is not None and found[1] >= LEAST else None
        if found is not None and near is not None and near.cache.divisible:
            cache = near.cache.prefix(min(found[1], len(prompt) - 1))
    reused = len(cache.tokens) if cache is not None else 0
    run = engine.run(cache, room=len(prompt) - reused + 64)
    return run, run.extend(prompt[reused:]), reused
