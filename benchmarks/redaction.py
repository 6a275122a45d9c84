"""Redaction and quarantine: what is found on the frozen labelled sets, false masks in LoCoMo, and what it costs.

python benchmarks/redaction.py [--json] [--quick] [--only labelled,locomo,quarantine,contexts,cost]

`labelled`: precision and recall by kind, a span being right only where it begins and ends as labelled. `locomo`: spans
masked in 1,000 turns of real conversation, under the default policy and with every kind masked. `quarantine`: attempts
detected and false alarms. `contexts`: quarantined texts in rendered contexts. `cost`: remember_many with redaction and
without, in turns within one run; ratios, not times, are to be read.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.common import DataMissingError, data_file, machine, parser, percentile, save, table
from tests.govern.cases import poison_cases, redaction_cases

from tercet import Message, Tercet
from tercet.govern.detect.instructions import instructs
from tercet.govern.detect.kinds import KINDS
from tercet.govern.detect.scan import scan

ROWS = ("labelled", "locomo", "quarantine", "contexts", "cost")
CREDENTIALS = frozenset(kind for kind, group in KINDS.items() if group == "credentials")
ALLOW = {"credentials": "allow", "personal": "allow"}
MASK = {"credentials": "mask", "personal": "mask"}


def group(kind: str) -> str:
    """ "credentials" for any of those, else the kind."""
    return "credentials" if kind in CREDENTIALS else kind


def labelled() -> dict[str, Any]:
    """Right, wrong and missed spans by kind; each kind of credential by itself, too."""
    cases = list(redaction_cases())
    found = scan([case.text for case in cases], set(KINDS))
    right, wrong, missed = Counter[str](), Counter[str](), Counter[str]()
    for place, case in enumerate(cases):
        got = {(group(one.kind), one.start, one.end) for one in found.get(place, ())}
        want = {(group(kind), start, end) for kind, start, end in case.spans}
        right.update(kind for kind, _, _ in got & want)
        wrong.update(kind for kind, _, _ in got - want)
        missed.update(kind for kind, _, _ in want - got)
    kinds = dict.fromkeys(map(group, KINDS))
    return {"cases": len(cases), "without": sum(not case.spans for case in cases)} | {
        kind: {
            "right": right[kind],
            "wrong": wrong[kind],
            "missed": missed[kind],
            "precision": right[kind] / max(right[kind] + wrong[kind], 1),
            "recall": right[kind] / max(right[kind] + missed[kind], 1),
        }
        for kind in kinds
    }


def turns() -> list[str]:
    """What is said in LoCoMo's development half."""
    samples = json.loads(data_file("locomo_dev.json").read_text(encoding="utf-8"))
    talks = [talk for sample in samples for talk in sample["conversation"].values() if isinstance(talk, list)]
    return [turn["text"] for talk in talks for turn in talk if turn.get("text")]


def locomo() -> dict[str, Any]:
    """Masks in real conversations, all of them false: nobody there tells a number."""
    texts = turns()
    seams = [(i, i + 1) for i in range(len(texts) - 1)]
    out: dict[str, Any] = {"turns": len(texts)}
    for name, kinds in (("default", set(CREDENTIALS)), ("all", set(KINDS))):
        found = [one for some in scan(texts, kinds, seams=seams).values() for one in some]
        out[name] = {
            "masks": len(found),
            "per_1000": 1000 * len(found) / len(texts),
            "kinds": dict(Counter(one.kind for one in found)),
        }
    out["instructions"] = {"alarms": sum(map(instructs, texts))}
    return out


def quarantine() -> dict[str, Any]:
    """Detection by style, and false alarms among innocent instructions."""
    hit, every, alarms, innocent = Counter[str](), Counter[str](), Counter[str](), 0
    for _, bad, style, text in poison_cases():
        found = instructs(text)
        if bad:
            every[style] += 1
            hit[style] += found
        else:
            innocent += 1
            alarms[style] += found
    return {
        "attempts": every.total(),
        "detected": hit.total(),
        "detection": hit.total() / every.total(),
        "innocent": innocent,
        "false_alarms": alarms.total(),
        "false_alarm_rate": alarms.total() / innocent,
        "styles": {style: f"{hit[style]}/{every[style]}" for style in sorted(every)},
    }


