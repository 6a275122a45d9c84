"""A LoRA as tensors: for each module, delta = scale * B A. Read from and written to PEFT's folder, and checked first.

An adapter steers what a model says: whatever comes from elsewhere is looked at before a tensor of it reaches a model.
These checks keep out what is broken or made for another base; they cannot see what it was trained to say.

The vault may keep an adapter in fewer bytes, its tensors coded (`FORMS`). Such a file is no PEFT file and does not say
that it is one: plain PEFT would find no tensor under the names it knows, and add nothing, without a word.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tercet.engine import peft
from tercet.errors import InvalidRequest, Refused, VaultDamaged
from tercet.parametric.quant.blocks import CODECS, Codec

CONFIG, WEIGHTS, PREFIX = peft.CONFIG, peft.WEIGHTS, peft.PREFIX
MAX_CONFIG, MAX_HEADER, MAX_BYTES = 1 << 20, 1 << 20, 2 << 30
MAX_RANK, MAX_SCALE = 256, 64.0
PLAIN, STORED = "bf16", "tercet_stored"
FORMS = (PLAIN, *CODECS)
"""In which forms the vault keeps adapters; a configuration names a codec under the key `STORED`."""
_KEY = re.compile(rf"{re.escape(PREFIX)}(?P<module>[\w.]+)\.lora_(?P<side>[AB])\.weight(?:\.(?P<part>\w+))?")
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


def save(adapter: Adapter, folder: Path, *, base: str, stored: str = PLAIN) -> None:
    """Write PEFT's two files; or, coded, two of the same names that only `read` reads.

    Raises InvalidRequest if modules have different ranks, or values that are not finite are to be coded.
    """
    tensors, config = peft.form(adapter.modules, base=base)
    if stored != PLAIN:
        codec = CODECS[stored]
        tensors = {f"{key}.{end}": part for key, one in tensors.items() for end, part in codec.encode(one).items()}
        config = {name: value for name, value in config.items() if name != "peft_type"} | {STORED: stored}
    peft.put(tensors, config, folder)


def load(folder: Path, shapes: Mapping[str, tuple[int, int]]) -> Adapter:
    """Read PEFT's folder for a base whose linear modules have these (out, in) shapes.

    Raises
    ------
    InvalidRequest
        If there is no adapter, or it does not fit the base: a module it does not have, another width, one side alone.
    Refused
        If it is pickled, too large, coded, uses a setting that is not allowed, or has values that are not finite.
    VaultDamaged
        If a file is cut short or no safetensors file.
    """
    config, path = _config_of(folder), folder / WEIGHTS
    if STORED in config:  # what leaves a vault is plain; this was taken out of one some other way
        raise Refused(
            f"{folder} holds an adapter in a form that only vaults keep ({STORED}); export it from its vault."
        )
    if not path.is_file() or path.is_symlink():
        pickled = sorted(one.name for one in folder.iterdir() if one.suffix in {".bin", ".pt", ".pth", ".pkl"})
        if pickled:
            raise Refused(f"{folder} holds {pickled[0]}, which is pickled and is never opened; save it as safetensors.")
        raise InvalidRequest(f"There is no {WEIGHTS} in {folder}.")
    return read(config, path, shapes)


def read(config: Mapping[str, Any], source: Path | bytes, shapes: Mapping[str, tuple[int, int]]) -> Adapter:
    """What `load` reads, of a configuration and a file by any name, or its bytes; what is coded becomes bfloat16.

    Raises as `load` does.
    """
    codec = _settings(config)
    header = _header(source)
    found: dict[str, dict[tuple[str, str], Any]] = {}
    for key, about in header.items():
        match = _KEY.fullmatch(key)
        if match is None or match["module"] not in shapes:
            raise InvalidRequest(f"The adapter has {key!r}, which is no linear module of this base.")
        found.setdefault(match["module"], {})[match["side"], match["part"] or ""] = about
    scale = _scale(config)
    for module, parts in found.items():
        _fits(module, parts, shapes[module], config["r"], codec)
    pairs = {}
    with _tensors(source) as tensor:
        for module in sorted(found):
            a, b = (
                _whole(tensor, f"{PREFIX}{module}.lora_{side}.weight", shape, codec)
                for side, shape in _sides(shapes[module], config["r"]).items()
            )
            pairs[module] = Pair(a, b, scale)
    if not pairs:
        raise InvalidRequest("The adapter is empty.")
    check_finite(pairs)
    return Adapter(pairs)


def check_finite(modules: Mapping[str, Pair]) -> None:
    """Raises Refused for a value that is not finite."""
    for module, pair in modules.items():
        if not (torch.isfinite(pair.a).all() and torch.isfinite(pair.b).all()):
            raise Refused(f"The adapter's {module} has values that are not finite.")


def _whole(tensor: Callable[[str], Tensor], key: str, shape: tuple[int, int], codec: Codec | None) -> Tensor:
    """One side of a module, decoded if need be."""
    if codec is None:
        return tensor(key)
    return codec.decode({end: tensor(f"{key}.{end}") for end in codec.parts(shape)}, shape).to(torch.bfloat16)


@contextmanager
def _tensors(source: Path | bytes) -> Iterator[Callable[[str], Tensor]]:
    """A safetensors file's tensors, by name. Raises VaultDamaged if its table is not one."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load as load_bytes

    with ExitStack() as stack:
        try:
            if isinstance(source, bytes):
                found = load_bytes(source).__getitem__
            else:
                found = stack.enter_context(safe_open(source, framework="pt")).get_tensor
        except SafetensorError as error:
            raise VaultDamaged(f"The adapter's table does not fit its bytes ({error}).") from None
        yield found


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


