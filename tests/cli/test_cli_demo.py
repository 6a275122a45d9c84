"""The demo, and the conversation that it runs on."""

from __future__ import annotations

from collections import Counter

from tests.cli.command_line import Cli

from tercet.cli.demo import ASKED, TRACE
from tercet.demo import conversation
from tercet.text.read.dates import happened
from tercet.text.read.locomo import locomo_samples


def test_demo_by_words(cli: Cli) -> None:
    done = cli("demo", "--json").json
    assert done["turns"] == 168
    assert done["recall_by"] == "words"
    assert [one["question"] for one in done["asked"]] == list(ASKED)
    assert [cube["version"] for cube in done["history"]] == [1, 2]
    assert done["before"][0]["text"] == done["history"][1]["text"]
    assert done["before"][0]["id"] in done["receipt"]["erased"]
    assert all(hit["id"] != done["before"][0]["id"] for hit in done["after"])
    assert done["files_with_traces"] == []
    assert done["recall@10"] > 0.6
    assert not cli.store.exists()


def test_demo_with_vectors_finds_more(cli: Cli) -> None:
    by_words, by_both = cli("demo", "--json").json, cli("demo", "--json", by_words=False).json
    assert by_both["recall_by"] == "words and vectors"
    assert by_both["recall@10"] > max(by_words["recall@10"], 0.8)


def test_demo_in_a_store_of_its_own_can_be_run_again(cli: Cli) -> None:
    for _ in range(2):
        done = cli("demo", "--store", str(cli.store))
        assert done.code == 0, done.err
        assert "recall@10" in done.out
        assert f"Files of the vault in which {TRACE!r} still stands: 0" in done.out
    assert cli("list", "--tenant", "demo", "--json").json["total"] == 168
    assert cli("list", "--json").json["total"] == 0


def test_evidence_names_turns_that_are_there() -> None:
    [sample] = locomo_samples(conversation())
    turns = {message.ref: message for talk in sample.conversations for message in talk.messages}
    assert len(turns) == 168
    assert len(sample.conversations) == 10
    assert len({message.name for message in turns.values()}) == 3
    assert sum("[image: " in message.content for message in turns.values()) >= 1
    for question in sample.questions:
        assert question.evidence
        assert set(question.evidence) <= set(turns)
        assert question.answer
    assert len({question.question for question in sample.questions}) == len(sample.questions)
    assert set(Counter(question.category for question in sample.questions)) == {1, 2, 3, 4}
    assert all(len(q.evidence) > 1 for q in sample.questions if q.category == 1)


def test_days_in_words_mean_the_days_in_the_answers() -> None:
    [sample] = locomo_samples(conversation())
    turns = {message.ref: message for talk in sample.conversations for message in talk.messages}
    days = {"D1:2": "1 March 2024", "D2:6": "19 March 2024", "D4:3": "30 April 2024", "D5:3": "8 June 2024"}
    days["D10:12"] = "9 January 2025"
    answers = {q.evidence[0]: q.answer or "" for q in sample.questions if q.category == 2}
    for ref, day in days.items():
        message = turns[ref]
        assert message.at is not None
        [when] = happened(message.content, message.at)
        assert f"{when.start.day} {when.start:%B %Y}" == day
        assert day in answers[ref]
