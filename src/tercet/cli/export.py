"""`tercet export`: memories, with all their versions, as a portable archive."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from tercet.cli import out
from tercet.cli.options import Parser
from tercet.cli.out import Answer
from tercet.cli.session import Session
from tercet.errors import InvalidRequest

if TYPE_CHECKING:
    from tercet.scoped import ScopedMemory


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("file", metavar="FILE", help="a new file (compressed if it ends in .gz), or - for stdout")
    parser.add_argument("--for", dest="to", metavar="NAME", help="for whom; a mark in the file names them if it leaks")
    parser.add_argument("--decoy", action="store_true", help="with --for: add a made-up memory that names them, too")
    parser.add_argument(
        "--adapter",
        metavar="ID[@VERSION]",
        help="write this adapter instead: as GGUF for llama.cpp if FILE ends in .gguf, else as PEFT's folder",
    )
    parser.add_argument("--engine", metavar="NAME", help="of the adapter's model; may be left out if there is one")
    parser.add_argument("--force", action="store_true", help="replace the file if it is there")


def run(session: Session, args: Namespace) -> Answer:
    """Export the scope."""
    from tercet.exchange.archive import export_scope
    from tercet.exchange.export import export_file
    from tercet.exchange.watermark import recipient

    memory = session.existing().memory
    if args.decoy and args.to is None:
        raise InvalidRequest("--decoy goes with --for: it names somebody.")
    if args.adapter is not None:
        if args.to is not None:
            raise InvalidRequest("--for marks an archive; an adapter's weights bear no mark.")
        return _adapter(memory, args)
    if args.engine is not None:
        raise InvalidRequest("--engine says of which model an adapter is; name one with --adapter.")
    to = None if args.to is None else recipient(memory, args.to, decoy=args.decoy)
    if args.file == "-":
        if args.json:
            raise InvalidRequest("`export -` writes the archive itself to stdout; with --json, name a file.")
        export_scope(memory, sys.stdout.buffer, to=to)
        return Answer({})
    path = Path(args.file).expanduser()
    _check_free(path, force=args.force)
    with out.progress("exporting", " memories") as bar:
        count = export_file(memory, path, progress=bar, to=to)
    document = {"file": str(path), "exported": count} | ({} if to is None else {"recipient": to.name, "mark": to.mark})
    return Answer(document, [f"Exported {out.count(count, 'memory')} to {path}{f' for {args.to}' if to else ''}"])


def _adapter(memory: ScopedMemory, args: Namespace) -> Answer:
    from tercet.exchange.adapters import export_adapter

    path = Path(args.file).expanduser()
    _check_free(path, force=args.force)
    cube = export_adapter(memory, args.adapter, path, engine=args.engine)
    return Answer({"file": str(path), "adapter": cube.id, "version": cube.version}, [f"Exported {cube.id} to {path}"])


def _check_free(path: Path, *, force: bool) -> None:
    if path.exists() and not force:
        raise InvalidRequest(f"{path} is there already; give another name, or --force to replace it.")
