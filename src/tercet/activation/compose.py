"""Several memories in one prompt, though each was read alone.

Every memory is read behind the same opening (`head`), so that what a model looks at when there is nothing to see (its
sink) is there once, in the prompt's own first tokens, and not again at the start of each memory. Joining takes the head
and the first memory as they are (exact), and behind them the others' rows without the head, their keys rotated to where
they now stand. What is missing is that later memories have not seen the earlier ones; a share of their tokens is
therefore computed anew in their new place, with everything before them in sight, and the question in the same pass.

0 % is reuse alone; 100 % computes all but the first memory, which equals a fresh prefill.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from tercet.engine.base import require
from tercet.engine.cache import Entry, KVCache
from tercet.errors import InvalidRequest

if TYPE_CHECKING:
    from torch import Tensor

    from tercet.engine.base import CacheEngine
    from tercet.engine.run import ModelRun

STAND_IN = """Monday, 04 March 2024:
- 08:40 Ana: The train was late again, so I walked along the canal and bought bread on the way.
- 08:42 Tom: I wish I had. Did you see the new bridge? They say that it opens in June.
- 08:45 Ana: Only from far away. By the way, the meeting is moved to Thursday at ten.
- 08:46 Tom: Thanks, I will tell Maria. She wanted to show us the plans for the garden.
Friday, 12 April 2024:
- 19:05 Maria: The seeds are in. Beans, two kinds of tomatoes, and some flowers for the bees.
- 19:09 Tom: Lovely! My brother has a spare water barrel, if you can use one.
- 19:10 Maria: Yes, please. Could he bring it on Sunday, before the rain?
- 19:14 Tom: I think so; he is back from Lisbon on Saturday night.
- 19:20 Ana: Then I will cook. Does anybody mind mushrooms? And who has the key of the shed?
"""
"""What stands in for earlier memories while one is read for joining: words of ours, of no meaning to anybody."""

SHARE = 15.0
"""Per cent of the memories' tokens that are computed anew unless one says otherwise."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The tokens from `begin` on of a cache, to stand in the prompt from position `at` on."""

    cache: KVCache
    begin: int
    at: int

    @property
    def end(self) -> int:
        """The position behind its last token."""
        return self.at + len(self.cache.tokens) - self.begin


class Choose(Protocol):
    """Chooses which rows of a joined cache to compute anew."""

    def rows(self, run: ModelRun, pieces: Sequence[Piece], count: int, suffix: Sequence[int]) -> list[int]:
        """At most `count` rows behind the first piece, rising; `suffix` is what will be read behind them."""


@dataclass(frozen=True, slots=True)
class Blend:
    """CacheBlend (arXiv 2405.16444): the tokens whose values move most when they are computed anew up to layer `check`.

    delta_t = sum over heads and channels of (v_new - v_old)^2. The layers up to `check` are computed for all tokens,
    and written; only the chosen run on above. A chosen query at position p sees the keys at positions <= p, whichever
    of them were chosen (the published code lets it see those up to its rank among the chosen, which is another set).
    """

    check: int = 1

    def rows(self, run: ModelRun, pieces: Sequence[Piece], count: int, suffix: Sequence[int]) -> list[int]:  # noqa: ARG002
        """See `Choose.rows`."""
        stale = range(pieces[0].end, pieces[-1].end)
        if count >= len(stale):
            return list(stale)
        moved = run.deviations(stale, layer=min(self.check, len(run.engine.windows) - 1))
        return sorted(stale[int(place)] for place in moved.topk(count).indices)


@dataclass(frozen=True, slots=True)
class Asked:
    """`Blend`, weighed by the question: a token that moves but is not looked at need not be right.

    Score of token t: a_t x delta_t / ||v_t||^2, where a_t is the attention that the suffix pays to it over the joined
    cache, summed over layers, heads and tokens. Ours; it costs a pass over the suffix.
    """

    check: int = 1

    def rows(self, run: ModelRun, pieces: Sequence[Piece], count: int, suffix: Sequence[int]) -> list[int]:
        """See `Choose.rows`."""
        stale = range(pieces[0].end, pieces[-1].end)
        if count >= len(stale):
            return list(stale)
        layer = min(self.check, len(run.engine.windows) - 1)
        looked = run.attention(suffix)[stale.start : stale.stop]
        moved = run.deviations(stale, layer=layer)
        score = looked * moved / run.sizes(layer)[stale.start : stale.stop].clamp_min(1e-9)
        return sorted(stale[int(place)] for place in score.topk(count).indices)


