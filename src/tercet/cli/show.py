"""`tercet show`: all that is known of one memory."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tercet.cli import out
from tercet.cli.options import Parser, add_moment
from tercet.cli.out import Answer, Line, Span
from tercet.cli.session import Session
from tercet.cube import Kind, MemCube
from tercet.errors import InvalidRequest, MissingMemory, Refused
from tercet.exchange.rows import cube_json

WIDTH = 14


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("id", metavar="ID")
    parser.add_argument(
        "--plot", metavar="FILE.svg", help="of an adapter: draw what its gate measured, before and after"
    )
    add_moment(parser)


def run(session: Session, args: Namespace) -> Answer:
    """Show."""
    memory = session.looking().memory
    cube = memory.get(args.id)
    if cube.kind is not Kind.PARAMETERS:
        if args.plot is not None:
            raise InvalidRequest(f"Memory {cube.id} is a {cube.kind}; --plot draws what an adapter's gate measured.")
        return Answer({"cube": cube_json(cube)}, cube_lines(cube))
    try:
        report, picture = memory.report(f"{cube.id}@{cube.version}")
    except (MissingMemory, Refused) as error:  # it was withdrawn: its row is there, what it was taught is not told
        if args.plot is not None:
            raise
        return Answer({"cube": cube_json(cube)}, [*cube_lines(cube), "", f"no report: {error}"])
    lines = [*cube_lines(cube), "", *_measured(report)]
    if args.plot is not None:
        Path(args.plot).write_text(picture, encoding="utf-8")
        lines.append(f"drawn: {args.plot}")
    return Answer({"cube": cube_json(cube), "report": report}, lines)


def _measured(report: Mapping[str, Any]) -> list[Line]:
    """What an adapter's gate measured, a line each."""
    from tercet.parametric.picture import rows

    found: list[Line] = [[Span(f"{'measured':<28}{'before':>8}{'after':>8}", "faint")]]
    for name, before, after in rows(report):
        found.append(f"{name:<28}{'-' if before is None else format(before, '.3f'):>8}{after:>8.3f}")
    return found


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
