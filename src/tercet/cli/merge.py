"""`tercet merge`: make one adapter of several, and keep it if it passes its gate."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, cast

from tercet.cli.options import Parser
from tercet.cli.out import Answer
from tercet.cli.promote import adapter
from tercet.cli.session import Session

if TYPE_CHECKING:
    from tercet.cube import Parameters
    from tercet.parametric.promote import Teaching
    from tercet.weights import MergeOptions

OPTIONS = ("rank", "density", "seed")


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("ids", nargs="*", metavar="ID", help="two adapters or more; ID@VERSION for an older one")
    parser.add_argument("--method", default="concatenate", metavar="NAME",
                        help="concatenate (left out): the exact sum; svd, linear, ties or dare")  # fmt: skip
    parser.add_argument("--weight", type=float, action="append", metavar="W",
                        help="of each adapter in turn, so once for each; 1 if left out")  # fmt: skip
    parser.add_argument("--rank", type=int, metavar="N", help="of svd, ties and dare: the rank that is kept")
    parser.add_argument("--density", type=float, metavar="SHARE", help="of ties and dare: of entries that stay")
    parser.add_argument("--seed", type=int, metavar="N", help="of dare")
    parser.add_argument("--engine", metavar="NAME", help="of their model; may be left out if there is one")
    parser.add_argument("--stored", metavar="NAME", help="bf16 (left out), or in fewer bytes int8 or nf4")


def run(session: Session, args: Namespace) -> Answer:
    """Merge."""
    given = {name: getattr(args, name) for name in OPTIONS if getattr(args, name) is not None}
    made = session.existing().memory.merge(
        args.ids, method=args.method, weights=args.weight, engine=args.engine, teaching=_teaching(args),
        **cast("MergeOptions", given),
    )  # fmt: skip
    return adapter(session, made, cast("Parameters", made.payload))


def _teaching(args: Namespace) -> Teaching | None:
    from tercet.parametric.promote import Teaching

    return None if args.stored is None else Teaching(stored=args.stored)
