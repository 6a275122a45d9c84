"""The contract of upkeep: jobs, vectors, stats, doctor, backup, use by several threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tercet.errors import EmbeddingFailed, TercetError, VaultError
from tercet.kernel import Tercet
from tercet.lifecycle import State
from tercet.testing.base import Contract, OpenTercet, all_clear
from tercet.testing.fakes import BrokenEmbedder, FakeEmbedder


class UpkeepTests(Contract):
    """What keeps a vault whole and in step."""

    def test_vectors_come_with_the_cube(self, open_tercet: OpenTercet) -> None:
        """With an embedder, a cube is found by vectors at once and no job waits."""
        with open_tercet(embedder=FakeEmbedder()) as t:
            alice = t.scope(user="alice")
            alice.remember_many(["The boiler code is 4417.", "I moved to Oslo."])
            tenant = t.stats()["tenants"]["default"]
            assert (tenant["vectors"], tenant["without_vector"], tenant["jobs"]) == ({"fake/32": 2}, 0, {})
            assert "vectors" in str(alice.recall("boiler?")[0].why["by"])

    def test_without_an_embedder_recall_is_by_words(self, open_tercet: OpenTercet) -> None:
        """`why` and `stats` say so; a job fills the vectors in once there is an embedder."""
        with open_tercet() as t:
            cube = t.scope(user="alice").remember("The boiler code is 4417.")
            [hit] = t.scope(user="alice").recall("boiler?")
            assert hit.cube.id == cube.id
            assert str(hit.why["by"]).startswith("words")
            assert "vector" not in str(hit.why["by"]).split("(")[0]
            assert t.stats()["recall_by"].startswith("words")
            assert t.stats()["tenants"]["default"]["jobs"] == {"embed": 1}
        with open_tercet(embedder=FakeEmbedder()) as t:
            assert t.stats()["tenants"]["default"]["without_vector"] == 1
            assert t.work(until_idle=True) == 1
            tenant = t.stats()["tenants"]["default"]
            assert (tenant["vectors"], tenant["without_vector"], tenant["jobs"]) == ({"fake/32": 1}, 0, {})
            all_clear(t)

    def test_a_failing_embedder_loses_nothing(self, open_tercet: OpenTercet) -> None:
        """The text is kept and found by words, the job is seen, and vectors come when the embedder is well again."""
        embedder = BrokenEmbedder(EmbeddingFailed("no power"))
        with open_tercet(embedder=embedder) as t:
            alice = t.scope(user="alice")
            cube = alice.remember("The boiler code is 4417.")
            assert alice.get(cube.id) == cube
            assert t.stats()["tenants"]["default"]["without_vector"] == 1
            embedder.error = None
            t.work(until_idle=True)
            assert t.stats()["tenants"]["default"]["without_vector"] == 0
            assert alice.get(cube.id) == cube

    def test_two_spaces_are_never_mixed(self, open_tercet: OpenTercet) -> None:
        """Another embedder sees only vectors of its own space; the old ones stay for the old one."""
        with open_tercet(embedder=FakeEmbedder(32)) as t:
            t.scope(user="alice").remember("The boiler code is 4417.")
        with open_tercet(embedder=FakeEmbedder(16)) as t:
            assert [hit.cube.text for hit in t.scope(user="alice").recall("boiler?")] == ["The boiler code is 4417."]
            t.scope(user="alice").remember("The boiler is old.")
            assert t.stats()["tenants"]["default"]["vectors"] == {"fake/32": 1, "fake/16": 1}
            assert len(t.scope(user="alice").recall("boiler?")) == 2
            all_clear(t)

    def test_a_space_has_one_dimension(self, open_tercet: OpenTercet) -> None:
        """An embedder that says the same space and gives other lengths is refused with what to do."""
        with open_tercet(embedder=FakeEmbedder(32, space="one")) as t:
            t.scope().remember("First.")
        with open_tercet(embedder=FakeEmbedder(16, space="one")) as t:
            with pytest.raises(TercetError, match="another space"):
                t.scope().remember("Second.")
            assert t.scope().list().total == 1

    def test_use_counts_are_kept_beside_the_header(self, open_tercet: OpenTercet) -> None:
        """Recall writes no version; a used cube becomes activated once the counts are written."""
        with open_tercet() as t:
            alice = t.scope(user="alice")
            cube = alice.remember("The boiler code is 4417.")
            alice.recall("boiler?")
            assert alice.history(cube.id) == [cube]
        with open_tercet() as t:
            alice = t.scope(user="alice")
            [kept] = alice.history(cube.id)
            assert (kept.state, kept.version, kept.text) == (State.ACTIVATED, 1, cube.text)
            all_clear(t)

    def test_uses_of_what_was_forgotten_are_dropped(self, open_tercet: OpenTercet) -> None:
        """A count gathered before the erasure brings nothing back."""
        with open_tercet() as t:
            alice = t.scope(user="alice")
            cube = alice.remember("The boiler code is 4417.")
            alice.recall("boiler?")
            alice.forget(cube.id)
        with open_tercet() as t:
            all_clear(t)
            assert t.scope(user="alice").list().total == 0

    def test_a_backup_opens_as_the_same_vault(self, t: Tercet, tmp_path: Path) -> None:
        """Every tenant's cubes and histories, taken while the vault is in use; never over something else."""
        cubes = {name: t.scope(tenant=name).remember(f"In {name}.") for name in ("default", "other")}
        t.scope().revise(cubes["default"].id, "Revised.")
        t.backup(tmp_path / "copy")
        with Tercet.open(tmp_path / "copy", embedder=None) as copy:
            for name, cube in cubes.items():
                assert copy.scope(tenant=name).history(cube.id) == t.scope(tenant=name).history(cube.id)
            all_clear(copy)
        with pytest.raises(VaultError, match="there already"):
            t.backup(tmp_path / "copy")

    def test_a_closed_vault_says_so(self, open_tercet: OpenTercet) -> None:
        """Calls after `close` raise an error of ours; closing twice is nothing."""
        t = open_tercet()
        alice = t.scope(user="alice")
        cube = alice.remember("One.")
        t.close()
        t.close()
        for call in (lambda: alice.get(cube.id), lambda: alice.remember("Two."), lambda: alice.recall("one")):
            with pytest.raises(TercetError, match="closed"):
                call()

    def test_threads_share_a_vault(self, t: Tercet) -> None:
        """Eight threads write, revise, recall and forget at once; each reads its own writes and nothing is lost."""

        def work(number: int) -> list[str]:
            alice, kept = t.scope(user="alice"), []
            for i in range(6):
                cube = alice.remember(f"Thread {number} wrote {i}.")
                assert alice.get(cube.id) == cube
                assert any(hit.cube.id == cube.id for hit in alice.recall(f"thread {number} {i}", limit=100))
                if i % 3 == 1:
                    assert alice.revise(cube.id, f"Thread {number} rewrote {i}.", expect=1).version == 2
                if i % 3 == 2:
                    alice.forget(cube.id)
                else:
                    kept.append(cube.id)
            return kept

        with ThreadPoolExecutor(8) as pool:
            kept = [id for ids in pool.map(work, range(8)) for id in ids]
        assert {cube.id for cube in t.scope(user="alice").list(limit=1000)} == set(kept)
        assert len(kept) == 8 * 4
        all_clear(t)
