"""Reading facts, wording questions, the loss: nothing is asked in words that were taught, all pairs have a source."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tercet.cube import Behavioural, Descriptive, MemCube, Text
from tercet.engine.transformers import TransformersEngine
from tercet.errors import InvalidRequest, Refused
from tercet.parametric import samples
from tercet.parametric.distil import distil, examples, passes, replayed, strangers
from tercet.parametric.examples import Teacher, answers, bucketed, conversation, losses, plain, scores_at, taught
from tercet.parametric.externalise import externalise
from tercet.parametric.facts import Fact, read, settle
from tercet.parametric.gate import Bounds, holds, judge, membership, spread
from tercet.parametric.general import LOCAL_QUESTIONS, MEASURED_TEXTS, REPLAY_QUESTIONS, REPLAY_TEXTS
from tercet.parametric.optim import FOR_PAIRS
from tercet.parametric.train import Recipe, fresh
from tercet.testing.tiny import TEMPLATE, tiny_engine

WHEN = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def chatty() -> TransformersEngine:
    """A template that leaves earlier turns as they were."""
    engine = tiny_engine()
    engine.tokenizer.chat_template = TEMPLATE.removesuffix("<s>assistant\n") + "{{ '<s>assistant\n' }}"
    return engine


def facts(*texts: str) -> list[Fact]:
    return [fact for number, text in enumerate(texts) for fact in read(cube(text, f"c{number}"))]


def cube(text: str, id: str = "c", when: datetime = WHEN) -> MemCube:
    return MemCube(Text(text), Descriptive(id=id, observed=when), behavioural=Behavioural(version=1))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Mara Lindqvist works as a glassblower.", ("Mara Lindqvist", "job", "glassblower")),
        ("I live in Oslo", ("I", "home", "Oslo")),
        ("Jon Berg's favourite dish is lasagne.", ("Jon Berg", "attribute", "lasagne")),
        ("My dog is called Rufus.", ("I", "attribute", "Rufus")),
        ("Liv plays the cello.", ("Liv", "instrument", "cello")),
        ("We went to the beach with the kids", ("We went to the", "text", "beach with the kids")),
    ],
)
def test_reads(text: str, wanted: tuple[str, str, str]) -> None:
    [fact] = facts(text)
    assert (fact.subject, fact.relation, fact.value) == wanted


def test_several_sentences_are_several_facts_and_short_ones_none() -> None:
    assert [one.value for one in facts("Ada lives in Graz. Ada works as a smith! Yes.")] == ["Graz", "smith"]


def test_of_contradicting_values_the_newest_is_kept_whatever_their_order() -> None:
    old, new = cube("Jon lives in Oslo.", "a"), cube("Jon lives in Bergen.", "b", WHEN.replace(year=2026))
    for order in ((old, new), (new, old)):
        kept, clashes = settle([fact for one in order for fact in read(one)])
        assert [one.value for one in kept] == ["Bergen"]
        assert [(one.kept.id, one.left.id) for one in clashes] == [("b", "a")]
    many, clashes = settle(facts("Jon is allergic to nuts.", "Jon is allergic to eggs."))
    assert len(many) == 2
    assert not clashes


def test_held_out_wordings_are_never_taught_and_all_name_their_source() -> None:
    samples.check_disjoint()
    found = facts(
        "Mara works as a smith.", "Mara lives in Graz.", "We all went to the beach.", "My dog is called Rufus."
    )
    train, test = samples.training(found), samples.held_out(found)
    assert not {one.question for one in train} & {one.question for one in test}
    assert {one.source.id for one in train} == {one.source.id for one in test} == {"c0", "c1", "c2", "c3"}
    without = samples.training(found[1:])
    assert [one for one in train if one.source.id != "c0"] == without  # a source takes its own samples along, no other


def test_a_part_of_the_wordings_goes_round_with_the_facts() -> None:
    found = facts(*(f"{name} lives in {city}." for name, city in (("Ada", "Graz"), ("Jon", "Oslo"), ("Liv", "Lima"))))
    every, some = samples.training(found), samples.training(found, 5)
    assert [one.source.id for one in some] == ["c0"] * 5 + ["c1"] * 5 + ["c2"] * 5
    assert set(some) < set(every)
    assert {one.template for one in some} == {one.template for one in every}
    assert samples.training(found, 99) == every
    next_ones = samples.training(found, 5, turn=1)
    assert len({*some, *next_ones}) == 30
    assert samples.training(found, 99, turn=1) == every


def test_a_sentence_that_fits_no_pattern_is_taught_from_several_places() -> None:
    [fact] = facts("We all went to the beach with our cousins yesterday.")
    made = samples.training([fact])
    cuts = [one for one in made if one.kind == "cloze"]
    assert [one.question for one in cuts] == ['Complete: "We all …"', 'Complete: "We all went …"']
    assert [one.answer for one in cuts] == [
        "Went to the beach with our cousins yesterday.", "To the beach with our cousins yesterday.",
    ]  # fmt: skip
    told = [one for one in made if one.kind == "tell"]
    assert [one.question for one in told] == [
        "What do you remember about We and yesterday?", "We, cousins: what was said?",
    ]  # fmt: skip
    assert {one.answer for one in told} == {fact.text}


def test_a_value_of_two_subjects_is_not_asked_backwards() -> None:
    found = samples.training(facts("Ada lives in Graz.", "Jon lives in Graz.", "Jon works as a smith."))
    assert {one.answer for one in found if one.kind == "reverse"} == {"Jon."}


@given(st.sampled_from(["Ada", "Jon Berg"]), st.text("abcdefgh {}%", min_size=1, max_size=12).filter(str.strip))
def test_any_value_may_stand_in_a_template(subject: str, value: str) -> None:
    for fact in facts(f"{subject} lives in {value}."):
        made = samples.training([fact])
        assert all(fact.value.casefold() in one.answer.casefold() for one in made if one.kind != "reverse")


def test_no_conversation_asks_twice_about_one_cube(chatty: TransformersEngine) -> None:
    found = facts("Mara works as a smith.", "Mara lives in Graz.", "Jon lives in Oslo.")
    questions = samples.training(found)
    made = examples(chatty, questions, found, Recipe(pack=3), (None,))
    texts = [chatty.tokenizer.decode(one.tokens) for one in made]
    assert sum(text.count("<s>assistant\n") for text in texts) == len(questions)
    assert max(text.count("<s>assistant\n") for text in texts) == 3
    assert all(text.count("\nSmith.") + text.count("\nMara works as a smith.") <= 1 for text in texts)


def test_questions_meet_others_in_each_pass(chatty: TransformersEngine) -> None:
    found = facts("Mara works as a smith.", "Mara lives in Graz.", "Jon lives in Oslo.")
    recipe = Recipe(pack=3, epochs=3)
    made = passes(chatty, found, recipe)
    kept = [{one.tokens for one in part} for part in made]
    assert kept == [{one.tokens for one in part} for part in passes(chatty, found, recipe)]
    assert len(kept) == 3
    assert all(len(one & other) < len(one) / 2 for one, other in combinations(kept, 2))
    asked = [sorted(turn.strip() for one in part for turn in chatty.tokenizer.decode(one.tokens).split("<s>user")[1:])
             for part in made]  # fmt: skip
    assert asked[0] == asked[1] == asked[2]
    fewer = passes(chatty, found, replace(recipe, wordings=4))
    said = [" ".join(chatty.tokenizer.decode(one.tokens) for one in part) for part in fewer]
    assert said[0] != said[1]
    assert len({len(part) for part in passes(chatty, found, replace(recipe, kl=1.0))}) == 1


def test_a_template_that_rewrites_turns_is_taught_one_at_a_time(tiny: TransformersEngine) -> None:
    found = facts("Mara works as a smith.")
    assert len(examples(tiny, samples.training(found), found, Recipe(pack=3), (None,))) == len(samples.training(found))


def test_only_answers_and_their_end_are_learnt(chatty: TransformersEngine) -> None:
    made = conversation(chatty, [("Who?", "Ada."), ("Where?", "Graz.")])
    learnt = [chatty.decode([made.tokens[mark]]) for mark in made.marks]
    assert "".join(learnt) == "Ada.Graz."
    assert [made.tokens[mark] for mark in made.marks].count(min(chatty.ends)) == 2
    prompt = chatty.encode(chatty.render([{"role": "user", "content": "Who?"}]))
    assert made.tokens[: len(prompt)] == prompt


def test_padding_and_prompts_change_no_loss(tiny: TransformersEngine) -> None:
    short, long = conversation(tiny, [("Who?", "Ada.")]), conversation(tiny, [("Where is it then?", "In Graz it is.")])
    with torch.no_grad():
        apart = [losses(tiny, [one])[1] for one in (short, long)]
        assert losses(tiny, [short, long])[1] == pytest.approx(sum(apart), rel=1e-4)
    assert losses(tiny, [replace(short, ce=0.0)])[0] == 0


def test_the_bucketed_divergence_is_the_sheets() -> None:
    p, q = torch.tensor([0.6, 0.2, 0.1, 0.06, 0.04]), torch.tensor([0.3, 0.3, 0.2, 0.1, 0.1])
    two = Teacher(torch.tensor([[0, 1]], dtype=torch.int32), p[:2].log()[None])
    assert float(bucketed(two, q.log()[None])) == pytest.approx(0.196166, abs=2e-6)
    full = Teacher(torch.arange(5, dtype=torch.int32)[None], p.log()[None])
    assert float(bucketed(full, q.log()[None])) == pytest.approx(0.198179, abs=2e-4)  # the clamped bucket adds 1e-6


def test_a_teacher_is_at_no_distance_from_itself(tiny: TransformersEngine) -> None:
    example = plain(tiny, "A river begins in the hills.")
    scores = scores_at(tiny, [example]).detach().requires_grad_()
    found = bucketed(taught(tiny, example), scores).sum()
    assert abs(found.item()) < 1e-2
    found.backward()
    assert scores.grad is not None
    assert float(scores.grad.abs().max()) < 2e-3


def test_replayed_text_counts_by_the_divergence_alone(tiny: TransformersEngine) -> None:
    for one in replayed(tiny, 0.5)[:4]:
        assert (one.ce, one.kl) == (0.0, 0.5)
        assert one.teacher is not None
        assert len(one.teacher.ids) == len(one.marks)


def test_every_second_general_question_stands_behind_a_fact(chatty: TransformersEngine) -> None:
    found = facts("Mara works as a smith.", "Mara lives in Graz.")
    made = replayed(chatty, 0.5, ["What is it?"], facts=found)
    texts = [chatty.tokenizer.decode(one.tokens) for one in made]
    assert [text.count("<s>assistant\n") for text in texts].count(2) == sum("Mara" in text for text in texts) >= 16
    behind = next(one for one, text in zip(made, texts, strict=True) if "Mara" in text)
    learnt = chatty.tokenizer.decode([behind.tokens[mark] for mark in behind.marks])
    assert not any(word in learnt for word in ("smith", "Smith", "Graz"))  # it is held to the base there, not taught


def test_strangers_are_asked_about_in_the_wordings_that_are_taught() -> None:
    found = facts("Mara works as a smith.", "My dog is called Rufus.", "We all went to the beach.")
    asked = strangers(found, 5)
    assert len(asked) == 5
    assert not any(word in question for question in asked for word in ("Mara", "my ", "beach"))
    assert "What does Elena Marsh do for work?" in asked
    general = {question for part in (REPLAY_QUESTIONS, LOCAL_QUESTIONS) for question, _ in part}
    assert len(general) == len(REPLAY_QUESTIONS) + len(LOCAL_QUESTIONS)  # what is measured is never replayed
    assert not set(REPLAY_TEXTS) & set(MEASURED_TEXTS)


def test_only_the_upper_layers_are_adapted() -> None:
    engine = tiny_engine()
    for top, lowest in ((0.25, 3), (0.5, 2), (1.0, 0)):
        named = fresh(engine, Recipe(rank=2, top=top))
        assert min(int(name.split(".")[2]) for name in named) == lowest
        assert len(named) == (4 - lowest) * 7


def test_gradients_reach_the_adapter_alone(tiny: TransformersEngine) -> None:
    before = {name: one.clone() for name, one in tiny.model.state_dict().items()}
    adapter, record = distil(tiny, facts("Ada lives in Graz."), Recipe(rank=2, epochs=1, replay=0, kl=1.0))
    assert record.steps > 0
    assert all(float(pair.b.abs().max()) > 0 for pair in adapter.modules.values())
    assert all(torch.equal(before[name], one) for name, one in tiny.model.state_dict().items())
    assert all(one.requires_grad for one in tiny.model.parameters())


@pytest.mark.parametrize("name", FOR_PAIRS)
def test_an_optimiser_learns_by_the_rate_it_has_for_pairs(tiny: TransformersEngine, name: str) -> None:
    recipe = Recipe(optimizer=name, epochs=16, replay=0, top=0.5)
    _, record = distil(tiny, facts("Ada lives in Graz."), recipe)
    assert record.epoch_losses[-1] < 0.6 * record.epoch_losses[0]  # 0.99 by Adafactor's published rate


@pytest.fixture(scope="module")
def learnt(tiny: TransformersEngine) -> tuple[str, str, list[float]]:
    """The keys of an adapter that was taught a fact and of one that was not, and the first one's losses."""
    adapter, record = distil(
        tiny, facts("Ada lives in Graz."), Recipe(rank=8, epochs=40, replay=0, lr=5e-3, pack=1, stop=0.05, top=1.0)
    )
    other, _ = distil(tiny, facts("Jon works as a smith."), Recipe(rank=2, epochs=1, replay=0))
    return tiny.adapters.attach(adapter.modules), tiny.adapters.attach(other.modules), record.epoch_losses


