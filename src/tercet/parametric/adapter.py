"""A LoRA as tensors: for each module, delta = scale * B A. Read from and written to PEFT's folder, and checked first.

An adapter steers what a model says: whatever comes from elsewhere is looked at before a tensor of it reaches a model.
These checks keep out what is broken or made for another base; they cannot see what it was trained to say.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tercet.engine import peft
from tercet.errors import InvalidRequest, Refused, VaultDamaged

CONFIG, WEIGHTS, PREFIX = peft.CONFIG, peft.WEIGHTS, peft.PREFIX
MAX_CONFIG, MAX_HEADER, MAX_BYTES = 1 << 20, 1 << 20, 2 << 30
MAX_RANK, MAX_SCALE = 256, 64.0
_KEY = re.compile(rf"{re.escape(PREFIX)}(?P<module>[\w.]+)\.lora_(?P<side>[AB])\.weight")
_DTYPES = frozenset({"F32", "F16", "BF16"})
UNWANTED = (
    "modules_to_save", "layer_replication", "trainable_token_indices", "auto_mapping", "megatron_config", "use_dora",
    "rank_pattern", "alpha_pattern", "target_parameters", "alora_invocation_tokens", "lora_bias", "use_qalora",
    "use_bdlora",
)  # fmt: skip
"""Settings of PEFT that change what the two matrices mean; an adapter that uses one is refused."""


@dataclass(frozen=True, eq=False)
class Pair:
    """One module's delta: scale * b @ a, with a (r, in) and b (out, r)."""

    a: Tensor
    b: Tensor
    scale: float = 1.0

    @property
    def rank(self) -> int:
        """r."""
        return int(self.a.shape[0])

    def delta(self) -> Tensor:
        """(out, in) float32."""
        return self.scale * (self.b.float() @ self.a.float())


@dataclass(frozen=True, eq=False)
class Adapter:
    """Pairs by the module's path in the base model."""

    modules: Mapping[str, Pair]

    @property
    def rank(self) -> int:
        """The greatest of its modules."""
        return max((pair.rank for pair in self.modules.values()), default=0)


def save(adapter: Adapter, folder: Path, *, base: str) -> None:
    """Write PEFT's two files. Raises InvalidRequest if modules have different ranks."""
    peft.write(adapter.modules, folder, base=base)


def load(folder: Path, shapes: Mapping[str, tuple[int, int]]) -> Adapter:
    """Read PEFT's folder for a base whose linear modules have these (out, in) shapes.

    Raises
    ------
    InvalidRequest
        If there is no adapter, or it does not fit the base: a module it does not have, another width, one side alone.
    Refused
        If it is pickled, too large, uses a setting that is not allowed, or has values that are not finite.
    VaultDamaged
        If a file is cut short or no safetensors file.
    """
    config, path = _config_of(folder), folder / WEIGHTS
    if not path.is_file() or path.is_symlink():
        pickled = sorted(one.name for one in folder.iterdir() if one.suffix in {".bin", ".pt", ".pth", ".pkl"})
        if pickled:
            raise Refused(f"{folder} holds {pickled[0]}, which is pickled and is never opened; save it as safetensors.")
        raise InvalidRequest(f"There is no {WEIGHTS} in {folder}.")
    return read(config, path, shapes)


def read(config: Mapping[str, Any], source: Path | bytes, shapes: Mapping[str, tuple[int, int]]) -> Adapter:
    """What `load` reads, of a configuration and a file by any name, or its bytes. Raises as `load` does."""
    _settings(config)
    header = _header(source)
    found: dict[str, dict[str, Any]] = {}
    for key, about in header.items():
        match = _KEY.fullmatch(key)
        if match is None or match["module"] not in shapes:
            raise InvalidRequest(f"The adapter has {key!r}, which is no linear module of this base.")
        found.setdefault(match["module"], {})[match["side"]] = about
    scale = _scale(config)
    for module, sides in found.items():
        _fits(module, sides, shapes[module], config)
    pairs = {}
    with _tensors(source) as tensor:
        for module in sorted(found):
            a, b = (tensor(f"{PREFIX}{module}.lora_{side}.weight") for side in "AB")
            if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
                raise Refused(f"The adapter's {module} has values that are not finite.")
            pairs[module] = Pair(a, b, scale)
    if not pairs:
        raise InvalidRequest("The adapter is empty.")
    return Adapter(pairs)


@contextmanager
def _tensors(source: Path | bytes) -> Iterator[Callable[[str], Tensor]]:
    """A safetensors file's tensors, by name."""
    if isinstance(source, bytes):
        from safetensors.torch import load as load_bytes

        yield load_bytes(source).__getitem__
        return
    from safetensors import safe_open

    with safe_open(source, framework="pt") as file:
        yield file.get_tensor


def _config_of(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    if not path.is_file() or path.is_symlink():
        raise InvalidRequest(f"There is no {CONFIG} in {folder}.")
    if path.stat().st_size > MAX_CONFIG:
        raise Refused(f"{path.name} is larger than any configuration.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise VaultDamaged(f"{path.name} is no JSON: {error}") from None
    if not isinstance(config, dict):
        raise VaultDamaged(f"{path.name} is no JSON object.")
    return config


def _settings(config: Mapping[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise Refused("Only plain LoRA adapters are taken (peft_type LORA).")
    used = [name for name in UNWANTED if config.get(name)]
    if used or config.get("bias", "none") != "none" or config.get("fan_in_fan_out"):
        raise Refused(f"The adapter uses {', '.join(used) or 'bias or fan_in_fan_out'}, which is not taken here.")


def _scale(config: Mapping[str, Any]) -> float:
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank <= MAX_RANK:
        raise Refused(f"The adapter's rank is {rank!r}; ranks from 1 to {MAX_RANK} are taken.")
    if not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise Refused(f"The adapter's lora_alpha is {alpha!r}, which is no number.")
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    if not 0 < scale <= MAX_SCALE:
        raise Refused(f"The adapter's scale is {scale:g}; above 0 and up to {MAX_SCALE:g} is taken.")
    return float(scale)


def _header(source: Path | bytes) -> dict[str, dict[str, Any]]:
    """A safetensors file's table of contents, looked at before any tensor is."""
    name = "The adapter" if isinstance(source, bytes) else source.name
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if size > MAX_BYTES:
        raise Refused(f"{name} has {size:,} bytes; {MAX_BYTES:,} are taken.")
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER):
            raise VaultDamaged(f"{name} is no whole safetensors file.")
        try:
            header = json.loads(file.read(length))
        except ValueError:
            raise VaultDamaged(f"{name} is no safetensors file.") from None
    if not isinstance(header, dict):
        raise VaultDamaged(f"{name} is no safetensors file.")
    header.pop("__metadata__", None)
    ends = [about.get("data_offsets", [0, -1])[1] for about in header.values() if isinstance(about, dict)]
    if len(ends) != len(header) or max(ends, default=0) != size - 8 - length:
        raise VaultDamaged(f"{name} was cut short, or its table does not fit its bytes.")
    return header


def _fits(module: str, sides: Mapping[str, Any], shape: tuple[int, int], config: Mapping[str, Any]) -> None:
    rank = config["r"]
    wanted = {"A": [rank, shape[1]], "B": [shape[0], rank]}
    if {side: about.get("shape") for side, about in sides.items()} != wanted:
        raise InvalidRequest(f"The adapter's {module} has not the shapes that rank {rank} has on this base: {wanted}.")
    if any(about.get("dtype") not in _DTYPES for about in sides.values()):
        raise Refused(f"The adapter's {module} is not float32, float16 or bfloat16.")
