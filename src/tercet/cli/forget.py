"""`tercet forget`: erase memories, with everything made from them."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from tercet.cli import out
from tercet.cli.options import Parser, add_where, conditions
from tercet.cli.out import Answer, Line
from tercet.cli.session import Session
from tercet.errors import InvalidRequest
from tercet.exchange.rows import receipt_json

if TYPE_CHECKING:
    from tercet.vault.erase import Export, Receipt


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("ids", nargs="*", metavar="ID")
    add_where(parser)
    parser.add_argument("--all", action="store_true", help="everything that the scope holds")
    parser.add_argument("--yes", action="store_true", help="with --where or --all: forget them, do not only count them")
    parser.add_argument(
        "--receipt", metavar="FILE", help="write the signed receipt to a file; `tercet verify` checks it"
    )
    parser.add_argument("--despite-hold", metavar="REASON", help="erase what is on hold; the reason goes on record")


def run(session: Session, args: Namespace) -> Answer:
    """Forget by id, or count what a filter meets and forget that."""
    where = conditions(args.where)
    if bool(args.ids) + (where is not None) + args.all != 1:
        raise InvalidRequest("Say what to forget: ids, or --where with a condition, or --all.")
    from tercet.keeping import reached

    memory = session.looking().memory
    if args.ids:
        receipt = memory.forget(args.ids, despite_hold=args.despite_hold)
    else:
        if not args.yes:
            total, more = reached(memory, where)
            every = total == reached(memory)[0]
            meant = out.count(total, "memory") + (", all that this scope holds" if every and total else "")
            made = f", and {more:,} more would go that were made from them" if more else ""
            raise InvalidRequest(
                f"This meets {meant}, on every branch and where a restore has hidden them, too{made}; nothing was "
                "forgotten. Add --yes to forget them."
            )
        # An empty filter is everything, and has been counted.
        chosen = {"where": where} if where else {"everything": True}
        receipt = memory.forget(**chosen, despite_hold=args.despite_hold)
    if args.receipt is not None:
        from tercet.govern.receipt import receipt_document, write_document

        write_document(Path(args.receipt).expanduser(), receipt_document(receipt))
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
    if ended := receipt.rows.get("shares"):
        lines.append(f"{out.count(ended, 'grant')} ended with what was shared")
    if receipt.rebuilding:
        lines.append(
            f"{out.count(receipt.rebuilding, 'product')} of several memories wait to be made again from the rest"
        )
    if receipt.probe is not None:
        lines += [f"Found all the same: {one}" for one in receipt.probe.found] or ["A search for them found nothing"]
    lines += [f"Not reached: {one.path} ({_exported(one)})" for one in receipt.unreachable]
    return [
        *lines,
        f"Receipt {receipt.seq:,}, journal head {receipt.head}{'' if receipt.signature else ', not signed'}",
    ]


def _exported(one: Export) -> str:
    return f"exported {one.at:%Y-%m-%d}{f' for {one.recipient}' if one.recipient else ''}, sha256 {one.sha256}"
