"""Which heads of a model find what a question is about: mean normalised rank over samples that are made up here.

A sample is a conversation of stand-in lines with one line that tells a code of a thing among lines that tell codes of
other things; the question names the thing. The score of a token is the greatest cosine of a head's state at it to that
at any token of the question (REFORM, arXiv 2506.01215); the wanted tokens are those of the line. Keys are compared
before RoPE.
No text of a data set is looked at. Prints the heads of least mean, the best as they stand in `activation/gather.py`.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import parser, save, table

from benchmarks import kv
from tercet.activation.compose import STAND_IN
from tercet.activation.compress.reform import Head, Reform, mean_normalised_rank
from tercet.activation.compress.views import views
from tercet.engine.transformers import TransformersEngine

SAMPLES, CODES, BEST = 50, 6, 4
DEPTH = 0.7
"""Heads are looked for up to this share of the layers, as the paper does: the layers above need not be computed."""
THINGS = ("boiler", "garage", "bicycle", "locker", "piano", "cellar", "tractor", "printer", "chapel", "harbour", "oven",
          "greenhouse", "archive", "bridge", "laundry", "studio")  # fmt: skip


def sample(model: TransformersEngine, chance: random.Random) -> tuple[list[int], range, list[int]]:
    """Tokens of a conversation, which of them are wanted, and the question's."""
    lines = [line for line in STAND_IN.splitlines() for _ in range(2)]
    chance.shuffle(lines)
    things = chance.sample(THINGS, CODES)
    facts = [f"- Note: the code of the {thing} is {chance.randrange(1000, 9999)}." for thing in things]
    for fact in facts:
        lines.insert(chance.randrange(len(lines)), fact)
    tokens: list[int] = []
    wanted = range(0)
    for line in lines:
        more = model.encode(f"{line}\n")
        if line == facts[0]:
            wanted = range(len(tokens), len(tokens) + len(more))
        tokens += more
    asks = chance.choice(("What is the code of the {}?", "Which number opens the {}?", "How do I get into the {}?"))
    return tokens, wanted, list(model.encode(asks.format(things[0])))


def ranks(model: TransformersEngine, samples: int) -> dict[Head, float]:
    """Mean normalised rank by head."""
    import torch

    chance, found = random.Random(11), dict[Head, list[float]]()  # noqa: S311
    for _ in range(samples):
        tokens, wanted, question = sample(model, chance)
        layers = views(model, model.prefill([*tokens, *question]), {})
        for view in layers[: int(DEPTH * len(layers))]:
            for number in range(len(view.keys)):
                for kind in ("key", "value"):
                    head: Head = (view.layer, number, kind)
                    states = Reform((head,)).embed(layers)
                    near = (states[: len(tokens)] @ states[len(tokens) :].T).max(dim=1).values
                    found.setdefault(head, []).append(mean_normalised_rank(near, torch.tensor(wanted)))
    return {head: kv.mean(values) for head, values in found.items()}


def main() -> int:
    args = parser(__doc__).parse_args()
    model = kv.engine("float32")
    found = sorted(ranks(model, 3 if args.quick else SAMPLES).items(), key=lambda item: item[1])
    result = {"heads": [[*head, rank] for head, rank in found], "best": [list(head) for head, _ in found[:BEST]],
              "samples": 3 if args.quick else SAMPLES, "model": model.identity.name}  # fmt: skip
    save("reform_heads", result)
    rows = [[*head, rank] for head, rank in found[:12]]
    print(json.dumps(result) if args.json else table(["layer", "head", "state", "mean normalised rank"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
