"""Cut a long text into overlapping windows of tokens, so that a model of fixed reach sees all of it."""

from __future__ import annotations

from itertools import pairwise

Span = tuple[int, int]

WINDOW = 254  # tokens of the text in one window: the model was trained to read 256, two of them its own
OVERLAP = 32  # tokens that neighbouring windows share, so that a sentence at a cut is whole in one of them


def spans(tokens: int) -> list[Span]:
    """Windows (start, end) over `tokens` >= 0 tokens, at least one; each starts OVERLAP before the last one's end."""
    found = [(0, min(tokens, WINDOW))]
    while found[-1][1] < tokens:
        start = found[-1][1] - OVERLAP
        found.append((start, min(tokens, start + WINDOW)))
    return found


def owned(windows: list[Span], i: int) -> Span:
    """The tokens whose states window `i` gives: it shares the overlap with each neighbour half and half."""
    near = windows[max(i - 1, 0) : i + 2]
    cuts = [(left[1] + right[0]) // 2 for left, right in pairwise(near)]
    first = cuts.pop(0) if i > 0 else windows[0][0]
    last = cuts.pop(0) if i + 1 < len(windows) else windows[-1][1]
    return first, last
