"""How well the date grammar reads, and how fast.

    python benchmarks/dates.py [--json] [--quick] [--peer PYTHON]

Labels: messages written for the purpose; batch 1 was written before the grammar, batch 2 after it and measured
once before anything was changed. LoCoMo (evaluation only, read in place from TERCET_DATA): of the temporal
questions whose answer is a date, how often a time found in the evidence turn is that date. `--peer` names another
interpreter with dateparser or parsedatetime in it, which is then timed on the same turns.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any
from zoneinfo import ZoneInfo

from tercet.text.read.dates import When, happened

CASES = Path(__file__).parents[1] / "tests" / "text" / "read" / "dates_cases.jsonl"
LOCOMO = Path(os.environ.get("TERCET_DATA", "../shared/data")) / "locomo_dev.json"
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
HOSTILE = [
    "yesterday ",
    "on friday ",
    "one ",
    "1/1/",
    "two days before 8 may ",
    "in may, ",
    "from 2015 to 2016 to ",
    "a",
]
PEERS = """
import json, sys, time
from datetime import datetime
turns, base = json.load(sys.stdin), datetime(2023, 5, 25, 13, 14)
def clock(read):
    read(turns[0]); start = time.perf_counter()
    for turn in turns: read(turn)
    return round(1e6 * (time.perf_counter() - start) / len(turns), 1)
done = {}
try:
    from dateparser.search import search_dates
    done["dateparser"] = clock(lambda turn: search_dates(turn, languages=["en"], settings={"RELATIVE_BASE": base}))
except ImportError: pass
try:
    import parsedatetime
    calendar = parsedatetime.Calendar()
    done["parsedatetime"] = clock(lambda turn: calendar.nlp(turn, base))