@dataclass(frozen=True, slots=True)
class Link:
    """EPIC (arXiv 2410.15332): the first tokens of every memory but the first, equally many of each. Costs no look."""

    def rows(self, run: ModelRun, pieces: Sequence[Piece], count: int, suffix: Sequence[int]) -> list[int]:  # noqa: ARG002
        """See `Choose.rows`."""
        left, chosen = count, list[int]()
        later = sorted(pieces[1:], key=lambda piece: piece.end - piece.at)  # what a short one leaves goes to the longer
        for place, piece in enumerate(later):
            size = min(piece.end - piece.at, left // (len(later) - place))
            chosen += range(piece.at, piece.at + size)
            left -= size
        return sorted(chosen)


CHOICES: Mapping[str, Choose] = {
    "asked": Asked(),
    "blend": Blend(),
    "link": Link(),
}
"""Name -> how the rows to compute anew are chosen."""


def aside(engine: CacheEngine, head: Sequence[int], text: Sequence[int]) -> KVCache | None:
    """A cache of `head` and `text` to stand behind other memories: the text is read behind a stand-in for them.

    A text that is read at once behind the opening attends to little but itself and the opening; behind other memories
    it would not. What stands in need not be what will stand there: most of the difference is that something does. The
    text's keys are rotated to where they would be without it, so that the cache is one like any other, but not exact.

    Returns None where the stand-in does not fit into the model's context, or a layer leaves rows out.
    """
    import torch

    between = engine.encode(STAND_IN)
    if len(head) + len(between) + len(text) > engine.context:
        return None
    whole = engine.prefill((*head, *between, *text))
    if not whole.divisible:
        return None
    first, made = len(head) + len(between), list[Entry]()
    for entry in whole.entries:
        keys, values = entry.tensors["k"], entry.tensors["v"]
        moved = engine.rotated(keys[:, first:], entry.layer, -len(between))
        tensors = {
            "k": torch.cat([keys[:, : len(head)], moved], 1),
            "v": torch.cat([values[:, : len(head)], values[:, first:]], 1),
        }
        made.append(Entry(entry.layer, entry.kind, tensors))
    return KVCache(whole.model, (*head, *text), tuple(made))


def stands_far(engine: CacheEngine, before: int) -> bool:
    """Whether so many tokens of memories before one make its cache behind the stand-in the nearer one.

    With little before it, a memory is more like one that was read at once behind the opening.
    """
    return 2 * before > len(engine.encode(STAND_IN))


def assemble(engine: CacheEngine, pieces: Sequence[Piece], *, room: int = 0) -> ModelRun:
    """A run that holds the pieces' rows, keys rotated to where they stand: 0 % recomputed.

    Raises
    ------
    InvalidRequest
        If the pieces do not follow each other from position 0 on without a gap or an overlap, if a cache is another
        model's, or has left rows out.
    Unsupported
        If the engine cannot compose.
    """
    require(engine, "compose", "Joining memories")
    place = 0
    for number, piece in enumerate(pieces):
        if piece.at != place:
            kind = "a gap" if piece.at > place else "an overlap"
            raise InvalidRequest(
                f"Memory {number + 1} is to stand at {piece.at} and the one before ends at {place}: {kind}, "
                "or the wrong order."
            )
        if not 0 <= piece.begin < len(piece.cache.tokens) or (number == 0 and piece.begin):
            raise InvalidRequest(f"Memory {number + 1} has no tokens from {piece.begin} on.")
        if not piece.cache.divisible:
            raise InvalidRequest(f"Memory {number + 1} has left rows out (a window, or compression): it stands alone.")
        if piece.cache.tokens[: piece.begin] != pieces[0].cache.tokens[: piece.begin]:
            raise InvalidRequest(
                f"Memory {number + 1} was read behind another opening than the first; promote it again."
            )
        engine.run(piece.cache)  # refuses another model's
        place = piece.end
    if not pieces:
        raise InvalidRequest("There is nothing to join.")
    tokens = tuple(token for piece in pieces for token in piece.cache.tokens[piece.begin :])
    entries = tuple(_joined(engine, pieces, layer) for layer in range(len(pieces[0].cache.entries)))
    return cast("ModelRun", engine.run(KVCache(pieces[0].cache.model, tokens, entries), room=room))


def blend(
    engine: CacheEngine, pieces: Sequence[Piece], suffix: Sequence[int], *, share: float = SHARE, choose: str = "asked"
) -> tuple[ModelRun, Tensor]:
    """Join memories, compute `share` per cent of their tokens anew, and go on with `suffix`.

    The share is of all the pieces' tokens but the head; the first memory needs none of it, so that it goes to the
    others. Returns the run and the scores of the next token, (vocab,).

    Raises
    ------
    InvalidRequest
        If the share is not from 0 to 100, the choice is unknown, there is no suffix, or `assemble` raises it.
    """
    if not 0 <= share <= 100:
        raise InvalidRequest(f"The share to compute anew is from 0 to 100 per cent, not {share!r}.")
    if choose not in CHOICES:
        raise InvalidRequest(f"Rows are chosen by {', '.join(CHOICES)}, not {choose!r}.")
    if not suffix:
        raise InvalidRequest("Joined memories need something behind them: a question.")
    run = assemble(engine, pieces, room=len(suffix) + 64)
    stale = pieces[-1].end - pieces[0].end
    head = pieces[1].begin if len(pieces) > 1 else 0
    count = min(stale, round(share / 100 * (pieces[-1].end - head))) if share < 100 else stale
    rows = CHOICES[choose].rows(run, pieces, count, suffix) if count else []
    return run, run.extend(suffix, again=rows)


def _joined(engine: CacheEngine, pieces: Sequence[Piece], layer: int) -> Entry:
    import torch

    keys, values = list[Any](), list[Any]()
    for piece in pieces:
        entry = piece.cache.entries[layer]
        key = entry.tensors["k"][:, piece.begin :]
        keys.append(key if piece.at == piece.begin else engine.rotated(key, entry.layer, piece.at - piece.begin))
        values.append(entry.tensors["v"][:, piece.begin :])
    kind = pieces[0].cache.entries[layer].kind
    return Entry(pieces[0].cache.entries[layer].layer, kind, {"k": torch.cat(keys, 1), "v": torch.cat(values, 1)})
