"""`tercet verify`: whether a receipt or an archive is genuine, or through whose hands a copy has leaked."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tercet.cli.options import Parser
from tercet.cli.out import Answer, Line, Span
from tercet.cli.session import Session
from tercet.errors import InvalidRequest

if TYPE_CHECKING:
    from tercet.exchange.provenance import Provenance
    from tercet.govern.audit import Audited


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument(
        "receipt", nargs="?", metavar="FILE", help="what `tercet forget --receipt FILE` or `tercet export FILE` wrote"
    )
    parser.add_argument("--leaked", metavar="FILE", help="any file: name the recipients of the exports it comes from")
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
    if (args.receipt is None) == (args.leaked is None):
        raise InvalidRequest("Say what to verify: a receipt or an archive, or --leaked FILE.")
    if args.leaked is not None:
        return _leaked(session, Path(args.leaked).expanduser())
    path = Path(args.receipt).expanduser()
    if path.is_file() and _is_archive(path):
        return _archive(session, path, args.public_key)
    found = session.existing().tercet.verify(args.receipt, key=args.public_key, by=session.caller)
    return answer(found, "The receipt is genuine")


def _is_archive(path: Path) -> bool:
    from tercet.exchange.archive import is_archive

    return is_archive(path)


def _archive(session: Session, path: Path, key: str | None) -> Answer:
    """An archive needs no vault; left out, the key is the one that signs here, if there is one."""
    from tercet.exchange.archive import opened
    from tercet.exchange.provenance import check
    from tercet.govern.receipt import public_key

    own = session.tercet.signer if key is None and session.folder.is_dir() else None
    public = public_key(key) if key is not None else None if own is None else own.public
    with path.open("rb") as stream:
        found = check(opened(stream).last, public)
    problems = [*found.problems, *([] if found.problems or found.signed else ["it is not signed"])]
    lines: list[Line] = [[Span("wrong: ", "bad"), problem] for problem in problems]
    if not problems:
        lines = [[Span("The archive is genuine", "good"), ". ", said_of(found)]]
    document = {"provenance": dict(found.document), "signed": found.signed, "problems": problems}
    return Answer(document | {"passed": not problems}, lines, code=1 if problems else 0)


def said_of(source: Provenance) -> str:
    """Where an archive comes from, for a person."""
    d = source.document
    whom = f" for {d.get('recipient')}" if d.get("recipient") else ""
    key = f"signed with {source.signed[:16]}…" if source.signed else "not signed"
    return f"Written by {d.get('by')} from tenant {d.get('tenant')}{whom} at {d.get('at')}, {key}"


def _leaked(session: Session, path: Path) -> Answer:
    from tercet.exchange.watermark import find_leaks

    found = find_leaks(session.existing().tercet, path, tenant=session.args.tenant, by=session.caller)
    lines: list[Line] = [
        [
            Span(one.recipient, "strong"),
            f": exported by {one.by} to {one.path} at {one.at.isoformat()} (known by its {' and '.join(one.found)})",
        ]
        for one in found
    ]
    document = [asdict(one) | {"at": one.at.isoformat(), "found": list(one.found)} for one in found]
    return Answer({"leaks": document, "total": len(found)}, lines or ["No export on record is in that file."])


def answer(found: Audited, well: str) -> Answer:
    """What a check found."""
    lines: list[Line] = [[Span("wrong: ", "bad"), problem] for problem in found.problems]
    if found.passed:
        upto = f"; vouched for up to line {found.anchored:,}" if found.anchored else ""
        told = f"The journal has {found.lines:,} lines{upto}"
        if found.anchored and not found.lines:  # of a tenant whose keys were destroyed
            told = f"The journal went with the keys; it ended at line {found.anchored:,}"
        lines = [[Span(well, "good"), f". {told}"]]
        lines.append(f"Its head is {found.head or 'nothing: it is empty'}")
    document = asdict(found) | {"problems": list(found.problems), "passed": found.passed}
    return Answer(document, lines, code=0 if found.passed else 1)
