"""Hypothesis strategies for what a vault takes in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from tercet.cube import Scalar
from tercet.scope import Scope

WORDS = (
    "boiler", "code", "Oslo", "moved", "May", "the", "a", "is", "sister's", "naïve", "Straße", "4417", "don't",
    "北京", "東京都", "서울", "القاهرة", "🍕", "e\u0301", "x-ray", "'quoted'", '"', "OR", "NEAR(", "*",
    "\u202e", "\t", "\x07",
)  # fmt: skip
"""Plain words and awkward ones: stop words, other scripts, signs that query languages trip over, control characters."""

KEYS = ("city", "n", "note", "done", "kind of", "a.b", "tags", "type")


def texts(max_words: int = 8) -> st.SearchStrategy[str]:
    """Texts that a cube can hold: mostly of `WORDS`, so that they share some, sometimes any Unicode."""
    wild = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=40)
    worded = st.lists(st.sampled_from(WORDS), min_size=1, max_size=max_words).map(" ".join)
    return st.one_of(worded, worded, wild).filter(lambda text: bool(text.strip()))


def names() -> st.SearchStrategy[str]:
    """Names that a part of a scope may have, few enough to meet again."""
    return st.sampled_from(["alice", "bob", "Alice", "a/b", "../x", "日本", "x'; --", "☕", "None"])


def scopes(tenant: str = "default") -> st.SearchStrategy[Scope]:
    """Scopes of one tenant."""
    part = st.none() | st.sampled_from(["alice", "bob", "a/b"])
    return st.builds(Scope, st.just(tenant), part, part, part)


def moments() -> st.SearchStrategy[datetime]:
    """Times with a zone, to the microsecond."""
    zones = st.sampled_from([UTC, timezone(timedelta(hours=9)), timezone(timedelta(hours=-3, minutes=-30))])
    first, last = datetime(1971, 1, 1), datetime(2100, 1, 1)  # noqa: DTZ001  # hypothesis adds the zone
    return st.datetimes(first, last, timezones=zones)


def scalars() -> st.SearchStrategy[Scalar]:
    """Values of metadata: text, whole and broken numbers, booleans, few enough to be equal now and then."""
    numbers = st.integers(-3, 3) | st.sampled_from([0.5, -1.5, 1e300, -(2**63), 2**63 - 1])
    return st.one_of(st.sampled_from(["", "a", "b", "Oslo", "1", "é", "z'"]), numbers, st.booleans())


def metadata() -> st.SearchStrategy[dict[str, Scalar]]:
    """Metadata of a cube."""
    return st.dictionaries(st.sampled_from(KEYS), scalars() | st.none(), max_size=4)


def tags() -> st.SearchStrategy[list[str]]:
    """Tags of a cube."""
    return st.lists(st.sampled_from(["home", "work", "a b", "x'y", "日本"]), max_size=3)


def wheres() -> st.SearchStrategy[dict[str, Any]]:
    """Filters over tags and metadata, with every operator."""
    value, values = scalars(), st.lists(scalars(), max_size=3)
    one = st.dictionaries(st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]), value, min_size=1, max_size=2)
    some = st.dictionaries(st.sampled_from(["$in", "$nin"]), values, min_size=1)
    none = st.sampled_from([{"$eq": None}, {"$ne": None}, {"$exists": True}, {"$exists": False}])
    test = st.one_of(value, st.none(), values, one, one, one, some, none)
    keys = [f"metadata.{key}" for key in KEYS] + ["city", "n", "note", "tags"]
    tagged = st.fixed_dictionaries({"tags": st.sampled_from(["home", "work", ["a b", "x'y"], {"$ne": "home"}])})
    return st.dictionaries(st.sampled_from(keys), test, max_size=2) | tagged
