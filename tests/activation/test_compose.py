"""Memories that were read alone, joined: exact at 100 per cent, refused where they do not follow each other."""

from __future__ import annotations

import pytest
import torch

from tercet.activation.compose import Blend, Link, Piece, aside, assemble, blend
from tercet.engine.cache import KVCache
from tercet.engine.transformers import TransformersEngine
from tercet.errors import InvalidRequest
from tercet.testing.tiny import FAMILIES, tiny_engine

HEAD, TEXTS, QUESTION = (
    tuple(range(30, 35)),
    ((41, 42, 43, 44, 45, 46), tuple(range(50, 62)), (70, 71, 72)),
    (80, 81, 82),
)


@pytest.fixture(scope="module", params=[*FAMILIES])
def engine(request: pytest.FixtureRequest) -> TransformersEngine:
    return tiny_engine(request.param, sliding_window=64) if request.param == "gemma" else tiny_engine(request.param)


def pieces(engine: TransformersEngine) -> list[Piece]:
    made, at = list[Piece](), 0
    for text in TEXTS:
        made.append(Piece(engine.prefill((*HEAD, *text)), len(HEAD) if made else 0, at))
        at = made[-1].end
    return made


def fresh(engine: TransformersEngine) -> KVCache:
    return engine.prefill((*HEAD, *(token for text in TEXTS for token in text)))


def error(engine: TransformersEngine, share: float, choose: str = "asked") -> float:
    want = engine.run(fresh(engine)).extend(QUESTION)
    _, got = blend(engine, pieces(engine), QUESTION, share=share, choose=choose)
    return float((got - want).abs().max())


@pytest.mark.parametrize("choose", ["asked", "blend", "link"])
def test_all_computed_anew_is_exact(engine: TransformersEngine, choose: str) -> None:
    assert error(engine, 100, choose) < 1e-4
    assert error(engine, 0, choose) > 1e-2  # else the line above says nothing


def test_a_run_goes_on_exactly_after_all_was_computed_anew(engine: TransformersEngine) -> None:
    run, _ = blend(engine, pieces(engine), QUESTION, share=100)
    want = engine.prefill(run.tokens)
    for left, right in zip(run.cache().entries, want.entries, strict=True):
        torch.testing.assert_close(left.tensors["k"], right.tensors["k"], atol=1e-4, rtol=0)
        torch.testing.assert_close(left.tensors["v"], right.tensors["v"], atol=1e-4, rtol=0)


def test_joined_keys_stand_where_they_should(engine: TransformersEngine) -> None:
    """Layer 0 sees nothing but its own token, so that joining is exact there; the first memory is exact everywhere."""
    run, want = assemble(engine, pieces(engine)), fresh(engine)
    first = len(HEAD) + len(TEXTS[0])
    for number, (left, right) in enumerate(zip(run.cache().entries, want.entries, strict=True)):
        rows = slice(None) if number == 0 else slice(first)
        for name in ("k", "v"):
            torch.testing.assert_close(left.tensors[name][:, rows], right.tensors[name][:, rows], atol=1e-4, rtol=0)
    assert run.tokens == want.tokens


def test_more_computed_anew_is_nearer(engine: TransformersEngine) -> None:
    run, want = list[float](), fresh(engine)
    for share in (0, 30, 60, 100):
        joined, _ = blend(engine, pieces(engine), QUESTION, share=share)
        have = joined.cache().entries
        run.append(sum(float((a.tensors["v"][:, : len(want.tokens)] - b.tensors["v"]).square().sum())
                       for a, b in zip(have, want.entries, strict=True)))  # fmt: skip
    assert run[0] > run[1] > run[2] > run[3]


def test_the_deviations_are_those_of_the_values(engine: TransformersEngine) -> None:
    parts, want = pieces(engine), fresh(engine)
    run = assemble(engine, parts)
    old = run.cache().entries[1].tensors["v"].clone()
    stale = range(parts[0].end, parts[-1].end)
    moved = run.deviations(stale, layer=1)
    true = (want.entries[1].tensors["v"] - old).square().sum((0, 2))[parts[0].end :]
    torch.testing.assert_close(moved, true, atol=1e-4, rtol=1e-3)
    assert Blend().rows(assemble(engine, parts), parts, 3, QUESTION) == sorted(
        (true.topk(3).indices + parts[0].end).tolist()
    )


def test_a_query_sees_what_stands_before_it_and_nothing_else() -> None:
    """Six keys, queries at 2 and 5: the one at 2 sees keys 0 to 2 (aligned to the lower right it would see 0 to 4)."""
    engine = tiny_engine("llama")
    run = engine.run(engine.prefill((41, 42, 43, 44, 45, 46)))
    run.extend([9], again=[2, 5])
    mask = run.rows.mask(0, 3)
    assert mask is not None
    assert mask[:, :6].int().tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]]


