"""`tercet backup`: a copy of the vault, made while it is in use, and the way back."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from tercet.cli import out
from tercet.cli.options import Parser
from tercet.cli.out import Answer
from tercet.cli.session import Session


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("folder", metavar="FOLDER", help="a new folder; it opens as a vault (`--store FOLDER`)")
    parser.add_argument(
        "--restore",
        action="store_true",
        help="put the backup in FOLDER back into the vault; what was forgotten since stays forgotten",
    )


def run(session: Session, args: Namespace) -> Answer:
    """Copy every tenant, or put the copies back."""
    if args.restore:
        return _restore(session, Path(args.folder).expanduser())
    files = session.existing().tercet.backup(args.folder, by=session.caller)
    document = {"folder": args.folder, "files": [str(file) for file in files]}
    return Answer(document, [f"Copied {out.count(len(files), 'tenant')} to {args.folder}"])


def _restore(session: Session, folder: Path) -> Answer:
    from tercet.admin import require_all
    from tercet.vault.backup import restore

    if session.folder.is_dir():
        require_all(session.tercet, session.caller)
        session.tercet.close()  # the files that come back want to be alone
    done = restore(folder, session.folder, master=session.master)
    document = {
        "folder": str(folder),
        "files": [str(file) for file in done.files],
        "made": done.made.isoformat(),
        "erased": list(done.erased),
    }
    lines = [f"Put {out.count(len(done.files), 'tenant')} back into {session.folder}, as of {done.made:%Y-%m-%d %H:%M}"]
    if done.erased:
        lines.append(f"{out.count(len(done.erased), 'memory')} forgotten since stay forgotten")
    return Answer(document, lines)
