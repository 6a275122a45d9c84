"""`tercet share`: let somebody else read memories."""

from __future__ import annotations

from argparse import Namespace

from tercet.cli import out
from tercet.cli.grants import lines
from tercet.cli.options import Parser, add_where, conditions
from tercet.cli.out import Answer
from tercet.cli.remember import span
from tercet.cli.session import Session
from tercet.errors import InvalidRequest
from tercet.exchange.rows import share_json


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("ids", nargs="*", metavar="ID", help="memories, by id")
    parser.add_argument("--with", dest="to", required=True, metavar="WHO", help="a caller's name, role:NAME or key:ID")
    add_where(parser)
    parser.add_argument("--all", action="store_true", help="all that the scope holds, and will hold")
    parser.add_argument("--only-for", metavar="PURPOSE", help="the purpose it is for; left out: whatever for")
    parser.add_argument("--reads", type=int, metavar="N", help="how many calls it answers; left out: any number")
    parser.add_argument("--until", metavar="TIME", help="when it ends, with a zone, or after how long: 90s, 12h, 30d")


def run(session: Session, args: Namespace) -> Answer:
    """Share by id, or what a filter meets, with one caller."""
    where = conditions(args.where)
    if bool(args.ids) + (where is not None) + args.all != 1:
        raise InvalidRequest("Say what to share: ids, or --where with a condition, or --all.")
    memory = session.existing().memory
    share = memory.share(
        args.ids or None,
        with_=args.to,
        where=where,
        everything=args.all,
        purpose=args.only_for,
        reads=args.reads,
        until=None if args.until is None else span(args.until),
    )
    named = out.count(len(share.cubes), "memory") if share.cubes else "what the condition meets"
    said = [f"Shared {named}:", *lines(share)]
    with memory.tercet.vault.tenant(share.scope.tenant).reading() as reader:
        if memory.tercet.gate.stored(reader.connection, share.scope.tenant) is None:
            said.append("No rules here: whoever can open the folder reads it anyway; `tercet access` makes some.")
    return Answer({"grant": share_json(share)}, said)
