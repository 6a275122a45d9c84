"""`tercet rollback`: an earlier version becomes the newest again, as a new version."""

from __future__ import annotations

from argparse import Namespace

from tercet.cli import out
from tercet.cli.options import Parser
from tercet.cli.out import Answer
from tercet.cli.session import Session
from tercet.exchange.rows import cube_json


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("id", metavar="ID")
    parser.add_argument("--version", type=int, required=True, metavar="N", help="the version to go back to")


def run(session: Session, args: Namespace) -> Answer:
    """Roll back."""
    cube = session.looking().memory.rollback(args.id, version=args.version)
    said = f"Memory {cube.id} is at version {cube.version}, which says what version {args.version} said:"
    return Answer({"cube": cube_json(cube)}, [said, *out.block(cube.text)])
