from __future__ import annotations

from itertools import pairwise

import pytest

from tercet.text.embed.windows import OVERLAP, WINDOW, owned, spans


@pytest.mark.parametrize("tokens", [0, 1, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW, 5_000])
def test_windows_cover_every_token_and_none_is_too_long(tokens: int) -> None:
    windows = spans(tokens)
    assert {i for start, end in windows for i in range(start, end)} == set(range(tokens))
    assert all(end - start <= WINDOW for start, end in windows)


def test_a_short_text_is_one_window() -> None:
    assert spans(WINDOW) == [(0, WINDOW)]


def test_neighbours_overlap() -> None:
    windows = spans(1_000)
    assert [left[1] - right[0] for left, right in pairwise(windows)] == [OVERLAP] * 4


@pytest.mark.parametrize("tokens", [0, 1, WINDOW + 1, 500, 1_000])
def test_each_token_is_owned_by_one_window_that_holds_it(tokens: int) -> None:
    windows = spans(tokens)
    shares = [owned(windows, i) for i in range(len(windows))]
    assert [i for first, last in shares for i in range(first, last)] == list(range(tokens))
    assert all(w[0] <= s[0] and s[1] <= w[1] for w, s in zip(windows, shares, strict=True))