def _settings(config: Mapping[str, Any]) -> Codec | None:
    """The codec that a configuration names, once all else that it says is plain; None if it names none."""
    stored = config.get(STORED)
    if stored is not None and (not isinstance(stored, str) or stored not in CODECS or "peft_type" in config):
        raise Refused(
            f"The adapter's form is {stored!r:.80}; known are {', '.join(CODECS)}, and none of them is PEFT's."
        )
    if stored is None and config.get("peft_type") != "LORA":
        raise Refused("Only plain LoRA adapters are taken (peft_type LORA).")
    used = [name for name in UNWANTED if config.get(name)]
    if used or config.get("bias", "none") != "none" or config.get("fan_in_fan_out"):
        raise Refused(f"The adapter uses {', '.join(used) or 'bias or fan_in_fan_out'}, which is not taken here.")
    return None if stored is None else CODECS[stored]


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
    if max((_end(about) for about in header.values()), default=0) != size - 8 - length:
        raise VaultDamaged(f"{name} was cut short, or its table does not fit its bytes.")
    return header


def _end(about: object) -> float:
    """Where a tensor's bytes end; infinity for what does not describe one."""
    match about:
        case {"dtype": str(), "shape": list(), "data_offsets": [int(), int() as end]}:
            return end
    return math.inf


def _sides(shape: tuple[int, int], rank: int) -> dict[str, tuple[int, int]]:
    return {"A": (rank, shape[1]), "B": (shape[0], rank)}


def _fits(
    module: str, parts: Mapping[tuple[str, str], Any], shape: tuple[int, int], rank: int, codec: Codec | None
) -> None:
    """Hold the table's entries for a module, by side and part, against what rank and base ask for."""
    sides = _sides(shape, rank)
    wanted: dict[tuple[str, str], list[int]] = {(side, ""): [*whole] for side, whole in sides.items()}
    dtypes = dict.fromkeys(wanted, _DTYPES)
    if codec is not None:
        coded = {(side, end): about for side, whole in sides.items() for end, about in codec.parts(whole).items()}
        wanted = {place: size for place, (_, size) in coded.items()}
        dtypes = {place: frozenset({dtype}) for place, (dtype, _) in coded.items()}
    if {place: about.get("shape") for place, about in parts.items()} != wanted:
        told = {"".join(place): size for place, size in wanted.items()}
        raise InvalidRequest(f"The adapter's {module} has not the shapes that rank {rank} has on this base: {told}.")
    if any(about.get("dtype") not in dtypes[place] for place, about in parts.items()):
        raise Refused(
            f"The adapter's {module} is not {'float32, float16 or bfloat16' if codec is None else 'in its codec'}."
        )
