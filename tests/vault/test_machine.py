"""The embedded vault equals a plain dict, by words and with vectors."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tercet import Tercet
from tercet.testing import FakeEmbedder, TimeMachine, VaultMachine

RUN = settings(max_examples=25, stateful_step_count=30)


@pytest.mark.parametrize("embedder", [None, FakeEmbedder()], ids=["words", "vectors"])
def test_a_vault_equals_a_dict(embedder: FakeEmbedder | None, tmp_path_factory: pytest.TempPathFactory) -> None:
    def machine() -> VaultMachine:
        return VaultMachine(partial(Tercet.open, tmp_path_factory.mktemp("vault"), embedder=embedder))

    run_state_machine_as_test(machine, settings=RUN)  # type: ignore[arg-type]  # a callable will do, says its manual


@pytest.mark.parametrize("embedder", [None, FakeEmbedder()], ids=["words", "vectors"])
def test_time_travel_equals_copies_of_a_dict(
    embedder: FakeEmbedder | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def machine() -> TimeMachine:
        return TimeMachine(partial(Tercet.open, tmp_path_factory.mktemp("vault"), embedder=embedder))

    run_state_machine_as_test(machine, settings=RUN)  # type: ignore[arg-type]  # a callable will do, says its manual
