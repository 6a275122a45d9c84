"""`tercet remember`: keep a text, what somebody said, or a file."""

from __future__ import annotations

import sys
from argparse import Namespace
from datetime import timedelta

from tercet.cli import out
from tercet.cli.options import Parser, add_sensitivity, pairs
from tercet.cli.out import Answer, Line, Span
from tercet.cli.session import Session
from tercet.errors import InvalidRequest
from tercet.exchange.rows import cube_json

NOT_WITH_FILE = (
    "text", "at", "tag", "meta", "ref", "type", "speaker", "role", "slot", "valid_from", "valid_to", "expires",
    "sensitivity",
)  # fmt: skip


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("text", nargs="?", metavar="TEXT", help="the words, kept as they are; `-` reads standard input")
    parser.add_argument("--file", metavar="PATH", help="a text, Markdown, PDF or DOCX file, or a chat export, instead")
    parser.add_argument("--format", metavar="NAME", help="what the file is, if its suffix does not tell")
    parser.add_argument("--at", metavar="TIME", help="when it was said or seen, with a zone: 2024-05-01T09:30+02:00")
    parser.add_argument("--tag", action="append", metavar="TAG", help="a label; may come several times")
    parser.add_argument(
        "--meta", action="append", metavar="KEY=VALUE", help='what else to keep with it; n=5 is a number, n="5" text'
    )
    parser.add_argument("--ref", metavar="NAME", help="your own name for it: the same one twice is kept once")
    parser.add_argument("--type", metavar="NAME", help="fact (left out), preference, event, instruction, message, …")
    parser.add_argument(
        "--slot", nargs=2, metavar=("SUBJECT", "ATTRIBUTE"), help="what it is the value of; a later one supersedes it"
    )
    parser.add_argument("--valid-from", metavar="TIME", help="from when it holds; left out: when it was said or seen")
    parser.add_argument("--valid-to", metavar="TIME", help="until when it holds; left out: until another supersedes it")
    parser.add_argument("--expires", metavar="TIME", help="when it ends, with a zone, or after how long: 90s, 12h, 30d")
    add_sensitivity(parser)
    parser.add_argument("--speaker", metavar="NAME", help="who said it")
    parser.add_argument("--role", metavar="ROLE", help="user, assistant, system or tool")


def run(session: Session, args: Namespace) -> Answer:
    """Remember one text, or what a file holds."""
    if args.file is not None:
        return _file(session, args)
    if args.format is not None:
        raise InvalidRequest("--format goes with --file.")
    from tercet.text.read.message import Message

    text = words(args.text)
    item = text if args.speaker is None and args.role is None else Message(text, args.role or "user", args.speaker)
    cube = session.memory.remember(
        item,
        at=args.at,
        tags=args.tag,
        metadata=pairs(args.meta, "--meta"),
        ref=args.ref,
        type=args.type or ("fact" if isinstance(item, str) else None),
        slot=args.slot and tuple(args.slot),
        valid_from=args.valid_from,
        valid_to=args.valid_to,
        sensitivity=args.sensitivity,
        expires=None if args.expires is None else span(args.expires),
    )
    told = out.told_of(cube)
    line: Line = ["Remembered ", Span(cube.id, "strong"), f"  ({told})" if told else ""]
    return Answer({"cube": cube_json(cube)}, [line])


def span(given: str) -> timedelta | str:
    """A time as it was given, or so many seconds, minutes, hours, days or weeks."""
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
    number, unit = given[:-1], given[-1:]
    if unit not in units or not number.isdecimal():
        return given
    try:
        return timedelta(**{units[unit]: int(number)})
    except OverflowError:
        raise InvalidRequest(f"{given} is beyond the calendar.") from None


def words(given: str | None) -> str:
    """The text, or standard input for `-`; one line end at its end is the shell's and goes.

    Raises
    ------
    InvalidRequest
        If there is none, or standard input is not UTF-8.
    """
    if given is None:
        raise InvalidRequest("Give a text in quotes, `-` to read standard input, or --file PATH.")
    if given != "-":
        return given
    from tercet.text.read.files import decode

    text = decode(sys.stdin.buffer.read(), "Standard input")
    return text.removesuffix("\n").removesuffix("\r")


def _file(session: Session, args: Namespace) -> Answer:
    given = [
        f"--{name.replace('_', '-')}" if name != "text" else "a text"
        for name in NOT_WITH_FILE
        if getattr(args, name) is not None
    ]
    if given:
        raise InvalidRequest(f"--file does not go with {', '.join(given)}: the file tells what it holds.")
    with out.progress("remembering", " memories") as bar:
        cubes = session.memory.remember_document(args.file, format=args.format, progress=bar)
    return Answer(
        {"cubes": [cube_json(cube) for cube in cubes], "total": len(cubes)},
        [f"Remembered {out.count(len(cubes), 'memory')} from {args.file}"],
    )
