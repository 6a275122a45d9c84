"""Answers are compared as SQuAD's are, and questions ask about nothing that was left out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import real_text


def test_scores_are_squads() -> None:
    found = real_text.scores(["The Cat sat.", "a dog", "no"], ["cat sat", "dog and cat", "yes"])
    assert found["exact"] == pytest.approx(1 / 3)
    assert found["f1"] == pytest.approx((1 + 2 * 1 / (1 + 3) + 0) / 3)


def test_questions_are_about_the_sessions_that_are_taught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {f"session_{n}_observation": {"Ada": [[f"Ada said {n}.", f"D{n}:1"]]} for n in (1, 2, 3)}
    asked = [
        {"question": str(n), "answer": n, "category": category, "evidence": evidence}
        for n, (category, evidence) in enumerate(
            [(4, ["D1:1"]), (1, ["D1:1", "D2:4"]), (1, ["D1:1", "D3:4"]), (2, ["D1:1"]), (4, [])]
        )
    ]
    (tmp_path / "locomo_dev.json").write_text(json.dumps([{"observation": told, "qa": asked}]), encoding="utf-8")
    monkeypatch.setenv("TERCET_DATA", str(tmp_path))
    assert real_text.conversation(sessions=2) == (["Ada said 1.", "Ada said 2."], [("0", "0"), ("1", "1")])
