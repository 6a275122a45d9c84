"""`tercet forget`: erase memories, with everything made from them."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING

from tercet.cli import out
from tercet.cli.options import Parser, add_where, conditions
from tercet.cli.out import Answer, Line
from tercet.cli.session import Session
from tercet.errors import InvalidRequest
from tercet.exchange.rows import receipt_json

if TYPE_CHECKING:
    from tercet.vault.erase import Receipt


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("ids", nargs="*", metavar="ID")
    add_where(parser)
    parser.add_argument("--yes", action="store_true", help="with --where: forget them, do not only count them")


def run(session: Session, args: Namespace) -> Answer:
    """Forget by id, or count what a filter meets and forget that."""
    where = conditions(args.where)
    if bool(args.ids) == (where is not None):
        raise InvalidRequest("Say what to forget: ids, or --where with a condition.")
    memory = session.looking().memory
    if where is None:
        receipt = memory.forget(args.ids)
    else:
        total = memory.list(limit=1, where=where).total
        if not args.yes:
            raise InvalidRequest(
                f"This meets {out.count(total, 'memory')}; nothing was forgotten. Add --yes to forget them."
            )
        receipt = memory.forget(where=where)
    return Answer({"receipt": receipt_json(receipt), "forgotten": len(receipt.erased)}, receipt_lines(receipt))


def receipt_lines(receipt: Receipt) -> list[Line]:
    """What an erasure did, for a person."""
    made = f", {len(receipt.derived):,} of them made from others" if receipt.derived else ""
    lines: list[Line] = [f"Forgot {out.count(len(receipt.erased), 'memory')}{made}"]
    if receipt.scrubbed_at is None:
        lines.append(
            f"The bytes are not scrubbed yet: waiting for {receipt.waiting_for}; `tercet worker --once` goes on."
        )
    else:
        lines.append("The bytes are scrubbed")
    return lines + [f"Not reached: {one}" for one in receipt.unreachable]
