"""The contract of sharing: what a grant gives, how often, until when, and that an erasure ends it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tercet.errors import InvalidRequest, MissingGrant, MissingMemory, Refused
from tercet.govern.rules import Rule
from tercet.kernel import Tercet
from tercet.scope import Caller
from tercet.testing.base import Contract, OpenTercet
from tercet.testing.seeded import SeededClock

ROOT, ALICE, BOB = Caller("root"), Caller("alice"), Caller("bob", purpose="trip")


def ruled(t: Tercet) -> Tercet:
    """The vault, in which everybody may do everything with what is his own, and root administers."""
    t.admin(by=ROOT).add_rule(Rule("allow", "root", {"administer"}))
    t.admin(by=ROOT).add_rule(Rule("allow", "*", {"read", "write", "revise", "forget", "share"}, own=True))
    return t


class SharingTests(Contract):
    """A grant lets another caller of the tenant read."""

    def test_a_grant_gives_so_many_reads_for_its_purpose(self, open_tercet: OpenTercet) -> None:
        """Exactly as many, through any handle; then the memory is not found, as it never was for anybody else."""
        with open_tercet() as t, open_tercet() as again:
            alice = ruled(t).scope(user="alice", by=ALICE)
            cube, other = alice.remember("The flight is at nine."), alice.remember("The diary.")
            grant = alice.share(cube.id, with_=BOB, purpose="trip", reads=3)
            for handle in (t, again, t):
                assert handle.scope(by=BOB).get(cube.id) == cube
            for caller in (BOB, Caller("bob"), Caller("eve")):
                for id in (cube.id, other.id):
                    with pytest.raises(MissingMemory):
                        again.scope(by=caller).get(id)
            assert [(one.id, one.left) for one in again.scope(by=BOB).grants()] == [(grant.id, 0)]

    def test_a_grant_of_a_filter_is_found_by_list_and_recall(self, open_tercet: OpenTercet) -> None:
        """With what came after it, and without what does not meet it."""
        with open_tercet() as t:
            alice = ruled(t).scope(user="alice", by=ALICE)
            alice.share(with_="bob", where={"tags": "trip"})
            cube = alice.remember("The flight is at nine.", tags=["trip"])
            alice.remember("The flight of my heart.")
            bob = t.scope(by=BOB)
            assert [one.id for one in bob.list()] == [cube.id]
            assert [hit.cube.id for hit in bob.recall("flight")] == [cube.id]
            assert "nine" in bob.context("flight")

    def test_it_ends_by_time_and_by_revocation(self, open_tercet: OpenTercet) -> None:
        """At once, through every handle."""
        clock = SeededClock()
        with open_tercet(clock=clock) as t, open_tercet(clock=clock) as again:
            alice = ruled(t).scope(user="alice", by=ALICE)
            cube = alice.remember("The flight is at nine.")
            for how in ("time", "revocation"):
                grant = alice.share(cube.id, with_="bob", until=timedelta(days=1))
                assert again.scope(by=BOB).get(cube.id) == cube
                if how == "time":
                    clock.advance(timedelta(days=1))
                else:
                    alice.revoke(grant)
                with pytest.raises(MissingMemory):
                    again.scope(by=BOB).get(cube.id)

    def test_an_erasure_ends_it_and_says_so(self, open_tercet: OpenTercet) -> None:
        """A grant that names nothing else is gone, and counted in the receipt."""
        with open_tercet() as t:
            alice = ruled(t).scope(user="alice", by=ALICE)
            cube, other = alice.remember("The flight is at nine."), alice.remember("The hotel is old.")
            alice.share(cube.id, with_="bob")
            both = alice.share([cube.id, other.id], with_="bob")
            assert alice.forget(cube.id).rows["shares"] == 1
            assert [(one.id, one.cubes) for one in alice.grants()] == [(both.id, (other.id,))]

    def test_what_is_refused(self, open_tercet: OpenTercet) -> None:
        """A grant to oneself, of what one cannot read or may not share; taking back another's."""
        with open_tercet() as t:
            alice, bob = ruled(t).scope(user="alice", by=ALICE), t.scope(by=BOB)
            cube = alice.remember("The flight is at nine.")
            with pytest.raises(InvalidRequest):
                alice.share(cube.id, with_="alice")
            with pytest.raises(MissingMemory):
                bob.share(cube.id, with_="eve")
            grant = alice.share(cube.id, with_="bob")
            with pytest.raises(MissingMemory):
                bob.share(cube.id, with_="eve")  # what is lent is not lent on
            with pytest.raises(Refused):
                t.scope(user="alice", by=BOB).share(with_="eve", everything=True)
            with pytest.raises(MissingGrant):
                bob.revoke(grant)
