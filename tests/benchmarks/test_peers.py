"""The side-by-side run: reading the data, judging the figures, and one real system measured whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from benchmarks.peers import compare, driver, locomo

FOLDER = Path(compare.__file__).resolve().parent


SAMPLE = [
    {
        "sample_id": "conv-1",
        "conversation": {
            "speaker_a": "Ann",
            "speaker_b": "Bo",
            "session_2_date_time": "12:05 am on 1 June, 2023",
            "session_2": [{"speaker": "Bo", "dia_id": "D2:1", "text": "My kayak sank in the fjord."}],
            "session_1_date_time": "1:56 pm on 8 May, 2023",
            "session_1": [
                {"speaker": "Ann", "dia_id": "D1:1", "text": "I planted tulips.", "blip_caption": "a red tulip"},
                {"speaker": "Bo", "dia_id": "D1:2", "text": "Lovely garden."},
                {"speaker": "Ann", "dia_id": "D1:3", "text": "The cat chased a moth."},
            ],
        },
        "qa": [
            {"question": "What sank in the fjord?", "category": 4, "evidence": ["D2:1"], "answer": "a kayak"},
            {"question": "What did Ann plant?", "category": 1, "evidence": ["D1:1; D1:2", "D:9:9"], "answer": "tulips"},
            {"question": "Adversarial?", "category": 5, "evidence": ["D1:1"]},
            {"question": "Nothing points anywhere?", "category": 2, "evidence": ["D7:7"]},
            {"question": "No evidence at all?", "category": 3, "evidence": []},
        ],
    }
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "locomo_dev.json"
    path.write_text(json.dumps(SAMPLE))
    return path


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (["D1:3"], ["D1:3"]),
        (["D8:6; D9:17"], ["D8:6", "D9:17"]),
        (["D9:1 D4:4 D4:6"], ["D9:1", "D4:4", "D4:6"]),
        (["D:11:26", "D11:26"], ["D11:26"]),
        (["D30:05"], ["D30:5"]),
        ([], []),
        (["D"], []),
    ],
)
def test_evidence(raw: list[str], expected: list[str]) -> None:
    assert locomo.evidence(raw) == expected


def test_load_orders_sessions_and_renders_captions(data: Path) -> None:
    (conversation,) = locomo.load(data)
    assert [turn.ref for turn in conversation.turns] == ["D1:1", "D1:2", "D1:3", "D2:1"]
    assert conversation.turns[0].line == "Ann: I planted tulips. [image: a red tulip]"
    assert conversation.turns[0].at == datetime(2023, 5, 8, 13, 56, tzinfo=UTC)
    assert conversation.turns[3].at == datetime(2023, 6, 1, 0, 5, tzinfo=UTC)


def test_load_keeps_questions_that_can_be_answered(data: Path) -> None:
    (conversation,) = locomo.load(data)
    assert [(q.category, q.gold) for q in conversation.questions] == [
        (4, frozenset({"D2:1"})),
        (1, frozenset({"D1:1", "D1:2"})),
    ]


@pytest.mark.parametrize(
    ("ranked", "expected"),
    [
        (["x", "a", "b"], {"recall@10": 1.0, "recall_all@10": 1.0, "hit@10": 1.0, "mrr": 0.5}),
        (["b", "x"], {"recall@10": 0.5, "recall_all@10": 0.0, "hit@10": 1.0, "mrr": 1.0}),
        ([], {"recall@10": 0.0, "recall_all@10": 0.0, "hit@10": 0.0, "mrr": 0.0}),
    ],
)
def test_score(ranked: list[str], expected: dict[str, float]) -> None:
    assert driver.score(ranked, frozenset("ab")) == expected


def test_merge_takes_the_best_timing_and_the_largest_memory() -> None:
    runs: list[dict[str, Any]] = [
        {
            "version": "1",
            "ingest_per_s": 10.0,
            "recall_p50_ms": 9.0,
            "recall@10": 0.5,
            "peak_rss_mb": 70.0,
            "others_cores": 0.4,
        },
        {
            "version": "1",
            "ingest_per_s": 30.0,
            "recall_p50_ms": 4.0,
            "recall@10": 0.6,
            "peak_rss_mb": 60.0,
            "others_cores": 0.1,
        },
    ]
    assert compare.merge(runs) == {
        "version": "1",
        "ingest_per_s": 30.0,
        "recall_p50_ms": 4.0,
        "recall@10": pytest.approx(0.55),
        "peak_rss_mb": 70.0,
        "others_cores": 0.1,
    }


def test_a_busy_machine_is_named() -> None:
    row = {"version": "1", "others_cores": 0.02}
    document: dict[str, Any] = {
        "systems": {"mem0": row | {"others_cores": 0.9}, "tercet": row},
        "data": {"turns": 1, "questions": 1},
        "rounds": 1,
        "machine": {"cores": 2, "cpu": "c"},
        "ratios": {},
        "goals": [],
    }
    assert "(mem0 0.90)" in compare.report(document)
    document["systems"]["mem0"] = row
    assert "Mistrust" not in compare.report(document)


def test_goals_are_judged_on_what_was_measured() -> None:
    systems = {
        "mem0": {"ingest_per_s": 10.0, "recall_p50_ms": 40.0, "recall@10": 0.5},
        "tercet": {"ingest_per_s": 80.0, "embed_per_s": 100.0, "recall_p50_ms": 8.1, "recall@10": 0.7},
    }
    judged = {goal["goal"]: goal["met"] for goal in compare.judge(systems)}
    assert judged == {
        "ingest_per_s / mem0": True,
        "ingest_per_s / tercet embed_per_s": True,
        "recall_p50_ms / mem0": False,
        "recall@10 / mem0": False,
    }
    assert compare.ratios(systems) == {
        "mem0": {"ingest_per_s": 8.0, "recall_p50_ms": pytest.approx(0.2025), "recall@10": pytest.approx(1.4)}
    }


def test_nothing_is_judged_without_tercet() -> None:
    systems = {"mem0": {"ingest_per_s": 10.0}}
    assert compare.judge(systems) == []
    assert compare.ratios(systems) == {}


def _fts5(data: Path, store: Path, *options: str) -> dict[str, Any]:
    script = FOLDER / "sqlite_fts5" / "run.py"
    command = [sys.executable, str(script), "--data", str(data), "--store", str(store), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_system_is_measured_whole(data: Path, tmp_path: Path) -> None:
    answer = _fts5(data, tmp_path / "store", "--singles", "1")
    assert (answer["turns"], answer["questions"], answer["recall@10"]) == (4, 2, 0.75)
    assert answer["by_category"]["1"] == {"questions": 1, "recall@10": 0.5}
    assert answer["network_attempts"] == []
    assert answer["store_bytes"] > 0
    assert "embed_per_s" not in answer
    assert _fts5(data, tmp_path / "store", "--cold")["cold_hits"] > 0


def test_a_failing_system_is_reported_by_name(data: Path) -> None:
    with pytest.raises(RuntimeError, match="sqlite_fts5 exited with 2"):
        compare.measure("sqlite_fts5", Path(sys.executable), data, ["--no-such-option"])


def test_without_data_it_says_so_and_exits_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(FOLDER.with_suffix(".py")), "--json"],
        env=os.environ | {"TERCET_DATA": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert "TERCET_DATA" in done.stderr


@pytest.mark.parametrize("name", compare.PEERS)
def test_every_peer_has_its_folder(name: str) -> None:
    assert (FOLDER / name / "run.py").is_file()
    lines = (FOLDER / name / "requirements.txt").read_text().splitlines()
    wanted = [line for line in lines if line and not line.startswith(("#", "-e"))]
    assert all("==" in line for line in wanted), "a peer's versions are pinned"
