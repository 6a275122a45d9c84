"""Which embedder `Tercet.open(embedder=…)` means, and that looking for one never uses the network."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tercet.errors import InvalidRequest
from tercet.text.embed import find_embedder, minilm
from tercet.text.embed.remote import FromCallable


def test_none_is_none_and_a_callable_is_wrapped() -> None:
    def letters(texts: Sequence[str]) -> list[list[float]]:
        return [[1.0, float(len(text))] for text in texts]

    assert find_embedder(None) is None
    wrapped = find_embedder(letters)
    assert isinstance(wrapped, FromCallable)
    assert wrapped.dim == 2


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(InvalidRequest, match=r"'auto'.*all-MiniLM-L6-v2"):
        find_embedder("word2vec")


def test_only_the_name_asks_for_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def nowhere(cls: type, /, *_: object, **__: object) -> None:  # noqa: ARG001
        return None

    def fetch(cls: type, name: str, /, **_: object) -> str:  # noqa: ARG001
        asked.append(name)
        return "fetched"

    monkeypatch.setattr(minilm.MiniLM, "find", classmethod(nowhere))
    monkeypatch.setattr(minilm.MiniLM, "fetch", classmethod(fetch))
    assert find_embedder("auto") is None
    assert asked == []
    assert find_embedder("all-MiniLM-L6-v2") == "fetched"  # type: ignore[comparison-overlap]
    assert asked == ["all-MiniLM-L6-v2"]