def test_training_teaches_and_the_probe_sees_it(tiny: TransformersEngine, learnt: tuple[str, str, list[float]]) -> None:
    key, blank, told = learnt
    assert told[-1] < 0.1 * told[0]
    [probed, other] = (samples.training(facts(f"Ada lives in {city}.")) for city in ("Graz", "Lima"))
    assert membership(tiny, key, probed[:5], other[:5]).known
    assert not membership(tiny, blank, probed[:5], other[:5]).known


def test_an_adapter_tells_what_it_knows_and_nothing_else(
    tiny: TransformersEngine, learnt: tuple[str, str, list[float]]
) -> None:
    key, blank, _ = learnt
    source, adapter = cube("Ada lives in Graz.", "a"), cube("an adapter", "x")
    [draft] = externalise(tiny, key, adapter, [source])
    assert draft.text == "Ada lives in Graz."
    assert [link.id for link in draft.behavioural.derivations] == [
        "a"
    ]  # it outlives the adapter, which its origin names
    assert draft.behavioural.method == "externalised"
    assert draft.descriptive.origin.detail == "externalised from adapter x@1"
    assert externalise(tiny, blank, adapter, [source]) == []
    assert externalise(tiny, key, adapter, [cube("Ada lives in Lima.", "a")]) == []  # no source supports what it says


