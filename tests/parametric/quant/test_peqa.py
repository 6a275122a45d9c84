"""PEQA: the sheet's example, gradients, frozen integers, and scales that fit one base only."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tercet.errors import InvalidRequest, VaultDamaged
from tercet.parametric.quant.peqa import FORMAT, Peqa, ScaledLinear, load, mount, save


def weights(rows: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def spread(groups: Tensor, like: Tensor) -> Tensor:
    """(out, groups) to (out, in): each group's value at each of its inputs."""
    return groups.repeat_interleave(like.shape[1] // groups.shape[1], dim=1)


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 4, bias=False))


def test_a_row_is_quantised_as_in_the_worked_example() -> None:
    """Without the search that example has s = .2, z = 5; with it the error can only be less."""
    row = torch.tensor([[-1, 0.5, 2, 0.1]])
    plain = 0.2 * (torch.tensor([[0.0, 7, 15, 5]]) - 5)
    assert torch.allclose(plain, torch.tensor([[-1, 0.4, 2, 0]]))
    found = Peqa(bits=4, group=None).quantise(row)
    assert float((found.weight() - row).square().sum()) <= float((plain - row).square().sum()) + 1e-9


def test_the_gradient_of_a_scale_is_that_of_the_worked_example() -> None:
    layer = ScaledLinear(Peqa(group=None).quantise(torch.tensor([[-1, 0.5, 2, 0.1]])), None)
    layer.codes, layer.zeros = torch.tensor([[0, 7, 15, 5]], dtype=torch.uint8), torch.tensor([[5.0]])
    layer.scales = torch.tensor([[0.2]])
    upstream = torch.tensor([1, -2, 0.5, 3.0])
    torch.autograd.backward(layer(upstream).sum())  # dL/dW is x here
    assert layer.relative.grad is not None
    assert float(layer.relative.grad) == pytest.approx(-4 * 0.2)  # dL/du = s0 dL/ds


@pytest.mark.parametrize("group", [None, 4, 16])
def test_the_gradient_is_that_of_the_plain_expression(group: int | None) -> None:
    found = Peqa(group=group).quantise(weights(6, 16))
    layer = ScaledLinear(found, None).double()
    x = weights(5, 16, seed=1).double().requires_grad_()
    rows, groups = found.scales.shape
    u = (0.1 * weights(rows, groups, seed=2)).double()
    with torch.no_grad():
        layer.relative.copy_(u)
    torch.autograd.backward(layer(x).square().sum())
    again, plain = u.clone().requires_grad_(), x.detach().clone().requires_grad_()
    scale = spread(found.scales.double() * (1 + again), found.codes)
    weight = scale * (found.codes.double() - spread(found.zeros.double(), found.codes))
    torch.autograd.backward((plain @ weight.T).square().sum())
    assert layer.relative.grad is not None
    assert again.grad is not None
    assert x.grad is not None
    assert plain.grad is not None
    assert torch.allclose(layer.relative.grad, again.grad, rtol=1e-9)
    assert torch.allclose(x.grad, plain.grad, rtol=1e-9)


def test_the_search_is_never_worse_than_the_whole_range() -> None:
    weight = weights(20, 64)
    values = weight.view(20, 4, 16)
    low, high = values.amin(-1).clamp(max=0), values.amax(-1).clamp(min=0)
    scale = (high - low) / 15
    zero = (-low / scale).round()
    codes = ((values / scale[..., None]).round() + zero[..., None]).clamp(0, 15)
    whole = ((codes - zero[..., None]) * scale[..., None] - values).square().sum(-1)
    ours = (Peqa(group=16).quantise(weight).weight() - weight).view(20, 4, 16).square().sum(-1)
    assert (ours <= whole + 1e-6).all()
    assert float(ours.sum()) < float(whole.sum())


def test_only_scales_learn_and_the_integers_stay() -> None:
    net = model()
    layers = Peqa(group=4).attach(net, ["0", "2"])
    before = {name: layer.fingerprint for name, layer in layers.items()}
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    assert sum(parameter.numel() for parameter in trained) == 12 * 4 + 4 * 3
    optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0)
    x, wanted = weights(32, 16, seed=3), weights(32, 4, seed=4)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (net(x) - wanted).square().mean()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert {name: layer.fingerprint for name, layer in layers.items()} == before
    assert max(v.numel() for held in optimizer.state.values() for v in held.values()) == 48


