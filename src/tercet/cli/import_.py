"""`tercet import`: a Tercet archive, a chat export or a document."""

from __future__ import annotations

import io
import sys
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from tercet.cli import out
from tercet.cli.options import Parser
from tercet.cli.out import Answer, Line
from tercet.cli.session import Session
from tercet.cli.verify import add_key, said_of
from tercet.errors import InvalidRequest

if TYPE_CHECKING:
    from tercet.exchange.restore import Imported


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument(
        "file", metavar="FILE", help="what `tercet export` wrote (- reads one from stdin), a chat export, or a document"
    )
    parser.add_argument(
        "--format", metavar="NAME", help="what a chat export or document is, if its suffix does not tell"
    )
    add_key(parser)


def run(session: Session, args: Namespace) -> Answer:
    """Import. What was erased in this vault does not come back."""
    from tercet.exchange.archive import is_archive
    from tercet.exchange.restore import import_archive
    from tercet.govern.receipt import public_key

    key = None if args.public_key is None else public_key(args.public_key)
    path = Path(args.file).expanduser()
    if args.file == "-":
        return _answer(import_archive(session.memory, io.BytesIO(sys.stdin.buffer.read()), key=key))
    if not path.is_file():
        raise InvalidRequest(f"{path} is no file.")
    with out.progress("importing", " memories") as bar:
        if args.format is None and is_archive(path):
            with path.open("rb") as stream:
                return _answer(import_archive(session.memory, stream, progress=bar, key=key))
        before = session.memory.list(limit=1).total
        if key is not None:
            raise InvalidRequest("Only a Tercet archive is signed; leave --public-key out for any other file.")
        cubes = session.memory.remember_document(path, format=args.format, progress=bar)
    added = session.memory.list(limit=1).total - before
    document = {"imported": added, "updated": 0, "unchanged": len(cubes) - added, "skipped": [], "total": len(cubes)}
    return Answer(
        document, [f"Imported {out.count(added, 'memory')} from {path}; {len(cubes) - added:,} were here already"]
    )


def _answer(done: Imported) -> Answer:
    """The exit code stays 0 when memories are skipped: an erased one that stays away is what was asked for."""
    document = {
        "imported": len(done.added),
        "updated": len(done.updated),
        "unchanged": len(done.unchanged),
        "skipped": [{"id": one.id, "reason": one.reason} for one in done.skipped],
        "total": len(done.added) + len(done.updated) + len(done.unchanged) + len(done.skipped),
    }
    counts = f"{len(done.updated):,} were brought up to date, {len(done.unchanged):,} were here already"
    source = done.provenance
    document |= {"provenance": dict(source.document) or None, "signed": source.signed}
    lines: list[Line] = [f"Imported {out.count(len(done.added), 'memory')}; {counts}"]
    if source.document:
        lines.append(said_of(source))
    lines += [f"Skipped {count:,}: {reason}" for reason, count in Counter(one.reason for one in done.skipped).items()]
    return Answer(document, lines)
