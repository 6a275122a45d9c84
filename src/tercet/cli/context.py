"""`tercet context`: the best memories as a passage for a prompt."""

from __future__ import annotations

from argparse import Namespace

from tercet.cli import out
from tercet.cli.options import Parser, add_limit, add_moment, add_where, conditions
from tercet.cli.out import Answer
from tercet.cli.session import Session


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("question", metavar="QUESTION")
    parser.add_argument("--budget", type=int, default=1200, metavar="N", help="at most so many tokens (left out: 1200)")
    parser.add_argument(
        "--tokenizer", default="bytes", metavar="NAME", help="what counts tokens: bytes (a safe bound) or minilm"
    )
    add_limit(parser, 50)
    add_where(parser)
    add_moment(parser)
    parser.add_argument("--policy", metavar="NAME", help="how to rank; left out: the default policy")


def run(session: Session, args: Namespace) -> Answer:
    """Render."""
    from tercet.text.recall.context import find_counter

    text = session.looking().memory.context(
        args.question,
        budget=args.budget,
        tokenizer=args.tokenizer,
        limit=args.limit,
        where=conditions(args.where),
        policy=args.policy,
    )
    tokens = find_counter(args.tokenizer)(text)
    document = {"context": text, "tokens": tokens, "budget": args.budget, "tokenizer": args.tokenizer}
    document["answer"] = text.answer or None
    return Answer(document, out.block(text, "") if text else ["Nothing found."])
