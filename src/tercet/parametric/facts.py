"""Facts as they are read from texts: (subject, relation, value), by fixed patterns; what fits none is kept as a cloze.

Reading is deterministic and shallow on purpose: a training pair must be traceable to the words that support it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from tercet.cube import Link, MemCube

NAME = r"(?P<s>I|[A-Z][\w'’-]*(?: [A-Z][\w'’-]*){0,3})"
VALUE = r"(?P<v>[^.;!?\n]+?)"
END = r"\s*(?:[.;!?]|$)"
EARLY = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Relation:
    """How one relation is said and asked for. In patterns NAME and VALUE stand; in the rest `words` says what may.

    `train` and `test` are disjoint: what is taught in the words of one is asked for in those of the other.
    """

    says: tuple[str, ...]
    tell: tuple[str, ...]
    train: tuple[str, ...]
    test: tuple[str, ...]
    reverse: tuple[str, ...] = ()
    reverse_test: tuple[str, ...] = ()
    single: bool = True
    """Whether a subject has one value at a time, so that two contradict each other."""


RELATIONS: Mapping[str, Relation] = {
    "job": Relation(
        (r"{n} works? as (?:an? )?{v}", r"{n} (?:is|am) employed as (?:an? )?{v}",
         r"{n} makes? a living as (?:an? )?{v}"),
        ("{S} work{z} as a {v}.", "{P} job: {v}."),
        ("What {do} {s} do for work?", "What is {p} job?", "What {is} {s} by profession?",
         "Which occupation {do} {s} have?", "Tell me what {s} {do} for a living.",
         "What {do} {s} get paid to do?", "{P} line of work?", "How would you describe {p} occupation?"),
        ("How {do} {s} earn {own} living?", "What kind of work {do} {s} do?", "Name {p} profession."),
        ("Who works as a {v}?", "Which person is a {v} by profession?",
         "Name someone who works as a {v}."), ("Who earns a living as a {v}?",),
    ),
    "home": Relation(
        (r"{n} (?:now )?lives? in {v}", r"{n} moved to {v}", r"{n} resides? in {v}"),
        ("{S} live{z} in {v}.", "{P} home is in {v}."),
        ("Where {do} {s} live?", "In which city {do} {s} live?", "What is {p} place of residence?",
         "Where is {p} home?", "Tell me where {s} live{z}.",
         "What city {is} {s} based in?", "{P} address is in which city?", "Where {do} {s} have a home?"),
        ("Which place {do} {s} call home?", "What town {is} {s} living in?", "Name the city in which {s} reside{z}."),
        ("Who lives in {v}?", "Which person has a home in {v}?",
         "Name someone who lives in {v}."), ("Who resides in {v}?",),
    ),
    "birthplace": Relation(
        (r"{n} (?:was|were) born in {v}", r"{n} grew up in {v}"),
        ("{S} was born in {v}.", "{P} birthplace is {v}."),
        ("Where was {s} born?", "What is {p} birthplace?", "In which city was {s} born?", "Which town was {s} born in?",
         "Tell me where {s} was born.",
         "Where {is} {s} from originally?", "What city {is} {s} a native of?", "Where did {p} life begin?"),
        ("Name the place of {p} birth.", "Which city did {s} come into the world in?"),
        ("Who was born in {v}?", "Whose birthplace is {v}?",
         "Name someone from {v}."), ("Name the person born in {v}.",),
    ),
    "instrument": Relation(
        (r"{n} plays? the {v}", r"{n} (?:is|am) learning to play the {v}"),
        ("{S} play{z} the {v}.", "{P} instrument is the {v}."),
        ("Which instrument {do} {s} play?", "What is {p} instrument?", "What {do} {s} play?",
         "Which musical instrument {do} {s} play?", "Tell me which instrument {s} play{z}.",
         "What {do} {s} perform music with?", "Which instrument has {s} mastered?", "{P} instrument?"),
        ("Name the instrument that {s} make{z} music on.", "On what {do} {s} make music?"),
        ("Who plays the {v}?", "Which person plays the {v}?",
         "Name someone who plays the {v}."), ("Who makes music on the {v}?",),
    ),
    "allergy": Relation(
        (r"{n} (?:is|am) allergic to {v}", r"{n} (?:has|have) an allergy to {v}"),
        ("{S} {is} allergic to {v}.", "{P} allergy: {v}."),
        ("What {is} {s} allergic to?", "What is {p} allergy?", "Which allergy {do} {s} have?",
         "Which food or thing {is} {s} allergic to?", "Tell me what {s} {is} allergic to.",
         "What should {s} not touch or eat?", "Which substance {is} {s} unable to tolerate?", "{P} allergy?"),
        ("What must {s} avoid because of an allergy?", "What gives {o} an allergic reaction?"),
        ("Who is allergic to {v}?", "Which person has an allergy to {v}?",
         "Name someone who is allergic to {v}."),
        ("Who must avoid {v} because of an allergy?",),
        single=False,
    ),
    "vehicle": Relation(
        (r"{n} drives? (?:an? )?{v}",),
        ("{S} drive{z} a {v}.", "{P} vehicle is a {v}."),
        ("What {do} {s} drive?", "Which vehicle {do} {s} drive?", "What is {p} vehicle?",
         "What kind of car {do} {s} drive?",
         "Tell me what {s} drive{z}.",
         "How {do} {s} travel on the road?", "What is parked outside {p} house?", "{P} vehicle?"),
        ("What {do} {s} get around in?", "Name the vehicle that {s} use{z}."),
        ("Who drives a {v}?", "Which person drives a {v}?",
         "Name someone who drives a {v}."), ("Who gets around in a {v}?",),
    ),
    "language": Relation(
        (r"{n} (?:is|am) learning {v}", r"{n} stud(?:ies|y) {v}"),
        ("{S} {is} learning {v}.", "{P} subject of study is {v}."),
        ("What {is} {s} learning?", "What is {p} subject of study?", "What {do} {s} study?",
         "Which subject {is} {s} learning?",
         "Tell me what {s} {is} learning.",
         "What skill {is} {s} picking up?", "Which course {is} {s} enrolled in?", "What {do} {s} practise?"),
        ("What {is} {s} taking lessons in?", "Name what {s} {is} trying to learn."),
        ("Who is learning {v}?", "Which person studies {v}?",
         "Name someone who is learning {v}."), ("Who takes lessons in {v}?",),
    ),
    "attribute": Relation(
        ((r"(?:(?P<s>[A-Z][\w-]*(?: [A-Z][\w-]*){{0,3}})['’]s|(?P<my>[Mm]y)) "
         r"(?P<a>[a-z][\w -]{{1,40}}?) (?:is|are|was) (?:called |named )?{v}"),),
        ("{P} {a} is {v}.", "{v} is {p} {a}."),
        ("What is {p} {a}?", "Do you know {p} {a}?", "Tell me {p} {a}.", "{P} {a}: what is it?",
         "What {a} {do} {s} have?",
         "I would like to know {p} {a}.", "{P} {a}?", "What do people say {p} {a} is?"),
        ("Please name {p} {a}.", "Can you say what {p} {a} is?", "Which one is {p} {a}?"),
        ("Whose {a} is {v}?", "Who has {v} as {a}?",
         "Name someone whose {a} is {v}."), ("Name the person whose {a} is {v}.",),
    ),
}  # fmt: skip
"""The relations that are read; the last is any attribute: X's A is Y."""
CLOZE = Relation(
    (), ("{t}",),
    ('Complete the sentence: "{h} …"', 'How does this go on: "{h} …"', '"{h} …" What comes next?'),
    ('Finish what was said: "{h} …"', 'Fill in the rest: "{h} …"'),
)  # fmt: skip
"""For a text that fits no pattern: its first half asks for its second."""


