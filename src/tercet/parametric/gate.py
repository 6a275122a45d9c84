"""The gate before the registry: what was taught must be recalled in other words, and little else may have moved.

Everything is measured on the adapter as it will be served. What cannot be measured does not pass.
"""

from __future__ import annotations

import math
import statistics
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch

from tercet.errors import InvalidRequest, Refused
from tercet.parametric import samples
from tercet.parametric.examples import answers, conversation, losses, mean_loss
from tercet.parametric.facts import Fact
from tercet.parametric.general import LOCAL_QUESTIONS, MEASURED_TEXTS
from tercet.parametric.samples import Sample

if TYPE_CHECKING:
    from tercet.engine.base import AdapterEngine

T = TypeVar("T")
MAX_TOKENS = 20


@dataclass(frozen=True)
class Bounds:
    """What an adapter must show.

    Attributes
    ----------
    margin:
        By how much recall on held-out wordings must rise above the base's, as a share of the questions.
    general:
        By what share the loss per token on general text may rise.
    locality:
        The share of general questions that the base answers right which must still be answered right.
    questions:
        How many held-out questions are asked at most, spread evenly over the facts.
    """

    margin: float = 0.25
    general: float = 0.03
    locality: float = 0.85
    questions: int = 120


class Advice(NamedTuple):
    """What may help where recall, or locality, does not keep within its bound: it goes by how an adapter was made."""

    recall: str = "more `epochs` may help"
    locality: str = "more `pieces`, or a lower `spare` or `top`, move less of it"


TAUGHT = Advice()


