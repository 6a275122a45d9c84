"""`tercet quarantine`: what reads like an instruction to a model and comes from where nobody vouches for it."""

from __future__ import annotations

from argparse import Namespace

from tercet.cli import out
from tercet.cli.forget import receipt_lines
from tercet.cli.options import Parser, add_limit
from tercet.cli.out import Answer, Line, Span
from tercet.cli.session import Session
from tercet.errors import InvalidRequest
from tercet.exchange.rows import cube_json, receipt_json


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("what", choices=["list", "release", "forget"])
    parser.add_argument("ids", nargs="*", metavar="ID", help="which to release or forget")
    add_limit(parser, 100)
    parser.add_argument("--cursor", metavar="C", help="go on where the page before ended")


def run(session: Session, args: Namespace) -> Answer:
    """List them, or act on some."""
    memory = session.looking().memory
    if args.what == "list":
        if args.ids:
            raise InvalidRequest("`quarantine list` takes no ids; `tercet show ID` shows one.")
        page = memory.quarantined(limit=args.limit, cursor=args.cursor)
        lines: list[Line] = []
        for cube in page:
            lines += [[Span(cube.id, "strong"), f"  {out.heading(cube)} · {cube.descriptive.origin.source.value}"]]
            lines += out.block(cube.text)
        lines.append([Span(f"{len(page):,} of {page.total:,} in quarantine", "faint")])
        document = {"cubes": [cube_json(cube) for cube in page], "total": page.total, "truncated": page.truncated}
        return Answer({**document, "cursor": page.cursor}, lines)
    if not args.ids:
        raise InvalidRequest(f"Say which to {args.what}: `tercet quarantine {args.what} ID ...`.")
    held = [memory.get(id) for id in args.ids]
    if free := [cube.id for cube in held if not out.marked(cube)]:
        raise InvalidRequest(f"Not in quarantine: {', '.join(free)}; nothing was done.")
    if args.what == "forget":
        receipt = memory.forget(args.ids)
        return Answer({"receipt": receipt_json(receipt), "forgotten": len(receipt.erased)}, receipt_lines(receipt))
    released = [memory.admit(id) for id in args.ids]
    document = {"cubes": [cube_json(cube) for cube in released], "total": len(released), "truncated": False}
    return Answer(document, [["Released ", Span(cube.id, "strong")] for cube in released])