except ImportError: pass
print(json.dumps(done))
"""
Span = tuple[datetime, datetime]


def labelled() -> dict[str, Counter[str]]:
    """Right, wrong and missed expressions by batch and by kind; right means the same interval to the second."""
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for case in map(json.loads, CASES.read_text(encoding="utf-8").splitlines()):
        clock, zone = case["observed"].split()
        tz = ZoneInfo(zone)
        found = happened(case["text"], datetime.fromisoformat(clock).replace(tzinfo=tz))
        got = Counter((when.start, when.end) for when in found)
        want = Counter(
            (datetime.fromisoformat(start).replace(tzinfo=tz), datetime.fromisoformat(end).replace(tzinfo=tz))
            for _, start, end in case["when"]
        )
        right = (got & want).total()
        counts = {"cases": 1, "silent": not case["when"], "right": right}
        counts |= {"wrong": got.total() - right, "missed": want.total() - right}
        for row in (f"batch {case['batch']}", f"  {case['kind']}", "all"):
            table[row].update(counts)
    return dict(sorted(table.items(), key=lambda row: (not row[0].startswith("batch"), row[0])))


def _gold(answer: str, said: date) -> tuple[date, date] | None:
    """A gold answer as days, the end not included; None if it is not a date."""
    text = answer.lower().replace(",", " ").replace(".", " ").replace("`", "")
    month = next((i for i, name in enumerate(MONTHS, 1) if re.search(rf"\b{name}[a-z]*\b", text)), None)
    year = re.search(r"\b(?:19|20)[0-9]{2}\b", text)
    number = re.search(r"\b([0-9]{1,2})(?:st|nd|rd|th)?\b(?! *(?:days|weeks|years))", text)
    if month and number:
        day = date(int(year[0]) if year else said.year, month, int(number[1]))
        return _beside(text, day)
    if not year or re.search(r"\bago\b", text):
        return None
    if month:
        first = date(int(year[0]), month, 1)
        return first, (first + timedelta(days=31)).replace(day=1)
    if "summer" in text:
        return date(int(year[0]), 6, 1), date(int(year[0]), 9, 1)
    return date(int(year[0]), 1, 1), date(int(year[0]) + 1, 1, 1)


def _beside(text: str, day: date) -> tuple[date, date]:
    """Where "the Friday before", "the week before" or "the week of" the day is, or else the day itself."""
    one = timedelta(days=1)
    side = -1 if "before" in text else 1 if "after" in text else 0
    weekday = next((i for i, name in enumerate(DAYS) if name in text), None)
    weeks = timedelta(days=14 if "two" in text else 7)
    start, end = day, day + one
    if weekday is not None and side:
        start = day + one
        while start.weekday() != weekday or (start > day) != (side > 0) or start == day:
            start += side * one
        end = start + one
    elif "weekend" in text and side < 0:
        start = day - timedelta(days=day.weekday() + 2) - (weeks - timedelta(days=7))
        end = start + 2 * one
    elif "week" in text and side < 0:
        start, end = day - weeks, day - weeks + timedelta(days=7)
    elif "few days" in text:
        start, end = day - timedelta(days=7), day
    elif "week of" in text:
        start = day - timedelta(days=day.weekday())
        end = start + timedelta(days=7)
    return start, end


def _meets(when: When, gold: Span) -> bool:
    """Whether at least half of the shorter of the two lies in the other."""
    overlap = min(when.end, gold[1]) - max(when.start, gold[0])
    return overlap >= min(when.end - when.start, gold[1] - gold[0]) / 2


def _turns(talk: dict[str, Any]) -> Iterator[tuple[str, str, datetime]]:
    for key, turns in talk.items():
        if isinstance(turns, list):
            said = datetime.strptime(talk[f"{key}_date_time"], "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC)
            for turn in turns:
                yield turn["dia_id"], turn["text"], said


def locomo() -> tuple[dict[str, int], list[str]]:
    """Temporal questions against the times found in their evidence turns, and the answers that no time found meets."""
    counts: Counter[str] = Counter()
    differ = []
    for sample in json.loads(LOCOMO.read_text(encoding="utf-8")):
        turns = {ref: (text, said) for ref, text, said in _turns(sample["conversation"])}
        for question in sample["qa"]:
            if question["category"] != 2:
                continue
            evidence = [turns[ref] for ref in question["evidence"] if ref in turns]
            days = _gold(str(question["answer"]), evidence[0][1].date()) if evidence else None
            if not days:
                continue
            gold = (datetime(*days[0].timetuple()[:3], tzinfo=UTC), datetime(*days[1].timetuple()[:3], tzinfo=UTC))
            found = [when for text, said in evidence for when in happened(text, said)]
            counts["dated answers"] += 1
            counts["with an expression"] += bool(found)
            counts["interval contains the answer"] += any(w.start <= gold[0] and gold[1] <= w.end for w in found)
            counts["interval meets the answer"] += any(_meets(when, gold) for when in found)
            counts["interval touches the answer"] += any(w.start < gold[1] and gold[0] < w.end for w in found)
            if found and not any(_meets(when, gold) for when in found):
                seen = "; ".join(f"{w.text} = {w.start:%Y-%m-%d}..{w.end:%Y-%m-%d}" for w in found)
                differ.append(f"{question['answer']!r}: {seen} (said {evidence[0][1]:%a %Y-%m-%d})")
    return dict(counts), differ


def speed(turns: list[str], *, quick: bool, peer: str | None) -> dict[str, float]:
    said = datetime(2023, 5, 25, 13, 14, tzinfo=UTC)
    happened(turns[0], said)
    best = float("inf")
    for _ in range(2 if quick else 7):
        start = perf_counter()
        for turn in turns:
            happened(turn, said)
        best = min(best, perf_counter() - start)
    result = {"turns": len(turns), "characters a turn": round(sum(map(len, turns)) / len(turns), 1)}
    result["us a turn"] = round(1e6 * best / len(turns), 1)
    size = 200_000 if quick else 10_000_000
    prose = (" ".join(turns) * (1 + size // sum(map(len, turns))))[:size]
    for label, text in [
        ("prose", prose),
        *((repr(piece), piece * (min(size, 1_000_000) // len(piece))) for piece in HOSTILE),
    ]:
        start = perf_counter()
        happened(text, said)
        result[f"us a character, {len(text):,} of {label}"] = round(1e6 * (perf_counter() - start) / len(text), 2)
    if peer:
        sample = turns[:: 20 if quick else 4]
        done = subprocess.run([peer, "-c", PEERS], input=json.dumps(sample), capture_output=True, text=True, check=True)
        result |= {f"us a turn, {name}": value for name, value in json.loads(done.stdout.splitlines()[-1]).items()}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, smaller texts")
    parser.add_argument("--peer", metavar="PYTHON", help="an interpreter that has dateparser or parsedatetime")
    args = parser.parse_args()
    table = labelled()
    turns = [json.loads(line)["text"] for line in CASES.read_text(encoding="utf-8").splitlines()]
    asked: dict[str, int] = {}
    differ: list[str] = []
    if LOCOMO.exists():
        asked, differ = locomo()
        turns = [
            text
            for sample in json.loads(LOCOMO.read_text(encoding="utf-8"))
            for _, text, _ in _turns(sample["conversation"])
        ]
    pace = speed(turns, quick=args.quick, peer=args.peer)
    if args.json:
        print(json.dumps({"labelled": table, "locomo": asked, "differ": differ, "speed": pace}))
        return
    print(f"{'labels':14}{'cases':>7}{'silent':>8}{'right':>7}{'wrong':>7}{'missed':>8}{'precision':>11}{'recall':>8}")
    for row, n in table.items():
        rates = "".join(
            f"{n['right'] / whole:{width}.3f}" if whole else " " * (width - 1) + "-"
            for width, whole in ((11, n["right"] + n["wrong"]), (8, n["right"] + n["missed"]))
        )
        print(f"{row:14}{n['cases']:7}{n['silent']:8}{n['right']:7}{n['wrong']:7}{n['missed']:8}{rates}")
    print("\nLoCoMo, temporal questions:", asked or f"{LOCOMO} is not there (set TERCET_DATA)")
    for line in differ:
        print("  differs:", line)
    print()
    for label, value in pace.items():
        print(f"{label:60}{value:>12,}")


if __name__ == "__main__":
    main()