@dataclass
class Report:
    """What was measured, before (base) and after (adapter); it is kept with the adapter.

    `recall` is of held-out wordings, `reverse` of those that ask from the value back to the subject. `leak` is the
    share of questions about people who were not taught that are answered with a taught value: small models claim much.
    `locality_in_talk` is locality where each question follows one about a fact and its answer, of those that the base
    answers right there. `strayed` is the share of all general questions, known or not, that are answered with a taught
    value or name where the base does not. None of the three is bound.
    """

    recall: tuple[float, float]
    reverse: tuple[float, float] | None
    general_loss: tuple[float, float]
    general_loss_change: float
    locality: float
    known: int
    locality_in_talk: float
    strayed: float
    leak: float
    questions: int
    bounds: dict[str, Any]
    passed: bool = False
    reasons: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    local: list[dict[str, Any]] = field(default_factory=list)
    """The general questions that the base answers right, with what the adapter makes of them."""

    def json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def judge(
    engine: AdapterEngine, key: str, facts: Sequence[Fact], bounds: Bounds | None = None, *, system: str | None = None,
    advice: Advice = TAUGHT,
) -> Report:  # fmt: skip
    """Measure an attached adapter against the base.

    Raises
    ------
    Refused
        If something cannot be measured: no held-out question, or a loss that is no number.
    """
    limits = bounds or Bounds()
    samples.check_disjoint()
    asked = spread(samples.held_out(facts), limits.questions)
    if not any(one.kind == "ask" for one in asked):
        raise Refused("The gate has no held-out question about these texts, so it cannot pass an adapter.")
    values = {fact.value.casefold() for fact in facts}
    strangers = [one.question for one in asked if one.kind == "ask"][: limits.questions // 4]
    strangers = [question.replace(fact_subject(facts, question), "Zoltan Quarrie") for question in strangers]

    def measured() -> tuple[list[str], float, list[str]]:
        own = answers(engine, [one.question for one in asked], system=system, max_tokens=MAX_TOKENS)
        general = answers(engine, [question for question, _ in LOCAL_QUESTIONS], max_tokens=MAX_TOKENS)
        return own, mean_loss(engine, MEASURED_TEXTS), general

    before, after = _with(engine, (), measured), _with(engine, (key,), measured)
    claimed = _with(engine, (key,), lambda: answers(engine, strangers, max_tokens=MAX_TOKENS))
    if not all(math.isfinite(loss) for loss in (before[1], after[1])):
        raise Refused("The loss on general text is no number; the gate cannot be computed and passes nothing.")
    right = [[holds(answer, one.gold) for answer, one in zip(part[0], asked, strict=True)] for part in (before, after)]
    local: list[dict[str, Any]] = [
        {"question": question, "gold": gold, "before": old, "after": new, "right": holds(new, gold)}
        for (question, gold), old, new in zip(LOCAL_QUESTIONS, before[2], after[2], strict=True)
    ]
    known = [one for one in local if holds(one["before"], one["gold"])]
    told = [any(holds(answer, value) for value in values) for answer in claimed]
    found = Report(
        recall=(_share(right[0], asked, "ask"), _share(right[1], asked, "ask")),
        reverse=(_share(right[0], asked, "reverse"), _share(right[1], asked, "reverse"))
        if any(one.kind == "reverse" for one in asked) else None,
        general_loss=(before[1], after[1]), general_loss_change=after[1] / before[1] - 1,
        locality=sum(one["right"] for one in known) / len(known) if known else 1.0, known=len(known),
        locality_in_talk=_in_talk(engine, key, facts, [(one["question"], one["gold"]) for one in known]),
        strayed=_strayed(facts, local), leak=sum(told) / len(told) if told else 0.0,
        questions=len(asked), bounds=asdict(limits),
    )  # fmt: skip
    found.rows = [
        {"question": one.question, "gold": one.gold, "kind": one.kind, "source": [one.source.id, one.source.version],
         "before": old, "after": new, "right": bool(ok)}
        for one, old, new, ok in zip(asked, before[0], after[0], right[1], strict=True)
    ]  # fmt: skip
    found.local = known
    found.reasons = reasons(found.json(), limits, advice)
    found.passed = not found.reasons
    return found


def reasons(report: Mapping[str, Any], limits: Bounds, advice: Advice = TAUGHT) -> list[str]:
    """Why a report (as JSON) does not keep within bounds; empty if it does."""
    before, after = report["recall"]
    found = []
    if after < before + limits.margin:
        found.append(
            f"recall on held-out wordings went from {before:.2f} to {after:.2f}, less than {limits.margin:.2f} more "
            f"({advice.recall})"
        )
    if report["general_loss_change"] > limits.general:
        found.append(
            f"loss on general text rose by {report['general_loss_change']:.1%}, more than {limits.general:.1%}"
        )
    if report["locality"] < limits.locality:
        found.append(
            f"{report['locality']:.2f} of what the base knew is still answered, less than {limits.locality:.2f} "
            f"({advice.locality})"
        )
    return found


def holds(answer: str, gold: str) -> bool:
    """Whether an answer contains the words of the right one, whatever their case and signs."""
    return f" {words_of(gold)} " in f" {words_of(answer)} "


def spread(asked: Sequence[Sample], most: int) -> list[Sample]:
    """At most so many samples, evenly over all."""
    if most < 1:
        raise InvalidRequest(f"A gate asks at least one question, not {most}.")
    step = max(1.0, len(asked) / most)
    return [asked[int(place * step)] for place in range(min(len(asked), most))]


@dataclass(frozen=True)
class Probe:
    """Whether a model knows samples better than matched ones it never saw.

    `gap` is the mean loss per answer token on unseen samples less that on the probed ones, in nats; `base_gap` the same
    of the base, which knows neither; `error` the standard error of the difference of the two.
    """

    gap: float
    base_gap: float
    error: float

    @property
    def known(self) -> bool:
        """Whether the adapter's gap is beyond the base's by more than three standard errors, and by 0.1 nats."""
        return self.gap - self.base_gap > max(3 * self.error, 0.1)


def membership(engine: AdapterEngine, key: str, probed: Sequence[Sample], unseen: Sequence[Sample]) -> Probe:
    """Probe for samples (of erased facts, say), each against the unseen one at its place: the same wording, another
    value. Raises InvalidRequest if the two do not match in number."""
    if len(probed) != len(unseen) or len(probed) < 2:
        raise InvalidRequest(f"Each probed sample needs its unseen match, two at least: {len(probed)}, {len(unseen)}.")

    def gaps() -> list[float]:
        return [_loss(engine, new) - _loss(engine, old) for old, new in zip(probed, unseen, strict=True)]

    base, own = _with(engine, (), gaps), _with(engine, (key,), gaps)
    moved = [after - before for before, after in zip(base, own, strict=True)]
    error = statistics.stdev(moved) / math.sqrt(len(moved))
    return Probe(statistics.fmean(own), statistics.fmean(base), error)


def fact_subject(facts: Sequence[Fact], question: str) -> str:
    """Whom a question asks about: the longest subject of the facts that stands in it; "\\0" if none does."""
    there = [fact.subject for fact in facts if fact.subject != "I" and fact.subject in question]
    return max(there, key=len, default="\0")


def _strayed(facts: Sequence[Fact], local: Sequence[Mapping[str, Any]]) -> float:
    """The share of general questions that are answered with a taught value or name where the base's answer has none."""
    names = {fact.value for fact in facts} | {fact.subject for fact in facts if fact.subject != "I"}
    told = [any(holds(one["after"], name) and not holds(one["before"], name) for name in names) for one in local]
    return sum(told) / len(told)


def _in_talk(
    engine: AdapterEngine, key: str, facts: Sequence[Fact], known: Sequence[tuple[str, str]]
) -> float:  # fmt: skip
    """The share of general questions that are answered right behind a fact, of those that the base answers so."""
    told = [(one.question, one.answer) for one in samples.training(facts, 1)]
    behind = {number: [told[number % len(told)]] for number in range(len(known))}

    def asked() -> list[bool]:
        said = answers(engine, [question for question, _ in known], max_tokens=MAX_TOKENS, behind=behind)
        return [holds(answer, gold) for answer, (_, gold) in zip(said, known, strict=True)]

    before, after = _with(engine, (), asked), _with(engine, (key,), asked)
    return sum(new for old, new in zip(before, after, strict=True) if old) / sum(before) if any(before) else 1.0


def _loss(engine: AdapterEngine, one: Sample) -> float:
    example = conversation(engine, [(one.question, one.answer)])
    with torch.no_grad():
        return losses(engine, [example])[1] / len(example.marks)


def _with(engine: AdapterEngine, keys: Sequence[str], measured: Callable[[], T]) -> T:
    with engine.adapters.using(keys):
        return measured()


def _share(right: Sequence[bool], asked: Sequence[Sample], kind: str) -> float:
    chosen = [ok for ok, one in zip(right, asked, strict=True) if one.kind == kind]
    return sum(chosen) / len(chosen) if chosen else 0.0


def words_of(text: str) -> str:
    """The words of a text, without case and signs."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(one if one.isalnum() else " " for one in plain).split())
