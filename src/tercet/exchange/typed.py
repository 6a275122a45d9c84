"""Whether values from outside are what a header's fields are declared to hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

Test = Callable[[object], bool]


def misfit(value: object, name: str = "it") -> str | None:
    """The path of the first field, here or deeper, whose value is not of its declared type; None if all are."""
    if isinstance(value, tuple | frozenset):
        return next((found for one in value if (found := misfit(one, name)) is not None), None)
    kind: type[Any] = type(value)
    for field, test in _tests(kind):  # type: ignore[arg-type]  # a type is hashable, which mypy does not see
        held = getattr(value, field)
        if not test(held):
            return f"{name}.{field}"
        if held is not None and (found := misfit(held, f"{name}.{field}")) is not None:
            return found
    return None


@cache
def _tests(kind: type) -> list[tuple[str, Test]]:
    """A test for each field of a dataclass; none for any other type."""
    if not is_dataclass(kind):
        return []
    hints = get_type_hints(kind)
    return [(field.name, _test(hints[field.name])) for field in fields(kind)]


def _test(hint: Any) -> Test:  # noqa: ANN401  # any annotation
    origin, parts = get_origin(hint), get_args(hint)
    if origin is None:
        kinds = (int, float) if hint is float else hint
        return lambda value: isinstance(value, kinds)
    tests = [_test(one) for one in parts if one is not Ellipsis]
    if origin in (Union, UnionType):
        return lambda value: any(test(value) for test in tests)
    if issubclass(origin, Mapping):
        key, held = tests
        return lambda value: isinstance(value, Mapping) and all(key(k) and held(v) for k, v in value.items())
    if origin is tuple and Ellipsis not in parts:
        return lambda value: (
            isinstance(value, tuple)
            and len(value) == len(tests)
            and all(t(v) for t, v in zip(tests, value, strict=True))
        )
    return lambda value: isinstance(value, origin) and all(map(tests[0], value))
