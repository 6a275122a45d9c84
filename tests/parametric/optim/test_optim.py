"""The optimisers against their papers' equations: worked examples, invariances, state, and a LoRA's first gradient."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from tercet.errors import InvalidRequest
from tercet.parametric.optim import OPTIMIZERS
from tercet.parametric.optim.apollo import Apollo, ApolloMini, ApolloOptimizer
from tercet.parametric.optim.base import NamedOptimizer, OptimizerSpec, state_bytes
from tercet.parametric.optim.galore import GaLore, leading
from tercet.parametric.optim.sgd_sai import SgdSai, signal_to_noise
from tercet.parametric.optim.standard import AdamW

G1 = [[3.0, 0.0, 1.0], [0.0, 2.0, 0.0]]
G2 = [[1.0, 1.0, 0.0], [0.0, -1.0, 2.0]]
RECIPES: dict[str, OptimizerSpec] = {
    "adamw": AdamW(),
    "adafactor": OPTIMIZERS["adafactor"](),
    "galore": GaLore(rank=2, gap=7),
    "galore exact": GaLore(rank=2, gap=7, svd="exact"),
    "apollo": Apollo(rank=2, gap=7),
    "apollo tensor": Apollo(rank=2, per="tensor", growth=None),
    "apollo-mini": ApolloMini(),
    "sgd-sai": SgdSai(),
}


def gradients(count: int, shape: Sequence[int], *, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=draw, dtype=dtype) for _ in range(count)]


def moves(
    spec: OptimizerSpec, given: Sequence[Tensor], *, name: str = "w", start: Tensor | None = None
) -> list[Tensor]:
    """How each gradient in turn moved a parameter that began at `start` (zero)."""
    parameter = nn.Parameter(torch.zeros_like(given[0]) if start is None else start.clone())
    optimizer, moved = spec.optimizer([(name, parameter)]), []
    for gradient in given:
        before = parameter.detach().clone()
        parameter.grad = gradient.clone()
        optimizer.step()
        moved.append(parameter.detach() - before)
    return moved


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("svd", ["exact", "random"])
def test_galore_moves_as_in_the_worked_example(svd: str, *, turned: bool) -> None:
    given = [torch.tensor(g).T if turned else torch.tensor(g) for g in (G1, G2)]
    one, two = (GaLore(rank=rank, thin=1, svd=svd) for rank in (1, 2))  # type: ignore[arg-type]
    first, second = (m.T if turned else m for m in moves(one, given))
    assert torch.allclose(first, torch.tensor([[-0.0025, 0, -0.0025], [0, 0, 0]]), atol=1e-6)
    assert torch.allclose(second, torch.tensor([[-0.002178, -0.001860, -0.001675], [0, 0, 0]]), atol=1e-6)
    first, second = (m.T if turned else m for m in moves(two, given))
    assert torch.allclose(first[1], torch.tensor([0, -0.0025, 0]), atol=1e-6)
    assert torch.allclose(second[1], torch.tensor([0, -0.000666, -0.001860]), atol=1e-6)


def test_galore_with_the_identity_as_its_subspace_is_adam() -> None:
    given = gradients(20, (4, 9))
    parameter = nn.Parameter(torch.zeros(4, 9))
    optimizer = GaLore(rank=4, scale=1, thin=1, gap=1000).optimizer([("w", parameter)])
    optimizer.state[parameter]["basis"] = torch.eye(4)
    for gradient in given:
        parameter.grad = gradient.clone()
        optimizer.step()
    plain = sum(moves(AdamW(lr=0.01, weight_decay=0), given))
    assert torch.allclose(parameter.detach(), torch.as_tensor(plain), atol=1e-6)


def test_galore_first_step_is_the_sign_in_the_subspace() -> None:
    [gradient] = gradients(1, (6, 20), dtype=torch.float64)
    [moved] = moves(GaLore(rank=3, svd="exact", eps=1e-30), [gradient])
    basis = torch.linalg.svd(gradient, full_matrices=False).U[:, :3]
    assert torch.allclose(moved, -0.01 * 0.25 * basis @ torch.sign(basis.T @ gradient), atol=1e-12)


def test_galore_keeps_its_rank_and_exports_all_that_it_moved() -> None:
    shape, gap = (24, 40), 5
    parameter = nn.Parameter(torch.zeros(shape, dtype=torch.float64))
    optimizer = GaLore(rank=3, gap=gap, svd="exact", record=True).optimizer([("w", parameter)])
    for gradient in gradients(15, shape, dtype=torch.float64):
        parameter.grad = gradient
        optimizer.step()
    b, a = optimizer.export(parameter)
    refreshes = b.shape[1] // 3
    singular = torch.linalg.svdvals(parameter.detach())
    assert 3 <= refreshes <= 4
    assert int((singular > 1e-9 * singular[0]).sum()) <= 3 * refreshes
    assert torch.allclose(b @ a, parameter.detach(), atol=1e-14)


def test_galore_refreshes_matrices_at_steps_of_their_own() -> None:
    when = {}
    for name in ("q", "k", "v", "o"):
        parameter = nn.Parameter(torch.zeros(8, 8))
        optimizer = GaLore(rank=2, gap=10).optimizer([(name, parameter)])
        bases = []
        for gradient in gradients(20, (8, 8)):
            parameter.grad = gradient
            optimizer.step()
            bases.append(optimizer.state[parameter]["basis"])
        when[name] = [i for i in range(1, 20) if bases[i] is not bases[i - 1]]
    assert len({tuple(steps) for steps in when.values()}) > 1
    gaps = {later - earlier for steps in when.values() for earlier, later in pairwise(steps)}
    assert gaps == {10}


@pytest.mark.parametrize("exact", [False, True])
def test_the_leading_subspace_is_orthonormal_and_finds_a_low_rank(*, exact: bool) -> None:
    [left], [right] = gradients(1, (60, 5)), gradients(1, (5, 90), seed=1)
    matrix = left @ right
    basis = leading(matrix, 5, exact=exact)
    assert torch.allclose(basis.T @ basis, torch.eye(5), atol=1e-5)
    assert torch.allclose(basis @ (basis.T @ matrix), matrix, atol=1e-4)


@pytest.mark.parametrize("shape", [(576, 1536), (1536, 576)])
def test_galore_state_is_what_the_formula_says(shape: tuple[int, int]) -> None:
    parameter = nn.Parameter(torch.zeros(shape))
    optimizer = GaLore(rank=32).optimizer([("w", parameter)])
    parameter.grad = gradients(1, shape)[0]
    optimizer.step()
    assert state_bytes(optimizer) == 4 * (576 * 32 + 2 * 1536 * 32) == 466_944


class FixedApollo(ApolloOptimizer):
    """With the projection that the worked example takes."""

    drawn = torch.tensor([[1.0, -1.0]])

    def projection(self, name: str, period: int, rank: int, wide: Tensor) -> Tensor:  # the base's shape
        return self.drawn


def fixed(drawn: Tensor, spec: Apollo, given: Sequence[Tensor]) -> list[Tensor]:
    """Scaled gradients, lr 1 and the scale 1, with a given projection."""
    parameter = nn.Parameter(torch.zeros_like(given[0]))
    optimizer = FixedApollo([("w", parameter)], vars(spec) | {"lr": 1.0, "thin": 1})
    optimizer.drawn = drawn
    moved = []
    for gradient in given:
        before = parameter.detach().clone()
        parameter.grad = gradient
        optimizer.step()
        moved.append(before - parameter.detach())
    return moved


def test_apollo_moves_as_in_the_worked_example() -> None:
    given = [torch.tensor(G1), torch.tensor(G2)]
    first, second = fixed(torch.tensor([[1.0, -1.0]]), Apollo(rank=1), given)
    assert torch.allclose(first, torch.tensor([[1.0, 0, 1], [0, 1, 0]]), atol=1e-5)
    assert torch.allclose(second, torch.tensor([[0.871064, 0.026316, 0], [0, -0.026316, 0.366104]]), atol=1e-5)
    first, second = fixed(torch.tensor([[1.0, -1.0]]), Apollo(rank=1, per="tensor"), given)
    assert torch.allclose(first, 0.462910 * given[0], atol=1e-5)
    assert torch.allclose(second, 0.315446 * given[1], atol=1e-5)


def test_apollo_with_the_identity_has_the_columns_norms_of_adam() -> None:
    given = gradients(6, (4, 10))
    ours = fixed(torch.eye(4), Apollo(rank=4, growth=None), given)
    theirs = moves(AdamW(lr=1.0, weight_decay=0), given)
    for mine, adams in zip(ours, theirs, strict=True):
        assert torch.allclose(mine.norm(dim=0), adams.norm(dim=0), atol=1e-4)


@pytest.mark.parametrize("spec", [Apollo(rank=2), ApolloMini()], ids=["channel", "tensor"])
def test_apollo_goes_against_the_gradient(spec: Apollo) -> None:
    given = gradients(5, (6, 30))
    for gradient, moved in zip(given, moves(spec, given), strict=True):
        across = 0 if spec.per == "channel" else None
        columns = (gradient.flatten()[:, None], moved.flatten()[:, None]) if across is None else (gradient, moved)
        assert torch.allclose(torch.cosine_similarity(*columns, dim=0), torch.tensor(-1.0), atol=1e-5)


def test_the_limiter_bounds_growth_and_recovers_from_a_zero_gradient() -> None:
    [zero], given = gradients(1, (6, 30)), gradients(40, (6, 30), seed=3)
    grown = [zero * 0, *(gradient * factor for factor, gradient in enumerate(given, 1))]
    norms = [float(moved.norm()) for moved in moves(Apollo(rank=2), grown)]
    assert norms[0] == 0
    assert norms[1] > 0.01  # not 1 % a step from nothing
    assert all(later <= earlier * 1.0101 for earlier, later in pairwise(norms[1:]))
    shrinking = [gradient / 2**factor for factor, gradient in enumerate(given[:8])]
    free, bound = moves(Apollo(rank=2, growth=None, eps=0), shrinking), moves(Apollo(rank=2, eps=0), shrinking)
    assert all(float(b.norm()) <= float(f.norm()) * 1.0001 for f, b in zip(free, bound, strict=True))


def test_projections_are_isotropic_and_never_kept() -> None:
    [wide] = gradients(1, (8, 5))
    optimizer = Apollo(rank=4).optimizer([("w", nn.Parameter(torch.zeros(8, 5)))])
    mean = sum(p.T @ p for p in (optimizer.projection("w", i, 4, wide) for i in range(2000))) / 2000
    assert torch.allclose(torch.as_tensor(mean), torch.eye(8), atol=0.1)
    [sample] = gradients(1, (64, 256))
    drawn = optimizer.projection("w", 0, 16, sample)
    ratio = ((drawn @ sample).square().sum(0) / sample.square().sum(0)).mean()
    assert abs(float(ratio) - 1) < 0.15
    parameter = nn.Parameter(torch.zeros(64, 256))
    optimizer = Apollo(rank=16).optimizer([("w", parameter)])
    parameter.grad = sample
    optimizer.step()
    assert state_bytes(optimizer) == 2 * 256 * 16 * 4
    assert not any(isinstance(v, Tensor) and v.numel() == 16 * 64 for v in optimizer.state[parameter].values())


@pytest.mark.parametrize("name", ["apollo", "apollo-mini", "galore"])
def test_a_scaled_gradient_moves_as_far(name: str) -> None:
    given = gradients(8, (6, 30), dtype=torch.float64)
    spec = RECIPES[name]
    for one, other in zip(moves(spec, given), moves(spec, [1000 * g for g in given]), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-8)


def test_sgd_sai_moves_as_in_the_worked_example() -> None:
    given, start = [torch.tensor([0.1, 0.2, 0.4]), torch.tensor([-0.1, 0.1, 0.0])], torch.tensor([1.0, 2.0, 3.0])
    assert signal_to_noise(given[0]) == pytest.approx(3.0, abs=1e-6)
    first, second = moves(SgdSai(), given, start=start)
    assert torch.allclose(start + first, torch.tensor([0.996900, 1.993800, 2.987700]), atol=1e-6)
    assert torch.allclose(start + first + second, torch.tensor([0.994400, 1.987901, 2.976601]), atol=1e-6)


def test_the_signal_to_noise_of_a_tensor() -> None:
    [gradient] = gradients(1, (50, 100))
    assert signal_to_noise(gradient) >= 4999**0.5 * (1 - 1e-6)
    assert signal_to_noise(gradient - gradient.double().mean()) == pytest.approx(4999**0.5, rel=1e-6)
    assert signal_to_noise(7 * gradient) == pytest.approx(signal_to_noise(gradient), rel=1e-6)
    assert signal_to_noise(torch.tensor([3.0])) == 1
    assert signal_to_noise(torch.full((16,), 0.5)) == 40  # no deviation: the cap, 10 sqrt(16)


def test_sgd_sai_without_its_scale_is_sgd_with_dampened_momentum() -> None:
    given = gradients(6, (5,))
    mine, other = nn.Parameter(torch.zeros(5)), nn.Parameter(torch.zeros(5))
    ours = SgdSai(weight_decay=0).optimizer([("w", mine)])
    theirs = torch.optim.SGD([other], lr=0.01, momentum=0.9, dampening=0.9)
    ours.state[mine] = {"scale": 1.0, "momentum": given[0].clone()}
    for gradient in given:
        mine.grad, other.grad = gradient.clone(), gradient.clone()
        ours.step()
        theirs.step()
    assert torch.allclose(mine, other, atol=1e-7)


@pytest.mark.parametrize("name", RECIPES)
def test_both_sides_of_a_lora_learn(name: str) -> None:
    """B begins at zero, so A's first gradient is zero: as published, several of these never train A."""
    draw = torch.Generator().manual_seed(0)
    a = nn.Parameter(torch.randn(4, 16, generator=draw) / 4)
    b = nn.Parameter(torch.zeros(12, 4))
    start, inputs = a.detach().clone(), torch.randn(64, 16, generator=draw)
    wanted = inputs @ torch.randn(16, 12, generator=draw)
    optimizer, losses = RECIPES[name].optimizer([("a", a), ("b", b)]), []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (inputs @ a.T @ b.T - wanted).square().mean()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert float((a.detach() - start).norm()) > 1e-3
    assert float(b.detach().norm()) > 1e-3
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", RECIPES)
def test_training_goes_on_from_saved_state_as_if_it_had_not_stopped(name: str) -> None:
    def begin() -> tuple[nn.Linear, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Linear(12, 8)
        return model, RECIPES[name].optimizer(model.named_parameters())

    def train(model: nn.Linear, optimizer: torch.optim.Optimizer, given: Sequence[Tensor]) -> None:
        for weight, bias in zip(given, gradients(len(given), (8,)), strict=True):
            model.weight.grad, model.bias.grad = weight.clone(), bias.clone()
            optimizer.step()

    given = gradients(20, (8, 12))
    whole, optimizer = begin()
    train(whole, optimizer, given[:10])
    file = io.BytesIO()
    torch.save({"model": whole.state_dict(), "optimizer": optimizer.state_dict()}, file)
    train(whole, optimizer, given[10:])
    file.seek(0)
    held = torch.load(file, weights_only=True)
    again, resumed = begin()
    again.load_state_dict(held["model"])
    resumed.load_state_dict(held["optimizer"])
    train(again, resumed, given[10:])
    assert torch.equal(whole.weight, again.weight)
    assert torch.equal(whole.bias, again.bias)


@pytest.mark.parametrize("name", RECIPES)
def test_the_order_of_parameters_changes_nothing(name: str) -> None:
    def train(*, turned: bool) -> dict[str, Tensor]:
        held = {n: nn.Parameter(torch.ones(6, 9)) for n in ("q", "k")}
        optimizer = RECIPES[name].optimizer(list(held.items())[:: -1 if turned else 1])
        for gradient in gradients(9, (6, 9)):
            for parameter in held.values():
                parameter.grad = gradient.clone()
            optimizer.step()
        return {n: p.detach() for n, p in held.items()}

    one, other = train(turned=False), train(turned=True)
    assert all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("name", [name for name in RECIPES if name not in {"adamw", "adafactor"}])
def test_a_gradient_that_is_not_finite_changes_nothing(name: str) -> None:
    given = gradients(4, (6, 9))
    parameter = nn.Parameter(torch.zeros(6, 9))
    optimizer = RECIPES[name].optimizer([("w", parameter)])
    assert isinstance(optimizer, NamedOptimizer)
    for gradient in given:
        for one in (gradient * torch.nan, gradient):
            before = parameter.detach().clone()
            parameter.grad = one.clone()
            optimizer.step()
            assert torch.isfinite(parameter).all()
            assert torch.equal(before, parameter) == bool(one.isnan().any())
    assert optimizer.skipped == 4
    assert torch.allclose(parameter.detach(), torch.as_tensor(sum(moves(RECIPES[name], given))), atol=1e-6)


@pytest.mark.parametrize("name", RECIPES)
def test_scalars_vectors_and_late_gradients_are_trained_gently(name: str) -> None:
    scalar, vector = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.ones(7))
    optimizer = RECIPES[name].optimizer([("s", scalar), ("v", vector)])
    for step in range(8):
        scalar.grad = torch.tensor(0.5)
        vector.grad = torch.linspace(-1, 1, 7) if step >= 4 else None
        optimizer.step()
    assert 0 < abs(scalar.item() - 1) < 0.2
    assert torch.isfinite(vector).all()
    assert not torch.equal(vector.detach(), torch.ones(7))


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        (GaLore(), []),
        (GaLore(rank=0), [("w", nn.Parameter(torch.zeros(2, 2)))]),
        (GaLore(record=True, weight_decay=0.1), [("w", nn.Parameter(torch.zeros(2, 2)))]),
        (Apollo(scale=0), [("w", nn.Parameter(torch.zeros(2, 2)))]),
        (SgdSai(momentum=1), [("w", nn.Parameter(torch.zeros(2, 2)))]),
        (SgdSai(lr=0), [("w", nn.Parameter(torch.zeros(2, 2)))]),
        (SgdSai(), [("w", nn.Parameter(torch.zeros(2))), ("w", nn.Parameter(torch.zeros(2)))]),
    ],
)
def test_what_cannot_train_is_refused(spec: OptimizerSpec, named: list[tuple[str, nn.Parameter]]) -> None:
    with pytest.raises(InvalidRequest):
        spec.optimizer(named)


def test_what_was_not_recorded_cannot_be_exported() -> None:
    parameter = nn.Parameter(torch.zeros(8, 8))
    with pytest.raises(InvalidRequest, match="record"):
        GaLore(rank=2).optimizer([("w", parameter)]).export(parameter)


def test_mini_keeps_about_as_little_as_plain_sgd() -> None:
    parameter = nn.Parameter(torch.zeros(64, 256))
    optimizer = ApolloMini().optimizer([("w", parameter)])
    parameter.grad = gradients(1, (64, 256))[0]
    optimizer.step()
    assert state_bytes(optimizer) == 2 * 256 * 4  # 0.125 bytes a parameter, of Adam's 8
