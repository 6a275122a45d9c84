"""The contract of `where`: every operator equals a slow twin in plain Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tercet.cube import MemCube, Scalar
from tercet.errors import InvalidRequest
from tercet.scoped import ScopedMemory
from tercet.testing.base import Contract
from tercet.testing.strategies import wheres
from tercet.text.read.message import Message

LABELS: Sequence[tuple[list[str], dict[str, Scalar]]] = [
    ([], {}),
    (["home"], {"city": "Oslo", "n": 1, "done": True}),
    (["home", "work"], {"city": "Bergen", "n": 2, "done": False, "note": ""}),
    (["a b"], {"city": "é", "n": -1.5, "kind of": "z'"}),
    (["x'y", "日本"], {"city": None, "n": "1", "a.b": 0}),
    (["work"], {"n": 0.5, "tags": "home", "type": "a"}),
    ([], {"n": -(2**63), "note": "b", "kind of": 1}),
    ([], {"n": 1e300, "note": "1", "done": 1}),
    ([], {"n": 2**63 - 1, "done": "a", "a.b": "b"}),
]


class FilterTests(Contract):
    """Conditions on tags, metadata and columns."""

    @pytest.fixture
    def labelled(self, alice: ScopedMemory) -> ScopedMemory:
        """A scope with one cube for each row of `LABELS`."""
        alice.remember_many(
            [Message(f"Number {i}.", tags=tuple(tags), metadata=data) for i, (tags, data) in enumerate(LABELS)]
        )
        return alice

    @settings(
        max_examples=200,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    @given(where=wheres())
    def test_filters_equal_brute_force(self, labelled: ScopedMemory, where: dict[str, Any]) -> None:
        """`list`, its total and `recall` keep exactly the cubes that the slow twin keeps."""
        wanted = [cube for cube in labelled.list() if matches(cube, where)]
        page = labelled.list(where=where)
        assert list(page) == wanted
        assert page.total == len(wanted)
        found = labelled.recall("number", limit=100, where=where)
        assert {hit.cube.id for hit in found} == {cube.id for cube in wanted}
        assert found.total == len(wanted)

    def test_columns_can_be_filtered(self, alice: ScopedMemory) -> None:
        """Kind, type, state, speaker, role, ref and observed; a missing one is not equal to anything."""
        alice.remember("A fact.", at="2024-05-01T12:00:00Z", ref="r")
        alice.remember(Message("Said.", name="Ann", role="assistant"), at="2024-05-02T12:00:00+02:00")

        def texts(**where: object) -> list[str]:
            return [cube.text for cube in alice.list(where=where)]

        assert texts(type="fact") == ["A fact."]
        assert texts(speaker="Ann") == texts(role="assistant") == texts(speaker={"$exists": True}) == ["Said."]
        assert texts(speaker={"$ne": "Ann"}) == texts(speaker=None) == texts(ref="r") == ["A fact."]
        assert texts(kind="text", state={"$in": ["generated", "activated"]}) == ["A fact.", "Said."]
        assert texts(observed={"$gt": "2024-05-02T10:00:00Z"}) == []
        assert texts(observed={"$gte": "2024-05-02T10:00:00Z"}) == ["Said."]
        assert texts(observed={"$lt": "2024-05-02T10:00:00Z"}) == ["A fact."]

    def test_what_cannot_be_a_filter_is_refused(self, labelled: ScopedMemory) -> None:
        """Unknown operators, values that do not compare, times without a zone: said, never taken for "no match"."""
        bad: list[Any] = [
            {"n": {"$near": 1}}, {"n": {"$in": 1}}, {"n": {"$in": "abc"}}, {"n": {"$in": [None]}},
            {"n": {"$exists": 1}}, {"n": {"$gt": None}}, {"n": object()},
            {"n": {"$gt": [1]}}, {"": 1}, {1: 1}, {"observed": "yesterday"},
            {"observed": {"$gt": "2024-05-01T12:00:00"}}, {"observed": {"$gt": 17}}, {"n": 2**70}, {"n": "\ud800"},
            {"\ud800": 1}, {"n": float("nan")}, "tags", ["tags"], 17,
        ]  # fmt: skip
        for where in bad:
            for call in (
                lambda where=where: labelled.list(where=where),
                lambda where=where: labelled.recall("x", where=where),
            ):
                with pytest.raises(InvalidRequest):
                    call()
            with pytest.raises(InvalidRequest):
                labelled.forget(where=where)
        assert labelled.list().total == len(LABELS)

    def test_a_filter_is_data(self, labelled: ScopedMemory) -> None:
        """Quotes in keys and values are matched, not run."""
        for where in ({"x' OR 1=1 --": 1}, {"city": "x' OR '1'='1"}, {"tags": "'; DROP TABLE cubes; --"}, {"c.n": 1}):
            assert labelled.list(where=where).total == 0
        assert labelled.list(where={"tags": "x'y"}).total == 1


def matches(cube: MemCube, where: Mapping[str, Any]) -> bool:
    """The slow twin of the filter, for tags and metadata."""
    return all(_meets(_values(cube, key), wanted) for key, wanted in where.items())


def _values(cube: MemCube, key: str) -> list[Scalar]:
    if key == "tags":
        return list(cube.tags)
    value = cube.metadata.get(key.removeprefix("metadata."))
    return [] if value is None else [value]


def _meets(values: list[Scalar], wanted: object) -> bool:
    if isinstance(wanted, Mapping):
        return all(_test(values, operator, value) for operator, value in wanted.items())
    return _test(values, "$in" if isinstance(wanted, list) else "$eq", wanted)


def _test(values: list[Scalar], operator: str, wanted: Any) -> bool:  # noqa: ANN401  # as `where`
    if operator in {"$ne", "$nin"}:
        return not _test(values, {"$ne": "$eq", "$nin": "$in"}[operator], wanted)
    if operator == "$exists" or wanted is None:
        return bool(values) == (wanted is not None and wanted)
    if operator == "$in":
        return any(value in wanted for value in values)
    return any(_compare(value, operator, wanted) for value in values)


def _compare(value: Any, operator: str, wanted: Any) -> bool:  # noqa: ANN401  # scalars of either kind
    if isinstance(value, str) is not isinstance(wanted, str):
        return False  # text and numbers have no order between them
    return bool(
        {
            "$eq": value == wanted,
            "$gt": value > wanted,
            "$gte": value >= wanted,
            "$lt": value < wanted,
            "$lte": value <= wanted,
        }[operator]
    )
