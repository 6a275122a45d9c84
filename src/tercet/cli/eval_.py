"""`tercet eval`: measure recall on labelled conversations."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from tercet.cli import out
from tercet.cli.options import Parser
from tercet.cli.out import Answer
from tercet.cli.session import Session
from tercet.errors import InvalidRequest


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("suite", choices=["locomo"], help="the file's form")
    parser.add_argument(
        "file", metavar="FILE", help="conversations in LoCoMo's form, with questions and their evidence"
    )
    parser.add_argument("--policy", metavar="NAME", help="how to rank; left out: the default policy")
    parser.add_argument("--leave-one-out", action="store_true", help="fit what is fitted on the other conversations")
    parser.add_argument("--plot", metavar="FILE.png", help="draw recall against k (needs matplotlib)")


def run(session: Session, args: Namespace) -> Answer:  # noqa: ARG001  # it evaluates in a fresh vault of its own
    """Evaluate. A person sees words alone and vectors alone beside the policy, and so does the plot."""
    from tercet.evaluate.locomo import evaluate, plot, table

    path = Path(args.file).expanduser()
    if not path.is_file():
        raise InvalidRequest(f"{path} is no file.")
    with out.progress("evaluating", "") as bar:
        measured = evaluate(
            path,
            policy=args.policy,
            leave_one_out=args.leave_one_out,
            baselines=not args.json or args.plot is not None,
            progress=None if bar is None else lambda _, done, total: bar(done, total),
        )
    if args.plot is not None:
        plot(measured, args.plot)
    return Answer(measured.report(), table(measured).splitlines())
