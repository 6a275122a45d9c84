"""`tercet revoke`: take a grant back."""

from __future__ import annotations

from argparse import Namespace

from tercet.cli.options import Parser
from tercet.cli.out import Answer
from tercet.cli.session import Session
from tercet.exchange.rows import share_json


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("grant", metavar="GRANT", help="its id, as `tercet grants` shows it")


def run(session: Session, args: Namespace) -> Answer:
    """Revoke; it gives nothing from now on, in every process."""
    share = session.existing().memory.revoke(args.grant)
    return Answer({"grant": share_json(share)}, [f"Revoked {share.id}: {share.to} reads nothing by it any more"])
