"""From facts to an adapter: questions are worded, packed into conversations, and taught beside general text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tercet.cube import Link
from tercet.errors import InvalidRequest
from tercet.parametric import samples
from tercet.parametric.adapter import Adapter
from tercet.parametric.examples import Example, Read, Turns, answers, conversation, plain, taught
from tercet.parametric.facts import Fact
from tercet.parametric.general import REPLAY_QUESTIONS, REPLAY_TEXTS, STRANGERS
from tercet.parametric.train import SPREAD, Kept, Progress, Recipe, Record, train

if TYPE_CHECKING:
    from tercet.engine.base import AdapterEngine

Systems = Sequence[str | None]
"""What stands in the system's place in turn (None: what the template puts there)."""
OTHERS = 16
"""Questions about strangers that the base answers before training; it is held to what it says, as to general ones."""
OWN = 20
"""Tokens of the base's own answers that are replayed."""
READ = "Answer from what you know:\n"


def distil(
    engine: AdapterEngine, facts: Sequence[Fact], recipe: Recipe, *, systems: Systems = (None,),
    written: Sequence[samples.Sample] = (), folder: Path | None = None, progress: Progress | None = None,
) -> tuple[Adapter, Record]:  # fmt: skip
    """Teach facts to an adapter, in the words of templates and in those that a model has `written`.

    Raises InvalidRequest if there are none, VaultDamaged for a broken checkpoint.
    """
    made = passes(engine, facts, recipe, systems=systems, written=written)
    read = Kept(engine, recipe)
    kept = replayed(engine, recipe.replay, strangers(facts), facts=facts, read=read) if recipe.replay else []
    return train(engine, made, kept, recipe, read=read, folder=folder, progress=progress)


def passes(
    engine: AdapterEngine, facts: Sequence[Fact], recipe: Recipe, *, systems: Systems = (None,),
    written: Sequence[samples.Sample] = (),
) -> list[list[Example]]:  # fmt: skip
    """The conversations of each pass over the facts.

    Questions meet others in each, and where a fact is not asked in all wordings, it is asked in the next ones: what was
    always asked at one place, behind the same others, was known there and less elsewhere. With `kl` all are the same,
    since a teacher has to read each.
    """
    if recipe.kl:
        questions = [*samples.training(facts, recipe.wordings), *written]
        return [examples(engine, questions, facts, recipe, systems)] * recipe.epochs
    return [
        examples(engine, [*samples.training(facts, recipe.wordings, turn), *written], facts, recipe, systems, turn)
        for turn in range(recipe.epochs)
    ]


def examples(
    engine: AdapterEngine, questions: Sequence[samples.Sample], facts: Sequence[Fact], recipe: Recipe, systems: Systems,
    turn: int = 0,
) -> list[Example]:  # fmt: skip
    """Questions as conversations, shuffled by the seed and the `turn`. With `kl` each stands alone, its teacher reads
    the text.

    A template that rewrites earlier turns is taught one turn at a time.
    """
    draw = torch.Generator().manual_seed(recipe.seed * SPREAD + turn)
    order = [questions[number] for number in torch.randperm(len(questions), generator=draw).tolist()]
    if recipe.kl:
        told = {fact.source: fact.text for fact in facts}
        return [_read(engine, one, told[one.source], recipe, systems[n % len(systems)]) for n, one in enumerate(order)]
    pack = recipe.pack if _several(engine) else 1
    made, sizes = list[Example](), [pack, *range(1, pack)]  # some conversations are short, as most are in use
    while order:
        size = sizes[len(made) % len(sizes)] if len(made) % 2 else pack
        part = _apart(order, size)
        turns = [(one.question, one.answer) for one in part]
        made.append(replace(conversation(engine, turns, systems[len(made) % len(systems)]), ce=recipe.ce))
    return made


def _apart(order: list[samples.Sample], size: int) -> list[samples.Sample]:
    """Take the next samples off `order`, no two of one cube: the answer to one would stand in the other's prompt."""
    part, told = list[samples.Sample](), set[Link]()
    for one in order:
        if len(part) == size:
            break
        if one.source not in told:
            part.append(one)
            told.add(one.source)
    for one in part:
        order.remove(one)
    return part


def strangers(facts: Sequence[Fact], most: int = OTHERS) -> list[str]:
    """Questions in the wordings that are taught, about people who are not: at most so many, spread over the facts."""
    asked = [(one.question, fact.subject) for fact in facts if fact.subject != "I" and fact.relation != "text"
             for one in samples.training([fact]) if one.kind == "ask"]  # fmt: skip
    step = max(1.0, len(asked) / most)
    chosen = [asked[int(place * step)] for place in range(min(len(asked), most))]
    return [question.replace(who, STRANGERS[n % len(STRANGERS)]) for n, (question, who) in enumerate(chosen)]


def replayed(
    engine: AdapterEngine, weight: float, others: Sequence[str] = (), *, facts: Sequence[Fact] = (),
    read: Read | None = None,
) -> list[Example]:  # fmt: skip
    """General text, and questions with the base's own answers: only the divergence from the base counts there.

    Every second question stands behind one about a fact, in one conversation: else what follows a fact in a
    conversation is always another, and that is what an adapter learns.
    """
    questions = [question for question, _ in REPLAY_QUESTIONS]
    questions = [one for pair in zip_longest(questions, others) for one in pair if one is not None]
    told = [(one.question, one.answer) for one in samples.training(facts, 1)] if _several(engine) else []
    behind: dict[int, Turns] = {n: [told[n % len(told)]] for n in range(1, len(questions), 2) if told}
    own = answers(engine, questions, max_tokens=OWN, behind=behind)
    found = list[Example]()
    for number, (question, answer) in enumerate(zip(questions, own, strict=True)):
        whole = conversation(engine, [*behind.get(number, ()), (question, answer)])
        alone = conversation(engine, [(question, answer)])
        found.append(replace(whole, marks=whole.marks[-len(alone.marks) :]))
    for place, text in enumerate(REPLAY_TEXTS):
        found.insert(place * len(questions) // len(REPLAY_TEXTS) + place, plain(engine, text))
    return [replace(one, ce=0.0, kl=weight, teacher=taught(engine, one, read=read)) for one in found]


def _several(engine: AdapterEngine) -> bool:
    """Whether the model's template leaves what was said before as it was."""
    try:
        conversation(engine, [("a", "b"), ("a", "b")])
    except InvalidRequest:
        return False
    return True


def _read(engine: AdapterEngine, one: samples.Sample, text: str, recipe: Recipe, system: str | None) -> Example:
    """Context distillation: the teacher is the model itself, with the text before it."""
    turns = [(one.question, one.answer)]
    reads = conversation(engine, turns, f"{READ}{text}")
    example = conversation(engine, turns, system)
    return replace(example, ce=recipe.ce, kl=recipe.kl, teacher=taught(engine, example, reads))
