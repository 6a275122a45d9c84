"""`tercet history`: every version of a memory."""

from __future__ import annotations

from argparse import Namespace

from tercet.cli import out
from tercet.cli.options import Parser
from tercet.cli.out import Answer, Line, Span
from tercet.cli.session import Session
from tercet.cube import MemCube
from tercet.exchange.rows import cube_json


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("id", metavar="ID")


def run(session: Session, args: Namespace) -> Answer:
    """Show its versions."""
    cubes = session.looking().memory.history(args.id)
    document = {"cubes": [cube_json(cube) for cube in cubes], "total": len(cubes), "truncated": False}
    return Answer(document, history_lines(cubes))


def history_lines(cubes: list[MemCube]) -> list[Line]:
    """Versions for a person, oldest first."""
    lines: list[Line] = []
    for cube in cubes:
        recorded = out.day_and_time(cube.descriptive.recorded)
        lines.append([Span(f"version {cube.version}", "strong"), f"  recorded {recorded}"])
        lines += out.block(cube.text)
    return lines
