"""The suite's own rules: examples repeat themselves, and nothing reaches beyond this machine."""

from __future__ import annotations

import importlib.util
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("tercet.testing")

# Tiny tensors are quicker on one thread, and much quicker where others run beside. It counts before torch is loaded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples in every run: a failure in CI is a failure here.
settings.register_profile("tercet", derandomize=True, database=None, deadline=None, max_examples=40)
settings.load_profile("tercet")

# Without the extra `models` what runs a model is left out; `make install` brings it.
collect_ignore = [] if importlib.util.find_spec("torch") else ["engine", "activation"]

LOCAL = ("127.", "::1", "localhost")


@pytest.fixture(scope="session", autouse=True)
def _own_key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Receipts are signed, with a key that is not the developer's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERCET_SIGNING_KEY", str(tmp_path_factory.mktemp("key") / "signing.key"))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """Any connection beyond this machine is a failure, not a slow test."""

    def connect(self: socket.socket, address: Any) -> None:  # noqa: ANN401  # as socket.connect
        if self.family != getattr(socket, "AF_UNIX", None) and not str(address[0]).startswith(LOCAL):
            raise AssertionError(f"a test reached for the network: {address!r}")
        real(self, address)

    real = socket.socket.connect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect)
        for name in [name for name in os.environ if name.endswith("_API_KEY") or name.startswith("TERCET_STORE")]:
            patch.delenv(name)
        yield
