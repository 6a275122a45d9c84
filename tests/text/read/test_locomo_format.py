from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tercet.errors import InvalidRequest
from tercet.text.read.locomo import Question, evidence_ids, locomo_samples, parse_time, read_locomo, samples

Raw: TypeAlias = Any  # parsed JSON
HERE = Path(__file__).parents[2] / "fixtures" / "read" / "locomo.json"
DATA = Path(os.environ.get("TERCET_DATA", "../shared/data")) / "locomo_dev.json"


@pytest.fixture
def raw() -> Raw:
    return json.loads(HERE.read_text())


def test_reads_sessions_in_the_order_of_their_numbers() -> None:
    (sample,) = locomo_samples(HERE)
    assert sample.id == "conv-1"
    assert [(c.session, len(c.messages)) for c in sample.conversations] == [("session_1", 2), ("session_2", 1)]


def test_turns_have_speaker_time_and_ref() -> None:
    first, second = locomo_samples(HERE)[0].conversations[0].messages
    assert (first.name, first.ref, first.session, first.content) == ("Ana", "D1:1", "session_1", "I painted the shed.")
    assert first.at == datetime(2023, 5, 8, 13, 56, 0, tzinfo=UTC)
    assert second.at == datetime(2023, 5, 8, 13, 56, 1, tzinfo=UTC)


def test_a_caption_is_said_and_a_search_query_never() -> None:
    turn = locomo_samples(HERE)[0].conversations[0].messages[1]
    assert turn.content == "Show me! [image: a green shed]"


def test_questions() -> None:
    assert locomo_samples(HERE)[0].questions == (
        Question("What did Ana paint?", "the shed", ("D1:1",), 4),
        Question("In which year?", "2023", ("D1:1", "D2:1", "D1:2"), 2),
        Question("What did Ben paint?", None, (), 5, "the shed"),
    )


@pytest.mark.parametrize(
    ("written", "ids"),
    [
        (["D8:6; D9:17"], ("D8:6", "D9:17")),
        (["D9:1 D4:4 D4:6"], ("D9:1", "D4:4", "D4:6")),
        (["D:11:26"], ("D11:26",)),
        (["D30:05", "D30:5"], ("D30:5",)),
        (["D"], ()),
        ([], ()),
    ],
)
def test_evidence_is_normalised(written: list[str], ids: tuple[str, ...]) -> None:
    assert evidence_ids(written) == ids


@pytest.mark.parametrize(
    ("written", "hour", "minute"),
    [("1:56 pm on 8 May, 2023", 13, 56), ("12:09 am on 8 May, 2023", 0, 9), ("12:09 pm on 8 May, 2023", 12, 9)],
)
def test_times(written: str, hour: int, minute: int) -> None:
    assert parse_time(written) == datetime(2023, 5, 8, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize("written", ["8 May 2023", "1:56 pm on 8 Foo, 2023", ""])
def test_a_time_of_another_form_is_refused(written: str) -> None:
    with pytest.raises(InvalidRequest, match="is not like"):
        parse_time(written)


def test_several_samples_do_not_share_refs(raw: Raw) -> None:
    other = json.loads(json.dumps(raw[0])) | {"sample_id": "conv-2"}
    found = read_locomo([raw[0], other])
    assert [c.session for c in found] == [
        "conv-1/session_1",
        "conv-1/session_2",
        "conv-2/session_1",
        "conv-2/session_2",
    ]
    assert len({m.ref for c in found for m in c.messages}) == 6
    assert read_locomo(raw)[0].messages[0].ref == "D1:1"


@pytest.mark.parametrize("broken", ["conversation", "session_1_date_time", "speaker", "turn"])
def test_a_broken_sample_is_named(raw: Raw, broken: str) -> None:
    talk = raw[0]["conversation"]
    if broken == "turn":
        talk["session_1"][0] = "words"
    else:
        del {"conversation": raw[0], "speaker": talk["session_1"][0]}.get(broken, talk)[broken]
    with pytest.raises(InvalidRequest, match="LoCoMo sample 1"):
        samples(raw)


def test_a_file_that_is_not_json(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"\xff{")
    with pytest.raises(InvalidRequest, match=r"x\.json is not JSON"):
        locomo_samples(tmp_path / "x.json")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read: No such file"):
        locomo_samples(tmp_path / "x.json")


@pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there; set TERCET_DATA")
def test_the_real_file_is_read_whole() -> None:
    found = locomo_samples(DATA)
    raw = json.loads(DATA.read_bytes())
    assert sum(len(c.messages) for s in found for c in s.conversations) == sum(
        len(turns) for s in raw for key, turns in s["conversation"].items() if isinstance(turns, list)
    )
    assert all(q.evidence for s in found for q in s.questions if q.category in {1, 4})
