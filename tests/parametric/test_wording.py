"""Questions in a model's words: what is kept of them, whence they come, and that a run has the same ones throughout."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.parametric.conftest import PASSED, QUICK, Open

from tercet import Tercet
from tercet.cube import Behavioural, Descriptive, MemCube, ModelIdentity, Parameters, Text
from tercet.engine.base import Ability, Turn
from tercet.errors import InvalidRequest, Unsupported, VaultDamaged
from tercet.parametric import runs, wording
from tercet.parametric.facts import Fact, read
from tercet.parametric.memory import REPORT, read_blob
from tercet.parametric.samples import held_out, training
from tercet.scoped import ScopedMemory

MARA = "Mara lives in Graz."


class Pen:
    """A writer whose list is `made`; to a question it says what `says` has for a part of it, or `other`."""

    abilities: frozenset[Ability] = frozenset({"generate"})
    context = 4096

    def __init__(self, made: str, says: Mapping[str, str] | None = None, *, other: str = "", name: str = "pen") -> None:
        self.made, self.says, self.other, self.asked = made, says or {}, other, list[str]()
        self.identity = ModelIdentity(name, "1", "w", "t", "t", "r", "float32")

    def generate(self, messages: Sequence[Turn], *, max_tokens: int = 256) -> Iterator[str]:
        asked = messages[-1]["content"]
        self.asked.append(asked)
        yield from (self.made if "one a line" in asked else self.reply(asked)).partition(" ")

    def reply(self, asked: str) -> str:
        return next((answer for question, answer in self.says.items() if question in asked), self.other)

    def close(self) -> None:
        """Nothing to let go of."""


def facts(*texts: str) -> list[Fact]:
    cubes = [
        MemCube(Text(one), Descriptive(id=str(n)), behavioural=Behavioural(version=3)) for n, one in enumerate(texts)
    ]
    return [fact for cube in cubes for fact in read(cube)]


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("1. Where would a letter reach Mara?", "Where would a letter reach Mara?"),
        ('* **"Question 2: Where would a letter reach Mara?"**', "Where would a letter reach Mara?"),
        ("Where would a letter reach Mara? | Graz", "Where would a letter reach Mara?"),
        ("A letter reaches Mara where", None),  # no question
        ("Is Graz where Mara lives?", None),  # it says the answer
        ("Where would a letter reach her?", None),  # about whom?
        ("Where would a letter reach Marah?", None),  # another name
        ("Which place does MARA call home?", None),  # the gate asks this
        ("where does Mara live?", None),  # a template asks it already
        ("Where, Mara?", None),
        (f"Where {'very ' * 30} does Mara have a bed?", None),
    ],
)
def test_a_question_is_kept_only_in_good_form(line: str, kept: str | None) -> None:
    found = wording.worded(Pen(f"Here\nthey\nare\n,\nall:\n{line}\n", other="In Graz."), facts(MARA))
    assert [one.question for one in found] == ([] if kept is None else [kept])


def test_the_reader_must_answer_it_as_the_text_does() -> None:
    pen = Pen(
        "Where is a bed for Mara?\nWhat does Mara do?\nWhat may Mara be?", {"bed": "Graz, it says.", "do": "Unknown."}
    )
    [one] = wording.worded(pen, facts(MARA))
    assert (one.question, one.answer, one.gold, one.kind, one.template) == (
        "Where is a bed for Mara?", "Graz.", "Graz", "ask", "written",
    )  # fmt: skip
    assert (one.source.id, one.source.version) == ("0", 3)
    assert [MARA in asked for asked in pen.asked] == [True] * 4


def test_each_question_comes_once_and_few_for_each_fact() -> None:
    many = "\n".join(f"In town {n}, where is Mara's bed?" for n in range(40))
    assert len(wording.worded(Pen(many, other="Graz"), facts(MARA))) == wording.COUNT
    pen = Pen("Where is a bed for Mara?\nwhere is a bed, for Mara?", other="Vienna")
    assert wording.worded(pen, facts(MARA)) == []
    assert len(pen.asked) == 2  # the list, and the question once


def test_who_speaks_of_themself_is_asked_about_so() -> None:
    pen = Pen("Where would a letter reach me?\nWhere would a letter reach you?", other="Porto")
    [one] = wording.worded(pen, facts("I live in Porto."))
    assert one.question == "Where would a letter reach me?"
    assert "says I, my or me" in pen.asked[0]


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("Which group did Lena visit? | a choir", "A choir."),
        ('2) When did Lena visit a choir? - "on Friday."', "On Friday."),
        ("When did Lena visit a choir? | on Monday", None),  # the text does not say so
        ("When did Lena visit a choir?", None),
        ("When was it? | on Friday", None),  # about what?
    ],
)
def test_a_free_sentence_is_answered_in_its_own_words(line: str, answer: str | None) -> None:
    pen = Pen(line, {"Which": "It was a choir", "When": "That was on Friday, or on Monday"})
    found = wording.worded(pen, facts("Yesterday Lena joined a choir on Friday"))
    assert [one.answer for one in found] == ([] if answer is None else [answer])


def test_the_word_that_begins_a_sentence_is_no_name() -> None:
    pen = Pen("What of the time? | at noon\nWhen did Hamburg see them go? | at noon", other="at noon")
    assert [one.question for one in wording.worded(pen, facts("The boats left Hamburg at noon"))] == [
        "When did Hamburg see them go?"
    ]


def test_a_sentence_without_names_is_asked_about_by_its_long_words() -> None:
    pen = Pen("What went to the harbour? | all boats\nWhat is it? | all boats", other="all boats")
    assert [one.question for one in wording.worded(pen, facts("In the end all boats sailed to harbour"))] == [
        "What went to the harbour?"
    ]


def test_a_run_that_goes_on_has_the_questions_it_began_with(tmp_path: Path) -> None:
    first = wording.worded(Pen("Where is a bed for Mara?", other="Graz"), facts(MARA), tmp_path)
    other = Pen("Where is Mara's bed?", other="Graz")
    assert wording.worded(other, facts(MARA), tmp_path) == first != []
    assert other.asked == []
    (tmp_path / wording.WRITTEN).write_text('[{"question": 1}]')
    with pytest.raises(VaultDamaged, match=wording.WRITTEN):
        wording.worded(other, facts(MARA), tmp_path)


def report_of(t: Tercet, made: MemCube) -> dict[str, object]:
    assert isinstance(made.payload, Parameters)
    found: dict[str, object] = json.loads(read_blob(t.vault.tenant("default"), made.payload, REPORT))
    return found


@pytest.mark.usefixtures("short_gate")
def test_an_adapter_is_taught_them_and_its_report_says_whose_they_are(t: Tercet, alice: ScopedMemory) -> None:
    source, pen = alice.remember(MARA), Pen("Where is a bed for Mara?", other="Graz")
    bare = alice.promote(source, to="parameters", teaching=PASSED)
    made = alice.promote(source, to="parameters", teaching=replace(PASSED, writer=pen))
    told, plain = report_of(t, made), report_of(t, bare)
    assert (told["writer"], plain["writer"], plain["written"]) == ("pen", None, [])
    assert told["written"] == [{"question": "Where is a bed for Mara?", "answer": "Graz.", "source": [source.id, 1]}]
    count = len(training(read(source)))
    assert [one["record"]["planned"] for one in (plain, told)] == [  # type: ignore[index]
        -(-count // QUICK.batch), -(-(count + 1) // QUICK.batch),
    ]  # fmt: skip
    asked = len(pen.asked)
    assert alice.promote(source, to="parameters", teaching=replace(PASSED, writer=pen)).id == made.id != bare.id
    assert len(pen.asked) == asked  # the same lesson is the adapter that is there
    assert runs.runs_of(t.vault.tenant("default").path) == []


@pytest.mark.usefixtures("short_gate")
def test_a_writer_is_an_engine_or_its_name(opened: Open) -> None:
    pen = Pen("Where is a bed for Mara?", other="Graz")
    mute = Pen("")
    mute.abilities = frozenset()
    from tercet.testing.tiny import tiny_engine

    with opened(engines={"tiny": tiny_engine("llama"), "pen": pen, "mute": mute}) as t:
        alice = t.scope(user="alice")
        source = alice.remember(MARA)
        made = alice.promote(source, to="parameters", engine="tiny", teaching=replace(PASSED, writer="pen"))
        assert report_of(t, made)["writer"] == "pen"
        for wrong, error in (("pencil", InvalidRequest), ("mute", Unsupported)):
            with pytest.raises(error):
                alice.promote(source, to="parameters", engine="tiny", teaching=replace(PASSED, writer=wrong))


def test_held_out_wordings_are_never_written() -> None:
    every = "\n".join(one.question for one in held_out(facts(MARA)))
    assert wording.worded(Pen(every, other="Graz"), facts(MARA)) == []
