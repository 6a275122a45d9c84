"""`where={...}`: conditions on what is known of a cube beside its words, as SQL with every value bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from math import isnan
from typing import Any

from tercet.cube import Scalar, read_label
from tercet.errors import InvalidRequest
from tercet.vault.codec import to_micros

Where = Mapping[str, Any]
Owned = tuple[str, list[Any]]


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition over `cubes c`, or `of_label` over `attributes a`, with what is bound in it; perhaps not to hold."""

    over: str
    bound: list[Any]
    of_label: bool = False
    holds: bool = True

    @property
    def condition(self) -> str:
        """Over `cubes c` in any case."""
        plain = f"c.n IN (SELECT a.cube FROM attributes a WHERE {self.over})" if self.of_label else self.over  # noqa: S608
        return plain if self.holds else f"NOT {plain}"

    def negation(self) -> Condition:
        """The opposite."""
        return replace(self, holds=not self.holds)


COLUMNS: Mapping[str, str] = {
    "kind": "c.kind",
    "type": "c.type",
    "state": "c.state",
    "speaker": "c.speaker",
    "role": "c.role",
    "ref": "c.ref",
    "observed": "c.observed",
    "sensitivity": "c.sensitivity",
    "quarantined": "(c.trust = 0)",
}
NEGATIONS: Mapping[str, str] = {"$ne": "$eq", "$nin": "$in"}
COMPARISONS: Mapping[str, str] = {"$eq": "=", "$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}


def compile_where(where: Where | None, user: str | None = None) -> tuple[str, list[Any]]:
    """A condition over `cubes c`, and its bindings; `user` is whose cubes are asked for, None for everybody's.

    A key is a column (kind, type, state, speaker, role, ref, observed), `sensitivity` (a label; they have an order),
    `quarantined` (true or false), `tags`, or the name of a metadata entry (also as `metadata.NAME`). A value is a
    scalar for equality, a list for "any of these", or a mapping of operators: $eq $ne $gt $gte $lt $lte $in $nin
    $exists.

    Raises
    ------
    InvalidRequest
        For an operator that is not one of these, or a value that is no scalar or cannot be compared with that key.
    """
    tests = split_where(where, user)
    return " AND ".join(["TRUE", *(test.condition for test in tests)]), [one for test in tests for one in test.bound]


def split_where(where: Where | None, user: str | None = None) -> list[Condition]:
    """The tests that a cube must all pass; see `compile_where`."""
    owned: Owned = ("", []) if user is None else (" WHERE user = ?", [user])
    found = []
    for key, wanted in check_where(where).items():
        if isinstance(wanted, Mapping):
            tests = wanted
        else:
            tests = {"$in": wanted} if isinstance(wanted, list | tuple | set | frozenset) else {"$eq": wanted}
        found += [_test(key, operator, value, owned) for operator, value in tests.items()]
    return found


def check_where(where: Where | None) -> Where:
    """Return the conditions, an empty mapping for None. Raises InvalidRequest for anything but a mapping by strings."""
    if where is None:
        return {}
    if not isinstance(where, Mapping):
        raise InvalidRequest(f"A filter is a mapping such as {{'tags': 'home'}}, not {where!r:.80}.")
    for key in where:
        if not isinstance(key, str) or not key:
            raise InvalidRequest(f"A filter's key must be a non-empty string, not {key!r}.")
        _bindable(key, key)
    return where


def _test(key: str, operator: str, value: object, owned: Owned) -> Condition:
    if operator in NEGATIONS:
        return _test(key, NEGATIONS[operator], value, owned).negation()
    if operator == "$eq" and value is None:
        operator, value = "$exists", False
    if operator == "$exists":
        if not isinstance(value, bool):
            raise InvalidRequest(f"$exists wants true or false, not {value!r}.")
        exists = _matching(key, "IS NOT NULL", [], owned)
        return exists if value else exists.negation()
    if operator == "$in":
        if not isinstance(value, list | tuple | set | frozenset):
            raise InvalidRequest(f"$in wants a list, not {value!r}.")
        values = [_scalar(key, item) for item in value]
        return _matching(key, f"IN ({','.join('?' * len(values))})", values, owned)
    if operator in COMPARISONS:
        wanted = _scalar(key, value)
        if operator == "$eq" or key in COLUMNS:
            return _matching(key, f"{COMPARISONS[operator]} ?", [wanted], owned)
        # SQLite sorts every text after every number; to a caller neither comes before the other.
        same = "=" if isinstance(wanted, str) else "!="
        return _matching(key, f"{COMPARISONS[operator]} ? AND typeof(a.value) {same} 'text'", [wanted], owned)
    known = ", ".join([*COMPARISONS, "$in", *NEGATIONS, "$exists"])
    raise InvalidRequest(f"Unknown operator {operator!r} for {key!r}; known are {known}.")


def _matching(key: str, test: str, bound: list[Any], owned: Owned) -> Condition:
    if key in COLUMNS:
        # Without coalesce a missing value would make NOT (...) NULL, and the row would drop out of both answers.
        return Condition(f"coalesce({COLUMNS[key]} {test}, FALSE)", bound)
    name = key if key == "tags" else f"metadata.{key.removeprefix('metadata.')}"
    condition, whose = owned
    # Not correlated with the cube: the index is walked once, from owner and key on. Every value is bound.
    held = f"a.owner IN (SELECT n FROM owners{condition}) AND a.key = ? AND a.value {test}"  # noqa: S608
    return Condition(held, [*whose, name, *bound], of_label=True)


def _scalar(key: str, value: object) -> Scalar:
    if key == "observed":
        return to_micros(_time(value))
    if key == "sensitivity":
        return _level(value)
    if key == "quarantined":
        if not isinstance(value, bool):
            raise InvalidRequest(f"quarantined is true or false, not {value!r:.80}.")
        return value
    if key in COLUMNS and not isinstance(value, str):
        raise InvalidRequest(f"{key} is compared with text, not {value!r}.")
    if isinstance(value, str):
        return _bindable(key, value)
    # Whole numbers beyond 64 bits and NaN are kept nowhere, and SQLite cannot compare with them.
    if isinstance(value, float) and not isnan(value):
        return value
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return value
    raise InvalidRequest(
        f"A filter compares with a string, boolean or number of at most 64 bits (and `observed` with a time); {key!r} "
        f"has {value!r:.80}."
    )


def _level(value: object) -> int:
    level = read_label(value) if isinstance(value, str | int) else None
    if level is None:
        raise InvalidRequest(f"sensitivity is compared with a label such as 'secret', not {value!r:.80}.")
    return int(level)


def _time(value: object) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidRequest(
                f"observed is compared with a time like 2024-05-01T09:30:00Z, not {value!r}."
            ) from None
    if not isinstance(value, datetime):
        raise InvalidRequest(f"observed is compared with a time, not {value!r:.80}.")
    if value.utcoffset() is None:
        raise InvalidRequest("The time for 'observed' has no zone; add one, e.g. .replace(tzinfo=timezone.utc).")
    return value


def _bindable(key: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"The filter on {key!r:.80} is not valid Unicode.") from None
    return text
