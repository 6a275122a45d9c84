"""`tercet snapshot`: name what there is now, list such names, drop one."""

from __future__ import annotations

from argparse import Namespace

from tercet.cli import out
from tercet.cli.options import Parser
from tercet.cli.out import Answer, Line, Span
from tercet.cli.session import Session
from tercet.errors import InvalidRequest, MissingBranch
from tercet.exchange.rows import snapshot_json


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="of the snapshot to take; left out: list all")
    parser.add_argument("--list", action="store_true", help="list them")
    parser.add_argument("--drop", metavar="NAME", help="drop one; what it shows stays")


def run(session: Session, args: Namespace) -> Answer:
    """Take, list or drop."""
    if sum(map(bool, (args.name is not None, args.list, args.drop is not None))) > 1:
        raise InvalidRequest("Give a NAME, --list or --drop, one at a time.")
    tercet, tenant, by = session.looking().tercet, args.tenant, session.caller
    if args.drop is not None:
        if args.drop not in {one.name for one in tercet.snapshots(tenant=tenant, by=by)}:
            raise MissingBranch(args.drop)
        tercet.drop(args.drop, tenant=tenant, by=by)
        return Answer({"dropped": args.drop}, [f"Dropped snapshot {args.drop}."])
    if args.name is not None:
        made = tercet.snapshot(args.name, tenant=tenant, by=by, branch=args.branch)
        return Answer({"snapshot": snapshot_json(made)}, [f"Snapshot {made.name} of {made.branch}, line {made.seq}."])
    found = tercet.snapshots(tenant=tenant, by=by)
    lines: list[Line] = [
        [Span(one.name, "strong"), f"  {out.day_and_time(one.at)}  of {one.branch}, line {one.seq}"] for one in found
    ]
    return Answer({"snapshots": [snapshot_json(one) for one in found]}, lines or ["No snapshots."])
