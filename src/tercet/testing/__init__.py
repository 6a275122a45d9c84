"""What we test with, shipped: the contract as a class of tests, strategies, fakes, and a run that repeats itself.

A backend's test file is a fixture and whatever is special to it:

    from tercet.testing import VaultTests

    class TestMyVault(VaultTests):
        @pytest.fixture
        def open_tercet(self, tmp_path):
            return lambda **options: Tercet.open(tmp_path, **{"embedder": None, **options})

Needs pytest and hypothesis, which Tercet itself does not. To see values in failed assertions, put
`pytest.register_assert_rewrite("tercet.testing")` into a conftest before the import.
"""

from tercet.testing.base import Contract, OpenTercet
from tercet.testing.fakes import BrokenEmbedder, FakeEmbedder, Scripted
from tercet.testing.machine import VaultMachine
from tercet.testing.seeded import SeededClock, SeededEntropy
from tercet.testing.strategies import metadata, moments, names, scopes, tags, texts, wheres
from tercet.testing.timemachine import TimeMachine
from tercet.testing.vault import VaultTests

__all__ = [
    "BrokenEmbedder",
    "Contract",
    "FakeEmbedder",
    "OpenTercet",
    "Scripted",
    "SeededClock",
    "SeededEntropy",
    "TimeMachine",
    "VaultMachine",
    "VaultTests",
    "metadata",
    "moments",
    "names",
    "scopes",
    "tags",
    "texts",
    "wheres",
]
