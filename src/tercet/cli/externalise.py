"""`tercet externalise`: ask an adapter what it knows, and keep what its sources support as texts."""

from __future__ import annotations

from argparse import Namespace

from tercet.cli import out
from tercet.cli.options import Parser
from tercet.cli.out import Answer
from tercet.cli.session import Session
from tercet.exchange.rows import cube_json


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("id", metavar="ID", help="an adapter")
    parser.add_argument("--engine", metavar="NAME", help="of its model; may be left out if there is one")
    parser.add_argument("--agree", type=float, default=0.6, metavar="SHARE",
                        help="of the wordings that must give the same answer; 0.6 if left out")  # fmt: skip


def run(session: Session, args: Namespace) -> Answer:
    """Externalise."""
    made = session.existing().memory.externalise(args.id, engine=args.engine, agree=args.agree)
    said = f"{out.count(len(made), 'memory')} drawn from adapter {args.id}"
    lines = [said, *(f"  {cube.id}  {out.one_line(cube.text)}" for cube in made)]
    return Answer({"adapter": args.id, "cubes": [cube_json(cube) for cube in made], "total": len(made)}, lines)
