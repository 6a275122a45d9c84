"""Fit the axes of `tercet.text.recall.late` for all-MiniLM-L6-v2 on the glosses of WordNet 3.0.

    apt-get download wordnet-base && dpkg -x wordnet-base_*.deb .
    python benchmarks/fit_projection.py usr/share/wordnet --out src/tercet/text/recall/minilm_axes.npz

WordNet's licence is permissive, and no text that recall is measured on is used. Reads 3,000 glosses that quote an
example of use, evenly spaced over the dictionary; takes the last hidden states of their tokens, stop words and
punctuation apart (as of a text that is remembered); keeps their mean and their first 128 principal axes, in half
precision, the largest component of each positive. Beside them, the ids of the tokens that are not kept, read off the
model's vocabulary. Takes a minute.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tercet.text.embed.minilm import MiniLM
from tercet.text.recall.late import BITS
from tercet.vault.search.analyse import STOP

GLOSSES = 3000
# Words of the asking rather than of what is asked for.
ASKING = [
    "according",
    "describe",
    "described",
    "discuss",
    "discussed",
    "express",
    "expressed",
    "kind",
    "kinds",
    "long",
    "many",
    "mention",
    "mentioned",
    "mentions",
    "much",
    "name",
    "named",
    "often",
    "recently",
    "said",
    "say",
    "share",
    "shared",
    "sort",
    "specific",
    "talk",
    "talked",
    "tell",
    "told",
    "type",
    "types",
]


def glosses(folder: Path, count: int) -> list[str]:
    """`count` glosses with an example, evenly spaced over the dictionary."""
    found = []
    for part in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{part}").read_text("utf-8").splitlines():
            gloss = line.partition("|")[2].strip()
            if '"' in gloss and not line.startswith("  "):
                found.append(gloss.replace('"', ""))
    return found[:: len(found) // count][:count]


def token_lists(vocabulary: dict[str, int]) -> tuple[list[int], list[int]]:
    """Ids not kept of a text, and ids not asked for besides."""
    dropped = {i for token, i in vocabulary.items() if not any(sign.isalnum() for sign in token)}
    dropped |= {vocabulary[word] for word in STOP if word in vocabulary}
    dropped |= {i for token, i in vocabulary.items() if token.startswith("[") and token.endswith("]")}
    return sorted(dropped), sorted({vocabulary[word] for word in ASKING if word in vocabulary} - dropped)


def principal(
    states: npt.NDArray[np.float32], count: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]:
    """Mean, first axes (dim, count) and their share of the variance."""
    exact = states.astype(np.float64)
    mean = exact.mean(axis=0)
    values, axes = np.linalg.eigh(np.cov(exact - mean, rowvar=False))
    chosen = axes[:, ::-1][:, :count]
    signs = np.sign(chosen[np.abs(chosen).argmax(axis=0), np.arange(count)])
    return mean, chosen * signs, float(values[::-1][:count].sum() / values.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("wordnet", type=Path, help="folder with data.noun, data.verb, data.adj, data.adv")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    embedder = MiniLM.find()
    if embedder is None:
        raise SystemExit("the weights of all-MiniLM-L6-v2 are not installed")
    vocabulary = json.loads(embedder.weights.tokenizer.read_text("utf-8"))["model"]["vocab"]
    dropped, asked = token_lists(vocabulary)
    texts = glosses(options.wordnet, GLOSSES)
    kept = []
    for start in range(0, len(texts), 64):
        for found in embedder.embed(texts[start : start + 64], states=True):
            assert found.states is not None
            assert found.token_ids is not None
            kept.append(found.states[~np.isin(found.token_ids, dropped)])
    mean, axes, share = principal(np.concatenate(kept), BITS)
    np.savez(
        options.out,
        mean=mean.astype(np.float32),
        axes=axes.astype(np.float16),
        dropped=np.array(dropped, np.int32),
        asked=np.array(asked, np.int32),
    )
    print(f"{len(texts)} glosses, {sum(map(len, kept))} tokens, {BITS} axes hold {share:.1%} of the variance")


if __name__ == "__main__":
    main()
