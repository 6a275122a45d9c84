"""Segments: what is written is found, by scan and by cells; damage is noticed; a file is whole or absent."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tercet.errors import InvalidRequest, VaultDamaged, VaultError, VaultTooNew
from tercet.vault.search import segment_file
from tercet.vault.search.graph import Graph, OpenGraph
from tercet.vault.search.lvq import LVQ, Floats
from tercet.vault.search.lvq_scores import Metric, normalised
from tercet.vault.search.segment import Segment, file_name
from tercet.vault.search.segment_file import Section, SegmentReader, writing

CODERS = [LVQ(8), LVQ(4), LVQ(4, 4), LVQ(4, 8), LVQ(8, 8), LVQ(8, 4, symmetric=True)]
LINKED = LVQ(8, 4, symmetric=True)
METRICS: list[Metric] = ["ip", "l2", "cosine"]
SMALL = Graph(breadth=64, least=100)


def clustered(n: int, dim: int, seed: int = 0) -> Floats:
    """Vectors around 60 centres, as texts on 60 subjects would lie."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(60, dim))
    return (centres[random.integers(0, 60, n)] + 0.6 * random.normal(size=(n, dim))).astype(np.float32)


def brute_force(vectors: Floats, query: Floats, metric: Metric) -> NDArray[np.float64]:
    exact = vectors.astype(np.float64)
    if metric == "l2":
        return np.asarray(-np.square(exact - query).sum(axis=1))
    if metric == "cosine":
        return np.asarray(normalised(vectors).astype(np.float64) @ query / np.linalg.norm(query))
    return np.asarray(exact @ query)


def written(folder: Path, vectors: Floats, lvq: LVQ, metric: Metric = "cosine", graph: Graph | None = None) -> Segment:
    path = folder / file_name(1, 1)
    numbers = np.arange(len(vectors)) * 10 + 3
    Segment.write(path, numbers, vectors, lvq, 77, metric=metric, graph=graph)
    return Segment.open(path)


def near(segment: Segment, query: Floats, k: int) -> tuple[NDArray[np.int64], Floats]:
    found = segment.near(query, k, breadth=64)
    assert found is not None
    return found


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("lvq", CODERS, ids=str)
def test_a_scan_finds_what_brute_force_finds(tmp_path: Path, lvq: LVQ, metric: Metric) -> None:
    vectors = clustered(900, 33)
    segment = written(tmp_path, vectors, lvq, metric)
    overlap = []
    for query in clustered(20, 33, seed=1):
        numbers, scores = segment.search(query, 10)
        wanted = brute_force(vectors, query, metric)
        best = np.argsort(-wanted, kind="stable")[:10] * 10 + 3
        overlap.append(len(np.intersect1d(numbers, best)) / 10)
        assert (np.diff(scores) <= 0).all()
        error = np.abs(scores - wanted[(numbers - 3) // 10])
        assert error.max() < np.abs(wanted).max() * (0.1 if lvq.size(33, 1) < 30 else 0.01)
    assert np.mean(overlap) >= (0.8 if lvq == LVQ(4) else 0.96)
    assert (segment.seq, segment.dim, len(segment), segment.lvq, segment.metric) == (77, 33, 900, lvq, metric)


@pytest.mark.parametrize("metric", METRICS)
def test_two_levels_find_more_than_one(tmp_path: Path, metric: Metric) -> None:
    vectors, queries = clustered(2000, 48), clustered(40, 48, seed=1)
    recalls = []
    for lvq in (LVQ(4), LVQ(4, 4), LVQ(4, 8)):
        segment = written(tmp_path, vectors, lvq, metric)
        found = [segment.search(query, 10)[0] for query in queries]
        wanted = [np.argsort(-brute_force(vectors, query, metric))[:10] * 10 + 3 for query in queries]
        recalls.append(np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, wanted, strict=True)]))
    assert recalls[0] < recalls[1] <= recalls[2]
    assert recalls[2] > 0.99


