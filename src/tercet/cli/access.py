"""`tercet access`: the rules of who may do what in a tenant."""

from __future__ import annotations

from argparse import Namespace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tercet.cli.options import Parser
from tercet.cli.out import Answer, Line, Span
from tercet.cli.session import Session
from tercet.cube import Sensitivity
from tercet.errors import InvalidRequest
from tercet.exchange.rows import rule_json

if TYPE_CHECKING:
    from tercet.admin import KeptRule
    from tercet.govern.rules import Rule

SETS = {
    "tags": ("--tag", "TAG", "only memories with this tag; several: any of them"),
    "types": ("--type", "TYPE", "only memories of this type"),
    "kinds": ("--kind", "KIND", "only memories of this kind"),
    "cubes": ("--cube", "ID", "only this memory"),
    "purposes": ("--only-for", "PURPOSE", "only for this purpose"),
    "networks": ("--network", "CIDR", "only from an address within, such as 10.0.0.0/8"),
}
LEVELS = [level.name.lower() for level in Sensitivity]


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("action", choices=["list", "allow", "deny", "remove"])
    parser.add_argument(
        "words",
        nargs="*",
        metavar="WORD",
        help="of allow and deny: who (a name, role:NAME, key:ID, *) and which rights (read,write); of remove: a number",
    )
    parser.add_argument("--own", action="store_true", help="only memories about the user with the caller's name")
    for name, (option, metavar, says) in SETS.items():
        parser.add_argument(option, action="append", dest=name, metavar=metavar, help=says)
    parser.add_argument("--min-sensitivity", choices=LEVELS, help="only memories at least so sensitive")
    parser.add_argument("--max-sensitivity", choices=LEVELS, help="only memories at most so sensitive")
    parser.add_argument("--hours", metavar="FROM-TO", help="only between these hours, UTC, such as 9-17")
    parser.add_argument("--until", metavar="TIME", help="only until then, such as 2027-01-01T00:00:00Z")


def run(session: Session, args: Namespace) -> Answer:
    """List, add or remove rules of the tenant; --user, --agent and --session say about whom a new one is."""
    wanted = {"list": 0, "remove": 1}.get(args.action, 2)
    if len(args.words) != wanted:
        raise InvalidRequest(
            "One of these: access list; access allow WHO RIGHT[,RIGHT]; access deny WHO RIGHT[,RIGHT]; access remove N."
        )
    if args.action in {"allow", "deny"}:
        rule = _rule(args)
        kept = session.tercet.admin(tenant=args.tenant, by=session.caller).add_rule(rule)
        return Answer({"rule": rule_json(kept)}, [f"Rule {kept.n}: {_said(kept)}"])
    admin = session.existing().tercet.admin(tenant=args.tenant, by=session.caller)
    if args.action == "remove":
        number = args.words[0]
        admin.remove_rule(int(number) if number.isdecimal() else number)
        return Answer({"removed": int(number)}, [f"Removed rule {number}"])
    rules = admin.rules()
    lines: list[Line] = [[Span(f"{one.n:>4}  ", "faint"), _said(one)] for one in rules]
    if not rules:
        lines = ["No rules: whoever can open the folder may do everything."]
    return Answer({"rules": [rule_json(one) for one in rules], "total": len(rules)}, lines)


def _rule(args: Namespace) -> Rule:
    from tercet.govern.rules import Rule

    subject, rights = args.words
    narrowed: dict[str, Any] = {name: frozenset(getattr(args, name) or ()) for name in SETS}
    for name in ("min_sensitivity", "max_sensitivity"):
        level = getattr(args, name)
        narrowed[name] = None if level is None else Sensitivity[level.upper()]
    return Rule(
        args.action,
        subject,
        frozenset(filter(None, rights.split(","))),
        user=args.user,
        agent=args.agent,
        session=args.session,
        own=args.own,
        hours=_hours(args.hours),
        until=None if args.until is None else _time(args.until),
        **narrowed,
    )


def _hours(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    start, dash, end = text.partition("-")
    if not dash or not start.isdecimal() or not end.isdecimal():
        raise InvalidRequest(f"--hours wants two hours such as 9-17, not {text!r}.")
    return int(start), int(end)


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(f"--until wants a time such as 2027-01-01T00:00:00Z, not {text!r}.") from None


def _said(kept: KeptRule) -> str:
    found = {name: value for name, value in rule_json(kept).items() if value not in (None, False, [])}
    rest = [
        f"{name} {_words(value)}" for name, value in found.items() if name not in {"n", "effect", "subject", "rights"}
    ]
    return " ".join([f"{found['effect']} {found['subject']} to {_words(found['rights'])}", *rest])


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "" if value is True else str(value)
