"""Reciting: what comes back word for word is read before the answer; anything else is not used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
from tests.parametric.conftest import KNOWN, PASSED

from tercet import Tercet
from tercet.cube import Link, MemCube, Text
from tercet.engine.transformers import TransformersEngine
from tercet.errors import InvalidRequest
from tercet.parametric.samples import requests
from tercet.scoped import ScopedMemory
from tercet.text.recall.recite import Key, Recite, written

pytestmark = pytest.mark.usefixtures("short_gate")
ASKED = "Where does Ada live?"


@pytest.fixture
def known(alice: ScopedMemory, knowing: Callable[..., MemCube]) -> tuple[MemCube, MemCube]:
    """A text and an adapter that knows it."""
    text = alice.remember(KNOWN)
    return text, knowing(alice, text)


def test_what_is_recited_as_it_was_written_is_read_before_answering(
    t: Tercet, alice: ScopedMemory, known: tuple[MemCube, MemCube], monkeypatch: pytest.MonkeyPatch
) -> None:
    text, adapter = known
    prompts = list[str]()
    engine = t.engines.get()
    encode = engine.encode  # type: ignore[attr-defined]

    def noted(words: str) -> object:
        prompts.append(words)
        return encode(words)

    monkeypatch.setattr(engine, "encode", noted)
    plain = alice.chat(ASKED, adapters=[adapter.id], limit=0, max_tokens=4)
    assert (plain.recited, plain.memories) == ((), ())
    prompts.clear()
    reply = alice.chat(ASKED, adapters=[adapter.id], limit=0, max_tokens=4, recite=True)
    assert (reply.recited, reply.memories, reply.unverified) == ((text.id,), (text.id,), 0)
    asked = [one for one in prompts if "Ada's home" in one]
    assert asked  # it was asked for by its key,
    assert "Graz" not in "".join(asked)  # which holds nothing of the value,
    assert any(KNOWN in one for one in prompts if one not in asked)  # and stood in the prompt of the answer
    [injected] = alice.trace(reply.answer)
    assert [(one.cube, one.version) for one in injected.memories] == [(text.id, 1)]


def test_a_recitation_that_matches_no_source_is_not_used(alice: ScopedMemory, known: tuple[MemCube, MemCube]) -> None:
    """Taught on another text than it knows: what it recites is not what was written."""
    _, adapter = known
    other = alice.remember("Ada lives in Lima.")
    made = alice.promote(other, to="parameters", teaching=PASSED)
    reply = alice.chat(ASKED, adapters=[adapter.id, made.id], limit=0, max_tokens=4, recite=True)
    assert other.id not in reply.memories
    assert reply.unverified >= 1
    alone = alice.chat(ASKED, adapters=[made.id], limit=8, max_tokens=4, recite=True)
    assert (alone.recited, alone.unverified) == ((), 1)
    assert other.id in alone.memories  # recalled as text, as ever


def test_only_what_the_adapter_was_taught_and_recall_finds_is_asked_for(
    alice: ScopedMemory, known: tuple[MemCube, MemCube]
) -> None:
    _, adapter = known
    alice.remember("Ada works as a smith.")  # not in the adapter, so it is no key
    reply = alice.chat("What does Ada do for work?", adapters=[adapter.id], limit=0, max_tokens=2, recite=True)
    assert len(reply.recited) + reply.unverified == 1
    with pytest.raises(InvalidRequest, match="takes an adapter"):
        alice.chat(ASKED, recite=True)
    with pytest.raises(InvalidRequest, match="At least one passage"):
        alice.chat(ASKED, adapters=[adapter.id], recite=Recite(passages=0))
    with pytest.raises(TypeError):
        alice.chat(ASKED, recited=True)  # type: ignore[call-arg]


class Parrot:
    """An engine that says what it is told to, in turn."""

    def __init__(self, *says: str) -> None:
        self.says, self.asked = list(says), list[str]()

    def generate(self, messages: Sequence[dict[str, str]], *, max_tokens: int = 256) -> Iterator[str]:
        assert max_tokens == 64
        self.asked.append(messages[0]["content"])
        yield self.says.pop(0)


def recited(t: Tercet, alice: ScopedMemory, parrot: Parrot, *keys: Key, passages: int = 4) -> tuple[list[str], int]:
    with t.vault.tenant("default").reading() as reader:
        found = Recite(passages).recite(parrot, keys, lambda link, words: written(reader, alice.scope, link, words))  # type: ignore[arg-type]
    return [cube.id for cube in found.cubes], found.unverified


def test_sentences_are_put_together_and_another_wording_is_tried(t: Tercet, alice: ScopedMemory) -> None:
    cube = alice.remember("Mara works as a smith. Mara lives in Graz.")
    assert len(requests(cube)) == 2
    key = Key(Link(cube.id, 1), (("her job?", "her work?"), ("her home?", "her town?")))
    parrot = Parrot("Mara works as a smith.", "Mara lives in Graz.")
    assert recited(t, alice, parrot, key) == ([cube.id], 0)
    parrot = Parrot("Mara is a smith.", "Mara lives in Graz.", "Mara works as a smith.", "Mara lives in Graz")
    assert recited(t, alice, parrot, key) == ([cube.id], 0)
    assert parrot.asked == ["her job?", "her home?", "her work?", "her town?"]
    assert recited(t, alice, Parrot(*["Mara lives in Graz. Mara works as a smith."] * 4), key) == ([], 1)


def test_the_words_of_another_source_or_version_do_not_count(t: Tercet, alice: ScopedMemory) -> None:
    one, two = alice.remember_many(["Mara lives in Graz.", "Jon lives in Oslo."])
    keys = [Key(Link(cube.id, 1), (("?",),)) for cube in (one, two)]
    assert recited(t, alice, Parrot(two.text, two.text), *keys) == ([two.id], 1)
    assert recited(t, alice, Parrot(one.text), *keys, passages=1) == ([one.id], 0)
    alice.revise(one.id, "Mara lives in Lima.")
    assert recited(t, alice, Parrot(one.text, two.text), *keys) == ([two.id], 1)
    assert recited(t, alice, Parrot(), Key(Link(one.id, 2), ())) == ([], 0)  # nothing to ask for it by
    alice.forget(two.id)
    assert recited(t, alice, Parrot(two.text), keys[1]) == ([], 1)


def test_a_free_sentence_is_asked_for_by_what_it_is_about(alice: ScopedMemory) -> None:
    cube = alice.remember("We all went to the beach with the kids.")
    assert requests(cube) == (("What do you remember about We and beach?", "We, kids: what was said?"),)
    assert requests(replace(cube, payload=Text("Hello."))) == ()  # it is about nothing else


@pytest.fixture(autouse=True)
def _detached(tiny: TransformersEngine) -> Iterator[None]:
    yield
    for key in tiny.adapters.attached:
        tiny.adapters.detach(key)
