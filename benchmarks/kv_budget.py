"""A thousand KV memories on disk under a memory tier of 256 MiB: what the tier holds, and how anonymous memory grows.

The model is a small random decoder, so that a thousand prefills take minutes; its caches are some 1.4 MB each, 1.4 GB
together. They are used in a Zipf order. Anonymous memory is RssAnon of Linux, taken after every 50 uses and compared
with what it was once the engine was loaded and had run; mapped files are the page cache's and do not count.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import machine, parser, save, store_bytes, table

from tercet import Tercet
from tercet.testing.tiny import tiny_engine

CUBES, USES, BUDGET = 1000, 3000, 256 << 20
SHAPE: dict[str, Any] = {"num_hidden_layers": 8, "head_dim": 64, "hidden_size": 64}


def anonymous() -> int:
    """Bytes of anonymous memory that are resident."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("RssAnon is known on Linux only.")


def main() -> int:
    args = parser(__doc__).parse_args()
    cubes, uses = (100, 300) if args.quick else (CUBES, USES)
    engine = tiny_engine("llama", **SHAPE)
    chance = random.Random(3)  # noqa: S311
    with tempfile.TemporaryDirectory() as folder, Tercet.open(
        folder, embedder=None, engines={"small": engine}, kv_bytes=BUDGET
    ) as t:  # fmt: skip
        alice = t.scope(user="alice")
        texts = alice.remember_many([f"Memory {n}. {'x' * 60}" for n in range(cubes)])
        ids = [alice.promote(text, precision="fp32").id for text in texts]
        tenant = t.vault.tenant("default")

        def use(id: str) -> None:
            engine.run(t.kv.use(tenant, alice.scope, id, engine).cache, room=32).extend([65, 66])

        t.kv.tier.clear()
        use(ids[0])
        before, most, held = anonymous(), 0, 0
        weights = [(rank + 1) ** -0.7 for rank in range(cubes)]
        for number, id in enumerate(chance.choices(ids, weights, k=uses)):
            use(id)
            if number % 50 == 0:
                most, held = max(most, anonymous() - before), max(held, t.kv.tier.stats()["bytes"])
        found = t.kv.tier.stats()
        result: dict[str, Any] = {
            "cubes": cubes, "uses": uses, "budget": BUDGET, "on_disk": store_bytes(Path(folder) / "blobs"),
            "tier_bytes_most": held, "anonymous_growth_most": most, "hits": found["hits"], "misses": found["misses"],
            "evictions": found["evictions"], "within": held <= BUDGET and most <= BUDGET, "machine": machine(),
        }  # fmt: skip
    save("kv_budget", result)
    print(
        json.dumps(result)
        if args.json
        else table(["what", "value"], [[k, v] for k, v in result.items() if k != "machine"])
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
