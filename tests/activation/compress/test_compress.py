"""Each compressor against its equation, the contract for all of them, and a whole cache through one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tercet.activation.compress import COMPRESSORS
from tercet.activation.compress.ada_kv import AdaKV
from tercet.activation.compress.apply import compress
from tercet.activation.compress.base import Compressor, LayerView, smooth, window_attention
from tercet.activation.compress.expected_attention import ExpectedAttention
from tercet.activation.compress.k_norm import KNorm
from tercet.activation.compress.reform import Reform, mean_normalised_rank, spread_maximum
from tercet.activation.compress.scale_kv import ScaleKV, shared_out, z_scores
from tercet.activation.compress.snap_kv import SnapKV
from tercet.activation.compress.streaming_llm import StreamingLLM
from tercet.activation.compress.tova import Tova
from tercet.cube import ModelIdentity
from tercet.engine.cache import Entry, EntryKind, KVCache
from tercet.errors import InvalidRequest
from tercet.testing.compressing import CompressorTests, layers_of, rotate


@pytest.mark.parametrize("name", COMPRESSORS)
class TestContract(CompressorTests):
    @pytest.fixture
    def compressor(self, name: str) -> Compressor:
        return COMPRESSORS[name]


def view(keys: list[list[float]], values: list[list[float]] | None = None) -> LayerView:
    """One head."""
    k = torch.tensor([keys])
    return LayerView(0, 1, k, torch.ones_like(k) if values is None else torch.tensor([values]), 1.0)


def test_streaming_keeps_the_first_four_and_the_newest() -> None:
    [layer] = layers_of(100, layers=1)
    assert StreamingLLM().keep(layer, 20)[0].tolist() == [0, 1, 2, 3, *range(84, 100)]


def test_keys_of_small_norm_stay() -> None:
    assert KNorm().keep(view([[3, 0], [0, 1], [2, 0], [0, 0.5]]), 2)[0].tolist() == [1, 3]


def test_snap_keeps_its_window_and_what_the_window_attends_to() -> None:
    [layer] = layers_of(200, layers=1)
    assert layer.queries is not None
    keys = layer.keys.clone()
    keys[:, 50] = 10 * layer.queries[:, -1].view(2, 3, -1).mean(dim=1)  # the last query's friend
    rows = SnapKV(window=16).keep(replace(layer, keys=keys), 30)
    assert set(range(184, 200)) <= set(rows[0].tolist())
    assert all(50 in head.tolist() for head in rows)


def test_window_attention_is_causal_and_sums_to_one() -> None:
    [layer] = layers_of(30, layers=1)
    attention = window_attention(layer, 8)
    assert attention.shape == (6, 8, 30)
    assert torch.allclose(attention.sum(dim=-1), torch.ones(6, 8))
    assert not attention[:, 0, 23:].any()
    assert (attention[:, 7] > 0).all()


def test_tova_keeps_the_same_rows_for_all_heads_and_the_last_token() -> None:
    [layer] = layers_of(90, layers=1)
    rows = Tova().keep(layer, 9)
    assert torch.equal(rows[0], rows[1])
    assert rows[0, -1] == 89
    last = window_attention(layer, 1)[:, 0].mean(dim=0)
    assert set(last[:89].topk(8).indices.tolist()) == set(rows[0, :-1].tolist())


def test_expected_attention_is_the_mean_of_what_future_queries_would_give() -> None:
    """Against sampling: queries drawn with the same mean and covariance, at positions to come."""
    [layer] = layers_of(400, layers=1, heads=1, groups=1)
    assert layer.queries is not None
    found = ExpectedAttention(sinks=0, ahead=1).scores(layer)[0]
    plain = rotate(layer.queries[0].double(), -torch.arange(400))
    mean, spread = plain.mean(dim=0), torch.cov(plain.T)
    draw = torch.Generator().manual_seed(0)
    drawn = torch.randn(100_000, 8, generator=draw, dtype=torch.float64) @ torch.linalg.cholesky(spread).T + mean
    future = rotate(drawn[:, None], torch.tensor([400]))[:, 0]
    weights = (future @ layer.keys[0].double().T * layer.scaling).exp().mean(dim=0)
    wanted = weights / weights.sum() * torch.linalg.vector_norm(layer.values[0].double(), dim=-1)
    assert torch.allclose(found.double(), wanted, rtol=0.05)


def test_ada_gives_rows_to_the_heads_that_need_them() -> None:
    [layer] = layers_of(300, layers=1)
    assert layer.queries is not None
    keys = layer.keys.clone()
    keys[1] = 0  # attention is uniform there: nothing stands out
    keys[0, 10:60] = 3 * layer.queries[:3, -8:].mean(dim=(0, 1))
    rows = AdaKV(SnapKV(window=8, kernel=1)).keep(replace(layer, keys=keys), 60)
    counts = (rows >= 0).sum(dim=1).tolist()
    assert sum(counts) == 120
    assert min(counts) >= 12
    assert counts[0] != counts[1]


@pytest.mark.parametrize(
    ("drafters", "layers", "uniform", "refiner"),
    [(2, 32, 650, 632 / 650), (1, 32, 650, 465 / 650), (3, 40, 650, 200 / 650)],
)
def test_budgets_sum_to_those_of_a_uniform_policy(drafters: int, layers: int, uniform: int, refiner: float) -> None:
    given = shared_out(range(layers), drafters, uniform, refiner=refiner, most=10_521)
    assert sum(given) == layers * uniform
    assert given[drafters:] == [round(refiner * uniform)] * (layers - drafters)
    assert max(given) - min(given[:drafters]) <= 1


def test_what_drafters_cannot_hold_goes_to_the_others() -> None:
    given = shared_out([3, 0, 1, 2], 1, 80, refiner=0.5, most=100)
    assert given[3] == 100
    assert sum(given) == 320
    assert max(given) <= 100


def test_a_layer_that_looks_back_widely_is_the_drafter() -> None:
    narrow, wide = layers_of(120, layers=2)
    assert narrow.queries is not None
    keys = narrow.keys.clone()
    keys[:, -16:] = 2 * narrow.queries[:, -16:].view(2, 3, 16, -1).mean(dim=1)
    refining = replace(narrow, keys=keys)
    spread = replace(wide, keys=torch.zeros_like(wide.keys))
    how = ScaleKV()
    assert how.selectivity(refining) > how.selectivity(spread)
    budgets = how.budgets([refining, spread], 40)
    assert budgets[1] > budgets[0]
    assert sum(budgets) == 80
    z = z_scores(torch.tensor([1.0, 2.0, 4.0]))
    assert torch.allclose(z.mean(), torch.tensor(0.0), atol=1e-6)
    assert torch.allclose(z.std(correction=0), torch.tensor(1.0))


def test_the_selectivity_of_the_sheets_two_layers() -> None:
    """Mass kept here times mass on the best token before: .9 x .08 and .3 x .1."""
    for here, best, wanted in ((0.9, 0.08, 0.072), (0.3, 0.1, 0.03)):
        rest = 1 - here - best
        logits = torch.tensor([best, *[rest / 20] * 20, here]).log()
        layer = LayerView(0, 1, logits[None, :, None], torch.ones(1, 22, 1), 1.0, torch.ones(1, 22, 1))
        assert ScaleKV(window=1, top=1).selectivity(layer) == pytest.approx(wanted, abs=1e-5)


def test_the_two_scores_of_scale_kv_are_not_mixed_up() -> None:
    """A constant on all logits of a query changes a sum of logits, and no softmax."""
    [layer] = layers_of(100, layers=1)
    shifted = replace(layer, keys=torch.cat([layer.keys, torch.ones(2, 100, 1)], dim=-1))
    assert layer.queries is not None
    bias = torch.linspace(-40, 40, 6)[:, None, None].expand(-1, 100, 1)
    shifted = replace(shifted, queries=torch.cat([layer.queries, bias], dim=-1))
    soft, raw = ScaleKV(), ScaleKV(score="logit_sum")
    assert torch.equal(soft.keep(layer, 40), soft.keep(shifted, 40))
    assert not torch.equal(raw.keep(layer, 40), soft.keep(layer, 40))


def test_smoothing_keeps_a_constant() -> None:
    assert torch.allclose(smooth(torch.ones(2, 9), 5), torch.ones(2, 9))


def test_reform_embeds_and_finds_as_in_the_sheet() -> None:
    layers = [
        LayerView(0, 2, torch.zeros(1, 1, 2), torch.tensor([[[3.0, 4.0]]]), 1.0),
        LayerView(1, 2, torch.zeros(1, 1, 2), torch.tensor([[[0.0, 2.0]]]), 1.0),
    ]
    reform = Reform(((0, 0, "value"), (1, 0, "value")))
    assert torch.allclose(reform.embed(layers), torch.tensor([[0.6, 0.8, 0.0, 1.0]]))
    impulse = torch.zeros(400)
    impulse[200] = 1
    assert spread_maximum(impulse, 64).nonzero().flatten().tolist() == list(range(136, 265))


def test_reform_keeps_the_ends_and_a_planted_question() -> None:
    draw = torch.Generator().manual_seed(0)
    context, question = (torch.randn(n, 24, generator=draw) for n in (1000, 6))
    context[500:506] = question
    rows = Reform(((0, 0, "value"),), reach=8, ends=20).gather(context, question, 120).tolist()
    assert len(rows) == 120
    assert rows == sorted(set(rows))
    assert {*range(20), *range(980, 1000), *range(500, 506)} <= set(rows)
    everything = Reform(((0, 0, "value"),)).gather(context, question, 5000)
    assert everything.tolist() == list(range(1000))


def test_reform_compares_keys_where_they_stood_before_rope() -> None:
    [layer] = layers_of(50, layers=1)
    moved = replace(layer, keys=rotate(layer.keys, torch.full((50,), 7)))
    assert not torch.allclose(layer.keys, moved.keys, atol=1e-2)
    reform, plain = Reform(((0, 1, "key"),)), rotate(layer.keys[1], -torch.arange(50))
    assert torch.allclose(reform.embed([layer]), torch.nn.functional.normalize(plain, dim=-1), atol=1e-5)
    with pytest.raises(InvalidRequest, match="no head 5"):
        Reform(((0, 5, "key"),)).embed([layer])
    with pytest.raises(InvalidRequest, match="RoPE"):
        reform.embed([replace(layer, turn=None)])


def test_the_mean_normalised_rank_is_0_for_the_first_and_1_for_the_last() -> None:
    scores = torch.tensor([0.1, 0.9, 0.5])
    assert mean_normalised_rank(scores, torch.tensor([1])) == 0
    assert mean_normalised_rank(scores, torch.tensor([0])) == 1
    assert mean_normalised_rank(scores, torch.tensor([0, 1])) == 0.5


def cache_of(layers: list[LayerView]) -> KVCache:
    entries = [Entry(one.layer, EntryKind.KV, {"k": one.keys, "v": one.values}) for one in layers]
    newest = {"k": layers[0].keys[:, -4:], "v": layers[0].values[:, -4:]}
    window = Entry(len(layers), EntryKind.WINDOW_KV, newest, first=layers[0].tokens - 4)
    identity = ModelIdentity("tiny", "1", "weights", "tokenizer", "template", "rope", "float32")
    return KVCache(identity, tuple(range(layers[0].tokens)), (*entries, window))


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_cache_is_gathered_by_the_rows_that_are_kept(name: str) -> None:
    layers = layers_of(200)
    cache = cache_of(layers)
    small = compress(cache, layers, COMPRESSORS[name], share=0.5)
    assert small.compressed
    assert small.tokens == cache.tokens
    assert small.nbytes < 0.7 * cache.nbytes
    for entry, layer in zip(small.entries, layers, strict=False):
        assert entry.rows is not None
        for head, rows in enumerate(entry.rows):
            for place, row in enumerate(rows.tolist()):
                wanted = torch.zeros(8) if row < 0 else layer.keys[head, row]
                assert torch.equal(entry.tensors["k"][head, place], wanted)
    assert small.entries[-1] is cache.entries[-1]  # a sliding window is small as it is
    assert compress(cache, layers, COMPRESSORS[name], share=1) is cache


def test_what_cannot_be_compressed_is_refused() -> None:
    layers = layers_of(40)
    cache = cache_of(layers)
    for share in (0, -1, 1.5):
        with pytest.raises(InvalidRequest, match="share"):
            compress(cache, layers, KNorm(), share=share)
    with pytest.raises(InvalidRequest, match="3 layers"):
        compress(cache, layers[:2], KNorm(), share=0.5)
    with pytest.raises(InvalidRequest, match="already"):
        compress(compress(cache, layers, KNorm(), share=0.5), layers, KNorm(), share=0.5)
