"""`tercet reembed`: move the vault's vectors to the embedder's space."""

from __future__ import annotations

import sys
from argparse import Namespace

from tercet.cli import out
from tercet.cli.options import Parser
from tercet.cli.out import Answer, Line
from tercet.cli.session import Session


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("--keep", action="store_true", help="keep the vectors of other spaces, too")


def run(session: Session, args: Namespace) -> Answer:
    """Make what is missing, then let the other spaces go. After an interruption, a worker goes on, or run it again."""
    tercet = session.existing().tercet
    shows = not args.json and sys.stderr.isatty()

    def progress(done: int, total: int) -> None:
        if shows:
            sys.stderr.write(f"\r{done:,} of {total:,} vectors{'' if done < total else chr(10)}")
            sys.stderr.flush()

    made = tercet.reembed(keep=args.keep, progress=progress, by=session.caller)
    spaces = {name: numbers["spaces"] for name, numbers in tercet.stats(by=session.caller)["tenants"].items()}
    lines: list[Line] = [f"{out.count(made, 'vector')} made"]
    for name, held in spaces.items():
        lines += [f"{name}: {space} has {one['vectors']:,}" for space, one in held.items()]
    return Answer({"made": made, "spaces": spaces}, lines)
