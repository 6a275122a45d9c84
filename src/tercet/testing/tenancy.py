"""The contract of scopes: who sees what."""

from __future__ import annotations

import hashlib
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tercet.errors import InvalidRequest
from tercet.kernel import Tercet
from tercet.scope import Scope
from tercet.testing.base import Contract, OpenTercet, told_apart
from tercet.testing.strategies import names, scopes


class ScopeTests(Contract):
    """A part of a scope that is given filters; one that is left out means any on reading and none on writing."""

    @settings(
        max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]
    )
    @given(written=st.lists(scopes(), min_size=1, max_size=5), read=scopes())
    def test_a_scope_sees_what_it_covers(self, t: Tercet, written: list[Scope], read: Scope) -> None:
        """`list` and `recall` give exactly the cubes of the scopes that this one covers."""
        mark = f"m{uuid.uuid4().hex}"
        cubes = [
            t.scope(user=s.user, agent=s.agent, session=s.session).remember(f"{mark} {i}", tags=[mark])
            for i, s in enumerate(written)
        ]
        assert [cube.scope for cube in cubes] == written
        view = t.scope(user=read.user, agent=read.agent, session=read.session)
        wanted = {cube.id for cube in cubes if read.covers(cube.scope)}
        assert {cube.id for cube in view.list(where={"tags": mark})} == wanted
        assert {hit.cube.id for hit in view.recall(mark, limit=50, where={"tags": mark})} == wanted
        for cube in cubes:
            if cube.id not in wanted:
                told_apart(view, cube.id)

    def test_a_foreign_id_is_told_like_one_that_never_was(self, t: Tercet) -> None:
        """Another tenant's, another user's and a made-up id get the same answers from every call; nothing changes."""
        hers = t.scope(user="alice").remember("Hers.")
        theirs = t.scope(tenant="other", user="alice").remember("Theirs.")
        view = t.scope(user="bob")
        view.remember("His.")
        answers = [told_apart(view, id) for id in (hers.id, theirs.id, str(uuid.uuid4()))]
        assert answers[0] == answers[1] == answers[2]
        assert t.scope(user="alice").history(hers.id) == [hers]
        assert t.scope(tenant="other").history(theirs.id) == [theirs]

    @settings(
        max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors]
    )
    @given(parts=st.lists(names(), min_size=4, max_size=4))
    def test_names_are_only_names(self, open_tercet: OpenTercet, parts: list[str]) -> None:
        """Slashes, quotes, dots and other scripts name a scope and nothing else; case counts."""
        with open_tercet() as t:
            tenant, user, agent, session = parts
            view = t.scope(tenant=tenant, user=user, agent=agent, session=session)
            cube = view.remember("Here.")
            assert view.get(cube.id).scope == Scope(tenant, user, agent, session)
            assert tenant in t.admin().tenants()
            assert not [c for c in t.scope(tenant=tenant.swapcase() + "x").list() if c.id == cube.id]

    def test_tenants_that_look_alike_are_apart(self, t: Tercet) -> None:
        """No two names lead to one store, however they are spelt."""
        hashed = "~" + hashlib.sha256("日本".encode()).hexdigest()[:24]  # what a file might be called
        alike = [
            hashed,
            "-" + hashed,
            "a",
            "A",
            "a/b",
            "a~b",
            "a_b",
            "a b",
            "a.b",
            "..",
            "~",
            "日本",
            "日 本",
            "tenants",
            "x" * 256,
            "x" * 255,
        ]
        cubes = {name: t.scope(tenant=name).remember(f"In {name[:9]}.") for name in alike}
        for name, cube in cubes.items():
            assert list(t.scope(tenant=name).list()) == [cube]
        assert set(t.admin().tenants()) == set(alike)

    def test_the_default_tenant_is_one_tenant(self, t: Tercet) -> None:
        """Left out, the tenant is "default", never all of them."""
        t.scope(tenant="other").remember("Elsewhere.")
        cube = t.scope().remember("Here.")
        assert list(t.scope().list()) == list(t.scope(tenant="default").list()) == [cube]

    def test_reading_makes_no_tenant(self, t: Tercet) -> None:
        """Looking into a tenant that was never written to leaves no trace of it, and neither does a failed write."""
        empty = t.scope(tenant="nobody")
        assert (empty.list().total, list(empty.recall("x")), list(empty.changes())) == (0, [], [])
        told_apart(empty, str(uuid.uuid4()))
        assert t.admin().tenants() == []

    def test_bad_names_are_refused(self, t: Tercet) -> None:
        """Empty, blank at an end, too long, with control characters or no text at all."""
        for name in ("", " ", "a ", "a\n", "a\0", "\ud800", "x" * 257, 17, b"a"):
            for part in ("tenant", "user", "agent", "session"):
                with pytest.raises(InvalidRequest, match=part):
                    t.scope(**{part: name})  # type: ignore[arg-type]
        assert t.admin().tenants() == []

    def test_lookalike_spellings_are_one_name(self, t: Tercet) -> None:
        """A composed and a decomposed é are the same user to a person, and so they are here."""
        cube = t.scope(user="Ren\u00e9").remember("One person.")
        assert t.scope(user="Rene\u0301").get(cube.id) == cube
