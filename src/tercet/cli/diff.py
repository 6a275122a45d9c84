"""`tercet diff`: what two snapshots or branches show differently."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping

from tercet.cli import out
from tercet.cli.options import Parser
from tercet.cli.out import Answer, Line, Span
from tercet.cli.session import Session
from tercet.exchange.rows import diff_json

SIGNS: Mapping[str, str] = {"added": "+", "removed": "-", "revised": "~"}


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("a", metavar="A", help="a snapshot, a branch, or `now`")
    parser.add_argument("b", metavar="B", nargs="?", default="now", help="another; left out: now")


def run(session: Session, args: Namespace) -> Answer:
    """Compare."""
    found = session.looking().tercet.diff(args.a, args.b, tenant=args.tenant, by=session.caller)
    lines: list[Line] = []
    for kind, sign in SIGNS.items():
        for one in getattr(found, kind):
            versions = " to ".join(str(version) for version in (one.before, one.after) if version is not None)
            lines.append([f"{sign} ", Span(one.id, "strong"), Span(f"  version {versions}", "faint")])
    counts = ", ".join(f"{len(getattr(found, kind))} {kind}" for kind in SIGNS)
    lines.append([Span(f"{out.one_line(found.a)} to {out.one_line(found.b)}: {counts}", "faint")])
    return Answer(diff_json(found), lines)
