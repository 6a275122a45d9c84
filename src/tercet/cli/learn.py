"""`tercet learn`: let a model learn one user's memories by a job; nothing does so unasked."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING

from tercet.cli.options import Parser
from tercet.cli.out import Answer
from tercet.cli.remember import span
from tercet.cli.session import Session
from tercet.errors import InvalidRequest

if TYPE_CHECKING:
    from tercet.schedule.personal import Personal


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("--engine", metavar="NAME", help="which learns; left out: the one that takes adapters")
    parser.add_argument("--every", metavar="TIME", default="24h", help="how often it is looked: 12h, 7d")
    parser.add_argument("--stable", metavar="TIME", default="1d", help="how long a memory stands before it is learnt")
    parser.add_argument("--most", type=int, default=400, metavar="N", help="memories that are learnt at most")
    parser.add_argument("--stop", action="store_true", help="learn nothing more; the adapter stays until it is demoted")
    parser.add_argument("--show", action="store_true", help="only say what was asked for, and what came of it")


def run(session: Session, args: Namespace) -> Answer:
    """Ask for it, take it back, or show it."""
    if args.stop and args.show:
        raise InvalidRequest("--stop takes it back, --show only looks; choose one.")
    memory = session.existing().memory
    if args.show:
        found = memory.learnt()
    else:
        found = memory.learn(
            engine=args.engine, every=duration(args.every, "--every"), stable=duration(args.stable, "--stable"),
            most=args.most, stop=args.stop,
        )  # fmt: skip
    return Answer({"learning": None if found is None else asdict(found)}, [told(found)])


def told(found: Personal | None) -> str:
    """What was asked for, and what came of it."""
    if found is None:
        return "No model learns this user's memories."
    so_far = f"; {found.outcome}" + (f" ({found.why})" if found.why else "") if found.outcome else ""
    adapter = f"adapter {found.adapter}" if found.adapter else "no adapter yet"
    return f"`tercet worker` looks every {found.hours:g} hours: {adapter}{so_far}"


def duration(given: str, option: str) -> timedelta:
    """A span as the command line writes it; nothing is 0d. Raises InvalidRequest."""
    found = span(given)
    if isinstance(found, timedelta):
        return found
    raise InvalidRequest(f"{option} is how long, as in 90s, 12h or 30d, not {given!r:.40}.")