def test_the_graph_finds_nearly_what_a_scan_finds(tmp_path: Path) -> None:
    vectors, queries = clustered(6000, 24), clustered(100, 24, seed=1)
    segment = written(tmp_path, vectors, LINKED, graph=SMALL)
    assert segment.has_graph
    by_scan = [segment.search(query, 10) for query in queries]
    found = [near(segment, query, 10) for query in queries]
    assert np.mean([len(np.intersect1d(a, b)) / 10 for (a, _), (b, _) in zip(found, by_scan, strict=True)]) > 0.98
    for (numbers, scores), query in zip(found, queries, strict=True):
        # What the graph proposed is scored from both levels, as a scan's candidates are.
        assert scores.tolist() == sorted(segment.scores(query, (numbers - 3) // 10).tolist(), reverse=True)


def test_two_levels_rerank_what_the_graph_finds_by_one(tmp_path: Path) -> None:
    vectors, queries = clustered(3000, 24), clustered(60, 24, seed=1)
    recalls = []
    for lvq in (LVQ(8, symmetric=True), LINKED):
        segment = written(tmp_path, vectors, lvq, graph=SMALL)
        wanted = [np.argsort(-brute_force(vectors, query, "cosine"))[:10] * 10 + 3 for query in queries]
        found = [near(segment, query, 10)[0] for query in queries]
        recalls.append(np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, wanted, strict=True)]))
    assert recalls[0] < recalls[1]
    assert recalls[1] > 0.98


