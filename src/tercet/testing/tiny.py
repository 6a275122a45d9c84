"""Tiny decoders with random weights, in the shapes of the Llama, Qwen and Gemma families: quick, and never right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tercet.engine.transformers import TransformersEngine

COMMON: Mapping[str, Any] = {
    "vocab_size": 261, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512, "initializer_range": 0.3,
    "bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 256,
}  # fmt: skip
FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "qwen": {},
    "gemma": {
        "sliding_window": 24,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        "query_pre_attn_scalar": 16,
    },
}
"""Family -> what its configuration has besides `COMMON`. Gemma's layers have a window of 24 tokens, but one."""
TEMPLATE = "{% for m in messages %}{{ '<s>' + m['role'] + '\n' + m['content'] + '</s>\n' }}{% endfor %}<s>assistant\n"


def tiny_engine(family: str = "llama", *, seed: int = 0, dtype: str = "float32", **changes: Any) -> TransformersEngine:  # noqa: ANN401
    """An engine over a random decoder of a family; `changes` go to its configuration. Bytes are its tokens."""
    import torch
    import transformers

    from tercet.engine.transformers import TransformersEngine

    names = {"llama": "Llama", "qwen": "Qwen3", "gemma": "Gemma3Text"}
    model_names = {**names, "gemma": "Gemma3"}
    config = getattr(transformers, f"{names[family]}Config")(**{**COMMON, **FAMILIES[family], **changes})
    torch.manual_seed(seed)
    model = getattr(transformers, f"{model_names[family]}ForCausalLM")(config).to(getattr(torch, dtype))
    return TransformersEngine(model, byte_tokenizer(), name=f"tiny-{family}")


def byte_tokenizer() -> Any:  # noqa: ANN401  # a PreTrainedTokenizerFast
    """A tokenizer of 256 bytes and four special tokens, with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")  # noqa: S106
    made.chat_template = TEMPLATE
    return made
