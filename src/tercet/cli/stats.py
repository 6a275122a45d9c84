"""`tercet stats`: numbers about the vault."""

from __future__ import annotations

from argparse import Namespace

from tercet.cli.options import Parser
from tercet.cli.out import Answer, Line, Span
from tercet.cli.session import Session

WIDTH = 16


def add_arguments(parser: Parser) -> None:
    """Nothing but what every command takes."""


def run(session: Session, args: Namespace) -> Answer:
    """Collect. With `--tenant`, of that tenant alone."""
    found = session.looking().tercet.stats(by=session.caller)
    if args.tenant is not None:
        found["tenants"] = {name: one for name, one in found["tenants"].items() if name == args.tenant}
    lines: list[Line] = [_row("folder", found["folder"]), _row("recall by", found["recall_by"])]
    lines += [_row(key.replace("_", " "), _said(found[key])) for key in ("kv_memory", "kv_paces", "kv_policy")]
    for name, numbers in found["tenants"].items():
        lines += ["", [Span(f"tenant {name}", "strong")]]
        lines += [_row(key.replace("_", " "), _said(value)) for key, value in numbers.items()]
    return Answer(found, lines)


def _row(name: str, value: str) -> Line:
    return [Span(f"{name:<{WIDTH}}", "faint"), value]


def _said(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_said(one)}" for key, one in value.items()) or "–"
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
