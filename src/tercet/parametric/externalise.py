"""An adapter back to text: it is asked for what it knows, and what agrees across wordings and is supported is kept.

For an adapter that goes cold, or a base that is replaced. Where the sources stand, they are the better text: nothing
here replaces them, and what is produced is marked as drawn from a model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tercet.cube import MemCube, Text, derive
from tercet.parametric import samples
from tercet.parametric.examples import answers
from tercet.parametric.facts import Fact, read
from tercet.parametric.gate import holds

if TYPE_CHECKING:
    from tercet.engine.base import AdapterEngine

METHOD = "externalised"


@dataclass(frozen=True)
class Told:
    """What an adapter said of one fact: the value it gave most, and the share of wordings that gave it."""

    fact: Fact
    value: str
    agreement: float
    supported: bool


def elicit(engine: AdapterEngine, key: str, facts: Sequence[Fact], *, agree: float = 0.6) -> list[Told]:
    """Ask an attached adapter about each fact in all wordings of its own question set; what the wordings agree on.

    `supported` says whether a recorded source says the same. A value that fewer than the share `agree` of the wordings
    give is left out: it is not known, or made up.
    """
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


def externalise(engine: AdapterEngine, key: str, adapter: MemCube, sources: Sequence[MemCube]) -> list[MemCube]:
    """Drafts of text cubes, one a fact that the adapter knows and a source supports, made from that source and adapter.

    They are derived from the adapter as well, so forgetting either reaches them.
    """
    by_id = {cube.id: cube for cube in sources}
    facts = [fact for cube in sources for fact in read(cube)]
    made = []
    for told in elicit(engine, key, facts):
        if not told.supported:
            continue
        words = {**told.fact.words(), "v": told.value}
        statement = told.fact.how.tell[0].format(**words) if told.fact.relation != "text" else told.fact.text
        draft = derive([by_id[told.fact.source.id], adapter], Text(statement), method=METHOD, type="fact")
        made.append(draft)
    return made
