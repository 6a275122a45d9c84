"""`tercet grants`: what the caller lets others read, and what they let the caller."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import TYPE_CHECKING

from tercet.cli import out
from tercet.cli.options import Parser
from tercet.cli.out import Answer, Line, Span
from tercet.cli.session import Session
from tercet.exchange.rows import share_json

if TYPE_CHECKING:
    from tercet.govern.shares import Share


def add_arguments(_: Parser) -> None:
    """It takes none of its own."""


def run(session: Session, _: Namespace) -> Answer:
    """List the grants of the scope."""
    found = session.existing().memory.grants()
    told = [line for share in found for line in lines(share)] or ["No grants."]
    return Answer({"grants": [share_json(share) for share in found], "total": len(found)}, told)


def lines(share: Share) -> list[Line]:
    """A grant, for a person."""
    where = "" if share.where is None else f"where {json.dumps(dict(share.where), ensure_ascii=False)}"
    scope = [f"{part} {value}" for part in ("user", "agent", "session") if (value := getattr(share.scope, part))]
    said = [
        f"{share.by} to {share.to}",
        out.count(len(share.cubes), "memory") if share.cubes else where or "all",
        ", ".join(scope),
        f"for {share.purpose}" if share.purpose else "",
        f"{share.left} of {share.reads} reads left" if share.reads is not None else "",
        f"until {out.day_and_time(share.until)}" if share.until else "",
        f"revoked {out.day_and_time(share.revoked)}" if share.revoked else "",
    ]
    return [[Span(share.id, "name"), f"  {'; '.join(filter(None, said))}"]]
