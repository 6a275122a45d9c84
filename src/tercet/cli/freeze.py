"""`tercet freeze`: no edit, no decay and no end until it is undone."""

from __future__ import annotations

from argparse import Namespace

from tercet.cli.options import Parser
from tercet.cli.out import Answer, Line, Span
from tercet.cli.session import Session
from tercet.exchange.rows import cube_json


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("ids", nargs="+", metavar="ID")
    parser.add_argument("--undo", action="store_true", help="give them back the state that they had")


def run(session: Session, args: Namespace) -> Answer:
    """Freeze or unfreeze, one after the other."""
    memory = session.looking().memory
    cubes = [memory.unfreeze(id) if args.undo else memory.freeze(id) for id in args.ids]
    lines: list[Line] = [["Memory ", Span(cube.id, "strong"), f" is {cube.state}"] for cube in cubes]
    return Answer({"cubes": [cube_json(cube) for cube in cubes]}, lines)
