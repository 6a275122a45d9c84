"""`tercet hold`: what is on hold is not erased, nor is anything that would drag it along."""

from __future__ import annotations

from argparse import Namespace

from tercet.cli.options import Parser
from tercet.cli.out import Answer, Line, Span
from tercet.cli.session import Session
from tercet.errors import InvalidRequest
from tercet.exchange.rows import cube_json


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("ids", nargs="+", metavar="ID")
    parser.add_argument("--reason", metavar="TEXT", help="why: whoever is refused an erasure is told")
    parser.add_argument("--release", "--undo", action="store_true", dest="release", help="take the hold off")


def run(session: Session, args: Namespace) -> Answer:
    """Hold or release, one after the other."""
    if args.release == (args.reason is not None):
        raise InvalidRequest("A hold needs a --reason; --release takes it off and needs none.")
    memory = session.looking().memory
    cubes = [memory.release(id) if args.release else memory.hold(id, args.reason) for id in args.ids]
    held = "no longer on hold" if args.release else f"on hold: {args.reason}"
    lines: list[Line] = [["Memory ", Span(cube.id, "strong"), f" is {held}"] for cube in cubes]
    return Answer({"cubes": [cube_json(cube) for cube in cubes]}, lines)
