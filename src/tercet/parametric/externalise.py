"""An adapter back to text: it is asked for what it knows, and what agrees across wordings and is supported is kept.

For an adapter that goes cold, or a base that is replaced. Where the sources stand, they are the better text: nothing
here replaces them, and what is produced is marked as drawn from a model.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from tercet.cube import Link, MemCube, Parameters, Scalar, Text, Trust, derive
from tercet.errors import InvalidRequest, MissingMemory
from tercet.lifecycle import READABLE, State
from tercet.parametric import samples
from tercet.parametric.examples import answers
from tercet.parametric.facts import Fact, read
from tercet.parametric.gate import holds

if TYPE_CHECKING:
    from tercet.engine.base import AdapterEngine
    from tercet.scope import Scope
    from tercet.vault.reader import Reader

METHOD = "externalised"
AGREE = 0.6


@dataclass(frozen=True)
class Told:
    """What an adapter said of one fact: the value it gave most, and the share of wordings that gave it."""

    fact: Fact
    value: str
    agreement: float
    supported: bool


def elicit(engine: AdapterEngine, key: str, facts: Sequence[Fact], *, agree: float = AGREE) -> list[Told]:
    """Ask an attached adapter about each fact in all wordings of its own question set; what the wordings agree on.

    `supported` says whether a recorded source says the same. A value that fewer than the share `agree` of the wordings
    give is left out: it is not known, or made up.
    """
    if not 0 < agree <= 1:
        raise InvalidRequest(f"agree is a share above 0 and at most 1, not {agree!r}.")
    asked = [[one for one in (*samples.training([fact]), *samples.held_out([fact])) if one.kind in {"ask", "cloze"}]
             for fact in facts]  # fmt: skip
    with engine.adapters.using([key]):
        said = answers(engine, [one.question for part in asked for one in part], max_tokens=20)
    found, at = list[Told](), 0
    for fact, part in zip(facts, asked, strict=True):
        own = [one.strip().rstrip(".!?") for one in said[at : at + len(part)]]
        at += len(part)
        counted = Counter(one.casefold() for one in own if one)
        if not counted:
            continue
        [(best, count)] = counted.most_common(1)
        share = count / len(part)
        if share >= agree:
            found.append(Told(fact, next(one for one in own if one.casefold() == best), share, holds(best, fact.value)))
    return found


def supporting(reader: Reader, scope: Scope, id: str) -> tuple[MemCube, list[MemCube]]:
    """An adapter, and those of its sources that still say what they said when it was trained, archived ones too.

    A reader that is `under` something must allow the adapter; sources that it does not allow support nothing. Raises
    MissingMemory, InvalidRequest.
    """
    _, adapter = reader.head(id, scope)
    if not isinstance(adapter.payload, Parameters):
        raise InvalidRequest(f"Memory {id} is a {adapter.kind}, not an adapter; only adapters are externalised.")
    found = []
    for link in adapter.behavioural.derivations:
        try:
            _, source = reader.head(link.id, scope)
        except MissingMemory:
            continue
        readable = source.state in READABLE | {State.ARCHIVED} and source.governance.trust is not Trust.QUARANTINED
        if readable and source.version == link.version:
            found.append(source)
    return adapter, found


def externalise(
    engine: AdapterEngine, key: str, adapter: MemCube, sources: Sequence[MemCube], *, agree: float = AGREE
) -> list[MemCube]:
    """Drafts of text cubes, one a fact that the adapter knows and a source supports, in the source's spelling.

    Their header is that of something made from both, the strictest of each; their derivation is the source's version
    alone, and `method` and origin name the adapter: so they outlive it, and go with the source.
    """
    by_link = {Link(cube.id, cube.version): cube for cube in sources}
    facts = list({(*fact.slot, fact.value.casefold()): fact for cube in sources for fact in read(cube)}.values())
    told = elicit(engine, key, facts, agree=agree)
    return [_drawn(one, by_link[one.fact.source], adapter) for one in told if one.supported]


def _drawn(told: Told, source: MemCube, adapter: MemCube) -> MemCube:
    fact = told.fact
    statement = fact.text if fact.relation == "text" else fact.how.tell[0].format(**fact.words())
    draft = derive([source, adapter], Text(statement), method=METHOD, type="fact")
    words = f"{METHOD} from adapter {adapter.id}@{adapter.version}"
    ref = f"{METHOD}:{adapter.id}:{hashlib.sha256(statement.encode()).hexdigest()[:16]}"
    origin = replace(draft.descriptive.origin, detail=words, ref=ref, speaker=source.speaker)
    metadata: Mapping[str, Scalar] = MappingProxyType({"adapter": adapter.id, "agreement": round(told.agreement, 3)})
    # It says what the source said, when the source said it: a fact does not get newer by being drawn.
    described = replace(draft.descriptive, origin=origin, metadata=metadata, observed=source.observed)
    b = source.behavioural
    links = (Link(source.id, source.version),)
    lineage = replace(draft.behavioural, derivations=links, valid_from=b.valid_from, valid_to=b.valid_to)
    return replace(draft, descriptive=described, behavioural=lineage)
