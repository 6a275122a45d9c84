"""Embed on request: `run.py ENGINE WEIGHTS TEXTS.json`, where ENGINE is `tercet` or `sentence_transformers`.

Prints a JSON line when the first vector is there. Then, for each line `WHAT COUNT` on standard input, prints another:
`batched` embeds the first COUNT texts in one call, `one` each in a call of its own (seconds; median milliseconds),
`save` writes all vectors beside the texts.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common


def engine(name: str, weights: Path) -> Callable[[list[str]], Any]:
    """The function from a list of texts to their vectors."""
    if name == "tercet":
        from tercet.text.embed.minilm import MiniLM

        model = MiniLM.find(weights)
        return lambda texts: np.stack([each.vectors[0] for each in model.embed(texts)])
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(weights), device="cpu")
    return lambda texts: model.encode(texts, batch_size=32, show_progress_bar=False, normalize_embeddings=True)


def main(name: str, weights: str, file: str) -> None:
    """Answer until standard input ends."""
    embed = engine(name, Path(weights))
    embed(["The first vector."])
    say(ready=True)
    texts = json.loads(Path(file).read_text())
    for line in sys.stdin:
        what, count = line.split()
        some = texts[: int(count)]
        times = []
        start, used = time.perf_counter(), time.process_time()
        if what == "one":
            for text in some:
                before = time.perf_counter()
                embed([text])
                times.append(time.perf_counter() - before)
        else:
            vectors = embed(some)
            if what == "save":
                np.save(Path(file).with_name(f"{name}.npy"), vectors)
        seconds, cpu = time.perf_counter() - start, time.process_time() - used
        middle = statistics.median(times) * 1000 if times else None
        say(
            seconds=seconds,
            cpu_seconds=cpu,
            median_ms=middle,
            peak_rss_mb=common.peak_rss_mb(),
        )


def say(**values: object) -> None:
    """One JSON line, at once."""
    print(json.dumps(values), flush=True)


main(*sys.argv[1:])
