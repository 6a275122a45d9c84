"""`tercet export`: memories, with all their versions, as a portable archive."""

from __future__ import annotations

import gzip
import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tercet.cli import out
from tercet.cli.options import Parser
from tercet.cli.out import Answer
from tercet.cli.session import Session
from tercet.errors import InvalidRequest

if TYPE_CHECKING:
    from tercet.exchange.archive import Sink


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("file", metavar="FILE", help="a new file (compressed if it ends in .gz), or - for stdout")
    parser.add_argument("--force", action="store_true", help="replace the file if it is there")


def run(session: Session, args: Namespace) -> Answer:
    """Export the scope."""
    from tercet.exchange.archive import export_scope

    memory = session.existing().memory
    if args.file == "-":
        if args.json:
            raise InvalidRequest("`export -` writes the archive itself to stdout; with --json, name a file.")
        export_scope(memory, sys.stdout.buffer)
        return Answer({})
    path = Path(args.file).expanduser()
    if path.exists() and not args.force:
        raise InvalidRequest(f"{path} is there already; give another name, or --force to replace it.")
    with out.progress("exporting", " memories") as bar, _new_file(path) as stream:
        count = export_scope(memory, stream, progress=bar)
    return Answer({"file": str(path), "exported": count}, [f"Exported {out.count(count, 'memory')} to {path}"])


@contextmanager
def _new_file(path: Path) -> Iterator[Sink]:
    """A stream whose file appears under its name only when it is whole and on the disk; its owner alone may read it."""
    part = path.with_name(f"{path.name}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as raw:
            if path.suffix == ".gz":
                with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed:
                    yield packed
            else:
                yield raw
            raw.flush()
            os.fsync(raw.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
