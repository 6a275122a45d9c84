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
REACH = 0.25  # a channel that reaches further than this part of its site's largest value is scaled down to it
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
        # Attention's result is divided for free (in the weight before it), so there all channels are made alike.
        scale = (
            largest / np.median(largest) if site.endswith("mixed") else np.maximum(1, largest / (REACH * largest.max()))
        )
        even = values / scale
        ranges[f"{site}.scale"] = scale.astype(np.float32)
        ranges[f"{site}.range"] = np.array([even.min() * MARGIN, even.max() * MARGIN], np.float32)
    return ranges


def main() -> None:
    """Measure on the calibration texts and write the file."""
    from safetensors.numpy import save_file

    found = weights.find()
    if found is None:
        raise SystemExit("No weights of all-MiniLM-L6-v2 here.")
    save_file(measure(MiniLM(found, exact=True), TEXTS.read_text(encoding="utf-8").splitlines()), bert.RANGES)


if __name__ == "__main__":
    main()
