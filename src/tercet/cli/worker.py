"""`tercet worker`: run the jobs that wait."""

from __future__ import annotations

import signal
import sys
import threading
from argparse import Namespace

from tercet.cli import out
from tercet.cli.learn import duration
from tercet.cli.options import Parser
from tercet.cli.out import Answer
from tercet.cli.session import Session
from tercet.errors import InvalidRequest


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("--once", action="store_true", help="run what is due now, then end")
    parser.add_argument(
        "--poll", type=float, default=5.0, metavar="SECONDS", help="how often to look for work (left out: 5)"
    )
    parser.add_argument("--cool-after", metavar="TIME",
                        help="bring adapters down to text that nobody has used for so long: 30d")  # fmt: skip


def run(session: Session, args: Namespace) -> Answer:
    """Work until nothing is due, or until it is told to stop (SIGTERM: after the job at hand)."""
    if not 0 < args.poll <= threading.TIMEOUT_MAX:
        raise InvalidRequest(f"--poll wants a positive number of seconds, not {args.poll}.")
    if args.cool_after is not None:
        session.tercet.cool_after = duration(args.cool_after, "--cool-after")
    done = session.tercet.work(until_idle=True)
    if not args.once:
        done += _work_on(session, args.poll, quiet=args.json)
    return Answer({"done": done}, [f"{out.count(done, 'job')} done"])


def _work_on(session: Session, poll: float, *, quiet: bool) -> int:
    stop = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stop.set())
    done = 0
    try:
        while not stop.wait(poll):
            ran = session.tercet.work(until_idle=True)
            done += ran
            if ran and not quiet:
                sys.stderr.write(f"tercet: {out.count(ran, 'job')} done\n")
    finally:
        signal.signal(signal.SIGTERM, before)
    return done
