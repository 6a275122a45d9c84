"""What an engine promises. Abilities are declared, never guessed from a type: whoever needs one asks `require`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, get_args

from tercet.errors import Unsupported

if TYPE_CHECKING:
    from torch import Tensor

    from tercet.cube import ModelIdentity
    from tercet.engine.cache import KVCache
    from tercet.engine.lora import Adapters

Ability = Literal["generate", "logits", "cache", "compose", "adapters"]
ABILITIES: tuple[Ability, ...] = get_args(Ability)

Turn: TypeAlias = "dict[str, str]"
"""{"role": "system" | "user" | "assistant", "content": …}"""


class Engine(Protocol):
    """Something that runs a model.

    generate   answer messages with text
    logits     give the scores of every next token
    cache      build a KV cache, and go on from one
    compose    move a cache to other positions, and compute chosen tokens of it anew
    adapters   attach low-rank adapters; with `logits`, train them
    """

    @property
    def identity(self) -> ModelIdentity:
        """Everything that must match before a tensor may be used with this model."""

    @property
    def abilities(self) -> frozenset[Ability]:
        """What it can do."""

    @property
    def context(self) -> int:
        """Tokens that the model takes, the answer's included."""

    def generate(self, messages: Sequence[Turn], *, max_tokens: int = 256) -> Iterator[str]:
        """Answer, greedily, in pieces as they come; ends by itself or after `max_tokens`."""

    def close(self) -> None:
        """Let go of the model."""


class Run(Protocol):
    """A cache being worked on: a copy, so that the stored one is never changed."""

    @property
    def tokens(self) -> tuple[int, ...]:
        """The tokens whose rows it holds."""

    def extend(self, tokens: Sequence[int], *, again: Sequence[int] = (), every: bool = False) -> Tensor:
        """Go on with `tokens`, and compute the rows `again` anew in the same pass.

        Returns the scores of the next token, (vocab,) float32; with `every`, after each new token: (n, vocab).

        Raises
        ------
        InvalidRequest
            If the model takes no so long a context, or `again` is not rising, or outside of what is held.
        """

    def cache(self) -> KVCache:
        """What is held now."""

    def pieces(self, scores: Tensor, *, max_tokens: int) -> Iterator[str]:
        """Generate greedily from the scores of the next token: text as it comes, the end token left out."""


class CacheEngine(Engine, Protocol):
    """An engine whose abilities include `logits` and `cache`; with `compose`, `rotated` works too."""

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text, with nothing added before or after."""

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids."""

    def render(self, messages: Sequence[Turn]) -> str:
        """Messages by the model's template, up to where its answer begins."""

    def run(self, past: KVCache | None = None, *, room: int = 0) -> Run:
        """Go on from a cache, which is copied; `room` tokens more can be taken without copying again.

        Raises InvalidRequest, naming what differs, if the cache is another model's.
        """

    def prefill(self, tokens: Sequence[int], past: KVCache | None = None) -> KVCache:
        """The cache of `past` and `tokens`. Raises InvalidRequest if the context is too long."""

    def observe(self, tokens: Sequence[int]) -> tuple[KVCache, Mapping[int, Tensor]]:
        """As `prefill`, and the queries by layer, (Hq, T, d) after RoPE, of the layers that see all tokens.

        Query head h looks at key/value head h // (Hq / H). Layers with a window are left out.
        """

    def scaling(self, layer: int) -> float:
        """What q · k is multiplied by in a layer, before the softmax."""

    def rotated(self, rows: Tensor, layer: int, by: int | Tensor) -> Tensor:
        """Keys or queries (..., R, d) of a layer moved by so many positions, or each row by its own (R,): a copy."""


class AdapterEngine(CacheEngine, Protocol):
    """An engine whose abilities include `adapters` and `logits`."""

    @property
    def base(self) -> ModelIdentity:
        """The identity of the model without adapters."""

    @property
    def adapters(self) -> Adapters:
        """What is attached to the model."""

    @property
    def ends(self) -> frozenset[int]:
        """Token ids that end an answer."""

    @property
    def vocabulary(self) -> int:
        """How many token ids there are."""

    @property
    def windows(self) -> Sequence[int | None]:
        """How many tokens back each layer sees; None: all."""

    @property
    def head(self) -> Callable[[Tensor], Tensor]:
        """States to scores of the vocabulary."""

    def read(
        self,
        ids: Tensor,
        past: Any = None,  # noqa: ANN401  # a cache of transformers
        *,
        positions: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> Tensor:
        """The last states, (B, T, width), of texts of one length or padded behind; gradients flow.

        See `TransformersEngine.read` for the rest.
        """


def require(engine: Engine, ability: Ability, what: str) -> None:
    """Return if the engine has an ability. Raises Unsupported, naming `what` needs it, if not."""
    if ability not in engine.abilities:
        raise Unsupported(
            f"{what} needs an engine that can {ability!r}; {engine.identity.name} can "
            f"{', '.join(sorted(engine.abilities))}."
        )


def differences(wanted: ModelIdentity, found: ModelIdentity) -> str:
    """What differs between two identities, in words; empty if nothing does."""
    names = ("name", "revision", "weights", "tokenizer", "template", "rope", "dtype", "adapters")
    pairs = [(name, getattr(wanted, name), getattr(found, name)) for name in names]
    return "; ".join(f"{name}: {_short(there)} is not {_short(here)}" for name, here, there in pairs if here != there)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
