"""`tercet verify`: whether a receipt is genuine, and whether what it names is gone."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING

from tercet.cli.options import Parser
from tercet.cli.out import Answer, Line, Span
from tercet.cli.session import Session

if TYPE_CHECKING:
    from tercet.govern.audit import Audited


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("receipt", metavar="RECEIPT", help="a file that `tercet forget --receipt FILE` wrote")
    add_key(parser)


def add_key(parser: Parser) -> None:
    """`--public-key`."""
    parser.add_argument(
        "--public-key",
        metavar="PUB",
        help="the signer's public key, in hex or in a file; left out: the one that signs here",
    )


def run(session: Session, args: Namespace) -> Answer:
    """Verify; exit code 1 if anything is wrong."""
    found = session.existing().tercet.verify(args.receipt, key=args.public_key, by=session.caller)
    return answer(found, "The receipt is genuine")


def answer(found: Audited, well: str) -> Answer:
    """What a check found."""
    lines: list[Line] = [[Span("wrong: ", "bad"), problem] for problem in found.problems]
    if found.passed:
        upto = f"; vouched for up to line {found.anchored:,}" if found.anchored else ""
        lines = [[Span(well, "good"), f". The journal has {found.lines:,} lines{upto}"]]
        lines.append(f"Its head is {found.head or 'nothing: it is empty'}")
    document = asdict(found) | {"problems": list(found.problems), "passed": found.passed}
    return Answer(document, lines, code=0 if found.passed else 1)
