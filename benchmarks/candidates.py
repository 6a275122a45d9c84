"""What a large scope loses by scoring candidates only: the conversations of LoCoMo in one tenant, asked unscoped.

python benchmarks/candidates.py [--json] [--quick] [--only locomo,mixed]

`locomo` holds five conversations as five users, `mixed` those and the dialogues of MemoryBank. Each question is ranked
with every row scored and again with candidates, by what gives them; `agreement` is the share of the ten best of the
full ranking that are among the ten best then, `evidence` the share of the evidence that is, `dated` the same over
questions that name a date. The embedder is all-MiniLM-L6-v2. Exit code 2 where the data or the weights are absent.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import DataMissingError, data_file, machine, parser, save, table
from benchmarks.peers.locomo import load

WAYS = ("words", "vectors", "time", "links")
VARIANTS = {"all": WAYS, "without time": ("words", "vectors", "links"), "words": ("words",), "vectors": ("vectors",)}


def fill(t: Any, key: str) -> list[tuple[str, frozenset[str]]]:  # noqa: ANN401
    """Keep the conversations; returns questions with the refs of their evidence."""
    questions = []
    for conversation in load(data_file("locomo_dev.json")):
        items = [
            {"role": "user", "name": turn.speaker, "content": turn.text, "at": turn.at, "session": turn.session,
             "ref": f"{conversation.id}/{turn.ref}"}
            for turn in conversation.turns
        ]  # fmt: skip
        t.scope(user=conversation.id).remember_many(items)
        questions += [(q.text, frozenset(f"{conversation.id}/{ref}" for ref in q.gold)) for q in conversation.questions]
    if key == "mixed":
        for name, person in json.loads(data_file("memorybank_en.json").read_text("utf-8")).items():
            items = [
                {"role": role, "content": turn[part], "at": datetime.fromisoformat(day).replace(tzinfo=UTC),
                 "session": day}
                for day, turns in person["history"].items() for turn in turns
                for role, part in (("user", "query"), ("assistant", "response")) if turn.get(part, "").strip()
            ]  # fmt: skip
            t.scope(user=name.strip()).remember_many(items)
    return questions


@contextmanager
def variant(name: str | None) -> Iterator[None]:
    """Score all rows (None), or those that some kinds of candidate give."""
    from tercet.text.recall import scene
    from tercet.text.recall.candidates import candidates

    own = candidates

    def some(*given: Any, **more: Any) -> Any:  # noqa: ANN401
        found = own(*given, **more)
        return {way: rows for way, rows in found.items() if way in VARIANTS[str(name)]} or {"words": found["words"][:0]}

    with (
        mock.patch.object(scene, "SMALL", 10**9 if name is None else 100),
        mock.patch.object(scene, "candidates", some),
    ):
        yield


def measure(key: str, step: int) -> dict[str, Any]:
    """Every `step`-th question with each variant."""
    from tercet import Tercet
    from tercet.text.recall.query import find_date

    with tempfile.TemporaryDirectory(prefix="tercet-candidates-") as folder, Tercet.open(folder) as t:
        if t.recall_by() != "words and vectors":
            raise DataMissingError("no weights of all-MiniLM-L6-v2 on this machine; see the manual on embedders")
        questions = fill(t, key)[::step]
        everybody = t.scope()

        def refs() -> list[list[str]]:
            hits = [everybody.recall(text, limit=10) for text, _ in questions]
            return [[hit.cube.descriptive.origin.ref or hit.cube.id for hit in found] for found in hits]

        with variant(None):
            full = refs()
        dated = np.array([find_date(text.casefold()) is not None for text, _ in questions])
        rows: dict[str, Any] = {"full": _row(questions, full, full, dated)}
        for name in VARIANTS:
            with variant(name):
                rows[name] = _row(questions, refs(), full, dated)
        total = everybody.list(limit=1).total
    return {"rows": total, "questions": len(questions), "dated": int(dated.sum()), "variants": rows}


def _row(questions: Any, found: Any, full: Any, dated: Any) -> dict[str, float]:  # noqa: ANN401
    agreement = [len(set(a) & set(b)) / max(len(b), 1) for a, b in zip(found, full, strict=True)]
    evidence = np.array([len(gold & set(refs)) / len(gold) for (_, gold), refs in zip(questions, found, strict=True)])
    return {
        "agreement@10": float(np.mean(agreement)),
        "same": float(np.mean([a == b for a, b in zip(found, full, strict=True)])),
        "evidence@10": float(evidence.mean()),
        "dated evidence@10": float(evidence[dated].mean()) if dated.any() else float("nan"),
    }


def main() -> int:
    """Measure each tenant and print a table."""
    given = parser(__doc__, ("locomo", "mixed")).parse_args()
    try:
        document: dict[str, Any] = {"machine": machine()}
        for key in given.only:
            document[key] = measure(key, 10 if given.quick else 4)
            print(json.dumps(document[key]), file=sys.stderr)
    except DataMissingError as error:
        print(error, file=sys.stderr)
        return 2
    save("candidates", document)
    if given.json:
        print(json.dumps(document))
        return 0
    lines = [
        [key, document[key]["rows"], name, *row.values()]
        for key in given.only for name, row in document[key]["variants"].items()
    ]  # fmt: skip
    names = ("agreement@10", "same", "evidence@10", "dated evidence@10")
    print(table(("tenant", "rows", "candidates by", *names), lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
