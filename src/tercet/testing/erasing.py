"""The contract of `forget`."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest

from tercet.cube import Governance, MemCube, Text, derive
from tercet.errors import Held, InvalidRequest, MissingMemory
from tercet.kernel import Tercet
from tercet.scoped import ScopedMemory
from tercet.testing.base import Contract, OpenTercet, all_clear


class ForgetTests(Contract):
    """What is forgotten is gone everywhere, whole or not at all, and does not come back."""

    def test_a_forgotten_cube_is_missing(self, alice: ScopedMemory, t: Tercet) -> None:
        """By id, history, list and recall; the receipt says what went and when."""
        cube, other = alice.remember_many(["The boiler code is 4417.", "I moved to Oslo."])
        alice.revise(cube.id, "The boiler code is 9921.")
        receipt = alice.forget(cube.id)
        assert (receipt.erased, receipt.derived, receipt.unreachable) == ((cube.id,), (), ())
        assert receipt.rows["versions"] == 2
        assert receipt.erased_at.tzinfo is not None
        for call in (alice.get, alice.history, alice.forget):
            with pytest.raises(MissingMemory, match=cube.id):
                call(cube.id)
        assert list(alice.list()) == [other]
        assert [hit.cube.id for hit in alice.recall("boiler code 4417 9921 Oslo")] == [other.id]
        all_clear(t)

    def test_it_stays_forgotten(self, open_tercet: OpenTercet) -> None:
        """After reopening, and when the same cube is handed in again."""
        with open_tercet() as t:
            cube = t.scope(user="alice").remember("The boiler code is 4417.")
            t.scope(user="alice").forget(cube.id)
        with open_tercet() as t:
            alice = t.scope(user="alice")
            with pytest.raises(InvalidRequest, match="erased"):
                alice.remember(replace(cube, descriptive=replace(cube.descriptive, commitment=None)))
            assert alice.list().total == 0
            assert alice.changes() == []  # her name went with her last memory; the whole tenant still tells
            assert [line.action for line in t.scope().changes()] == ["remember", "forget"]

    def test_products_go_with_their_sources(self, alice: ScopedMemory, t: Tercet) -> None:
        """Everything made from it, however far down; a product of many sources too; the other sources stay."""
        one, two, three = alice.remember_many(["One.", "Two.", "Three."])
        both = alice.remember(derive([one, two], Text("One and two."), method="m"))
        deep = alice.remember(derive([both, three], Text("All three."), method="m"))
        aside = alice.remember(derive([three], Text("Only three."), method="m"))
        receipt = alice.forget(one.id)
        assert set(receipt.erased) == {one.id, both.id, deep.id}
        assert set(receipt.derived) == {both.id, deep.id}
        assert list(alice.list()) == [two, three, aside]
        all_clear(t)

    def test_forgetting_a_product_leaves_its_sources(self, alice: ScopedMemory) -> None:
        """Erasure walks down, not up, where the product quotes nothing."""
        one = alice.remember("One.")
        product = alice.remember(derive([one], Text("A summary."), method="m"))
        assert alice.forget(product.id).erased == (product.id,)
        assert list(alice.list()) == [one]

    def test_a_hold_refuses_and_changes_nothing(self, alice: ScopedMemory, t: Tercet) -> None:
        """On the cube itself, on anything made from it, and for a list or a condition that reaches it."""
        free, held = (
            alice.remember("Free."),
            alice.remember(MemCube(Text("Held."), governance=Governance(hold="case 7"))),
        )
        product = alice.remember(derive([free, held], Text("Made of both."), method="m"))
        before, changes = list(alice.list()), alice.changes()
        for asked in (held.id, product.id, free.id, [free.id, held.id]):
            with pytest.raises(Held, match="case 7"):
                alice.forget(asked)
        with pytest.raises(Held):
            alice.forget(where={"type": "fact"})
        assert (list(alice.list()), alice.changes()) == (before, changes)
        all_clear(t)

    def test_many_are_forgotten_or_none(self, alice: ScopedMemory) -> None:
        """One id that is not there keeps all."""
        cubes = alice.remember_many(["One.", "Two.", "Three."])
        with pytest.raises(MissingMemory):
            alice.forget([cubes[0].id, str(uuid.uuid4())])
        assert list(alice.list()) == cubes
        assert set(alice.forget([cubes[0].id, cubes[2].id, cubes[0].id]).erased) == {cubes[0].id, cubes[2].id}
        assert list(alice.list()) == [cubes[1]]

    def test_forget_by_condition(self, alice: ScopedMemory, bob: ScopedMemory) -> None:
        """All that meet it, in this scope only."""
        for scope in (alice, bob):
            scope.remember("Keep.", tags=["a"])
            scope.remember("Drop.", tags=["b"])
        assert len(alice.forget(where={"tags": "b"}).erased) == 1
        assert alice.forget(where={"tags": "b"}).erased == ()
        assert [cube.text for cube in alice.list()] == ["Keep."]
        assert bob.list().total == 2

    def test_what_to_forget_must_be_said(self, alice: ScopedMemory) -> None:
        """Neither nothing, nor an id and a condition at once."""
        cube = alice.remember("One.")
        with pytest.raises(InvalidRequest, match="what to forget"):
            alice.forget()
        with pytest.raises(InvalidRequest, match="what to forget"):
            alice.forget(cube.id, where={"tags": "a"})
        assert list(alice.list()) == [cube]

    def test_a_ref_is_free_again(self, alice: ScopedMemory) -> None:
        """The name of what was forgotten may be given to something new."""
        alice.forget(alice.remember("One.", ref="r").id)
        assert alice.remember("Two.", ref="r").text == "Two."
