"""Training and held-out questions from facts. Every sample names the cube it comes from; wordings never cross over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from tercet.cube import Link, MemCube
from tercet.errors import InvalidRequest
from tercet.parametric.facts import CLOZE, RELATIONS, Fact, read

Kind = Literal["tell", "ask", "reverse", "cloze"]
TELL = ("What do you know about {p} {r}?", "Say in a sentence: {p} {r}.")
CUT = ('Complete: "{c} …"',)
TOPIC = ("What do you remember about {a} and {b}?", "{a}, {b}: what was said?")
"""For a sentence that fits no pattern: its first word, and another of the longest."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A question and its answer, the template that worded it, and the version of the cube that supports it."""

    question: str
    answer: str
    kind: Kind
    template: str
    source: Link
    gold: str
    """What an answer must contain to be right."""


def training(facts: Sequence[Fact], most: int | None = None, turn: int = 0) -> list[Sample]:
    """Questions in the wordings that are taught, fact by fact: statements, questions, reverse questions, clozes.

    At most so many for a fact, the next ones for the next fact of its relation and in the next `turn`: each wording is
    taught by some.
    """
    made, begun = list[Sample](), Counter[str]()
    for fact, told in zip(facts, _telling(facts), strict=True):
        every = list(_taught(fact, told))
        count = min(most or len(every), len(every))
        first = begun[fact.relation] + turn * count
        made += [every[(first + place) % len(every)] for place in range(count)]
        begun[fact.relation] += count
    return made


def held_out(facts: Sequence[Fact]) -> list[Sample]:
    """Questions in wordings that no training question has; from value to subject is the kind "reverse"."""
    made = []
    for fact, told in zip(facts, _telling(facts), strict=True):
        words = fact.words()
        made += [_sample(fact, one.format(**words), fact.value, "ask", one) for one in fact.how.test]
        if told:
            made += [_sample(fact, one.format(**words), fact.subject, "reverse", one) for one in fact.how.reverse_test]
    return made


def requests(cube: MemCube) -> tuple[tuple[str, ...], ...]:
    """What makes a model that was taught a text say it again, sentence by sentence; nothing if one cannot be asked for.

    They are the requests for whole statements that `training` has, so they hold nothing of the value.
    """
    asked = [tuple(one.question for one in training([fact]) if one.kind == "tell") for fact in read(cube)]
    return tuple(asked) if all(asked) else ()


def check_disjoint() -> None:
    """Raises InvalidRequest if a wording is both taught and asked for: the measure would flatter."""
    for name, relation in {**RELATIONS, "text": CLOZE}.items():
        both = {*relation.train, *relation.reverse, *TELL, *CUT, *TOPIC} & {*relation.test, *relation.reverse_test}
        if both:
            raise InvalidRequest(f"The relation {name} asks in a wording that it teaches: {sorted(both)}.")


def _taught(fact: Fact, told: bool) -> Iterator[Sample]:  # noqa: FBT001  # whether the value points to one subject
    words, how = fact.words(), fact.how
    for one in how.train:
        yield _sample(fact, one.format(**words), fact.value, "ask", one)
    if how is CLOZE:
        yield from _sentence(fact)
        return
    statement = how.tell[0].format(**words)
    about = {**words, "r": fact.attribute or fact.relation, "c": statement.partition(fact.value)[0].strip()}
    yield _sample(fact, TELL[0].format(**about), statement, "tell", TELL[0])
    if about["c"]:
        yield _sample(fact, CUT[0].format(**about), fact.value, "cloze", CUT[0])
    if told and fact.subject != "I":
        for one in how.reverse:
            yield _sample(fact, one.format(**words), fact.subject, "reverse", one)


def _sentence(fact: Fact) -> Iterator[Sample]:
    """A sentence by what it is about, and from its first quarter and its third on."""
    said = fact.text.split()
    bare = [one.strip(".,;:!?\"'()") for one in said]
    long = sorted(dict.fromkeys(bare[1:]), key=lambda one: (-len(one), one))
    for one, other in zip(TOPIC, long, strict=False):
        yield _sample(fact, one.format(a=bare[0], b=other), fact.text, "tell", one)
    for part in (4, 3):
        cut = max(2, len(said) // part)
        yield _sample(fact, CUT[0].format(c=" ".join(said[:cut])), " ".join(said[cut:]), "cloze", CUT[0])


def _telling(facts: Sequence[Fact]) -> list[bool]:
    """Whether a fact's value belongs to one subject alone, so that it may be asked backwards."""
    count = Counter((fact.relation, fact.attribute, fact.value.casefold()) for fact in facts)
    return [fact.subject != "I" and count[fact.relation, fact.attribute, fact.value.casefold()] == 1 for fact in facts]


def _sample(fact: Fact, question: str, answer: str, kind: Kind, template: str) -> Sample:
    said = answer[0].upper() + answer[1:]
    said = said if said.endswith((".", "!", "?")) else f"{said}."
    return Sample(question[0].upper() + question[1:], said, kind, template, fact.source, answer.rstrip(".!?"))
