"""The real model on texts that are no conversation: the right note comes first among fifty others."""

from __future__ import annotations

import numpy as np
import pytest

from tercet.text.embed.minilm import MiniLM
from tercet.text.recall.late import Coder
from tercet.text.recall.memory import ArrayView, view_of
from tercet.text.recall.policies import POLICIES
from tercet.text.recall.query import parse
from tercet.text.recall.rank import Ranking, rank

pytestmark = pytest.mark.slow

NOTES = """
The wifi password of the cabin is tundra-seven-owl.
Grandma's lentil soup: onions, red lentils, cumin, a lemon at the end.
The car insurance ends on 14 March and is with Northgate.
Flight LH1234 leaves Munich at 7:40, terminal 2.
My shoe size is 43 in running shoes, 42 otherwise.
The dentist said that the upper left molar needs a crown.
Postgres: VACUUM FULL rewrites the table and takes an exclusive lock.
The boiler must be bled every October; the key hangs behind the door.
Book recommended by Tomas: The Baron in the Trees by Calvino.
The spare key is with the neighbours on the third floor.
Allergies: penicillin, and cashews but not other nuts.
The bike's chain is a 9-speed, last changed at 4,200 km.
Our anniversary is on 9 September; she likes peonies.
The garage door code is 4471, star at the end.
Sourdough: 500 g flour, 350 g water, 100 g starter, 10 g salt.
The printer needs cartridge HP 305 XL, black.
To reset the router hold the small button for ten seconds.
Emil's birthday is 2 February, he collects stamps.
The plumber who fixed the sink is called Mr Okafor.
Meeting notes: the launch moves to week 34, design freeze in week 30.
Tax number is on the letter in the blue folder.
The hotel in Lisbon had a view of the river and good coffee.
The library card expires each January.
Vitamin D: one drop a day from October to April.
The guitar is tuned half a step down for that song.
The tent's missing peg was replaced by a screwdriver.
The court reservation for squash is Thursday at six.
The cat's vet is at Linden Street, open on Saturdays.
The paint in the hall is called Old Linen, matt.
My passport runs out in June 2031.
The best time to prune the apple tree is late winter.
In git, rebase --onto moves a branch to another base.
The bakery on Mill Road sells rye bread on Tuesdays.
The thermostat drifts two degrees, so set it to 19 for 21.
Marta's new address is 5 Harbour Lane, flat 12.
The washing machine shakes unless the left foot is turned out.
Chess: she always opens with the Caro-Kann against me.
The gym membership can be cancelled with a month's notice.
Pump the tyres to 2.4 bar in front and 2.6 behind.
The telescope's finder has to be aligned by daylight.
The piano tuner comes twice a year, in spring and autumn.
The fuse for the kitchen is the third from the left.
The violin shop repaired the bridge for forty euros.
The museum is free on the first Sunday of the month.
The hedgehog in the garden is fed cat food, never milk.
The projector needs an HDMI adapter from the drawer.
Ferry to the island: 9:15 and 16:30, cash only.
The allotment rent is paid to Mrs Lindqvist in May.
The running club meets at the old bridge on Mondays.
The backup disk is rotated on the first of each month.
""".strip().splitlines()

QUESTIONS = [
    ("What am I allergic to?", "penicillin"),
    ("When does my passport expire?", "passport"),
    ("Who repaired the sink?", "Okafor"),
    ("Where does Marta live now?", "Harbour Lane"),
    ("What ink does the printer take?", "HP 305"),
    ("How do I open the garage?", "4471"),
    ("How much water goes into the sourdough?", "Sourdough"),
    ("What is the password for the wireless network at the cabin?", "tundra-seven-owl"),
    ("When is our wedding anniversary?", "peonies"),
    ("At what pressure should the tyres be?", "2.4 bar"),
    ("Which departure times has the ferry?", "16:30"),
    ("What book did Tomas recommend?", "Calvino"),
    ("Which fuse belongs to the kitchen?", "third from the left"),
    ("When does flight LH1234 leave?", "LH1234"),
    ("Where is the spare key?", "spare key"),
    ("What should hedgehogs eat?", "hedgehog"),
    ("4471", "4471"),
    ("Which vet looks after the cat?", "Linden Street"),
    ("When is the launch?", "week 34"),
    ("What opening does she play in chess?", "Caro-Kann"),
]


@pytest.fixture(scope="module")
def embedder() -> MiniLM:
    found = MiniLM.find()
    assert found is not None, "the weights are part of the test environment"
    return found


@pytest.fixture(scope="module", params=[0, -1], ids=["one session", "none"])
def notes(request: pytest.FixtureRequest, embedder: MiniLM) -> ArrayView:
    made, coder = embedder.embed(NOTES, states=True), Coder.load()
    codes = []
    for one in made:
        assert one.states is not None
        assert one.token_ids is not None
        codes.append(coder.encode(one.states, one.token_ids))
    vectors = np.concatenate([one.vectors for one in made])
    return view_of([(request.param, None, note) for note in NOTES], vectors=vectors, codes=codes)


def ask(text: str, notes: ArrayView, embedder: MiniLM, policy: str) -> Ranking:
    question = parse(text, notes.speakers)
    (made,) = embedder.embed([question.bare], states=True)
    assert made.states is not None
    assert made.token_ids is not None
    tokens = Coder.load().question(made.states, made.token_ids)
    return rank(question, notes, POLICIES[policy], vector=made.vectors[0], tokens=tokens)


@pytest.mark.parametrize(("question", "answer"), QUESTIONS)
def test_the_right_note_comes_first(question: str, answer: str, notes: ArrayView, embedder: MiniLM) -> None:
    found = ask(question, notes, embedder, "balanced")
    assert answer in NOTES[found.rows[0]]
    assert found.missing is None


def test_a_hit_scores_far_above_what_is_not_there(notes: ArrayView, embedder: MiniLM) -> None:
    hits = [ask(question, notes, embedder, "balanced").scores for question, _ in QUESTIONS]
    absent = [
        ask(question, notes, embedder, "balanced").scores[0]
        for question in ("Who won the chariot race in Antioch?", "How many moons has Neptune?", "Is Zoe vegan?")
    ]
    tops, seconds = (np.array([scores[place] for scores in hits]) for place in (0, 1))
    assert float(np.median(tops)) > 4 * max(absent)
    assert float(np.median(tops / seconds)) > 3
