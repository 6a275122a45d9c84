"""`tercet migrate-model`: make adapters and KV caches again for another model."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING

from tercet.cli import out
from tercet.cli.options import Parser
from tercet.cli.out import Answer
from tercet.cli.session import Session

if TYPE_CHECKING:
    from tercet.schedule.migration import Moved

REFUSED = 3
"""The exit code if a gate refused one: what there was stays."""


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("old", metavar="OLD", help="the engine they were made for, or its model's name or revision")
    parser.add_argument("new", metavar="NEW", help="the engine they are to be for")
    parser.add_argument("--externalise", action="store_true",
                        help="teach what the old adapters say and their sources support, not the sources")  # fmt: skip
    parser.add_argument("--later", action="store_true", help="leave the work to `tercet worker`")
    parser.add_argument("--show", action="store_true", help="only say how far it is")


def run(session: Session, args: Namespace) -> Answer:
    """Move, or go on with a move, and say what came of each."""
    memory = session.existing().memory
    if args.show:
        plan = memory.migrated(args.old, args.new)
    else:
        plan = memory.migrate_model(args.old, args.new, externalise=args.externalise, later=args.later)
    counted = Counter(one.outcome for one in plan.items)
    said = ", ".join(f"{number:,} {outcome}" for outcome, number in sorted(counted.items())) or "nothing to move"
    lines = [f"{args.old} → {args.new}: {said}"]
    lines += [_line(one) for one in plan.items]
    if plan.waiting:
        lines.append(f"{out.count(plan.waiting, 'job')} left; `tercet worker` goes on")
    return Answer({**asdict(plan), "waiting": plan.waiting}, lines, code=REFUSED if counted["refused"] else 0)


def _line(one: Moved) -> str:
    made, why = f" → {one.made}" if one.made else "", f": {one.why}" if one.why else ""
    return f"  {one.kind} {one.id} {one.outcome}{made}{why}"
