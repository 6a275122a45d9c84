"""`tercet chat`: ask a model that remembers. Answers a question, or goes on line by line until the input ends."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from tercet.cli import out
from tercet.cli.options import Parser
from tercet.cli.out import Answer, Line, Span
from tercet.cli.session import Session

if TYPE_CHECKING:
    from tercet.converse import Reply


def add_arguments(parser: Parser) -> None:
    """Add what this command takes."""
    parser.add_argument("question", nargs="?", metavar="QUESTION", help="left out: one a line from the input")
    parser.add_argument("--engine", metavar="NAME", help="an engine of tercet.toml; may be left out if there is one")
    parser.add_argument("--limit", type=int, default=8, metavar="N", help="memories to recall for each question")
    parser.add_argument("--max-tokens", type=int, default=256, metavar="N", help="tokens of an answer at most")
    parser.add_argument("--share", type=float, default=15.0, metavar="PERCENT",
                        help="of joined KV memories computed anew; 100 is exact")  # fmt: skip
    parser.add_argument("--adapter", action="append", default=[], metavar="ID[@VERSION]",
                        help="answer with this adapter; may be given several times")  # fmt: skip
    parser.add_argument("--recite", action="store_true",
                        help="have the adapters say what they were taught; what verifies is read")  # fmt: skip
    parser.add_argument("--remember", action="store_true", help="keep the questions and answers")


def run(session: Session, args: Namespace) -> Answer:
    """Chat. For a person the answer's pieces are shown as they come."""
    memory = session.memory if args.remember else session.looking().memory
    turns: list[dict[str, str]] = []
    answers: list[dict[str, Any]] = []
    lines: list[Line] = []
    asked = [args.question] if args.question is not None else (line.strip() for line in sys.stdin)
    for question in asked:
        if not question:
            continue
        turns.append({"role": "user", "content": question})
        live = not args.json and sys.stdout.isatty()

        def piece(text: str) -> None:
            sys.stdout.write(out.escape(text.replace("\n", " ")))
            sys.stdout.flush()

        reply = memory.chat(
            turns, engine=args.engine, limit=args.limit, max_tokens=args.max_tokens, share=args.share,
            remember=args.remember, on_piece=piece if live else None, adapters=args.adapter,
            recite=args.recite,
        )  # fmt: skip
        turns.append({"role": "assistant", "content": reply.text})
        answers.append(reply_json(reply))
        shown: list[Line] = [] if live else [*out.block(reply.text, "")]
        shown.append([Span(told(reply), "faint")])
        if live:
            sys.stdout.write("\n")
            for line in shown:
                sys.stdout.write(out.rendered(line, colour=out.has_colour(sys.stdout)) + "\n")
        else:
            lines += shown
    return Answer({"replies": answers}, lines)


def reply_json(reply: Reply) -> dict[str, Any]:
    """A reply as JSON."""
    return {
        "text": reply.text, "memories": list(reply.memories), "kv": list(reply.kv), "tokens": reply.tokens,
        "reused": reply.reused, "seconds_to_first_token": round(reply.first, 4), "seconds_saved": round(reply.saved, 4),
        "left_out": list(reply.left_out), "answer": reply.answer, "adapters": list(reply.adapters),
        "recited": list(reply.recited), "unverified": reply.unverified,
    }  # fmt: skip


def told(reply: Reply) -> str:
    """What an answer stood on, on one line."""
    parts = [f"first token after {reply.first:.2f} s", out.count(len(reply.memories), "memory")]
    if reply.kv:
        share = f" of {reply.tokens:,}" if reply.tokens else ""
        parts.append(f"{reply.reused:,}{share} tokens from KV memory, {reply.saved:+.2f} s saved")
    if reply.recited or reply.unverified:
        parts.append(f"{out.count(len(reply.recited), 'passage')} recited, {reply.unverified:,} not verified")
    return " · ".join(parts)
