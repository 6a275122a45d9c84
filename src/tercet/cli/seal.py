"""`tercet seal`: keep the vault's files under keys, rotate those, or destroy a tenant's."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tercet.cli import out
from tercet.cli.options import Parser
from tercet.cli.out import Answer, Line, Span
from tercet.cli.session import Session
from tercet.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tercet.vault.reseal import Moved

ACTIONS = ("status", "key", "now", "rotate", "master", "destroy")
USAGE = "One of these: seal status; seal key PLACE; seal now; seal rotate; seal master PLACE; seal destroy."


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument(
        "action",
        choices=ACTIONS,
        help="status: what is sealed; key: make a master key; now: seal what is clear; rotate: new data keys; "
        "master: another master key; destroy: the keys of the tenant that --tenant names",
    )
    parser.add_argument(
        "place", nargs="?", metavar="PLACE", help="of key and master: a file, or keyring:NAME in the system's keyring"
    )
    parser.add_argument("--yes", action="store_true", help="of destroy: do it; nobody can read the tenant afterwards")
    parser.add_argument("--cause", metavar="TEXT", help="of destroy: why; it stands in the receipt")
    parser.add_argument("--despite-hold", metavar="REASON", help="of destroy: do it although memories are on hold")
    parser.add_argument("--receipt", metavar="FILE", help="of destroy: write the signed receipt to a file")


def run(session: Session, args: Namespace) -> Answer:
    """Do one of the actions."""
    if (args.place is not None) is not (args.action in {"key", "master"}):
        raise InvalidRequest(USAGE)
    if args.action == "key":
        return _key(session, args.place)
    tercet = session.existing().tercet
    if args.action == "status":
        return _status(tercet.sealing(by=session.caller))
    if args.action == "now":
        return _moved(tercet.seal(by=session.caller), "Sealed")
    if args.action == "rotate":
        return _moved(tercet.rotate(by=session.caller), "Rotated the keys of")
    if args.action == "master":
        count = tercet.rotate_master(args.place, by=session.caller)
        says = f"{out.count(count, 'tenant')} open with the key in {args.place} from now on, and with no other"
        return Answer({"tenants": count, "master": tercet.sealing(by=session.caller)["master"]}, [says])
    return _destroy(session, args)


def _key(session: Session, place: str) -> Answer:
    from tercet.govern.master import make_master

    made = make_master(place, apart_from=session.folder)
    says = (
        "Keep a copy elsewhere: without it nobody can read what it seals. Name it with --sealing or in the environment:"
    )
    return Answer({"master": made.id, "place": place}, [says, [Span(f"TERCET_MASTER_KEY_FILE={place}", "strong")]])


def _moved(moved: Sequence[Moved], says: str) -> Answer:
    from dataclasses import asdict

    lines: list[Line] = [
        f"{says} {one.tenant}: {out.count(one.blobs, 'blob')}, {out.count(one.segments, 'segment')}" for one in moved
    ]
    return Answer({"tenants": [asdict(one) for one in moved]}, lines or ["There was nothing to do"])


def _status(found: Any) -> Answer:  # noqa: ANN401  # a document
    lines: list[Line] = [f"Master key {found['master'] or 'not given'}"]
    for name, one in found["tenants"].items():
        state = "sealed" if one["sealed"] else "clear"
        waits = (
            "; a rotation is not finished: `tercet seal rotate` or `tercet worker` goes on" if one["unfinished"] else ""
        )
        lines.append([Span(name, "name"), f"  {state}{waits}"])
    lines += [f"{one['tenant']}  destroyed {one['erased_at']}" for one in found["destroyed"]]
    return Answer(dict(found), lines)


def _destroy(session: Session, args: Namespace) -> Answer:
    if args.tenant is None:
        raise InvalidRequest("Say whose keys are to be destroyed: --tenant NAME.")
    if not args.yes:
        raise InvalidRequest(
            f"This makes everything of {args.tenant!r} unreadable, for everybody and for ever; nothing was changed. "
            "Add --yes to do it. Backups carry the wrapped keys: they are yours to destroy."
        )
    from tercet.govern.destruction import CAUSE
    from tercet.govern.receipt import write_document

    paper = session.tercet.destroy(
        tenant=args.tenant, cause=args.cause or CAUSE, despite_hold=args.despite_hold, by=session.caller
    )
    if args.receipt is not None:
        write_document(Path(args.receipt).expanduser(), paper)
    signed = "" if paper.get("signature") else ", not signed"
    lines: list[Line] = [f"Destroyed the keys of {args.tenant}, with {out.count(paper['memories'], 'memory')}{signed}"]
    lines += [f"Not reached: {one['path']} (exported {one['at']})" for one in paper["unreachable"]]
    return Answer({"receipt": dict(paper)}, lines)
