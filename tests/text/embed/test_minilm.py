from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.text.embed import bert, calibrate
from tercet.text.embed.base import Embedding
from tercet.text.embed.minilm import CLS, SEP, MiniLM
from tercet.text.embed.weights import Weights
from tercet.text.embed.windows import OVERLAP, WINDOW

GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text(encoding="utf-8"))
TEXTS = [*GOLDEN["texts"], "", "ok", "word " * 300, "The quick brown fox.", "今天天气很好", "a [SEP] b"]

pytestmark = pytest.mark.slow


def vector(model: MiniLM, text: str) -> bert.Array:
    found: bert.Array = model.embed([text])[0].vectors[0]
    return found


def same(left: Embedding, right: Embedding) -> bool:
    pairs = ((left.vectors, right.vectors), (left.states, right.states), (left.token_ids, right.token_ids))
    return all(np.array_equal(a, b) for a, b in pairs if a is not None and b is not None)


def reference(files: Weights, ids: list[int]) -> bert.Array:
    """The model in plain numpy, float64: last hidden states of tokens with their [CLS] and [SEP]."""
    weights = {name: np.asarray(array, np.float64) for name, array in bert.read_tensors(files.model).items()}

    def linear(name: str, x: bert.Array) -> bert.Array:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, x: bert.Array) -> bert.Array:
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + bert.EPSILON)
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def gelu(x: bert.Array) -> bert.Array:
        gated: bert.Array = x * 0.5 * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))
        return gated

    def heads(x: bert.Array) -> bert.Array:
        return x.reshape(len(ids), bert.HEADS, -1).swapaxes(0, 1)  # (heads, tokens, 32)

    parts = [f"embeddings.{part}_embeddings.weight" for part in ("word", "position", "token_type")]
    x = norm("embeddings.LayerNorm", weights[parts[0]][ids] + weights[parts[1]][: len(ids)] + weights[parts[2]][0])
    for i in range(bert.LAYERS):
        name = f"encoder.layer.{i}"
        q, k, v = (heads(linear(f"{name}.attention.self.{part}", x)) for part in ("query", "key", "value"))
        scores = np.exp(q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1]))
        mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ v
        back = linear(f"{name}.attention.output.dense", mixed.swapaxes(0, 1).reshape(len(ids), -1))
        x = norm(f"{name}.attention.output.LayerNorm", x + back)
        wide = gelu(linear(f"{name}.intermediate.dense", x))
        x = norm(f"{name}.output.LayerNorm", x + linear(f"{name}.output.dense", wide))
    return x


def test_vectors_are_those_of_sentence_transformers(model: MiniLM) -> None:
    ours = np.stack([found.vectors[0] for found in model.embed(GOLDEN["texts"])])
    cosines = (ours * np.array(GOLDEN["vectors"])).sum(axis=1)
    assert cosines.min() > 0.993
    assert cosines.mean() > 0.998


