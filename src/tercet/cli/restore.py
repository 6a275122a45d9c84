"""`tercet restore`: bring a branch back to a snapshot of it."""

from __future__ import annotations

from argparse import Namespace

from tercet.cli.options import Parser
from tercet.cli.out import Answer
from tercet.cli.session import Session
from tercet.exchange.rows import rewound_json


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("name", metavar="SNAPSHOT", help="where to go back to; `tercet snapshot --list` lists them")


def run(session: Session, args: Namespace) -> Answer:
    """Go back."""
    done = session.looking().tercet.restore(args.name, tenant=args.tenant, by=session.caller)
    said = f"{len(done.revised)} revised, {len(done.hidden)} hidden, {len(done.shown)} shown, {len(done.moved)} moved"
    undo = f"To undo this: tercet restore {done.undo!r}"
    return Answer(rewound_json(done), [f"Back at {done.name} on {done.branch}: {said}.", undo])
