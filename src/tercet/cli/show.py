"""`tercet show`: all that is known of one memory."""

from __future__ import annotations

from argparse import Namespace

from tercet.cli import out
from tercet.cli.options import Parser, add_moment
from tercet.cli.out import Answer, Line, Span
from tercet.cli.session import Session
from tercet.cube import MemCube
from tercet.exchange.rows import cube_json

WIDTH = 14


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("id", metavar="ID")
    add_moment(parser)


def run(session: Session, args: Namespace) -> Answer:
    """Show."""
    cube = session.looking().memory.get(args.id)
    return Answer({"cube": cube_json(cube)}, cube_lines(cube))


def cube_lines(cube: MemCube) -> list[Line]:
    """The text, then every field that says something."""
    lines: list[Line] = [*out.block(out.words(cube), ""), ""]
    for name, value in cube_json(cube).items():
        if name != "text" and (said := _said(value)):
            lines.append([Span(f"{name:<{WIDTH}}", "faint"), said])
    return lines


def _said(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {said}" for key, one in value.items() if (said := _said(one)))
    if isinstance(value, list):
        return ", ".join(_said(one) for one in value)
    return "" if value is None else str(value)
