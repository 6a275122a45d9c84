"""A LoRA as a GGUF file, which llama.cpp lays over the base's own GGUF file (`--lora`).

Per module two tensors, `<name>.lora_a` (r, in) and `<name>.lora_b` (out, r), in float32; llama.cpp multiplies their
product by alpha / r. In GGUF files of the Llama family the rows of queries and keys are in another order than in
transformers (rotary halves interleaved), so the rows of those B are put into it, too; A reads inputs, which are alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tercet.errors import InvalidRequest, Unsupported

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from tercet.parametric.adapter import Adapter

ARCHITECTURES: Mapping[str, str] = {"llama": "llama"}
"""transformers' model types -> GGUF's architectures, those that were tried against llama.cpp itself."""


def save(adapter: Adapter, path: Path, *, config: Any, name: str) -> None:  # noqa: ANN401  # transformers' own
    """Write an adapter of a base with this transformers configuration; `name` is what the file calls it.

    Raises
    ------
    InvalidRequest
        If modules have different ranks, or one has no place in a GGUF file.
    Unsupported
        If gguf is not installed, or the base is of another family than those in `ARCHITECTURES`.
    """
    try:
        import gguf
    except ImportError as error:
        raise Unsupported("Writing a GGUF file needs `pip install 'tercet[models]'`.") from error
    if config.model_type not in ARCHITECTURES:
        raise Unsupported(
            f"Adapters of the family {config.model_type!r} are not written for llama.cpp yet; those of "
            f"{', '.join(ARCHITECTURES)} are. Export it in PEFT's form and convert that."
        )
    ranks = {pair.rank for pair in adapter.modules.values()}
    if len(ranks) != 1:
        raise InvalidRequest(f"A GGUF adapter has one rank for all modules, not {sorted(ranks)}.")
    architecture = ARCHITECTURES[config.model_type]
    kind = next(one for one, called in gguf.MODEL_ARCH_NAMES.items() if called == architecture)
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(name)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(next(iter(ranks))))
    for module, pair in sorted(adapter.modules.items()):
        called = names.get_name(module)
        if called is None:
            raise InvalidRequest(f"The adapter's {module} has no place in a GGUF file.")
        writer.add_tensor(f"{called}.weight.lora_a", _plain(pair.a))
        writer.add_tensor(f"{called}.weight.lora_b", _plain(_ordered(module, pair.b * pair.scale, config)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _ordered(module: str, b: Tensor, config: Any) -> Tensor:  # noqa: ANN401  # transformers' own
    """The rows of a B (out, r) as llama.cpp has them: within a head, (2, half) becomes (half, 2)."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(module.rpartition(".")[2])
    if heads is None:
        return b
    return b.view(heads, 2, b.shape[0] // heads // 2, b.shape[1]).transpose(1, 2).reshape(b.shape)


def _plain(tensor: Tensor) -> NDArray[Any]:
    found: NDArray[Any] = tensor.detach().float().contiguous().numpy()
    return found
