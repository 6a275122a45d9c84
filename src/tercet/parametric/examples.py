"""Questions as tokens with the places that are learnt, what a teacher said there, and the loss over both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tercet.errors import InvalidRequest

if TYPE_CHECKING:
    from tercet.engine.base import AdapterEngine, Turn

TOP = 20
TINY = 1e-6
TOGETHER, UNEVEN = 48, 12
"""Prompts that are answered at a time at most, and by how many tokens their lengths may differ."""
Turns = Sequence[tuple[str, str]]
"""(question, answer) after each other, as one conversation."""


@dataclass(frozen=True, eq=False)
class Teacher:
    """The K most likely next tokens at each learnt place and their log-probabilities: (n, K) int32, (n, K) float16."""

    ids: Tensor
    logs: Tensor


@dataclass(frozen=True, eq=False)
class Example:
    """Tokens, of which those at `marks` (rising, none the first) are learnt; prompts and padding never count.

    The loss at a mark is `ce` times the cross-entropy of its token, and `kl` times the teacher's divergence.
    """

    tokens: tuple[int, ...]
    marks: tuple[int, ...]
    teacher: Teacher | None = None
    ce: float = 1.0
    kl: float = 0.0


def conversation(engine: AdapterEngine, turns: Turns, system: str | None = None) -> Example:
    """Turns by the model's template: answers are learnt, each with the token that ends it.

    Prompt and answer are tokenised apart, as they are when the model answers. Raises InvalidRequest for several turns
    with a template that rewrites what was said before.
    """
    said: list[Turn] = [{"role": "system", "content": system}] if system is not None else []
    tokens, marks, done = list[int](), list[int](), ""
    for question, answer in turns:
        said.append({"role": "user", "content": question})
        text = engine.render(said)
        if not text.startswith(done):
            raise InvalidRequest("This model's template rewrites earlier turns; teach one turn at a time.")
        between = engine.encode(text[len(done) :])
        tokens += between[1:] if done and between[0] == tokens[-1] else between
        learnt = [*engine.encode(answer), min(engine.ends)]
        marks += range(len(tokens), len(tokens) + len(learnt))
        tokens += learnt
        said.append({"role": "assistant", "content": answer})
        done = text + answer
    return Example(tuple(tokens), tuple(marks))


def plain(engine: AdapterEngine, text: str) -> Example:
    """A text whose every token but the first is learnt."""
    tokens = engine.encode(text)
    return Example(tokens, tuple(range(1, len(tokens))))


Read = Callable[[Sequence[Example]], Tensor]
"""The last states, (B, T, width), of examples, padded behind."""


def scores_at(engine: AdapterEngine, examples: Sequence[Example], read: Read | None = None) -> Tensor:
    """Scores that predict the marks of all examples, one after the other: (marks, vocabulary) float32.

    `read` gives the states where they are not read from the tokens.
    """
    if read is None:
        longest = max(len(one.tokens) for one in examples)
        states = engine.read(torch.tensor([[*one.tokens, *[0] * (longest - len(one.tokens))] for one in examples]))
    else:
        states = read(examples)
    wanted = torch.cat([states[row, [mark - 1 for mark in one.marks]] for row, one in enumerate(examples)])
    return engine.head(wanted).float()


def taught(
    engine: AdapterEngine, example: Example, reads: Example | None = None, *, read: Read | None = None
) -> Teacher:  # fmt: skip
    """What the model as it is says at an example's marks; `reads` is the same answer behind a prompt with the text."""
    with torch.no_grad():
        logs = scores_at(engine, [reads or example], read).log_softmax(-1)
    best = logs.topk(min(TOP, logs.shape[1]), dim=-1)
    return Teacher(best.indices.int(), best.values.half())


def bucketed(teacher: Teacher, scores: Tensor) -> Tensor:
    """KL of the teacher to scores (n, V), over its top K and one bucket for the rest: (n,), at most the full KL.

    sum_k p_k log(p_k / q_k) + p_r log(p_r / q_r), where p_r = 1 - sum p_k and q_r likewise.
    """
    logs = teacher.logs.float()
    found = scores.log_softmax(-1).gather(1, teacher.ids.long())
    p, q = logs.exp(), found.exp()
    rest_p, rest_q = (1 - p.sum(-1)).clamp_min(TINY), (1 - q.sum(-1)).clamp_min(TINY)
    divergence: Tensor = (p * (logs - found)).sum(-1) + rest_p * (rest_p / rest_q).log()
    return divergence