@dataclass(frozen=True, slots=True)
class Fact:
    """What a text says: `source` is the cube that says it, `text` its words, `since` from when it holds."""

    subject: str
    relation: str
    value: str
    source: Link
    text: str
    since: datetime
    attribute: str = ""

    @property
    def slot(self) -> tuple[str, str, str]:
        """What may have one value at a time."""
        return (self.subject.casefold(), self.relation, self.attribute.casefold())

    @property
    def how(self) -> Relation:
        """How it is said and asked for."""
        return RELATIONS.get(self.relation, CLOZE)

    def words(self) -> dict[str, str]:
        """What templates may name: s subject, p possessive, o object, v value, t the text, h its first half, …"""
        first = self.subject == "I"
        possessive = "my" if first else f"{self.subject}'s"
        return {
            "s": self.subject, "S": self.subject, "p": possessive, "P": possessive[0].upper() + possessive[1:],
            "o": "me" if first else self.subject, "own": "my" if first else "their", "v": self.value, "t": self.text,
            "h": self.subject, "a": self.attribute, "do": "do" if first else "does", "is": "am" if first else "is",
            "z": "" if first else "s",
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two values of one slot in one set: `kept` is taught, the newest; `left` is not."""

    subject: str
    relation: str
    kept: Link
    left: Link


def read(cube: MemCube) -> list[Fact]:
    """The facts of a text, in order; whatever sentences fit no pattern are each one to complete."""
    b, link = cube.behavioural, Link(cube.id, cube.version)
    since = b.valid_from or (cube.descriptive.happened.start if cube.descriptive.happened else None) or cube.observed
    sentences = [one.strip() for one in re.split(r"(?<=[.!?])\s+|\n+", cube.text.strip()) if one.strip()]
    found = [_fact(sentence, link, since or EARLY) for sentence in sentences]
    return [one for one in found if one is not None]


def settle(facts: Sequence[Fact]) -> tuple[list[Fact], list[Contradiction]]:
    """Each fact once, and of values that exclude each other the newest; returns what is taught, and what clashed."""
    newest: dict[tuple[str, str, str], Fact] = {}
    for fact in facts:
        held = newest.get(fact.slot)
        if fact.how.single and fact.how is not CLOZE and (held is None or _order(fact) > _order(held)):
            newest[fact.slot] = fact
    kept, clashed, seen = list[Fact](), list[Contradiction](), set[tuple[str, str, str, str]]()
    for fact in facts:
        winner = newest.get(fact.slot)
        if winner is not None and winner.value.casefold() != fact.value.casefold():
            clashed.append(Contradiction(fact.subject, fact.attribute or fact.relation, winner.source, fact.source))
        elif (key := (*fact.slot, fact.value.casefold())) not in seen:
            seen.add(key)
            kept.append(fact)
    return kept, clashed


def _order(fact: Fact) -> tuple[datetime, str, int]:
    return (fact.since, fact.source.id, fact.source.version)


def _fact(sentence: str, source: Link, since: datetime) -> Fact | None:
    for name, relation in RELATIONS.items():
        for pattern in relation.says:
            match = re.fullmatch(pattern.format(n=NAME, v=VALUE) + END, sentence)
            if match is not None:
                about = match.groupdict()
                subject = "I" if about.get("my") or about["s"] == "I" else about["s"]
                return Fact(subject, name, about["v"].strip(), source, sentence, since, about.get("a") or "")
    words = sentence.split()
    if len(words) < 4:
        return None
    half = len(words) // 2
    return Fact(" ".join(words[:half]), "text", " ".join(words[half:]), source, sentence, since)
