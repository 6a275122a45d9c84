"""A memory too long to read again for each question: find in it what the question is about, and read only that.

REFORM (arXiv 2506.01215) as a use of a kept cache. The model reads the question behind the cache; the states of a few
heads say which of the memory's tokens are like it; those tokens, in their order, are prefilled anew as a text of their
own. So the new cache is exact for the text that was chosen, at any length of the memory it was chosen from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tercet.activation.compress.reform import Head, Reform
from tercet.errors import InvalidRequest

if TYPE_CHECKING:
    from tercet.engine.base import CacheEngine
    from tercet.engine.cache import KVCache

HEADS: Mapping[str, tuple[Head, ...]] = {
    "SmolLM2-135M-Instruct.Q4_1": ((15, 1, "value"), (15, 2, "value"), (18, 2, "value"), (12, 0, "value")),
}
"""Model -> the heads whose states are compared: those of least mean normalised rank of the tokens that answer, over
samples that `benchmarks/reform_heads.py` makes up (0.25, 0.29, 0.30, 0.31; 0.5 is chance)."""


def heads_of(engine: CacheEngine, cache: KVCache) -> tuple[Head, ...]:
    """The heads of `HEADS`; for other models the values of the two layers in the middle of those that have all rows."""
    known = HEADS.get(engine.identity.name)
    if known is not None:
        return known
    whole = [one for one in cache.entries if one.kind == "kv"]
    middle = whole[max(len(whole) // 2 - 1, 0) : len(whole) // 2 + 1]
    return tuple((one.layer, head, "value") for one in middle for head in range(one.tensors["v"].shape[0]))


def gather(
    engine: CacheEngine, cache: KVCache, question: Sequence[int], *, share: float, head: int = 0,
    how: Reform | None = None,
) -> KVCache:  # fmt: skip
    """The cache of what a question needs of a memory: about `share` of its tokens, prefilled anew as one text.

    Parameters
    ----------
    cache
        The memory's; every layer that is looked at must have all its rows.
    question
        Tokens that are read behind it, to be compared with it.
    share
        Of the tokens behind the opening, above 0 and at most 1.
    head
        How many tokens the opening has: all of them stay.
    how
        The method with its hyper-parameters, by default `Reform` with the heads of `heads_of`.

    Raises
    ------
    InvalidRequest
        If the share is out of range, there is no question or no memory, the cache is compressed, or no layer of it has
        all rows; or both are too long for the model.
    """
    from tercet.activation.compress.views import views

    tokens = cache.tokens
    if not 0 < share <= 1:
        raise InvalidRequest(f"The share to keep is above 0 and at most 1, not {share!r}.")
    if not question or not 0 <= head < len(tokens):
        raise InvalidRequest("Gathering needs a question, and a memory behind the opening.")
    if cache.compressed:
        raise InvalidRequest("A compressed cache has lost rows to look at; gather from the whole one.")
    how = how or Reform(heads_of(engine, cache))
    if not how.heads:
        raise InvalidRequest(f"No layer of {engine.identity.name} sees all tokens: there is nothing to gather by.")
    run = engine.run(cache, room=len(question))
    run.extend(question)
    states = how.embed(views(engine, run.cache(), {}))
    context, asked = states[head : len(tokens)], states[len(tokens) :]
    kept = how.gather(context, asked, max(1, round(share * len(context))))
    return engine.prefill((*tokens[:head], *(tokens[head + int(place)] for place in kept)))
