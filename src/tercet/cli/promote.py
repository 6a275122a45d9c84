"""`tercet promote`: let a model read memories once, and keep what it made of them: a KV cache, or an adapter."""

from __future__ import annotations

import json
from argparse import Namespace
from functools import partial
from typing import TYPE_CHECKING

from tercet.cli import out
from tercet.cli.options import Parser
from tercet.cli.out import Answer
from tercet.cli.session import Session
from tercet.cube import Activation, MemCube, Parameters
from tercet.errors import InvalidRequest
from tercet.exchange.rows import cube_json

if TYPE_CHECKING:
    from tercet.parametric.promote import Teaching
    from tercet.scoped import Progress

ADAPTERS_OWN = ("epochs", "pieces", "spare", "top", "rank", "optimizer", "budget", "writer", "replaces", "stored")
"""Options that mean nothing to a KV cache."""


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("ids", nargs="*", metavar="ID", help="texts, in the order in which they are to be read")
    parser.add_argument(
        "--due", action="store_true", help="no ids: promote and demote whatever measured use says, in every tenant"
    )
    parser.add_argument(
        "--to", default="activation", metavar="KIND", help="activation: a KV cache; parameters: an adapter"
    )
    parser.add_argument("--engine", metavar="NAME", help="an engine of tercet.toml; may be left out if there is one")
    parser.add_argument("--precision", default="bf16", metavar="NAME", help="of a KV cache: fp32, bf16, int8 or int4")
    parser.add_argument("--epochs", type=int, metavar="N", help="of an adapter: passes over its questions at most")
    parser.add_argument("--pieces", type=int, metavar="N", help="of an adapter: general texts replayed each step")
    parser.add_argument(
        "--spare", type=float, metavar="N", help="of an adapter: the lower, the less else moves, the less is recalled"
    )
    parser.add_argument("--top", type=float, metavar="SHARE", help="of an adapter: of layers, the upper ones")
    parser.add_argument("--rank", type=int, metavar="N", help="of an adapter: its rank")
    parser.add_argument(
        "--optimizer", metavar="NAME", help="of an adapter: adamw, adafactor, galore, apollo, apollo-mini or sgd-sai"
    )
    parser.add_argument(
        "--budget", type=float, metavar="SECONDS", help="of an adapter: time, converted to steps before training"
    )
    parser.add_argument("--writer", metavar="NAME", help="of an adapter: an engine that words further questions")
    parser.add_argument("--replaces", metavar="ID", help="an adapter whose next version this becomes")
    parser.add_argument("--stored", metavar="NAME", help="of an adapter: bf16, or in fewer bytes int8 or nf4")
    parser.add_argument(
        "--alone", action="store_true", help="keep no second cache, which is for joining it with other memories"
    )
    parser.add_argument(
        "--compress", metavar="NAME", help="of a KV cache: keep a share of its rows, chosen by snap-kv, for one"
    )
    parser.add_argument("--share", type=float, metavar="SHARE", help="of the rows, with --compress; 0.5 by default")


def run(session: Session, args: Namespace) -> Answer:
    """Promote."""
    if args.due is bool(args.ids):
        raise InvalidRequest("Say what to promote: ids, or --due for what measured use says.")
    if args.share is not None and args.compress is None:
        raise InvalidRequest("--share says how much --compress NAME keeps; name a compressor.")
    if args.due and args.compress is not None:
        raise InvalidRequest("--due keeps whole caches; compress those that you name.")
    if args.due or args.to != "parameters":
        for name in ADAPTERS_OWN:
            if getattr(args, name) is not None:
                raise InvalidRequest(f"--{name} is for an adapter: say --to parameters, with the ids.")
    if args.due:
        found = session.existing().tercet.tend(engine=args.engine, precision=args.precision, by=session.caller)
        lines = [
            f"{name}: {len(one['promoted'])} promoted, {len(one['demoted'])} demoted" for name, one in found.items()
        ]
        return Answer({"tenants": found}, lines)
    memory = session.looking().memory
    if args.to == "parameters" and args.compress is not None:
        raise InvalidRequest("--compress is for KV caches; an adapter has none.")
    with out.progress("teaching", " steps") as bar:
        made = memory.promote(
            args.ids, to=args.to, engine=args.engine, precision=args.precision, joinable=not args.alone,
            compressor=args.compress, share=0.5 if args.share is None else args.share,
            teaching=_teaching(args, bar) if args.to == "parameters" else None,
        )  # fmt: skip
    if isinstance(made.payload, Parameters):
        return adapter(session, made, made.payload)
    assert isinstance(made.payload, Activation)  # noqa: S101  # what is left
    size = sum(blob.size for blob in made.payload.blobs)
    document = {"cube": cube_json(made), "tokens": made.payload.tokens, "bytes": size}
    said = f"KV memory {made.id}: {out.count(made.payload.tokens, 'token')}, {size:,} bytes"
    return Answer(document, [said, f"  read by {made.payload.model.name}, computed in {made.payload.model.dtype}"])


def _teaching(args: Namespace, bar: Progress | None) -> Teaching:
    """What the options say of an adapter."""
    from tercet.parametric.promote import Teaching
    from tercet.parametric.train import Recipe

    given = {
        "epochs": args.epochs, "pieces": args.pieces, "rank": args.rank, "seconds": args.budget, "spare": args.spare,
        "top": args.top, "optimizer": args.optimizer,
    }  # fmt: skip
    recipe = partial(Recipe.suited, **{name: value for name, value in given.items() if value is not None})
    stored = Teaching.stored if args.stored is None else args.stored
    return Teaching(recipe, replaces=args.replaces, progress=bar, stored=stored, writer=args.writer)


def adapter(session: Session, made: MemCube, payload: Parameters) -> Answer:
    """What is said of an adapter that was kept: its report, in short."""
    from tercet.parametric.memory import REPORT, read_blob

    report = json.loads(read_blob(session.tercet.vault.tenant(made.scope.tenant), payload, REPORT))
    before, after = report["recall"]
    size = sum(blob.size for blob in payload.blobs)
    form = f" in {report['stored']}" if report.get("stored", "bf16") != "bf16" else ""
    lines = [
        f"adapter {made.id} version {made.version}: rank {payload.rank}, {size:,} bytes{form}",
        f"  asked in other words, {after:.0%} of the facts are recalled ({before:.0%} before)",
        f"  {report['locality']:.0%} of the general questions that were answered right still are",
        f"  loss on general text {report['general_loss_change']:+.1%}",
        f"  {report['leak']:.0%} of questions about strangers are answered with what was taught about others",
        *(
            f"  contradiction: {one['subject']} · {one['relation']}; the newest is taught"
            for one in report["contradictions"]
        ),
    ]
    if report.get("writer"):
        lines.append(f"  {out.count(len(report['written']), 'question')} worded by {report['writer']}")
    lines.append(f"  ask with: tercet chat --limit 0 --adapter {made.id} QUESTION")
    return Answer({"cube": cube_json(made), "bytes": size, "report": report}, [*lines])
