"""`tercet demote`: drop a KV cache; the texts it was made from stay."""

from __future__ import annotations

from argparse import Namespace

from tercet.cli.forget import receipt_lines
from tercet.cli.options import Parser
from tercet.cli.out import Answer
from tercet.cli.session import Session
from tercet.exchange.rows import receipt_json


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("id", metavar="ID")


def run(session: Session, args: Namespace) -> Answer:
    """Demote."""
    receipt = session.looking().memory.demote(args.id)
    return Answer({"receipt": receipt_json(receipt), "demoted": args.id}, receipt_lines(receipt))
