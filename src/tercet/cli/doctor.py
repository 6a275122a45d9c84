"""`tercet doctor`: check the vault against itself, and repair what can be repaired."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from tercet.cli import out
from tercet.cli.options import Parser
from tercet.cli.out import Answer, Line, Span
from tercet.cli.session import Session
from tercet.exchange.rows import finding_json
from tercet.vault.schema import NEWEST

if TYPE_CHECKING:
    from tercet.kernel import Tercet
    from tercet.scope import Caller


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("--repair", action="store_true", help="rebuild indexes from the rows where they differ")


def run(session: Session, args: Namespace) -> Answer:
    """Examine every tenant. The exit code is 1 if something is left that is not as it should be."""
    tercet = session.existing().tercet
    found = tercet.doctor(repair=args.repair, by=session.caller)
    findings = [finding_json(name, one) for name, several in found.items() for one in several]
    left = [one for one in findings if not one["repaired"]]
    document: dict[str, Any] = {
        "ok": not left,
        "tenants": sorted(found),
        "findings": findings,
        "recall_by": tercet.recall_by(),
        "schema": NEWEST,
        "spaces": _spaces(tercet, session.caller) if not left else {},
    }
    lines: list[Line] = [
        [
            Span("repaired" if one["repaired"] else "found", "good" if one["repaired"] else "bad"),
            f"  {one['tenant']}: {one['what']}: {one['detail']}",
        ]
        for one in findings
    ]
    lines.append(
        f"{out.count(len(found), 'tenant')} checked: "
        + (f"{out.count(len(left), 'finding')} left" if left else "all is well")
    )
    lines.append(f"schema {NEWEST}; recall is by {document['recall_by']}")
    for name, held in document["spaces"].items():
        lines += [f"{name}: {one['vectors']:,} vectors in {space}{_left(one)}" for space, one in held.items()]
    if left and not args.repair:
        lines.append("`tercet doctor --repair` rebuilds what can be rebuilt")
    return Answer(document, lines, code=1 if left else 0)


def _spaces(tercet: Tercet, by: Caller) -> dict[str, dict[str, Any]]:
    return {name: numbers["spaces"] for name, numbers in tercet.stats(by=by)["tenants"].items()}


def _left(space: dict[str, Any]) -> str:
    return f", left on {space['left'][:10]}" if space["left"] else ""
