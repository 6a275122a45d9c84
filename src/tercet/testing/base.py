"""What every class of contract tests stands on: a vault that can be opened again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest

from tercet.errors import MissingMemory
from tercet.kernel import Tercet
from tercet.scoped import ScopedMemory


class OpenTercet(Protocol):
    """Opens the vault under test, the same one at every call; options go to `Tercet.open`."""

    def __call__(self, **options: Any) -> Tercet: ...  # noqa: ANN401  # as Tercet.open


class Contract:
    """Provide `open_tercet`; the rest follows."""

    @pytest.fixture
    def open_tercet(self) -> OpenTercet:
        """A callable that opens one vault, empty at first; called twice it gives two handles on the same memories."""
        raise NotImplementedError("a contract's subclass says how its vault is opened")

    @pytest.fixture
    def t(self, open_tercet: OpenTercet) -> Iterator[Tercet]:
        """The vault, opened."""
        with open_tercet() as t:
            yield t

    @pytest.fixture
    def alice(self, t: Tercet) -> ScopedMemory:
        """What is about one user."""
        return t.scope(user="alice")

    @pytest.fixture
    def bob(self, t: Tercet) -> ScopedMemory:
        """What is about another user of the same tenant."""
        return t.scope(user="bob")


def all_clear(t: Tercet) -> None:
    """Fail unless `doctor` finds nothing in any tenant."""
    found = {tenant: findings for tenant, findings in t.doctor().items() if findings}
    assert found == {}


def told_apart(scope: ScopedMemory, id: str) -> dict[str, str]:
    """What each call that names a cube answers about one that this scope must not see: the error, without the id."""
    calls: dict[str, Callable[[], object]] = {
        "get": lambda: scope.get(id),
        "history": lambda: scope.history(id),
        "revise": lambda: scope.revise(id, "Mine now."),
        "rollback": lambda: scope.rollback(id, version=1),
        "forget": lambda: scope.forget(id),
        "freeze": lambda: scope.freeze(id),
        "unfreeze": lambda: scope.unfreeze(id),
        "archive": lambda: scope.archive(id),
        "unarchive": lambda: scope.unarchive(id),
        "hold": lambda: scope.hold(id, "case 7"),
        "release": lambda: scope.release(id),
    }
    answers = {}
    for name, call in calls.items():
        with pytest.raises(MissingMemory) as caught:
            call()
        answers[name] = str(caught.value).replace(id, "ID")
    return answers
