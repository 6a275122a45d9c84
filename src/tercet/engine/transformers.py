"""Decoders of the Llama, Qwen and Gemma kind on transformers 5, on the CPU. Nothing is downloaded.

Identity is what decides whether a KV cache fits, so it is made from what the model is, not from what it is called: the
SHA-256 of its weights, its tokenizer and its chat template, its rope settings in full, its dtype.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tercet.cube import ModelIdentity
from tercet.engine.base import Ability, Turn, differences
from tercet.errors import InvalidRequest, Unsupported

if TYPE_CHECKING:
    from torch import Tensor

    from tercet.engine.attention import Rows
    from tercet.engine.cache import KVCache
    from tercet.engine.lora import Adapters
    from tercet.engine.run import ModelRun

DTYPES = ("float32", "bfloat16", "float16")
NEEDS = "Running a model here needs `pip install 'tercet[models]'`."
PLAIN_ROPE = frozenset({"default", "linear", "llama3", "yarn"})
"""Rope kinds whose frequencies do not depend on the length: their keys can be moved by rotating them further."""


class TransformersEngine:
    """A causal decoder and its tokenizer.

    Parameters
    ----------
    model, tokenizer
        As transformers gives them. The model is put into evaluation mode and attends through `attention.attend`.
    name, revision
        What it is called; part of the identity.
    weights
        A hash of the weights; left out, it is worked out from the model's tensors.

    Raises
    ------
    Unsupported
        If transformers is not installed, or the model has layers that are no attention with keys and values.
    """

    abilities: frozenset[Ability]

    def __init__(
        self,
        model: Any,  # noqa: ANN401  # a PreTrainedModel of any architecture
        tokenizer: Any,  # noqa: ANN401  # and its tokenizer
        *,
        name: str,
        revision: str = "local",
        weights: str | None = None,
    ) -> None:
        try:
            from transformers import AttentionInterface
        except ImportError as error:
            raise Unsupported(NEEDS) from error
        from tercet.engine import attention

        AttentionInterface.register(attention.NAME, attention.attend)
        config = model.config.get_text_config()
        self.model, self.tokenizer, self.config = model.eval(), tokenizer, config
        self._name, self._revision, self._weights = name, revision, weights
        kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
        if unknown := set(kinds) - {"full_attention", "sliding_attention"}:
            raise Unsupported(
                f"{name} has layers of the kind {', '.join(sorted(unknown))}, whose state is not kept yet."
            )
        if getattr(config, "attn_logit_softcapping", None) is not None:
            raise Unsupported(f"{name} caps its attention scores, which this engine does not do.")
        model.set_attn_implementation(attention.NAME)
        window = getattr(config, "sliding_window", None)
        everywhere = getattr(config, "layer_types", None) is None
        self.windows = [window if everywhere or kind == "sliding_attention" else None for kind in kinds]
        self._kinds = kinds
        self._decoder = model.get_decoder()
        self._cache_word = (
            "cache" if "cache" in inspect.signature(self._decoder.forward).parameters else "past_key_values"
        )
        rope = {json.dumps(one, sort_keys=True, default=str) for one in self._ropes()}
        movable = all(json.loads(one).get("rope_type", "default") in PLAIN_ROPE for one in rope)
        composing: tuple[Ability, ...] = ("compose",) if movable else ()
        self.abilities = frozenset(("generate", "logits", "cache", "adapters", *composing))

    @classmethod
    def load(cls, model: str | Path, *, dtype: str = "float32", name: str | None = None) -> Self:
        """A model from a folder as `save_pretrained` writes it, a GGUF file, or "smollm2-135m" (an installed wheel).

        A GGUF file is converted once, into the user's cache. The safetensors in a folder are hashed once.

        Raises
        ------
        InvalidRequest
            If there is no such folder or file, or the dtype is none of float32, bfloat16, float16.
        Unsupported
            If transformers is not installed.
        """
        folder, called = _place(model, dtype)
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from tercet.engine import files

        try:
            with files.quiet():
                tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
                loaded = AutoModelForCausalLM.from_pretrained(
                    folder, dtype=getattr(torch, dtype), local_files_only=True, use_safetensors=True
                )
        except (OSError, ValueError) as error:
            raise InvalidRequest(
                f"{folder} holds no model that transformers can load from safetensors: {error}"
            ) from error
        weights = files.weights_hash(folder)
        return cls(loaded, tokenizer, name=name or called, revision=weights[:12], weights=weights)

    @classmethod
    def described(cls, model: str | Path, *, dtype: str = "float32") -> Self:
        """The same as `load`, without the weights: it has an identity and shapes, and cannot answer.

        Raises as `load` does.
        """
        folder, called = _place(model, dtype)
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        from tercet.engine import files

        try:
            with files.quiet(), torch.device("meta"):
                tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
                config = AutoConfig.from_pretrained(folder, local_files_only=True)
                empty = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
        except (OSError, ValueError) as error:
            raise InvalidRequest(f"{folder} holds no model that transformers knows: {error}") from error
        weights = files.weights_hash(folder)
        return cls(empty, tokenizer, name=called, revision=weights[:12], weights=weights)

    @property
    def identity(self) -> ModelIdentity:
        """Everything that must match before a cache may be used with this model, as this thread uses it now."""
        return replace(self.base, adapters=self.adapters.active) if self.adapters.active else self.base

    @cached_property
    def adapters(self) -> Adapters:
        """What is added to the model, by whom it is used."""
        from tercet.engine.lora import Adapters

        return Adapters(self.model)

    @cached_property
    def base(self) -> ModelIdentity:
        """The identity of the model without adapters."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        words = backend.to_str() if backend is not None else json.dumps(self.tokenizer.get_vocab(), sort_keys=True)
        return ModelIdentity(
            name=self._name,
            revision=self._revision,
            weights=self._weights or _hash_of(self.model),
            tokenizer=_hash(words),
            template=_hash(self.tokenizer.chat_template or ""),
            rope=json.dumps(self._ropes(), sort_keys=True, default=str, separators=(",", ":")),
            dtype=str(self.dtype).removeprefix("torch."),
        )

    @property
    def dtype(self) -> Any:  # noqa: ANN401  # torch.dtype, which may not be imported here
        """The dtype it computes in."""
        return self.model.dtype

    @property
    def context(self) -> int:
        """Tokens that the model takes."""
        return int(self.config.max_position_embeddings)

    @property
    def vocabulary(self) -> int:
        """How many token ids there are."""
        return int(self.config.vocab_size)

    @cached_property
    def ends(self) -> frozenset[int]:
        """Token ids that end an answer."""
        given = getattr(self.model.generation_config, "eos_token_id", None)
        found = {self.tokenizer.eos_token_id, *(given if isinstance(given, list) else [given])}
        return frozenset(one for one in found if one is not None)

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text, with nothing added."""
        return tuple(self.tokenizer.encode(text, add_special_tokens=False))

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids, special ones left out."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))

    def render(self, messages: Sequence[Turn]) -> str:
        """Messages by the model's template, up to where its answer begins; without one, `role: content` lines."""
        if self.tokenizer.chat_template is None:
            return "".join(f"{turn['role']}: {turn['content']}\n" for turn in messages) + "assistant:"
        from jinja2 import TemplateError

        try:
            text = self.tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        except TemplateError as error:
            raise InvalidRequest(f"{self._name}'s template does not take these messages: {error}.") from error
        return str(text)

    def run(self, past: KVCache | None = None, *, room: int = 0) -> ModelRun:
        """Go on from a cache, which is copied. Raises InvalidRequest if it is another model's, with what differs."""
        from tercet.engine.run import ModelRun

        if past is not None and past.model != self.identity:
            raise InvalidRequest(
                f"This cache was made by another model ({differences(self.identity, past.model)}); promote again."
            )
        return ModelRun(self, past, room=room)

    def prefill(self, tokens: Sequence[int], past: KVCache | None = None) -> KVCache:
        """The cache of `past` and `tokens`. Raises InvalidRequest if the context is too long."""
        run = self.run(past, room=len(tokens) if past is not None else 0)
        run.extend(tokens)
        return run.cache()

    def observe(self, tokens: Sequence[int]) -> tuple[KVCache, Mapping[int, Tensor]]:
        """See `CacheEngine.observe`: one prefill. Raises InvalidRequest if the context is too long."""
        run, seen = self.run(), dict[int, Any]()

        def note(layer: int, _: str, queries: Tensor) -> None:
            if self.windows[layer] is None:
                seen[layer] = queries

        run.rows.watch = note
        run.extend(tokens)
        return run.cache(), seen

    def generate(self, messages: Sequence[Turn], *, max_tokens: int = 256) -> Iterator[str]:
        """Answer, greedily, in pieces as they come."""
        run = self.run()
        return run.pieces(run.extend(self.encode(self.render(messages))), max_tokens=max_tokens)

    def rotated(self, rows: Tensor, layer: int, by: int | Tensor) -> Tensor:
        """Keys or queries (..., R, d) of a layer moved by `by` positions: rope(rope(x, p), n) = rope(x, p + n).

        `by` is one number for all rows, or one for each, (R,); computed in float32.

        Half-split pairing; dimensions beyond the rotary ones stay. The factor by which some kinds of rope scale is in
        the stored keys already, so the rotation itself scales by 1.
        """
        import torch

        if "compose" not in self.abilities:
            raise Unsupported(f"The rope of {self._name} depends on the length; its keys cannot be moved.")
        rotary = self._decoder.rotary_emb
        inverse = getattr(rotary, f"{self._kinds[layer]}_inv_freq", None)
        angle = torch.as_tensor(by)[..., None] * (rotary.inv_freq if inverse is None else inverse).double()
        cos, sin = torch.cos(angle).float(), torch.sin(angle).float()
        half = angle.shape[-1]
        moved = rows.float().clone()
        left, right = rows[..., :half].float(), rows[..., half : 2 * half].float()
        moved[..., :half] = left * cos - right * sin
        moved[..., half : 2 * half] = right * cos + left * sin
        return moved.to(rows.dtype)

    def states(self, ids: Tensor, positions: Tensor, rows: Rows) -> Tensor:
        """The decoder's last states, (1, q, width), of tokens at positions, over rows."""
        taken = {"input_ids": ids, "position_ids": positions, "use_cache": True, self._cache_word: rows, "rows": rows}
        return self._decoder(**taken).last_hidden_state

    def read(
        self,
        ids: Tensor,
        past: Any = None,  # noqa: ANN401  # a cache of transformers
        *,
        positions: Tensor | None = None,
        seen: Tensor | None = None,
    ) -> Tensor:
        """The decoder's last states, (B, T, width), of texts of one length or padded behind; gradients flow.

        With `past` it goes on from a cache of transformers, which it adds to. Texts padded in front say at which
        `positions` (B, T) their tokens are and which keys each has `seen`, (B, 1, T, keys) bool.
        """
        taken: dict[str, Any] = {} if past is None else {self._cache_word: past}
        if positions is not None:
            taken |= {"position_ids": positions, "seen": seen}
        return self._decoder(input_ids=ids, use_cache=past is not None, **taken).last_hidden_state  # type: ignore[no-any-return, unused-ignore]

    def scaling(self, layer: int) -> float:
        """What q · k is multiplied by in a layer, before the softmax."""
        return float(self._decoder.layers[layer].self_attn.scaling)

    @property
    def head(self) -> Callable[[Tensor], Tensor]:
        """States to scores of the vocabulary."""
        return self.model.get_output_embeddings()  # type: ignore[no-any-return, unused-ignore]

    def close(self) -> None:
        """Let go of the model."""
        self.model = self._decoder = None

    def _ropes(self) -> list[dict[str, Any]]:
        """Rope settings, by kind of layer where they differ, with the width they turn."""
        given = getattr(self.config, "rope_parameters", None) or {}
        per_kind = any(isinstance(one, dict) for one in given.values())
        settings = [{"layers": kind, **one} for kind, one in sorted(given.items())] if per_kind else [dict(given)]
        width = getattr(self.config, "head_dim", None) or self.config.hidden_size // self.config.num_attention_heads
        return [{**one, "width": width, "window": getattr(self.config, "sliding_window", None)} for one in settings]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _hash_of(model: Any) -> str:  # noqa: ANN401  # a torch module
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _place(model: str | Path, dtype: str) -> tuple[Path, str]:
    """The folder of a model and what it is called. Raises as `load` does."""
    from tercet.engine import files

    if dtype not in DTYPES:
        raise InvalidRequest(f"A dtype is one of {', '.join(DTYPES)}, not {dtype!r}.")
    found = files.folder_of(model)
    try:
        import transformers  # noqa: F401  # is it there?
    except ImportError as error:
        raise Unsupported(NEEDS) from error
    return found
