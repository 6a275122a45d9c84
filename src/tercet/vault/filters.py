"""`where={...}`: conditions on what is known of a cube beside its words, as SQL with every value bound."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tercet.cube import Scalar
from tercet.errors import InvalidRequest
from tercet.vault.codec import to_micros

Where = Mapping[str, Any]

COLUMNS: Mapping[str, str] = {
    "kind": "c.kind",
    "type": "c.type",
    "state": "c.state",
    "speaker": "c.speaker",
    "role": "c.role",
    "ref": "c.ref",
    "observed": "c.observed",
}
COMPARISONS: Mapping[str, str] = {"$eq": "=", "$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}


def compile_where(where: Where | None) -> tuple[str, list[Any]]:
    """A condition over `cubes c JOIN scopes s`, and its bindings.

    A key is a column (kind, type, state, speaker, role, ref, observed), `tags`, or the name of a metadata entry (also
    as `metadata.NAME`). A value is a scalar for equality, a list for "any of these", or a mapping of operators: $eq
    $ne $gt $gte $lt $lte $in $nin $exists.

    Raises
    ------
    InvalidRequest
        For an operator that is not one of these, or a value that is no scalar.
    """
    parts, bindings = ["TRUE"], list[Any]()
    for key, wanted in (where or {}).items():
        if not isinstance(key, str) or not key:
            raise InvalidRequest(f"A filter's key must be a non-empty string, not {key!r}.")
        if isinstance(wanted, Mapping):
            tests = wanted
        else:
            tests = {"$in": wanted} if isinstance(wanted, list | tuple | set | frozenset) else {"$eq": wanted}
        for operator, value in tests.items():
            part, bound = _test(key, operator, value)
            parts.append(part)
            bindings += bound
    return " AND ".join(parts), bindings


def _test(key: str, operator: str, value: object) -> tuple[str, list[Any]]:
    if operator == "$ne":
        part, bound = _test(key, "$eq", value)
        return f"NOT {part}", bound
    if operator == "$nin":
        part, bound = _test(key, "$in", value)
        return f"NOT {part}", bound
    if operator == "$exists":
        if not isinstance(value, bool):
            raise InvalidRequest(f"$exists wants true or false, not {value!r}.")
        part, bound = _matching(key, "IS NOT NULL", [])
        return (part if value else f"NOT {part}"), bound
    if operator == "$in":
        if not isinstance(value, list | tuple | set | frozenset):
            raise InvalidRequest(f"$in wants a list, not {value!r}.")
        values = [_scalar(key, item) for item in value]
        return _matching(key, f"IN ({','.join('?' * len(values))})", values)
    if operator in COMPARISONS:
        if value is None:
            return _test(key, "$exists", operator != "$eq")
        return _matching(key, f"{COMPARISONS[operator]} ?", [_scalar(key, value)])
    known = ", ".join([*COMPARISONS, "$ne", "$in", "$nin", "$exists"])
    raise InvalidRequest(f"Unknown operator {operator!r} for {key!r}; known are {known}.")


def _matching(key: str, test: str, bound: list[Any]) -> tuple[str, list[Any]]:
    if key in COLUMNS:
        # Without coalesce a missing value would make NOT (...) NULL, and the row would drop out of both answers.
        return f"coalesce({COLUMNS[key]} {test}, FALSE)", bound
    name = key if key == "tags" else f"metadata.{key.removeprefix('metadata.')}"
    held = "a.owner = s.owner AND a.key = ? AND a.cube = c.n"
    # `test` is one of our own operators with placeholders; every value is bound.
    return f"EXISTS (SELECT 1 FROM attributes a WHERE {held} AND a.value {test})", [name, *bound]  # noqa: S608


def _scalar(key: str, value: object) -> Scalar:
    if key == "observed" and isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise InvalidRequest(
                f"observed is compared with a time like 2024-05-01T09:30:00Z, not {value!r}."
            ) from None
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidRequest(f"The time for {key!r} has no zone; add one, e.g. .replace(tzinfo=timezone.utc).")
        return to_micros(value)
    if isinstance(value, str | int | float | bool):
        return value
    raise InvalidRequest(f"A filter compares with a string, number, boolean or time; {key!r} has {value!r}.")