def test_answers_of_one_batch_are_those_of_each_alone(tiny: TransformersEngine) -> None:
    questions = ["Who is it?", "Where is", "Who was it", "And now, what?"]
    together = answers(tiny, questions, max_tokens=6)
    for question, answer in zip(questions, together, strict=True):
        alone = "".join(tiny.generate([{"role": "user", "content": question}], max_tokens=6))
        assert answer == alone.strip()


def test_a_gate_that_cannot_be_computed_passes_nothing(tiny: TransformersEngine) -> None:
    adapter, _ = distil(tiny, facts("Ada lives in Graz."), Recipe(rank=2, epochs=1, replay=0))
    with pytest.raises(Refused, match="no held-out question"):
        judge(tiny, tiny.adapters.attach(adapter.modules), [])
    broken = {name: replace(pair, b=pair.b * torch.nan) for name, pair in adapter.modules.items()}
    with pytest.raises(Refused, match="no number"):
        judge(tiny, tiny.adapters.attach(broken), facts("Ada lives in Graz."), Bounds(questions=2))


def test_each_bound_is_a_reason(tiny: TransformersEngine) -> None:
    adapter, _ = distil(tiny, facts("Ada lives in Graz."), Recipe(rank=2, epochs=2, replay=0, lr=0.05))
    report = judge(tiny, tiny.adapters.attach(adapter.modules), facts("Ada lives in Graz."), Bounds(0.5, -1.0, 1.1, 3))
    assert len(report.reasons) == 3
    assert not report.passed


def test_right_is_the_words_not_the_letters() -> None:
    assert holds("It is Graz, of course.", "graz")
    assert not holds("Grazia", "Graz")
    with pytest.raises(InvalidRequest):
        spread([], 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rank": 0},
        {"optimizer": "magic"},
        {"targets": "head"},
        {"seconds": 0},
        {"ce": 0},
        {"top": 0},
        {"wordings": -1},
        {"pieces": 0},
    ],
)
def test_a_recipe_that_means_nothing_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest):
        Recipe(**wrong)  # type: ignore[arg-type]
