"""`tercet demote`: drop a KV cache or an adapter; the texts it was made from stay."""

from __future__ import annotations

from argparse import Namespace

from tercet.cli import out
from tercet.cli.forget import receipt_lines
from tercet.cli.options import Parser
from tercet.cli.out import Answer
from tercet.cli.session import Session
from tercet.exchange.rows import receipt_json


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("id", metavar="ID")
    parser.add_argument("--externalise", action="store_true", help="of an adapter: keep first, as texts, what it knows")
    parser.add_argument("--engine", metavar="NAME", help="of its model, with --externalise")


def run(session: Session, args: Namespace) -> Answer:
    """Demote."""
    memory = session.looking().memory
    kept = memory.externalise(args.id, engine=args.engine) if args.externalise else []
    receipt = memory.demote(args.id)
    document = {"receipt": receipt_json(receipt), "demoted": args.id, "externalised": [cube.id for cube in kept]}
    lines = [f"Kept {out.count(len(kept), 'memory')} that it knew"] if args.externalise else []
    return Answer(document, [*lines, *receipt_lines(receipt)])
