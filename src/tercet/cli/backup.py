"""`tercet backup`: a copy of the vault, made while it is in use."""

from __future__ import annotations

from argparse import Namespace

from tercet.cli import out
from tercet.cli.options import Parser
from tercet.cli.out import Answer
from tercet.cli.session import Session


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("folder", metavar="FOLDER", help="a new folder; it opens as a vault (`--store FOLDER`)")


def run(session: Session, args: Namespace) -> Answer:
    """Copy every tenant."""
    files = session.existing().tercet.backup(args.folder)
    document = {"folder": args.folder, "files": [str(file) for file in files]}
    return Answer(document, [f"Copied {out.count(len(files), 'tenant')} to {args.folder}"])