def test_memories_are_swapped_without_a_trace() -> None:
    net = model()
    layers = Peqa(group=4).attach(net, ["0", "2"])
    prints = {name: layer.fingerprint for name, layer in layers.items()}
    x = weights(3, 16, seed=5)
    base = net(x)
    one = {name: 0.1 * torch.ones_like(layer.relative) for name, layer in layers.items()}
    two = {name: -0.2 * torch.ones_like(layer.relative) for name, layer in layers.items()}
    mount(layers, one, prints)
    first = net(x)
    mount(layers, two, prints)
    assert not torch.equal(net(x), first)
    mount(layers, one, prints)
    assert torch.equal(net(x), first)
    mount(layers, {name: torch.zeros_like(part) for name, part in one.items()}, prints)
    assert torch.equal(net(x), base)


def test_scales_of_a_row_are_gains_of_its_output() -> None:
    net = nn.Sequential(nn.Linear(16, 12, bias=False))
    layer = Peqa(group=None).attach(net, ["0"])["0"]
    x, gains = weights(3, 16, seed=6), torch.linspace(-0.5, 0.5, 12)
    plain = net(x)
    mount({"0": layer}, {"0": gains[:, None]}, {"0": layer.fingerprint})
    assert torch.allclose(net(x), plain * (1 + gains), atol=1e-6)


def test_trained_counts_are_the_papers() -> None:
    """LLaMA-7B by row: 32 layers of q, k, v, o (4096), gate, up (11008) and down (4096)."""
    rows = [*[4096] * 4, *[11_008] * 2, 4096]
    assert 32 * sum(Peqa(group=None).quantise(weights(one, 4)).scales.numel() for one in rows) == 1_359_872


def test_a_memory_is_a_file_that_fits_its_own_base(tmp_path: Path) -> None:
    net, other = model(), model()
    layers = Peqa(group=4).attach(net, ["0", "2"])
    x = weights(3, 16, seed=5)
    base = net(x)
    held = {name: torch.full_like(layer.relative, 0.1).half().float() for name, layer in layers.items()}
    mount(layers, held, {name: layer.fingerprint for name, layer in layers.items()})
    told, path = net(x), tmp_path / "memory.safetensors"
    values = sum(layer.relative.numel() for layer in layers.values())
    assert 2 * values < save(layers, path) == path.stat().st_size < 2 * values + 1000
    mount(layers, {name: torch.zeros_like(part) for name, part in held.items()}, load(path)[1])
    assert torch.equal(net(x), base)
    mount(layers, *load(path))
    assert torch.equal(net(x), told)
    assert not torch.allclose(net(x), base, atol=1e-2)
    with pytest.raises(InvalidRequest, match="other integers"):
        mount(Peqa(bits=3, group=4).attach(other, ["0", "2"]), *load(path))


def test_no_other_file_is_taken_for_a_memory(tmp_path: Path) -> None:
    path, scales = tmp_path / "memory.safetensors", {"0": torch.zeros(2, 2)}
    with pytest.raises(VaultDamaged, match="memory"):
        load(path)
    path.write_bytes(b"\x80\x04K\x01.")  # a pickle
    with pytest.raises(VaultDamaged, match="holds no set"):
        load(path)
    wrong = (None, {"fingerprints": "{"}, {"fingerprints": "[]", "format": FORMAT}, {"fingerprints": "{}"})
    for told in wrong:
        save_file(scales, path, metadata=told)
        with pytest.raises(VaultDamaged, match="set of scales"):
            load(path)


def test_a_row_of_zeros_stays_one() -> None:
    found = Peqa(group=4).quantise(torch.zeros(2, 8))
    assert torch.isfinite(found.scales).all()
    assert not found.weight().any()


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    with pytest.raises(InvalidRequest, match="bits"):
        Peqa(bits=9)
    with pytest.raises(InvalidRequest, match="groups"):
        Peqa(group=5).quantise(weights(2, 8))
    with pytest.raises(InvalidRequest, match="finite"):
        Peqa(group=4).quantise(torch.full((2, 8), torch.nan))
    net = model()
    for names in (["0", "1"], ["0", "nope"]):
        with pytest.raises(InvalidRequest, match="no linear layer"):
            Peqa(group=4).attach(net, names)
    assert isinstance(net[0], nn.Linear)
    layers = Peqa(group=4).attach(net, ["0", "2"])
    prints = {name: layer.fingerprint for name, layer in layers.items()}
    good = {name: 0.1 * torch.ones_like(layer.relative) for name, layer in layers.items()}
    for bad, theirs in (
        ({"0": good["0"]}, prints),
        (good, prints | {"2": "of another base"}),
        (good | {"2": torch.full_like(good["2"], torch.nan)}, prints),
        (good | {"2": torch.full_like(good["2"], -1)}, prints),
        (good | {"2": good["2"][:1]}, prints),
    ):
        with pytest.raises(InvalidRequest):
            mount(layers, bad, theirs)
        assert not any(layer.relative.any() for layer in layers.values())
