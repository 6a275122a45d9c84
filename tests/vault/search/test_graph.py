"""The graph finds what a scan finds, is the same each time, and its bytes are checked before the native library."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tercet.errors import InvalidRequest, Unsupported, VaultDamaged
from tercet.vault.search.graph import Graph
from tercet.vault.search.lvq import LVQ, Floats
from tercet.vault.search.segment import Segment

pytest.importorskip("usearch", reason="the graph is an extra")


def clustered(n: int, seed: int = 0) -> Floats:
    """Vectors of 24 dimensions around 60 centres."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(60, 24))
    return (centres[random.integers(0, 60, n)] + 0.6 * random.normal(size=(n, 24))).astype(np.float32)


def written(folder: Path, n: int = 3000) -> tuple[Segment, Path]:
    Segment.write(folder / "s.lvq", np.arange(n) * 2 + 1, clustered(n), LVQ(8, 8), 5)
    segment = Segment.open(folder / "s.lvq")
    Graph.write(folder / "s.graph", segment)
    return segment, folder / "s.graph"


def test_it_finds_what_a_scan_finds_and_scores_it_alike(tmp_path: Path) -> None:
    segment, path = written(tmp_path)
    graph = Graph.open(path, segment)
    assert len(graph) == 3000
    overlap = []
    for query in clustered(60, seed=1):
        by_scan, wanted = segment.search(query, 10)
        numbers, scores = graph.search(query, 10, window=100)
        overlap.append(len(np.intersect1d(numbers, by_scan)) / 10)
        both = np.isin(numbers, by_scan)
        assert set(scores[both].tolist()) <= set(wanted.tolist())
        assert (np.diff(scores) <= 0).all()
    assert np.mean(overlap) > 0.97


def test_a_wider_window_finds_more(tmp_path: Path) -> None:
    segment, path = written(tmp_path)
    graph = Graph.open(path, segment)
    recalls = []
    for window in (10, 40, 160):
        found = [
            (graph.search(query, 10, window=window)[0], segment.search(query, 10)[0]) for query in clustered(60, 1)
        ]
        recalls.append(np.mean([len(np.intersect1d(a, b)) / 10 for a, b in found]))
    assert recalls[0] < recalls[1] <= recalls[2]


@pytest.mark.parametrize("part", [0.9, 0.5, 0.05, 0.001])
def test_what_is_left_out_costs_no_recall(tmp_path: Path, part: float) -> None:
    segment, path = written(tmp_path)
    graph = Graph.open(path, segment)
    allowed = np.random.default_rng(2).random(3000) < part
    overlap = []
    for query in clustered(40, seed=1):
        by_scan, _ = segment.search(query, 10, allowed=allowed)
        found, _ = graph.search(query, 10, allowed=allowed, window=100)
        assert np.isin(found, segment.numbers[allowed]).all()
        overlap.append(len(np.intersect1d(found, by_scan)) / max(1, len(by_scan)))
    assert np.mean(overlap) > 0.97


def test_every_row_can_be_reached(tmp_path: Path) -> None:
    segment, path = written(tmp_path)
    graph = Graph.open(path, segment)
    vectors = clustered(3000)
    found = [graph.search(vector, 1)[0][0] for vector in vectors]
    assert np.mean(np.array(found) == np.arange(3000) * 2 + 1) >= 0.999


def test_the_same_segment_gives_the_same_bytes(tmp_path: Path) -> None:
    segment, path = written(tmp_path)
    Graph.write(tmp_path / "again", segment)
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_damage_never_reaches_the_native_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from usearch.index import Index

    segment, path = written(tmp_path, 200)
    good = path.read_bytes()
    loaded: list[int] = []
    monkeypatch.setattr(Index, "load", lambda _, data: loaded.append(len(data)))
    random = np.random.default_rng(0)
    for at in random.integers(64, len(good) - 64, 200).tolist():
        bad = bytearray(good)
        bad[at] ^= 1 << int(random.integers(8))
        path.write_bytes(bad)
        with pytest.raises(VaultDamaged):
            Graph.open(path, segment)
    for left in (0, 63, 64, 1000, len(good) - 1):
        path.write_bytes(good[:left])
        with pytest.raises(VaultDamaged):
            Graph.open(path, segment)
    assert not loaded


def test_a_graph_of_another_segment_is_refused(tmp_path: Path) -> None:
    _, path = written(tmp_path, 200)
    Segment.write(tmp_path / "other.lvq", np.arange(200), clustered(200, seed=5), LVQ(8, 8), 5)
    with pytest.raises(VaultDamaged, match="another segment"):
        Graph.open(path, Segment.open(tmp_path / "other.lvq"))


def test_few_rows_are_a_graph_too(tmp_path: Path) -> None:
    for n in (0, 1, 3):
        (tmp_path / str(n)).mkdir()
        segment, path = written(tmp_path / str(n), n)
        assert len(Graph.open(path, segment).search(np.ones(24, np.float32), 10)[0]) == n


def test_bad_input_is_refused(tmp_path: Path) -> None:
    segment, path = written(tmp_path, 50)
    graph = Graph.open(path, segment)
    for query, k in ((np.ones(23), 1), (np.full(24, np.nan), 1), (np.ones(24), 0)):
        with pytest.raises(InvalidRequest):
            graph.search(query, k)
    Segment.write(tmp_path / "l2", np.arange(50), clustered(50), LVQ(8), 1, metric="l2")
    with pytest.raises(InvalidRequest, match="cosine"):
        Graph.write(tmp_path / "g", Segment.open(tmp_path / "l2"))


def test_without_usearch_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segment, path = written(tmp_path, 50)
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    with pytest.raises(Unsupported, match="pip install"):
        Graph.open(path, segment)
