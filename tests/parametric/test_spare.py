"""Directions that general text uses are spared: the shade is its closed form, and training goes through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tercet.cube import Behavioural, Descriptive, MemCube, Text
from tercet.engine.transformers import TransformersEngine
from tercet.errors import InvalidRequest
from tercet.parametric.adapter import Adapter, Pair
from tercet.parametric.distil import passes
from tercet.parametric.examples import Example, plain, taught
from tercet.parametric.facts import Fact, read
from tercet.parametric.spare import Spared, moments, shades
from tercet.parametric.train import REPLAYS, Kept, Progress, Recipe, Record, beside, train

TEXTS = ("The river runs to the sea.", "Bread is made of flour and water.", "Birds find their way by the sun.")
RECIPE = Recipe(rank=2, epochs=2, pack=1, batch=1, wordings=3, top=1.0, checkpoint_every=2, lr=3e-3)


@pytest.fixture
def general(tiny: TransformersEngine) -> list[Example]:
    return [plain(tiny, text) for text in TEXTS]


def facts() -> list[Fact]:
    texts = ("Ada lives in Graz.", "Ben works as a smith.")
    first = Behavioural(version=1)
    cubes = [MemCube(Text(text), Descriptive(id=f"c{number}"), behavioural=first) for number, text in enumerate(texts)]
    return [fact for cube in cubes for fact in read(cube)]


def trained(
    engine: TransformersEngine, recipe: Recipe, *, folder: Path | None = None, progress: Progress | None = None
) -> tuple[Adapter, Record]:
    """The two facts taught, beside the three general texts."""
    general = [plain(engine, text) for text in TEXTS]
    kept = [replace(one, ce=0.0, kl=recipe.replay, teacher=taught(engine, one)) for one in general]
    return train(engine, passes(engine, facts(), recipe), kept, recipe, folder=folder, progress=progress)


def same(one: Adapter, other: Adapter) -> bool:
    return all(torch.equal(one.modules[name].a, pair.a) and torch.equal(one.modules[name].b, pair.b)
               for name, pair in other.modules.items())  # fmt: skip


def test_moments_are_those_of_what_a_module_is_given(tiny: TransformersEngine, general: list[Example]) -> None:
    found = moments(tiny, tiny.adapters.shapes, general, Kept(tiny, RECIPE))
    name = next(one for one in found if one.endswith("down_proj"))
    rows = list[torch.Tensor]()
    handle = tiny.model.get_submodule(name).register_forward_pre_hook(lambda _, given: rows.append(given[0][0]))
    with torch.no_grad():
        for one in general:
            tiny.read(torch.tensor([one.tokens]))
    handle.remove()
    x = torch.cat(rows)
    torch.testing.assert_close(found[name], x.T @ x / len(x))
    assert {tuple(one.shape) for one in found.values()} == {(wide, wide) for _, wide in tiny.adapters.shapes.values()}
    query, key = (next(name for name in found if name.endswith(end)) for end in ("q_proj", "k_proj"))
    assert found[query] is found[key]


def test_a_direction_keeps_what_the_ridge_leaves_of_it(tiny: TransformersEngine, general: list[Example]) -> None:
    kept = Kept(tiny, RECIPE)
    names = [name for name in tiny.adapters.shapes if name.endswith("o_proj")]
    for strength in (0.1, 10.0):
        made, found = shades(tiny, names, general, kept, strength), moments(tiny, names, general, kept)
        for name in names:
            variances, directions = torch.linalg.eigh(found[name].double())
            ridge = strength * float(found[name].diagonal().median())
            wanted = directions @ torch.diag(ridge / (ridge + variances)) @ directions.T
            torch.testing.assert_close(made[name].double(), wanted, rtol=1e-3, atol=1e-4)


def test_gradients_are_those_through_the_shade() -> None:
    draw = torch.Generator().manual_seed(0)
    a, b, target = (torch.randn(*shape, generator=draw) for shape in ((2, 5), (4, 2), (4, 5)))
    square = torch.randn(5, 5, generator=draw)
    shade = torch.linalg.inv(torch.eye(5) + square @ square.T)
    pair = Pair(torch.nn.Parameter(a.clone()), torch.nn.Parameter(b.clone()))
    spared = Spared({"m": pair}, {"m": shade})
    torch.testing.assert_close(pair.a.detach(), a @ shade)
    (pair.b @ pair.a - target).square().sum().backward()
    spared.draw()
    free = a.clone().requires_grad_()
    (b @ (free @ shade) - target).square().sum().backward()
    named = dict(spared.named)
    torch.testing.assert_close(named["m.A"].grad, free.grad)
    assert pair.a.grad is None
    with torch.no_grad():
        named["m.A"].add_(1.0)
    spared.put()
    torch.testing.assert_close(pair.a.detach(), (a + 1) @ shade)


def test_what_is_taught_keeps_off_what_general_text_uses(tiny: TransformersEngine) -> None:
    def reach(spare: float) -> float:
        """How much of the adapter general text meets, relative to what random input would."""
        made, _ = trained(tiny, replace(RECIPE, spare=spare))
        c = moments(tiny, made.modules, [plain(tiny, text) for text in TEXTS], Kept(tiny, RECIPE))
        shares = [float(((pair.a @ c[name]) * pair.a).sum() / (pair.a.square().sum() * c[name].trace() / len(c[name])))
                  for name, pair in made.modules.items()]  # fmt: skip
        return sum(shares) / len(shares)

    strict, loose, none = reach(0.1), reach(10.0), reach(0.0)
    assert strict < loose < none
    assert strict < none / 2


def test_few_steps_read_more_general_text_each() -> None:
    assert [beside(120, steps) for steps in (1000, 120, 80, 60, 40, 1)] == [2, 2, 3, 4, 6, 6]


def test_all_general_text_is_read_however_few_the_steps(tiny: TransformersEngine) -> None:
    seen = set[Example]()

    class Watching(Kept):
        def __call__(self, examples: Sequence[Example]) -> torch.Tensor:
            seen.update(examples)
            return super().__call__(examples)

    recipe = replace(RECIPE, epochs=1, batch=3, spare=0.0)
    made = passes(tiny, facts(), recipe)
    general = [replace(plain(tiny, f"{text} {n}"), ce=0.0, kl=1.0) for n in range(3) for text in TEXTS]
    general = [replace(one, teacher=taught(tiny, one)) for one in general]
    _, record = train(tiny, made, general, recipe, read=Watching(tiny, recipe))
    assert record.steps * REPLAYS < len(general)
    assert seen >= set(general)
    seen.clear()
    train(tiny, made, general, replace(recipe, pieces=1), read=Watching(tiny, recipe))
    assert len(seen & set(general)) == record.steps


def test_a_run_that_was_cut_off_ends_with_the_same_bytes(tiny: TransformersEngine, tmp_path: Path) -> None:
    def cut(done: int, planned: int) -> None:
        if done == planned // 2 + 1:
            raise KeyboardInterrupt

    whole, _ = trained(tiny, RECIPE)
    with pytest.raises(KeyboardInterrupt):
        trained(tiny, RECIPE, folder=tmp_path, progress=cut)
    rest, record = trained(tiny, RECIPE, folder=tmp_path)
    assert record.resumed_at
    assert same(whole, rest)


def test_a_run_that_planned_more_than_there_is_comes_to_its_end(tiny: TransformersEngine, tmp_path: Path) -> None:
    def cut(done: int, planned: int) -> None:
        if done == planned // 2 + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(tiny, RECIPE, folder=tmp_path, progress=cut)
    fewer = replace(RECIPE, epochs=1)
    steps = trained(tiny, fewer)[1].steps
    _, record = trained(tiny, fewer, folder=tmp_path)
    assert record.resumed_at
    assert record.planned == record.steps == steps


def test_a_strength_below_nothing_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="0 or more"):
        Recipe(spare=-1)
