"""Questions in a model's words, beside those of the templates: what it writes is checked against the text.

A question is kept only if it ends as one, does not give its answer away, says whom it is about, has none of the gate's
held-out wordings, and the model, reading the text, answers it with what the text says. So a weak writer gives few
questions, not wrong ones. Each names the version of the cube whose text it was written from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tercet.cube import Link
from tercet.errors import VaultDamaged
from tercet.parametric.facts import Fact
from tercet.parametric.gate import holds, words_of
from tercet.parametric.samples import Sample, held_out, training

if TYPE_CHECKING:
    from tercet.engine.base import Engine

WRITTEN = "wording.json"
COUNT = 5
"""Questions that are asked for about each fact."""
TOKENS, SHORT = 40, 24
"""Of the writer: tokens for a question, and for an answer."""
LONGEST = 30
"""Words of a question at most."""
FIRST_PERSON = ("I", "my", "me", "mine", "am")

ABOUT = """{text}

Write {count} different questions that this sentence answers with "{value}", one a line. Every question {names}, none \
contains "{value}"."""
FREE = """{text}

Write {count} different questions that this sentence answers, one a line. After each question write " | " and its \
answer, in words of the sentence."""
CHECK = """{text}

{question} Answer in a few words."""


def worded(writer: Engine, facts: Sequence[Fact], folder: Path | None = None) -> list[Sample]:
    """Questions about facts as a model words them, each checked; in the order of the facts.

    With a folder they are kept there and taken from there, so that a run that goes on learns what it began with.

    Raises
    ------
    EngineFailed
        If the writer does not answer.
    VaultDamaged
        If what is kept in the folder cannot be read.
    """
    path = None if folder is None else folder / WRITTEN
    if path is not None and path.is_file():
        return _kept(path)
    taken = {words_of(one.question) for one in (*held_out(facts), *training(facts))}
    made = list[Sample]()
    for fact in facts:
        for one in _written(writer, fact):
            words = words_of(one.question)
            if words not in taken and _answered(writer, fact, one):
                made.append(one)
            taken.add(words)
    if path is not None:
        part = path.with_suffix(".part")
        part.write_text(json.dumps([asdict(one) for one in made]), encoding="utf-8")
        part.replace(path)
    return made


def _kept(path: Path) -> list[Sample]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return [Sample(**{**one, "source": Link(**one["source"])}) for one in told]
    except (ValueError, TypeError, KeyError) as error:
        raise VaultDamaged(
            f"The questions in {path.name} cannot be read: {error}; delete it and train again."
        ) from error


def _written(writer: Engine, fact: Fact) -> Iterator[Sample]:
    """What the writer made that may be taught; whether it is true is not yet asked."""
    free = fact.relation == "text"
    names = "says I, my or me" if fact.subject == "I" else f"names {fact.subject}"
    asked = (FREE if free else ABOUT).format(text=fact.text, value=fact.value, names=names, count=COUNT)
    for line in islice(_lines(_said(writer, asked, COUNT * TOKENS)), COUNT):
        head, mark, rest = line.partition("?")
        question, answer = head + mark, rest.strip(" |:-–—.\"'") if free else fact.value
        if _fits(fact, question, answer):
            yield Sample(question, f"{answer[0].upper()}{answer[1:]}.", "ask", "written", fact.source, answer)


def _fits(fact: Fact, question: str, answer: str) -> bool:
    """Whether a question may be asked: form, no answer in it, whom it is about; an answer in the text's own words."""
    if not 3 <= len(question.split()) <= LONGEST:
        return False
    if not words_of(answer) or holds(question, answer) or not holds(fact.text, answer):
        return False
    return any(holds(question, one) for one in _names(fact))


def _names(fact: Fact) -> Collection[str]:
    """What a question must have one of: the subject; of a free sentence a name, or a long word if it has none."""
    if fact.relation != "text":
        return FIRST_PERSON if fact.subject == "I" else {fact.subject}
    said = [one.strip(".,;:!?\"'()") for one in fact.text.split()]
    named = [one for place, one in enumerate(said) if one[:1].isupper() and one != "I" and (place or len(one) > 4)]
    return set(named or [one for one in said if len(one) > 4])


def _answered(writer: Engine, fact: Fact, one: Sample) -> bool:
    """Whether the writer itself, reading the text, answers its question so."""
    return holds(_said(writer, CHECK.format(text=fact.text, question=one.question), SHORT), one.gold)


def _said(writer: Engine, asked: str, tokens: int) -> str:
    return "".join(writer.generate([{"role": "user", "content": asked}], max_tokens=tokens))


def _lines(said: str) -> Iterator[str]:
    """The questions of a list, without numbers, signs and quotation marks."""
    for line in said.splitlines():
        if "?" in line:
            yield re.sub(r"^[\s*\-•\"_]*(?:(?:Q|Question)?\s*\(?\d+[.):])?", "", line).strip(' \t"*_`')