def test_link_takes_the_first_tokens_of_each(engine: TransformersEngine) -> None:
    parts = pieces(engine)  # of 12 and 3 tokens, behind one of 11
    run = assemble(engine, parts)
    assert Link().rows(run, parts, 4, QUESTION) == [11, 12, 23, 24]
    assert Link().rows(run, parts, 10, QUESTION) == [*range(11, 18), 23, 24, 25]
    assert Link().rows(run, parts, 15, QUESTION) == list(range(11, 26))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda p: [p[0], p[2], p[1]], "a gap, or the wrong order"),
        (lambda p: [p[1], p[0], p[2]], "a gap, or the wrong order"),
        (lambda p: [p[0], Piece(p[1].cache, p[1].begin, p[1].at - 1)], "an overlap"),
        (lambda p: [p[0], Piece(p[1].cache, p[1].begin, p[1].at + 1)], "a gap"),
        (lambda p: [p[0], p[0]], "an overlap"),
        (lambda p: [p[0], Piece(p[1].cache, 99, p[1].at)], "no tokens from 99"),
        (lambda p: [p[0], Piece(p[1].cache, 7, p[1].at)], "another opening"),
        (lambda p: [Piece(p[0].cache, 3, 0)], "no tokens from 3"),
        (lambda _: [], "nothing to join"),
    ],
)
def test_what_does_not_follow_is_refused(change: object, match: str) -> None:
    engine = tiny_engine("llama")
    with pytest.raises(InvalidRequest, match=match):
        blend(engine, change(pieces(engine)), QUESTION)  # type: ignore[operator]


def test_odd_shares_and_foreign_caches_are_refused(engine: TransformersEngine) -> None:
    parts = pieces(engine)
    for share in (-1, 101, float("nan")):
        with pytest.raises(InvalidRequest, match="from 0 to 100"):
            blend(engine, parts, QUESTION, share=share)
    with pytest.raises(InvalidRequest, match="chosen by asked, blend, link"):
        blend(engine, parts, QUESTION, choose="best")
    with pytest.raises(InvalidRequest, match="a question"):
        blend(engine, parts, ())
    with pytest.raises(InvalidRequest, match="another model"):
        assemble(tiny_engine("llama", seed=5), parts)


def test_what_has_left_rows_out_stands_alone() -> None:
    engine = tiny_engine("gemma")  # a window of 24
    long = Piece(engine.prefill(range(40)), 0, 0)
    with pytest.raises(InvalidRequest, match="stands alone"):
        assemble(engine, [long])


def test_a_look_ahead_leaves_the_run_as_it_was(engine: TransformersEngine) -> None:
    parts = pieces(engine)
    run, other = assemble(engine, parts), assemble(engine, parts)
    looked = run.attention(QUESTION)
    assert looked.shape == (parts[-1].end,)
    assert (
        0 < float(looked.sum()) < len(QUESTION) * 4 * 4
    )  # a part of what 3 tokens, 4 heads and 4 layers pay goes to each other
    assert run.tokens == other.tokens
    torch.testing.assert_close(run.extend(QUESTION), other.extend(QUESTION), atol=1e-5, rtol=0)


def test_read_behind_a_stand_in_fits_like_any_other() -> None:
    engine = tiny_engine("llama", max_position_embeddings=4096, initializer_range=0.1)
    want = fresh(engine)
    parts = pieces(engine)
    apart = [parts[0]]
    for part, text in zip(parts[1:], TEXTS[1:], strict=True):
        made = aside(engine, HEAD, text)
        assert made is not None
        assert made.tokens == part.cache.tokens
        for left, right in zip(made.entries, part.cache.entries, strict=True):  # the opening is exact
            torch.testing.assert_close(left.tensors["v"][:, :5], right.tensors["v"][:, :5], atol=1e-4, rtol=0)
        torch.testing.assert_close(  # and so is the first layer, which has seen nothing but its own token
            made.entries[0].tensors["k"], part.cache.entries[0].tensors["k"], atol=1e-3, rtol=0
        )
        apart.append(Piece(made, part.begin, part.at))
    _, scores = blend(engine, apart, QUESTION, share=100)
    torch.testing.assert_close(scores, engine.run(want).extend(QUESTION), atol=1e-4, rtol=0)
    assert aside(tiny_engine("llama"), HEAD, TEXTS[0]) is None  # its context has no room for the stand-in
