"""In a scope too large to score every row, time and derivations find what words and vectors do not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tercet import Tercet, Text, derive
from tercet.text.recall import scene


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let few rows be many."""
    monkeypatch.setattr(scene, "SMALL", 50)
    monkeypatch.setattr(scene, "CANDIDATES", 5)


def test_a_day_that_the_question_names_is_found_without_its_words(tmp_path: Path) -> None:
    began = datetime(2021, 1, 1, 12, tzinfo=UTC)
    with Tercet.open(tmp_path, embedder=None) as t:
        alice = t.scope(user="alice")
        for day in range(200):
            alice.remember(f"Note of thing{day % 7}", at=began + timedelta(days=day))
        hits = alice.recall("What happened on 5 March 2021?", limit=3)
        assert hits[0].cube.observed == began + timedelta(days=63)
        assert hits[0].why["through"] == "time"
        t.scope(user="bob").remember("Little is scored whole.")
        assert "through" not in t.scope(user="bob").recall("What happened on 5 March 2021?")[0].why


def test_what_was_made_of_a_candidate_is_found_through_it(tmp_path: Path) -> None:
    with Tercet.open(tmp_path, embedder=None) as t:
        alice = t.scope(user="alice")
        cubes = alice.remember_many([f"Note of thing{i}" for i in range(100)])
        summary = alice.remember(derive([cubes[3]], Text("A gist."), method="m"))
        hits = {hit.cube.id: hit for hit in alice.recall("thing3", limit=60)}
        assert hits[cubes[3].id].why["through"] == "words"
        assert hits[summary.id].why["through"] == "links"
        back = {hit.cube.id: hit for hit in alice.recall("gist", limit=60)}
        assert back[cubes[3].id].why["through"] == "links"
        alice.forget(cubes[3].id)
        assert all("links" not in str(hit.why["through"]) for hit in alice.recall("thing4 gist", limit=60))
