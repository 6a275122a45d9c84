"""`tercet recall`: find the memories that answer a question."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from tercet.cli import out
from tercet.cli.options import Parser, add_limit, add_moment, add_where, conditions
from tercet.cli.out import Answer, Line, Span
from tercet.cli.session import Session
from tercet.exchange.rows import hit_json

if TYPE_CHECKING:
    from tercet.text.recall.hits import Hit, Hits

SHOWN = 700
"""Characters of a hit that are shown to a person; `--json` and `show` give all."""


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("question", metavar="QUESTION")
    add_limit(parser, 10)
    add_where(parser)
    add_moment(parser)
    parser.add_argument("--since", metavar="TIME", help="only what was said or seen at or after this time, with a zone")
    parser.add_argument("--until", metavar="TIME", help="only what was said or seen before this time, with a zone")
    parser.add_argument(
        "--min-score", type=float, metavar="S", help="only hits with this score (0 to 1) or a better one"
    )
    parser.add_argument("--policy", metavar="NAME", help="how to rank; left out: the default policy")
    parser.add_argument("--quarantined", action="store_true", help="only what is in quarantine, which is else left out")
    parser.add_argument("--why", action="store_true", help="show what each signal gave")


def run(session: Session, args: Namespace) -> Answer:
    """Recall."""
    memory = session.looking().memory
    hits = memory.recall(
        args.question,
        limit=args.limit,
        where=(conditions(args.where) or {}) | ({"quarantined": True} if args.quarantined else {}),
        since=args.since,
        until=args.until,
        min_score=args.min_score,
        policy=args.policy,
    )
    document = {"hits": [hit_json(hit) for hit in hits], "total": hits.total, "truncated": hits.truncated}
    document["evidence"] = hits.evidence
    if hits.dropped is not None:
        document["dropped"] = hits.dropped
    return Answer(document, _lines(hits, session.tercet.recall_by(), why=args.why))


def hit_lines(place: int, hit: Hit, *, why: bool, mark: str = "") -> list[Line]:
    """One hit for a person; `mark` stands at the end of its first line."""
    text = hit.cube.text
    cut = f"… ({len(text):,} characters)" if len(text) > SHOWN else ""
    lines: list[Line] = [
        [
            f"{place:>3}. ",
            Span(f"{hit.score:.3f}", "good"),
            f"  {out.heading(hit.cube)}  {out.marked(hit.cube)}",
            Span(hit.cube.id, "faint"),
            Span(mark, "good"),
        ],
        *out.block(text[:SHOWN] + cut, "     "),
    ]
    for other in hit.contradictions:
        said = out.one_line(other.cube.text, 60)
        lines.append([Span(f"     {interval(other.valid_from, other.valid_to)}: {said} ({other.rule})", "faint")])
    if told := out.told_of(hit.cube):
        lines.append([Span(f"     {told}", "faint")])
    if why:
        lines.append([Span(f"     {reasons(hit.why)}", "faint")])
    return lines


def interval(start: datetime, end: datetime | None) -> str:
    """When a fact holds, by its days."""
    return f"from {start:%Y-%m-%d}" + (f" to {end:%Y-%m-%d}" if end else "")


def reasons(why: Mapping[str, float | str]) -> str:
    """What each signal gave, on one line, the strongest first."""
    numbers = {name: value for name, value in why.items() if not isinstance(value, str)}
    ranked = sorted(numbers, key=lambda name: -abs(numbers[name]))
    notes = [f"{name} {value}" for name, value in why.items() if isinstance(value, str)]
    return " · ".join([*notes, *(f"{name} {numbers[name]:+.3f}" for name in ranked)])


def _lines(hits: Hits, found_by: str, *, why: bool) -> list[Line]:
    lines: list[Line] = []
    for place, hit in enumerate(hits, 1):
        lines += hit_lines(place, hit, why=why)
    if not hits:
        lines.append(f"Nothing found among {out.count(hits.total, 'memory')}.")
    if hits.dropped is not None:
        lines.append([Span(hits.dropped, "faint")])
    if found_by != "words and vectors":
        lines.append([Span(f"found by {found_by}", "faint")])
    return lines