def losses(
    engine: AdapterEngine, examples: Sequence[Example], read: Read | None = None
) -> tuple[Tensor, float]:  # fmt: skip
    """The summed loss of a batch, to be differentiated, and its summed cross-entropy alone."""
    scores = scores_at(engine, examples, read)
    labels = torch.tensor([one.tokens[mark] for one in examples for mark in one.marks])
    crossed = torch.nn.functional.cross_entropy(scores, labels, reduction="none")
    total, at, plain_loss = scores.new_zeros(()), 0, 0.0
    for one in examples:
        there = slice(at, at + len(one.marks))
        if one.ce:
            total = total + one.ce * crossed[there].sum()
            plain_loss += float(crossed[there].detach().sum())
        if one.kl and one.teacher is not None:
            total = total + one.kl * bucketed(one.teacher, scores[there]).sum()
        at = there.stop
    return total, plain_loss


def mean_loss(engine: AdapterEngine, texts: Iterable[str]) -> float:
    """The loss per token over texts, in nats. Raises InvalidRequest if there is no token to predict."""
    total, count = 0.0, 0
    with torch.no_grad():
        for text in texts:
            example = plain(engine, text)
            if example.marks:
                total += losses(engine, [example])[1]
                count += len(example.marks)
    if not count:
        raise InvalidRequest("There is no text to measure the loss on.")
    return total / count


def answers(
    engine: AdapterEngine, questions: Sequence[str], *, system: str | None = None, max_tokens: int = 16,
    systems: Mapping[int, str] | None = None, behind: Mapping[int, Turns] | None = None,
) -> list[str]:  # fmt: skip
    """The model's greedy answers, in order, many at a time: the same as each alone, but for rounding.

    `systems` gives some questions, by their number, a system's words of their own; `behind` what was said before.
    """
    prompts = []
    for number, question in enumerate(questions):
        words = (systems or {}).get(number, system)
        turns: list[Turn] = [{"role": "system", "content": words}] if words is not None else []
        for asked, told in (behind or {}).get(number, ()):
            turns += [{"role": "user", "content": asked}, {"role": "assistant", "content": told}]
        prompts.append(engine.encode(engine.render([*turns, {"role": "user", "content": question}])))
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    made: dict[int, str] = {}
    for batch in _batches(order, prompts, padded=not any(engine.windows)):
        rows = _generate(engine, [prompts[number] for number in batch], max_tokens)
        made |= {number: engine.decode(row).strip() for number, row in zip(batch, rows, strict=True)}
    return [made[number] for number in range(len(prompts))]


def _batches(order: Sequence[int], prompts: Sequence[Sequence[int]], *, padded: bool) -> Iterator[list[int]]:
    """Numbers of prompts that are answered together: few enough, of much the same length, or of one if not padded."""
    batch = list[int]()
    for number in order:
        longer = len(prompts[number]) - len(prompts[batch[0]]) if batch else 0
        if len(batch) == TOGETHER or longer > (UNEVEN if padded else 0):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _generate(engine: AdapterEngine, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[list[int]]:
    """Greedy tokens after prompts, which are padded in front; what all begin with is computed once."""
    from transformers import DynamicCache

    longest = max(len(one) for one in prompts)
    alike = next((n for n, column in enumerate(zip(*prompts, strict=False)) if len(set(column)) > 1), longest)
    shared = min(alike, min(len(one) for one in prompts) - 1)
    past: Any = DynamicCache()
    made: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))
    pads = torch.tensor([longest - len(one) for one in prompts])[:, None]
    ids = torch.tensor([[0] * (longest - len(one)) + list(one[shared:]) for one in prompts])
    with torch.no_grad():
        if shared:
            engine.read(torch.tensor([prompts[0][:shared]]), past)
            past.batch_repeat_interleave(len(prompts))
        for _ in range(max_tokens):
            before = past.get_seq_length()
            if bool(pads.any()):
                positions, seen = _padded(before, ids.shape[1], shared, pads)
                states = engine.read(ids, past, positions=positions, seen=seen)
            else:
                states = engine.read(ids, past)
            best = engine.head(states[:, -1]).argmax(-1)
            going = [place for place, token in enumerate(best.tolist()) if token not in engine.ends]
            for place in going:
                made[rows[place]].append(int(best[place]))
            if not going:
                break
            if len(going) < len(rows):
                chosen = torch.tensor(going)
                past.batch_select_indices(chosen)
                rows, pads, best = [rows[place] for place in going], pads[chosen], best[chosen]
            ids = best[:, None]
    return made


def _padded(before: int, count: int, shared: int, pads: Tensor) -> tuple[Tensor, Tensor]:
    """Positions (B, q) of new tokens, and which keys they see (B, 1, q, R), where each text has its `pads` (B, 1)
    after the tokens that all share; a pad sees itself, for a query must see something."""
    asks, keys = torch.arange(before, before + count), torch.arange(before + count)
    real = (keys < shared) | (keys >= shared + pads)
    seen = (keys <= asks[:, None]) & (real[:, None, :] | (keys == asks[:, None]))
    return (asks - pads).clamp_min(0), seen[:, None]
