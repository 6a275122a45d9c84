"""`tercet revise`: the next version of a memory."""

from __future__ import annotations

from argparse import Namespace

from tercet.cli.options import Parser, add_sensitivity
from tercet.cli.out import Answer
from tercet.cli.remember import words
from tercet.cli.session import Session
from tercet.exchange.rows import cube_json


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("id", metavar="ID")
    parser.add_argument("text", metavar="TEXT", help="the new words; `-` reads standard input")
    parser.add_argument("--expect", type=int, metavar="N", help="fail if version N is not the newest any more")
    parser.add_argument("--at", metavar="TIME", help="when it was said or seen, with a zone; left out: now")
    parser.add_argument("--tag", action="append", metavar="TAG", help="labels instead of those it has")
    add_sensitivity(parser)


def run(session: Session, args: Namespace) -> Answer:
    """Revise."""
    memory = session.looking().memory
    cube = memory.revise(
        args.id, words(args.text), expect=args.expect, at=args.at, tags=args.tag, sensitivity=args.sensitivity
    )
    return Answer({"cube": cube_json(cube)}, [f"Memory {cube.id} is at version {cube.version}"])
