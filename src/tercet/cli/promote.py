"""`tercet promote`: let a model read memories once, and keep what it made of them."""

from __future__ import annotations

from argparse import Namespace

from tercet.cli import out
from tercet.cli.options import Parser
from tercet.cli.out import Answer
from tercet.cli.session import Session
from tercet.cube import Activation
from tercet.errors import InvalidRequest
from tercet.exchange.rows import cube_json


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("ids", nargs="*", metavar="ID", help="texts, in the order in which they are to be read")
    parser.add_argument(
        "--due", action="store_true", help="no ids: promote and demote whatever measured use says, in every tenant"
    )
    parser.add_argument("--to", default="activation", metavar="KIND", help="activation: a KV cache")
    parser.add_argument("--engine", metavar="NAME", help="an engine of tercet.toml; may be left out if there is one")
    parser.add_argument(
        "--alone", action="store_true", help="keep no second cache, which is for joining it with other memories"
    )
    parser.add_argument("--precision", default="bf16", metavar="NAME", help="fp32, bf16, int8 or int4")
    parser.add_argument("--compress", metavar="NAME", help="keep a share of the rows only, chosen by snap-kv, for one")
    parser.add_argument("--share", type=float, metavar="SHARE", help="of the rows, with --compress; 0.5 by default")


def run(session: Session, args: Namespace) -> Answer:
    """Promote."""
    if args.due is bool(args.ids):
        raise InvalidRequest("Say what to promote: ids, or --due for what measured use says.")
    if args.share is not None and args.compress is None:
        raise InvalidRequest("--share says how much --compress NAME keeps; name a compressor.")
    if args.due and args.compress is not None:
        raise InvalidRequest("--due keeps whole caches; compress those that you name.")
    if args.due:
        found = session.existing().tercet.tend(engine=args.engine, precision=args.precision, by=session.caller)
        lines = [
            f"{name}: {len(one['promoted'])} promoted, {len(one['demoted'])} demoted" for name, one in found.items()
        ]
        return Answer({"tenants": found}, lines)
    memory = session.looking().memory
    made = memory.promote(
        args.ids, to=args.to, engine=args.engine, precision=args.precision, joinable=not args.alone,
        compressor=args.compress, share=0.5 if args.share is None else args.share,
    )  # fmt: skip
    assert isinstance(made.payload, Activation)  # noqa: S101  # the only kind so far
    size = sum(blob.size for blob in made.payload.blobs)
    document = {"cube": cube_json(made), "tokens": made.payload.tokens, "bytes": size}
    said = f"KV memory {made.id}: {out.count(made.payload.tokens, 'token')}, {size:,} bytes"
    return Answer(document, [said, f"  read by {made.payload.model.name}, computed in {made.payload.model.dtype}"])