def contexts() -> dict[str, Any]:
    """Every case comes from a tool; then each is asked for, and what is rendered is read."""
    texts = [text for _, _, _, text in poison_cases()]
    shown, rendered = set[str](), 0
    with tempfile.TemporaryDirectory() as folder, Tercet.open(folder, embedder=None) as t:
        memory = t.scope()
        memory.remember_many([Message(text, role="tool") for text in texts])
        held = {cube.id: cube.text for cube in memory.quarantined(limit=10_000)}
        free = "\n".join(cube.text for cube in memory.list(limit=10_000) if cube.id not in held)
        in_text = 0
        for text in texts:
            passage = memory.context(text, budget=20_000)
            rendered += bool(passage)
            shown |= {hit.cube.id for hit in passage.hits}
            in_text += sum(quoted in passage and quoted not in free for quoted in held.values())
    return {"quarantined": len(held), "contexts": rendered, "hits": len(shown & set(held)), "texts": in_text}


def cost(*, quick: bool) -> dict[str, Any]:
    """Processor time of remember_many for LoCoMo's turns, by policy and embedder, in turns; the median counts."""
    texts = turns()[: 500 if quick else None]
    out: dict[str, Any] = {"turns": len(texts)}
    for name, embedder, rounds in (("words", None, 3 if quick else 9), ("minilm", "auto", 1 if quick else 3)):
        times: dict[str, list[float]] = {"off": [], "default": [], "all": []}
        for _ in range(rounds):
            for policy, redaction in (("off", ALLOW), ("default", None), ("all", MASK)):
                with (
                    tempfile.TemporaryDirectory() as folder,
                    Tercet.open(folder, embedder=embedder, redaction=redaction) as t,
                ):
                    if t.embedder is None and embedder is not None:
                        continue
                    began = time.process_time()
                    t.scope(user="a").remember_many(texts)
                    times[policy].append(time.process_time() - began)
        if times["off"]:
            middle = {policy: percentile(some, 50) for policy, some in times.items()}
            out[name] = {
                **{f"{policy}_us_a_turn": 1e6 * spent / len(texts) for policy, spent in middle.items()},
                "default_over_off": middle["default"] / middle["off"],
                "all_over_off": middle["all"] / middle["off"],
            }
    began = time.process_time()
    scan(texts, CREDENTIALS, seams=[(i, i + 1) for i in range(len(texts) - 1)])
    out["scan_us_a_turn"] = 1e6 * (time.process_time() - began) / len(texts)
    began = time.process_time()
    for text in texts:
        instructs(text)
    out["screening_us_a_turn"] = 1e6 * (time.process_time() - began) / len(texts)
    return out


def plot(found: dict[str, Any], path: Path) -> None:
    """Precision and recall by kind, and detection by style."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    kinds = [kind for kind, row in found["labelled"].items() if isinstance(row, dict)]
    for shift, measure in ((-0.2, "precision"), (0.2, "recall")):
        values = [found["labelled"][kind][measure] for kind in kinds]
        left.barh([place + shift for place in range(len(kinds))], values, height=0.38, label=measure)
    left.set_yticks(range(len(kinds)), kinds)
    left.set_xlim(0.8, 1.0)
    left.legend(loc="lower left")
    left.set_title("redaction")
    styles = found["quarantine"]["styles"]
    shares = [int(part.split("/")[0]) / int(part.split("/")[1]) for part in styles.values()]
    right.barh(list(styles), shares)
    right.set_xlim(0, 1.0)
    right.set_title(f"quarantine: detected, {found['quarantine']['false_alarms']} false alarms")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def show(found: dict[str, Any]) -> None:
    """The tables."""
    if rows := found.get("labelled"):
        columns = ("right", "wrong", "missed", "precision", "recall")
        print(table(["kind", *columns], [[kind, *(row[c] for c in columns)] for kind, row in rows.items()
                                         if isinstance(row, dict)]))  # fmt: skip
    for name in ("locomo", "quarantine", "contexts", "cost"):
        if rows := found.get(name):
            print(f"\n{name}: {json.dumps(rows, indent=1)}")


def main() -> int:
    """Run, print and save."""
    args = parser(__doc__, ROWS).parse_args()
    run: dict[str, Callable[[], dict[str, Any]]] = {
        "labelled": labelled,
        "locomo": locomo,
        "quarantine": quarantine,
        "contexts": contexts,
        "cost": lambda: cost(quick=args.quick),
    }
    found: dict[str, Any] = {"machine": machine(), "quick": args.quick}
    try:
        for name in args.only:
            found[name] = run[name]()
    except DataMissingError as error:
        print(error, file=sys.stderr)
        return 2
    if {"labelled", "quarantine"} <= set(args.only):
        plot(found, save("redaction", found).with_suffix(".png"))
    if args.json:
        print(json.dumps(found))
    else:
        show(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
