"""The embedded vault keeps the contract, with and without vectors, clear and sealed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tercet import Tercet
from tercet.testing import FakeEmbedder, OpenTercet, SeededClock, SeededEntropy, VaultTests


class TestByWords(VaultTests):
    """As it is on a machine without weights."""

    @pytest.fixture
    def open_tercet(self, tmp_path: Path) -> OpenTercet:
        def opened(**options: Any) -> Tercet:  # noqa: ANN401  # as Tercet.open
            return Tercet.open(tmp_path / "vault", **{"embedder": None, **options})

        return opened


class TestWithVectors(VaultTests):
    """With an embedder, and a clock and entropy that repeat themselves."""

    @pytest.fixture
    def open_tercet(self, tmp_path: Path) -> OpenTercet:
        clock, entropy = SeededClock(), SeededEntropy()

        def opened(**options: Any) -> Tercet:  # noqa: ANN401  # as Tercet.open
            given = {"embedder": FakeEmbedder(), "clock": clock, "entropy": entropy, **options}
            return Tercet.open(tmp_path / "vault", **given)

        return opened

    def test_without_an_embedder_recall_is_by_words(self, open_tercet: OpenTercet) -> None:
        super().test_without_an_embedder_recall_is_by_words(
            lambda **options: open_tercet(**{"embedder": None, **options})
        )


class TestSealed(VaultTests):
    """Under a master key, by words."""

    @pytest.fixture
    def open_tercet(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenTercet:
        monkeypatch.setenv("TERCET_MASTER_KEY", bytes(range(32)).hex())

        def opened(**options: Any) -> Tercet:  # noqa: ANN401  # as Tercet.open
            return Tercet.open(tmp_path / "vault", **{"embedder": None, **options})

        return opened
