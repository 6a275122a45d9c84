"""`tercet eval`: measure recall on a labelled conversation."""

from __future__ import annotations

from argparse import Namespace
from importlib import import_module
from pathlib import Path

from tercet.cli import out
from tercet.cli.options import Parser
from tercet.cli.out import Answer
from tercet.cli.session import Session
from tercet.errors import InvalidRequest


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("suite", choices=["locomo"], help="the file's form")
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--policy", metavar="NAME", help="how to rank; left out: the default policy")
    parser.add_argument("--leave-one-out", action="store_true", help="fit what is fitted on the other conversations")
    parser.add_argument("--plot", metavar="FILE.png", help="draw recall against k")


def run(session: Session, args: Namespace) -> Answer:  # noqa: ARG001  # it evaluates in a fresh vault of its own
    """Evaluate."""
    path = Path(args.file)
    if not path.is_file():
        raise InvalidRequest(f"{path} is no file.")
    locomo = import_module("tercet.evaluate.locomo")
    with out.progress("evaluating", " questions") as bar:
        report = locomo.evaluate(path, policy=args.policy, leave_one_out=args.leave_one_out, progress=bar)
    if args.plot:
        locomo.plot(report, Path(args.plot))
    return Answer(report, locomo.table(report))
