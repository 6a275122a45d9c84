"""`tercet list`: memories, oldest first, a page at a time."""

from __future__ import annotations

from argparse import Namespace

from tercet.cli import out
from tercet.cli.options import Parser, add_limit, add_moment, add_where, conditions
from tercet.cli.out import Answer, Line, Span
from tercet.cli.session import Session
from tercet.cube import MemCube
from tercet.exchange.rows import cube_json


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    add_limit(parser, 100)
    parser.add_argument("--cursor", metavar="C", help="go on where the page before ended")
    add_where(parser)
    add_moment(parser)


def run(session: Session, args: Namespace) -> Answer:
    """List one page."""
    page = session.looking().memory.list(limit=args.limit, cursor=args.cursor, where=conditions(args.where))
    document = {
        "cubes": [cube_json(cube) for cube in page],
        "total": page.total,
        "truncated": page.truncated,
        "cursor": page.cursor,
    }
    width = out.terminal_width()
    lines: list[Line] = [_row(cube, width) for cube in page]
    lines.append([Span(f"{len(page):,} of {out.count(page.total, 'memory')}", "faint")])
    if page.cursor is not None:
        lines.append([Span(f"go on with --cursor {page.cursor}", "faint")])
    return Answer(document, lines)


def _row(cube: MemCube, width: int | None) -> Line:
    when = f"{cube.observed:%Y-%m-%d %H:%M}" if cube.observed else " " * 16
    front = f"  {when}  "
    speaker = f"{cube.speaker}: " if cube.speaker else ""
    said = f"{out.marked(cube)}{speaker}{out.words(cube)}"
    left = None if width is None else max(width - len(cube.id) - len(front), 20)
    return [Span(cube.id, "strong"), Span(front, "faint"), out.one_line(said, left)]
