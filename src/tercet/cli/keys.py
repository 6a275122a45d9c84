"""`tercet keys`: API keys of a tenant."""

from __future__ import annotations

from argparse import Namespace
from datetime import timedelta
from typing import TYPE_CHECKING

from tercet.cli import out
from tercet.cli.options import Parser
from tercet.cli.out import Answer, Line, Span
from tercet.cli.session import Session
from tercet.errors import InvalidRequest
from tercet.exchange.rows import key_json
from tercet.scope import Scope

if TYPE_CHECKING:
    from tercet.admin import Admin
    from tercet.govern.keys import Key, NewKey


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("action", choices=["create", "list", "rotate", "revoke"])
    parser.add_argument(
        "words", nargs="*", metavar="WORD", help="of create: a name for the caller; of rotate and revoke: a key's id"
    )
    parser.add_argument("--right", action="append", metavar="RIGHT", help="a right that it gives; several times")
    parser.add_argument("--role", action="append", metavar="NAME", help="a role of its caller")
    parser.add_argument("--only-for", action="append", metavar="PURPOSE", help="a purpose it is for; left out: any")
    parser.add_argument("--days", type=float, metavar="N", help="for how long it is good; left out: until revoked")
    parser.add_argument(
        "--grace", type=float, default=0.0, metavar="HOURS", help="how long a rotated key is still good (left out: 0)"
    )


def run(session: Session, args: Namespace) -> Answer:
    """Create, list, rotate or revoke; --user, --agent and --session narrow what a new key opens."""
    if len(args.words) != (0 if args.action == "list" else 1):
        raise InvalidRequest("One of these: keys create NAME --right RIGHT; keys list; keys rotate ID; keys revoke ID.")
    admin = session.existing().tercet.admin(tenant=args.tenant, by=session.caller)
    if args.action == "list":
        keys = admin.keys()
        lines = [line for key in keys for line in _lines(key)] or ["No keys."]
        return Answer({"keys": [key_json(key) for key in keys], "total": len(keys)}, lines)
    if args.action == "revoke":
        gone = admin.revoke_key(args.words[0])
        return Answer({"revoked": [key.id for key in gone]}, [f"Revoked {out.count(len(gone), 'key')}"])
    if args.action == "rotate":
        return _made(admin.rotate_key(args.words[0], grace=_span("--grace", hours=args.grace)))
    return _made(_create(admin, args))


def _create(admin: Admin, args: Namespace) -> NewKey:
    expires = None if args.days is None else admin.tercet.clock() + _span("--days", days=args.days)
    return admin.create_key(
        args.words[0],
        rights=frozenset(args.right or ()),
        within=Scope(admin.tenant, args.user, args.agent, args.session),
        roles=frozenset(args.role or ()),
        purposes=frozenset(args.only_for or ()),
        expires=expires,
    )


def _span(option: str, **parts: float) -> timedelta:
    try:
        return timedelta(**parts)
    except (OverflowError, ValueError):
        raise InvalidRequest(f"{option} wants a sensible number, not {next(iter(parts.values()))}.") from None


def _made(made: NewKey) -> Answer:
    document = {"key": key_json(made.key), "text": made.text}
    says = "This is shown once; keep it where only its user can read it:"
    return Answer(document, [*_lines(made.key), "", says, [Span(made.text, "strong")]])


def _lines(key: Key) -> list[Line]:
    scope = ", ".join(
        f"{part} {value}" for part in ("user", "agent", "session") if (value := getattr(key.within, part))
    )
    ends = [f"{word} {out.day_and_time(at)}" for word, at in (("expires", key.expires), ("revoked", key.revoked)) if at]
    about = [", ".join(sorted(key.rights)), scope, *(f"role {role}" for role in sorted(key.roles))]
    about += [f"for {purpose}" for purpose in sorted(key.purposes)]
    return [[Span(key.id, "name"), f"  {key.name}: {'; '.join(filter(None, [*about, *ends]))}"]]
