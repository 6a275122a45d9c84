"""`tercet trace`: which answers a memory went into, or which memories an answer had."""

from __future__ import annotations

from argparse import Namespace

from tercet.cli import out
from tercet.cli.options import Parser
from tercet.cli.out import Answer, Line, Span
from tercet.cli.session import Session
from tercet.exchange.rows import injection_json


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("id", metavar="ID", help="of a memory, or of an answer, as `tercet context --json` gives it")


def run(session: Session, args: Namespace) -> Answer:
    """Trace."""
    found = session.looking().memory.trace(args.id)
    document = {"answers": [injection_json(one) for one in found], "total": len(found), "truncated": False}
    lines: list[Line] = []
    for one in found:
        lines.append([Span(one.answer, "strong"), f"  {out.day_and_time(one.at)}  asked by {one.by}"])
        for memory in one.memories:
            how = "by its KV cache" if memory.score is None else f"score {memory.score:.3f}"
            told = "forgotten since" if memory.version is None else f"version {memory.version}  {how}"
            lines.append(f"  {memory.cube}  {told}")
    return Answer(document, lines or ["No answer had it."])
