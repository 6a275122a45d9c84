"""`tercet branch`: begin a branch, list branches, drop one. Every command takes `--branch NAME` to work on it."""

from __future__ import annotations

from argparse import Namespace

from tercet.cli import out
from tercet.cli.options import Parser
from tercet.cli.out import Answer, Line, Span
from tercet.cli.session import Session
from tercet.errors import InvalidRequest
from tercet.exchange.rows import branch_json


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="of the branch to begin; left out: list all")
    parser.add_argument("--from", dest="source", metavar="NAME", help="the snapshot or branch that it begins at")
    parser.add_argument("--list", action="store_true", help="list them")
    parser.add_argument("--drop", metavar="NAME", help="drop one, and erase what only it holds")


def run(session: Session, args: Namespace) -> Answer:
    """Begin, list or drop."""
    if sum(map(bool, (args.name is not None, args.list, args.drop is not None))) > 1:
        raise InvalidRequest("Give a NAME, --list or --drop, one at a time.")
    tercet, tenant, by = session.looking().tercet, args.tenant, session.caller
    if args.drop is not None:
        if args.drop in {one.name for one in tercet.snapshots(tenant=tenant, by=by)}:
            raise InvalidRequest(f"{args.drop!r} is a snapshot; `tercet snapshot --drop` drops it.")
        gone = tercet.drop(args.drop, tenant=tenant, by=by)
        said = f"Dropped branch {args.drop}, with {out.count(gone, 'memory')} of its own."
        return Answer({"dropped": args.drop, "memories": gone}, [said])
    if args.name is not None:
        made = tercet.branch(args.name, from_=args.source or args.branch, tenant=tenant, by=by)
        return Answer({"branch": branch_json(made)}, [f"Branch {made.name} from {made.parent}, line {made.fork}."])
    found = tercet.branches(tenant=tenant, by=by)
    lines: list[Line] = []
    for one in found:
        own = f"{out.count(one.memories, 'memory')} of its own"
        begun = f"  {out.day_and_time(one.at)}  from {one.parent}, line {one.fork}; {own}"
        lines.append([Span(one.name, "strong"), begun])
    return Answer({"branches": [branch_json(one) for one in found]}, lines or ["No branches."])
