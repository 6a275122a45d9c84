"""`tercet audit`: read the journal, check it, anchor its head."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping

from tercet.cli import out
from tercet.cli.options import Parser, add_limit
from tercet.cli.out import Answer, Line, Span
from tercet.cli.session import Session
from tercet.cli.verify import add_key, answer
from tercet.errors import InvalidRequest


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument(
        "what", choices=("verify", "log", "anchor"), help="check it, page through it, or write its head"
    )
    parser.add_argument("files", nargs="*", metavar="FILE", help="verify: receipts and anchors; anchor: the new file")
    parser.add_argument("--since", type=int, default=0, metavar="N", help="log: lines after this one")
    add_limit(parser, 100)
    add_key(parser)


def run(session: Session, args: Namespace) -> Answer:
    """Do what is asked; `verify` has exit code 1 if anything is wrong."""
    tercet, by = session.existing().tercet, session.caller
    if args.what == "verify":
        found = tercet.verify_audit(args.files, tenant=args.tenant, key=args.public_key, by=by)
        return answer(found, "The chain is whole")
    if args.what == "anchor":
        if len(args.files) != 1:
            raise InvalidRequest("Name the file to write: `tercet audit anchor FILE`.")
        document = tercet.anchor(args.files[0], tenant=args.tenant, by=by)
        said = f"Anchored line {document['seq']:,} in {args.files[0]}; keep it where the vault's folder is not"
        return Answer(document, [said, f"Its head is {document['head']}"])
    if args.files:
        raise InvalidRequest("`tercet audit log` reads the vault; it takes no file.")
    found_lines = tercet.audit(tenant=args.tenant, since=args.since, limit=args.limit, by=by)
    rows = [
        {
            "seq": line.seq,
            "at": line.at.isoformat(),
            "by": line.by,
            "action": line.action,
            "id": line.id,
            "version": line.version,
            "detail": dict(line.detail),
            "hash": line.hash,
        }
        for line in found_lines
    ]
    more = len(rows) == args.limit
    lines: list[Line] = [
        [
            Span(f"{line.seq:>7}  ", "faint"),
            f"{line.at:%Y-%m-%d %H:%M:%S}  ",
            Span(f"{line.by:<12} ", "name"),
            f"{line.action:<10} {line.id or _about(line.detail)}{f' v{line.version}' if line.version else ''}",
        ]
        for line in found_lines
    ]
    if more:
        lines.append(f"{out.count(len(rows), 'line')}; go on with --since {rows[-1]['seq']}")
    return Answer({"lines": rows, "truncated": more}, lines)


def _about(detail: Mapping[str, object]) -> str:
    """What a line says that is about no single memory, as far as it fits."""
    said = ", ".join(f"{key} {value}" for key, value in detail.items() if isinstance(value, str | int))
    return out.one_line(said)
