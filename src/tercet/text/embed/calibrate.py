"""Measure the ranges that `bert.build` rounds within, on the texts of `calibration.txt`.

    python -m tercet.text.embed.calibrate      writes minilm_ranges.safetensors beside this file

To be run again only when the texts or the rule change; then `minilm.BUILD` has to be raised, since vectors change.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tercet.text.embed import bert, weights
from tercet.text.embed.minilm import MiniLM

TEXTS = Path(__file__).with_name("calibration.txt")
REACH = 0.2  # a channel that reaches further than this part of its site's largest value is scaled down to it
APART = 16  # channels that are kept in float32, before and after GELU
MARGIN = 1.1  # room beyond what the calibration texts reach


def measure(model: MiniLM, texts: list[str]) -> bert.Tensors:
    """The `ranges` of `bert.build` that fit these texts, none longer than a window, by a model that is `exact`."""
    sites = [f"{layer}.{site}" for layer in range(bert.LAYERS) for site in bert.SITES]
    found: dict[str, list[bert.Array]] = {site: [] for site in sites}
    for text in texts:
        for site, values in model.forward(model.token_ids(text)[None], sites).items():
            found[site].append(values[0])
    ranges: bert.Tensors = {}
    for site, parts in found.items():
        values = np.concatenate(parts)
        largest = np.abs(values).max(axis=0)
        scale = np.ones_like(largest)
        few = np.empty(0, np.int64)
        if site.endswith(("middle", "wide")):
            ranges[f"{site}.few"] = few = np.sort(np.argsort(-largest)[:APART])
        else:
            ranges[f"{site}.scale"] = scale = _scale(largest, free=site.endswith("mixed"))
        even = values / scale
        rest = np.delete(even, few, axis=1)
        ranges[f"{site}.mean"] = even.mean(axis=0)
        ranges[f"{site}.range"] = np.array([rest.min() * MARGIN, rest.max() * MARGIN], np.float32)
    return ranges


def _scale(largest: bert.Array, *, free: bool) -> bert.Array:
    """What each channel is divided by, given how far it reaches; `free` if dividing costs nothing at run time."""
    even = (largest / np.median(largest)) ** 0.75 if free else np.maximum(1, largest / (REACH * largest.max()))
    scale: bert.Array = even.astype(np.float32)
    return scale


def main() -> None:
    """Measure on the calibration texts and write the file."""
    from safetensors.numpy import save_file

    found = weights.find()
    if found is None:
        raise SystemExit("No weights of all-MiniLM-L6-v2 here.")
    save_file(measure(MiniLM(found, exact=True), TEXTS.read_text(encoding="utf-8").splitlines()), bert.RANGES)


if __name__ == "__main__":
    main()