@pytest.mark.parametrize("overflows", [True, False])
def test_processors_of_both_sorts_agree(
    *, overflows: bool, files: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where products of uint8 and int8 overflow, shifted weights give the sums that others have without."""
    here = bert.overflows()
    monkeypatch.setattr(bert, "overflows", lambda: overflows)
    found = np.stack([one.vectors[0] for one in MiniLM(files, cache=tmp_path).embed(GOLDEN["texts"])])
    assert [path.name.endswith("-shifted.onnx") for path in tmp_path.rglob("*.onnx")] == [overflows]
    if overflows or not here:
        assert (found * np.array(GOLDEN["vectors"])).sum(axis=1).mean() > 0.998
    if not here:
        monkeypatch.undo()
        usual = MiniLM(files, cache=tmp_path / "usual").embed(GOLDEN["texts"])
        np.testing.assert_array_equal(found, np.stack([one.vectors[0] for one in usual]))


def test_float32_is_sentence_transformers_to_the_last_digits(files: Weights) -> None:
    exact = MiniLM(files, exact=True)
    ours = np.stack([found.vectors[0] for found in exact.embed(GOLDEN["texts"])])
    np.testing.assert_allclose(ours, np.array(GOLDEN["vectors"]), atol=2e-5)
    assert exact.space != MiniLM(files).space


def test_both_graphs_agree_with_plain_numpy(model: MiniLM, files: Weights) -> None:
    text = "Where did Ana's sister move after the winter?"
    slow = reference(files, [CLS, *model.token_ids(text).tolist(), SEP])
    (fast,) = MiniLM(files, exact=True).embed([text], states=True)
    (small,) = model.embed([text], states=True)
    assert fast.states is not None
    assert small.states is not None
    np.testing.assert_allclose(fast.states, slow[1:-1], atol=1e-4)
    error = np.linalg.norm(small.states - slow[1:-1]) / np.linalg.norm(slow[1:-1])
    assert error < 0.1
    mean = slow.mean(axis=0)
    np.testing.assert_allclose(fast.vectors[0], mean / np.linalg.norm(mean), atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(picks=st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=40))
def test_a_text_embeds_to_the_same_bits_in_any_company(picks: list[int], model: MiniLM) -> None:
    alone = [model.embed([TEXTS[i]], states=True)[0] for i in sorted(set(picks))]
    expected = dict(zip(sorted(set(picks)), alone, strict=True))
    together = model.embed([TEXTS[i] for i in picks], states=True)
    assert all(same(found, expected[i]) for i, found in zip(picks, together, strict=True))


def test_full_batches_give_the_same_bits(model: MiniLM) -> None:
    texts = [f"Number {i} is a memory about the house." for i in range(200)]
    together = model.embed(texts)
    assert all(same(found, model.embed([text])[0]) for found, text in zip(together, texts, strict=True))


def test_threads_may_share_it(files: Weights, cache: Path) -> None:
    fresh = MiniLM(files, threads=2, cache=cache)
    barrier = threading.Barrier(4)

    def work(_: int) -> list[Embedding]:
        barrier.wait()
        return fresh.embed(TEXTS)

    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(work, range(4)))
    expected = MiniLM(files, threads=1, cache=cache).embed(TEXTS)
    assert all(same(a, b) for run in runs for a, b in zip(run, expected, strict=True))


def test_a_forked_child_can_use_it(model: MiniLM, tmp_path: Path) -> None:
    expected = model.embed(TEXTS[:4])
    file = tmp_path / "child.npy"
    child = os.fork()
    if child == 0:  # no pytest in here: leave by os._exit whatever happens
        try:
            np.save(file, np.stack([found.vectors[0] for found in model.embed(TEXTS[:4])]))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    np.testing.assert_array_equal(np.load(file), np.stack([found.vectors[0] for found in expected]))


def test_a_long_text_is_read_to_its_end(model: MiniLM) -> None:
    words = [f"w{i % 10}" for i in range(700)]
    (found,) = model.embed([" ".join(words)], states=True)
    assert found.token_ids is not None
    assert found.states is not None
    count = len(found.token_ids)
    assert count == model.count_tokens(" ".join(words)) > 2 * WINDOW
    assert found.vectors.shape == (-(-(count - OVERLAP) // (WINDOW - OVERLAP)), 384)
    assert found.states.shape == (count, 384)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, rtol=1e-5)
    changed = model.embed([" ".join([*words[:-1], "elephants"])])[0]
    assert np.array_equal(changed.vectors[0], found.vectors[0])
    assert not np.array_equal(changed.vectors[-1], found.vectors[-1])


def test_states_come_from_the_window_that_owns_them(model: MiniLM) -> None:
    ids = model.token_ids("one two three four five six seven eight nine ten " * 40)
    (found,) = model.embed(["one two three four five six seven eight nine ten " * 40], states=True)
    assert found.states is not None
    first = model.forward(ids[None, :WINDOW], ["states"])["states"][0]
    np.testing.assert_array_equal(found.states[: WINDOW - OVERLAP // 2], first[1 : 1 + WINDOW - OVERLAP // 2])


def test_states_are_off_by_default_and_change_nothing(model: MiniLM) -> None:
    plain, more = model.embed(["A short text."])[0], model.embed(["A short text."], states=True)[0]
    assert plain.states is None
    assert plain.token_ids is None
    assert more.states is not None
    assert more.states.shape == (4, 384)
    assert same(plain, more)


@pytest.mark.parametrize("text", ["", "\x00", "\ud800", "\u200f", "🙂" * 50, "\n\n"])
def test_odd_texts_have_a_unit_vector(model: MiniLM, text: str) -> None:
    assert np.linalg.norm(vector(model, text)) == pytest.approx(1, abs=1e-5)


def test_no_texts(model: MiniLM) -> None:
    assert model.embed([]) == []


def test_counting_tokens_loads_no_model(cache: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tercet.text.embed.minilm import MiniLM\n"
        f"print(MiniLM.find(cache=Path({str(cache)!r})).count_tokens('A short text.'), 'onnxruntime' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["4", "False"]


def test_a_damaged_graph_in_the_cache_is_built_again(files: Weights, tmp_path: Path) -> None:
    expected = vector(MiniLM(files, cache=tmp_path), "hello")
    (file,) = tmp_path.glob("*.onnx")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    np.testing.assert_array_equal(vector(MiniLM(files, cache=tmp_path), "hello"), expected)
    assert file.read_bytes() == whole


def test_a_cache_that_cannot_be_written_does_no_harm(files: Weights, tmp_path: Path, model: MiniLM) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    np.testing.assert_array_equal(vector(MiniLM(files, cache=blocked), "hello"), vector(model, "hello"))


def test_processes_may_build_at_once(tmp_path: Path, model: MiniLM) -> None:
    code = (
        "from pathlib import Path; from tercet.text.embed.minilm import MiniLM\n"
        f"print(MiniLM.find(cache=Path({str(tmp_path)!r})).embed(['hello'])[0].vectors.tobytes().hex())"
    )
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = {process.communicate()[0].strip() for process in running}
    assert answers == {vector(model, "hello").tobytes().hex()}
    assert len(list(tmp_path.iterdir())) == 2  # the graph and the notes on hashes: nothing half-written is left


def test_ranges_are_those_that_calibration_measures(files: Weights) -> None:
    measured = calibrate.measure(MiniLM(files, exact=True), calibrate.TEXTS.read_text(encoding="utf-8").splitlines())
    shipped = bert.read_tensors(bert.RANGES)
    assert measured.keys() == shipped.keys()
    for name, array in measured.items():
        np.testing.assert_allclose(shipped[name], array, rtol=1e-3, atol=1e-6, err_msg=name)