def test_a_filter_does_not_lower_the_recall_of_the_graph(tmp_path: Path) -> None:
    vectors, queries = clustered(6000, 24), clustered(60, 24, seed=1)
    segment = written(tmp_path, vectors, LINKED, graph=SMALL)
    random = np.random.default_rng(3)
    for part in (1.0, 0.7, 0.3):
        mask = random.random(6000) < part
        shared = []
        for query in queries:
            wanted, _ = segment.search(query, 10, allowed=mask)
            numbers, _ = segment.near(query, 10, breadth=64, allowed=mask) or (np.zeros(0, np.int64), None)
            if len(numbers):
                assert mask[(numbers - 3) // 10].all()
                shared.append(len(np.intersect1d(numbers, wanted)) / 10)
        assert len(shared) > 30
        assert np.mean(shared) > 0.98


def test_there_is_no_graph_where_a_scan_is_better(tmp_path: Path) -> None:
    vectors = clustered(1500, 16)
    for metric in METRICS:
        assert written(tmp_path, vectors, LINKED, metric, SMALL).has_graph == (metric == "cosine")
    for lvq in (LVQ(8, 4), LVQ(4, 8, symmetric=True)):
        assert not written(tmp_path, vectors, lvq, graph=SMALL).has_graph
    assert not written(tmp_path, vectors[:99], LINKED, graph=SMALL).has_graph
    segment = written(tmp_path, vectors, LINKED, graph=SMALL)
    assert segment.near(vectors[0], 10, breadth=64, allowed=segment.numbers[:100].astype(np.int64)) is None
    far = np.zeros(1500, np.bool_)
    far[np.argsort(brute_force(vectors, vectors[0], "cosine"))[:400]] = True  # none of them is among the near
    assert segment.near(vectors[0], 10, breadth=64, allowed=far) is None


def test_a_graph_is_of_bounded_degree_and_reaches_all(tmp_path: Path) -> None:
    written(tmp_path, clustered(5000, 24), LINKED, graph=SMALL)
    made = SegmentReader(tmp_path / file_name(1, 1)).array("graph")
    links = bottom_links(made, 5000, 24)
    assert max(len(each) for each in links) <= 2 * SMALL.degree
    seen, border = {0}, [0]
    while border:
        border = [each for each in {n for row in border for n in links[row]} if each not in seen]
        seen |= set(border)
    assert len(seen) >= 0.999 * 5000


def bottom_links(made: NDArray[np.uint8], n: int, dim: int) -> list[list[int]]:
    """Each row's neighbours in the lowest layer, read from the bytes that usearch writes."""
    at = 8 + n * dim + 64  # the matrix, a description of it
    size, upper, lower = np.frombuffer(made[at : at + 24].tobytes(), np.uint64).tolist()
    assert (size, upper, lower) == (n, SMALL.degree, 2 * SMALL.degree)
    at += 40
    levels = np.frombuffer(made[at : at + 2 * n].tobytes(), np.int16)
    at += 2 * n
    links = []
    for level in levels.tolist():
        row = np.frombuffer(made[at + 10 : at + 14 + 4 * lower].tobytes(), np.uint32)  # after a key and a level
        links.append(row[1 : 1 + int(row[0])].tolist())
        at += 14 + 4 * lower + level * (4 + 4 * upper)
    assert at == len(made)
    return links


def test_a_graph_that_usearch_cannot_read_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = Graph.build

    def cut(self: Graph, codes: NDArray[np.int8]) -> NDArray[np.uint8]:
        return build(self, codes)[: codes.size + 20]

    monkeypatch.setattr(Graph, "build", cut)
    with pytest.raises(VaultDamaged, match="graph"):
        written(tmp_path, clustered(200, 8), LINKED, graph=SMALL)


def test_usearch_sees_no_byte_before_the_checksum_was_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segment = written(tmp_path, clustered(200, 8), LINKED, graph=SMALL)
    described = SegmentReader(segment.path)._sections["graph"]
    data = bytearray(segment.path.read_bytes())
    data[described["offset"] + described["shape"][0] - 9] ^= 1
    segment.path.write_bytes(bytes(data))

    def never(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(OpenGraph, "__init__", never)
    with pytest.raises(VaultDamaged, match="graph"):
        Segment.open(segment.path)


def test_the_same_vectors_give_the_same_bytes(tmp_path: Path) -> None:
    vectors, numbers = clustered(1500, 16), np.arange(1500)
    for name in ("a", "b"):
        Segment.write(tmp_path / name, numbers, vectors, LINKED, 1, graph=SMALL)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("lvq", [LVQ(8, 8), LINKED], ids=str)
@pytest.mark.parametrize("count", [1, 7, 150, 1200])
def test_only_what_is_allowed_is_found(tmp_path: Path, lvq: LVQ, count: int) -> None:
    vectors = clustered(1500, 16)
    segment = written(tmp_path, vectors, lvq, graph=SMALL)
    numbers = np.random.default_rng(5).choice(segment.numbers, count, replace=False)
    mask = np.isin(segment.numbers, numbers)
    for query in clustered(5, 16, seed=1):
        similar = brute_force(vectors, query, "cosine")
        wanted = sorted(numbers, key=lambda number: -similar[(number - 3) // 10])[:10]
        for allowed in (numbers, mask):
            found, _ = segment.search(query, 10, allowed=allowed)
            assert set(found) <= set(numbers)
            assert len(np.intersect1d(found, wanted)) >= 0.8 * len(wanted)
    assert not len(segment.search(vectors[0], 10, allowed=np.zeros(1500, np.bool_))[0])
    assert not len(segment.search(vectors[0], 10, allowed=np.array([4, 5]))[0])


def test_a_number_with_several_vectors_is_found_once_by_its_best(tmp_path: Path) -> None:
    vectors = clustered(300, 16)
    Segment.write(tmp_path / "s", np.arange(300) // 3, vectors, LVQ(8, 8), 1)
    segment = Segment.open(tmp_path / "s")
    numbers, scores = segment.search(vectors[100], 5)
    assert numbers[0] == 33
    assert scores[0] == pytest.approx(1, abs=1e-3)
    assert len(set(numbers)) == 5
    rows = segment.rows_of(np.array([33, 33, 1000]))
    assert (segment.numbers[rows] == 33).all()
    assert len(rows) == 3
    best = {number: segment.scores(vectors[100], segment.rows_of(np.array([number]))).max() for number in numbers}
    assert list(best.values()) == scores.tolist()


def test_scores_are_the_same_for_any_rows(tmp_path: Path) -> None:
    vectors = clustered(500, 16)
    segment = written(tmp_path, vectors, LVQ(4, 8))
    everything = segment.scores(vectors[3])
    rows = np.array([400, 2, 2, 77])
    assert (segment.scores(vectors[3], rows) == everything[rows]).all()


def test_of_equal_vectors_the_lower_number_comes_first(tmp_path: Path) -> None:
    vectors = np.repeat(clustered(20, 16), 4, axis=0)
    Segment.write(tmp_path / "s", np.arange(80)[::-1].copy(), vectors, LVQ(8), 1)
    numbers, scores = Segment.open(tmp_path / "s").search(vectors[0], 8)
    assert (np.diff(scores) <= 0).all()
    assert numbers[:4].tolist() == [76, 77, 78, 79]


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_vectors_are_a_segment_too(tmp_path: Path, n: int) -> None:
    segment = written(tmp_path, clustered(n, 5), LVQ(4, 8))
    numbers, scores = segment.search(np.ones(5, np.float32), 10)
    assert len(numbers) == len(scores) == len(segment) == n


def test_equal_vectors_can_be_searched_by_a_graph(tmp_path: Path) -> None:
    segment = written(tmp_path, np.ones((400, 8), np.float32), LINKED, graph=SMALL)
    numbers, scores = near(segment, np.ones(8, np.float32), 3)
    assert len(numbers) == 3
    assert np.isin(numbers, segment.numbers).all()
    assert scores == pytest.approx([1, 1, 1], abs=1e-3)


def test_half_precision_and_memory_maps_will_do(tmp_path: Path) -> None:
    vectors = clustered(300, 16).astype(np.float16)
    np.save(tmp_path / "v.npy", vectors)
    for name, given in (("a", vectors), ("b", np.load(tmp_path / "v.npy", mmap_mode="r"))):
        Segment.write(tmp_path / name, np.arange(300), given, LINKED, 1, graph=SMALL)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_memory_is_a_quarter_of_float32(tmp_path: Path) -> None:
    segment = written(tmp_path, clustered(400, 384), LVQ(8))
    assert segment.nbytes / len(segment) < 384 * 4 / 3
    assert segment.mapped == 0
    two = written(tmp_path, clustered(400, 384), LVQ(4, 8))
    assert two.nbytes / len(two) < 384 * 4 / 5
    assert two.mapped == 400 * 384


@pytest.mark.parametrize("lvq", [LVQ(4), LVQ(4, 8), LINKED], ids=str)
def test_every_flipped_byte_is_noticed(tmp_path: Path, lvq: LVQ) -> None:
    segment = written(tmp_path, clustered(150, 8), lvq, graph=SMALL)
    good, query = segment.path.read_bytes(), np.ones(8, np.float32)
    wanted = segment.search(query, 150)
    random = np.random.default_rng(0)
    for at in [*range(64), *random.integers(64, len(good), 300).tolist()]:
        bad = bytearray(good)
        bad[at] ^= 1 << int(random.integers(8))
        segment.path.write_bytes(bad)
        try:
            numbers, scores = Segment.open(segment.path).search(query, 150)
        except VaultDamaged:
            continue
        assert at >= 64
        # Nothing but the padding between sections may change without notice.
        assert (numbers == wanted[0]).all()
        assert (scores == wanted[1]).all()
        assert not _in_a_section(segment.path, good, at)


def _in_a_section(path: Path, good: bytes, at: int) -> bool:
    path.write_bytes(good)
    reader = SegmentReader(path)
    spans = [(each["offset"], Section(each["dtype"], each["shape"]).size) for each in reader._sections.values()]
    return any(start <= at < start + size for start, size in spans)


@pytest.mark.parametrize("left", [0, 10, 63, 64, 500, 0.5, 0.99])
def test_a_cut_file_is_noticed(tmp_path: Path, left: float) -> None:
    segment = written(tmp_path, clustered(150, 8), LVQ(4, 8))
    whole = segment.path.read_bytes()
    segment.path.write_bytes(whole[: int(left * len(whole)) if isinstance(left, float) else left])
    with pytest.raises(VaultDamaged, match="damaged"):
        Segment.open(segment.path)


def test_damage_on_the_second_level_is_noticed_when_it_is_read(tmp_path: Path) -> None:
    segment = written(tmp_path, clustered(1000, 8), LVQ(4, 8))
    place = SegmentReader(segment.path)._sections["residual"]["offset"] + 8 * 700
    with segment.path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 4]))
    again = Segment.open(segment.path)
    assert len(again.scores(np.ones(8, np.float32), np.arange(640))) == 640
    with pytest.raises(VaultDamaged, match="residual"):
        again.scores(np.ones(8, np.float32), np.array([650]))
    with pytest.raises(VaultDamaged, match="residual"):
        SegmentReader(segment.path).verify()


def test_a_segment_that_is_not_there_is_damage(tmp_path: Path) -> None:
    with pytest.raises(VaultDamaged, match="not there"):
        Segment.open(tmp_path / "none")


def test_a_folder_that_is_not_there_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(VaultError, match="No such file") as raised:
        Segment.write(tmp_path / "none" / "s", np.arange(3), clustered(3, 4), LVQ(8), 1)
    assert not isinstance(raised.value, VaultDamaged)


def test_a_file_of_a_newer_format_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment_file, "FORMAT", 2)
    path = written_raw(tmp_path)
    monkeypatch.undo()
    with pytest.raises(VaultTooNew, match="format 2"):
        Segment.open(path)


def written_raw(folder: Path) -> Path:
    with writing(folder / "raw", {"a": 1}, {"x": Section("<i4", (2,))}) as file:
        file.append("x", np.array([1, 2], np.int32))
    return folder / "raw"


def interrupted(path: Path) -> None:
    with writing(path, {}, {"x": Section("<i4", (2,))}) as file:
        file.append("x", np.array([7, 8], np.int32))
        assert len(list(path.parent.iterdir())) == 2
        raise KeyboardInterrupt


def unfilled(path: Path) -> None:
    with writing(path, {}, {"x": Section("<i4", (2,))}) as file:
        file.append("x", np.array([7], np.int32))


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written_raw(tmp_path)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt):
        interrupted(path)
    with pytest.raises(ValueError, match="4 bytes of 8"):
        unfilled(path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(VaultError, match="No space left"):
        written_raw(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["raw"]
    assert path.read_bytes() == before


def test_it_is_synced_before_it_is_named_and_its_folder_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    sync, rename = os.fsync, Path.replace

    def seen_sync(handle: int) -> None:
        done.append("folder" if Path(f"/proc/self/fd/{handle}").resolve().is_dir() else "file")
        sync(handle)

    def seen_rename(self: Path, target: Path) -> Path:
        done.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", seen_sync)
    monkeypatch.setattr(Path, "replace", seen_rename)
    written_raw(tmp_path)
    assert done == ["file", "rename", "folder"]


def test_an_open_segment_outlives_its_file(tmp_path: Path) -> None:
    segment = written(tmp_path, clustered(2000, 16), LVQ(4, 8))
    fresh = Segment.open(segment.path)
    wanted = segment.search(np.ones(16, np.float32), 10)
    Segment.write(segment.path, np.arange(5), clustered(5, 16), LVQ(8), 2)
    segment.path.unlink()
    found = fresh.search(np.ones(16, np.float32), 10)
    assert found[0].tolist() == wanted[0].tolist()


def test_threads_may_share_a_segment(tmp_path: Path) -> None:
    segment = written(tmp_path, clustered(3000, 16), LINKED, graph=SMALL)
    queries = clustered(40, 16, seed=1)
    wanted = [near(segment, query, 5)[0].tolist() for query in queries]
    found: dict[int, list[list[int]]] = {}
    fresh = Segment.open(segment.path)

    def run(name: int) -> None:
        found[name] = [near(fresh, query, 5)[0].tolist() for query in queries]

    threads = [threading.Thread(target=run, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(found.values()) == [wanted] * 4


def test_bad_input_is_refused(tmp_path: Path) -> None:
    vectors = clustered(20, 8)
    segment = written(tmp_path, vectors, LVQ(8))
    for query, k in ((np.ones(7), 1), (np.full(8, np.inf), 1), (np.ones(8), 0)):
        with pytest.raises(InvalidRequest):
            segment.search(query, k)
    with pytest.raises(InvalidRequest, match="mask"):
        segment.search(np.ones(8), 1, allowed=np.ones(19, np.bool_))
    vectors[7, 7] = np.nan
    for numbers, given in ((np.arange(20), vectors), (np.arange(19), clustered(20, 8)), (np.arange(8), vectors[0])):
        with pytest.raises(InvalidRequest):
            Segment.write(tmp_path / "bad", numbers, given, LVQ(8), 1)
    assert not (tmp_path / "bad").exists()
