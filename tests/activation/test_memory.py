"""A KV memory from its making to its end: kept whole, used only while it stands, refused when it does not fit."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.activation.kept import file_of, files, use
from tests.tiny_vault import Open

from tercet import Tercet
from tercet.cube import Activation, MemCube
from tercet.engine.transformers import TransformersEngine
from tercet.errors import (
    Held,
    InvalidRequest,
    MissingMemory,
    Refused,
    TercetError,
    VaultDamaged,
    VaultError,
)
from tercet.scoped import ScopedMemory
from tercet.testing.base import all_clear
from tercet.testing.tiny import tiny_engine
from tercet.vault import blobs


def test_stored_and_used_gives_the_logits_of_a_fresh_prefill(alice: ScopedMemory, tiny: TransformersEngine) -> None:
    cube = alice.promote([alice.remember("The boiler code is 4417."), alice.remember("Soup.")], precision="fp32")
    question = tiny.encode("Which code?")
    for again in (False, False, True):  # mapped, mapped and taken in, from memory
        used = use(alice, cube, tiny)
        assert used.from_ram is again
        fresh = tiny.run().extend((*used.cache.tokens, *question), every=True)[-len(question) :]
        torch.testing.assert_close(tiny.run(used.cache).extend(question, every=True), fresh, atol=1e-4, rtol=0)
    assert cube.kind == "activation"
    assert tiny.decode(used.cache.tokens).count("4417") == 1
    all_clear(alice.tercet)


@pytest.mark.parametrize("precision", ["bf16", "int8", "int4"])
def test_fewer_bits_stay_near(alice: ScopedMemory, tiny: TransformersEngine, precision: str) -> None:
    cube = alice.promote(alice.remember("The boiler code is 4417."), precision=precision)
    fresh = tiny.prefill(use(alice, cube, tiny).cache.tokens)
    for old, new in zip(fresh.entries, use(alice, cube, tiny).cache.entries, strict=True):
        assert float((old.tensors["v"] - new.tensors["v"]).norm() / old.tensors["v"].norm()) < 0.15


def test_the_same_again_is_the_same_memory(alice: ScopedMemory) -> None:
    text = alice.remember("Pears are ripe.")
    first = alice.promote(text)
    assert alice.promote([text.id]).id == first.id
    assert alice.promote(text, precision="int8").id != first.id
    assert len(files(alice.tercet)) == 4
    all_clear(alice.tercet)


def test_equal_content_is_kept_once_and_goes_with_its_last_name(t: Tercet) -> None:
    alice, bob = t.scope(user="alice"), t.scope(user="bob")
    at = "2026-01-02T03:04:05+00:00"
    ours, theirs = alice.remember("Pears are ripe.", at=at), bob.remember("Pears are ripe.", at=at)
    one, other = alice.promote(ours), bob.promote(theirs)
    assert file_of(alice, one) == file_of(bob, other)
    alice.forget(ours.id)
    assert file_of(bob, other).exists()
    all_clear(t)
    bob.forget(theirs.id)
    assert files(t) == []
    all_clear(t)


def test_another_tenant_shares_nothing(t: Tercet) -> None:
    made = [t.scope(tenant=name, user="alice") for name in ("a", "b")]
    cubes = [view.promote(view.remember("Pears.", at="2026-01-02T03:04:05+00:00")) for view in made]
    assert file_of(made[0], cubes[0]).name == file_of(made[1], cubes[1]).name
    assert file_of(made[0], cubes[0]) != file_of(made[1], cubes[1])
    with pytest.raises(MissingMemory):
        made[1].demote(cubes[0].id)


def test_forgetting_a_source_withdraws_it_everywhere(opened: Open, tiny: TransformersEngine) -> None:
    with opened() as t, opened() as other:
        alice, elsewhere = t.scope(user="alice"), other.scope(user="alice")
        text, rest = alice.remember("The boiler code is 4417."), alice.remember("Soup.")
        cube = alice.promote([text, rest])
        for _ in range(3):
            use(elsewhere, cube, tiny)  # the other process has it in memory
        receipt = alice.forget(text.id)
        assert (receipt.derived, receipt.rows["blobs"]) == ((cube.id,), 2)
        for view in (alice, elsewhere):
            with pytest.raises(MissingMemory):
                use(view, cube, tiny)
        assert other.kv.tier.stats()["bytes"] == 0
        assert files(t) == []
        assert [one.id for one in alice.list()] == [rest.id]
        all_clear(t)


def test_a_cache_is_of_the_main_line_as_it_is_now(alice: ScopedMemory) -> None:
    """On a branch and in the past a chat reads what they show, not what was cached; nothing is promoted there."""
    t, text = alice.tercet, alice.remember("The boiler code is 4417.")
    then = alice.changes()[-1].seq
    t.snapshot("s")
    t.branch("b", from_="s")
    b = t.scope(user="alice", branch="b")
    b.revise(text.id, "The boiler code is 9921.")
    cube = alice.promote(text.id)
    for view in (b, alice.as_of(known=then)):
        with pytest.raises(InvalidRequest, match=r"main line|past"):
            view.promote(text.id)
        reply = view.chat("What is the boiler code?", max_tokens=2)
        assert (reply.memories, reply.kv) == ((text.id,), ())
    assert alice.chat("What is the boiler code?", max_tokens=2).kv == (cube.id,)
    receipt = b.forget(text.id)  # from a branch, and the cache of the main line goes
    assert set(receipt.erased) == {text.id, cube.id}
    assert files(t) == []
    all_clear(t)


def test_what_is_unlinked_is_overwritten(alice: ScopedMemory, tmp_path: Path) -> None:
    text = alice.remember("The boiler code is 4417.")
    path = file_of(alice, alice.promote(text))
    (tmp_path / "link").hardlink_to(path)
    alice.forget(text.id)
    assert not path.exists()
    assert set((tmp_path / "link").read_bytes()) == {0}


def test_an_unlink_cut_off_by_a_crash_is_done_later(alice: ScopedMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    text = alice.remember("The boiler code is 4417.")
    alice.promote(text)

    def crash(_: Path) -> None:
        raise VaultError("the power went")

    with monkeypatch.context() as patch:
        patch.setattr(blobs, "destroy", crash)
        assert alice.forget(text.id).waiting_for == "the power went"
    assert len(files(alice.tercet)) == 2
    alice.tercet.work(until_idle=True)
    assert files(alice.tercet) == []


def test_a_revised_source_withdraws_it(alice: ScopedMemory, tiny: TransformersEngine) -> None:
    text = alice.remember("The boiler code is 4417.")
    cube = alice.promote(text)
    alice.revise(text.id, "The boiler code is 9000.")
    with pytest.raises(Refused, match="was revised"):
        use(alice, cube, tiny)
    assert alice.promote(text.id).id != cube.id


def test_demoting_leaves_the_text(alice: ScopedMemory) -> None:
    text = alice.remember("Pears are ripe.")
    cube = alice.promote(text)
    assert alice.demote(cube.id).erased == (cube.id,)
    assert [one.id for one in alice.list()] == [text.id]
    assert files(alice.tercet) == []
    with pytest.raises(InvalidRequest, match="is text"):
        alice.demote(text.id)
    assert alice.promote(text).id != cube.id
    all_clear(alice.tercet)


def test_recall_gives_texts_alone_unless_asked(alice: ScopedMemory) -> None:
    cube = alice.promote(alice.remember("Pears are ripe."))
    assert [hit.cube.kind for hit in alice.recall("pears")] == ["text"]
    assert [hit.cube.id for hit in alice.recall("pears", kind="activation")] == [cube.id]


CHANGES: dict[str, dict[str, Any]] = {
    "weights": {"seed": 1},
    "dtype": {"dtype": "bfloat16"},
    "rope": {"rope_parameters": {"rope_type": "default", "rope_theta": 7e3}},
}


@pytest.mark.parametrize("what", [*CHANGES, "tokenizer", "template"])
def test_another_model_is_refused(alice: ScopedMemory, what: str) -> None:
    cube = alice.promote(alice.remember("Pears are ripe."))
    other = tiny_engine("llama", **CHANGES.get(what, {}))
    if what == "tokenizer":
        other.tokenizer.add_tokens(["pears"])
    if what == "template":
        other.tokenizer.chat_template += " "
    with pytest.raises(InvalidRequest, match=rf"another model \(.*{what}: "):
        use(alice, cube, other)
    assert alice.recall("pears")[0].cube.text == "Pears are ripe."


def break_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def break_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def break_pickle(path: Path) -> None:
    import pickle

    path.write_bytes(pickle.dumps(list(range(1000))).ljust(path.stat().st_size, b"\0"))


@pytest.mark.parametrize("damage", [break_cut, break_bit, break_pickle, Path.unlink])
@pytest.mark.parametrize("which", [0, 1])
def test_a_damaged_file_is_refused_and_text_still_serves(
    opened: Open, tiny: TransformersEngine, damage: Callable[[Path], None], which: int
) -> None:
    with opened() as t:
        cube = t.scope(user="alice").promote(t.scope(user="alice").remember("Pears are ripe."))
        damage(file_of(t.scope(user="alice"), cube, which))
    with opened() as t:
        alice = t.scope(user="alice")
        with pytest.raises(VaultDamaged, match=r"promote the memory again|missing"):
            use(alice, cube, tiny)
        assert [finding.what for finding in t.doctor()["default"]] == ["blobs"]
        reply = alice.chat("Which are ripe?", max_tokens=2)
        assert (reply.kv, reply.reused, len(reply.memories)) == ((), 0, 1)
        assert alice.recall("pears")[0].cube.text == "Pears are ripe."


def test_a_manifest_that_claims_too_much_is_refused(alice: ScopedMemory) -> None:
    cube = alice.promote(alice.remember("Pears are ripe."))
    assert isinstance(cube.payload, Activation)
    with pytest.raises(VaultDamaged, match="tokens"):
        alice.tercet.kv.manifest(alice._tenant, replace(cube, payload=replace(cube.payload, tokens=10**12)))


def test_a_context_longer_than_the_model_is_refused(alice: ScopedMemory) -> None:
    long = alice.remember("pears " * 200)
    with pytest.raises(InvalidRequest, match="more than tiny-llama takes"):
        alice.promote(long)
    assert files(alice.tercet) == []
    assert [one.id for one in alice.list()] == [long.id]


def test_bad_requests(alice: ScopedMemory, opened: Open) -> None:
    text = alice.remember("Pears are ripe.")
    for wrong, match in (
        ({"engine": "large"}, "No engine 'large'"),
        ({"precision": "int2"}, "precision"),
        ({"cubes": []}, "what to promote"),
    ):
        with pytest.raises(InvalidRequest, match=match):
            alice.promote(**{"cubes": text, **wrong})  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="not to 'stone'"):
        alice.promote(text, to="stone")
    with pytest.raises(MissingMemory):
        alice.tercet.scope(user="bob").promote(text)
    with pytest.raises(InvalidRequest, match="Only texts"):
        alice.promote(alice.promote(text))
    with opened(engines={}) as bare, pytest.raises(InvalidRequest, match="No engine is named"):
        bare.scope(user="alice").promote(text)
    assert len(files(alice.tercet)) == 2


def test_two_at_once_make_one(opened: Open) -> None:
    with opened() as t, opened() as other:
        text = t.scope(user="alice").remember("Pears are ripe.")
        made: list[MemCube] = []
        threads = [
            threading.Thread(target=lambda t=t: made.append(t.scope(user="alice").promote(text.id))) for t in (t, other)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({cube.id for cube in made}) == 1
        assert len(files(t)) == 2
        all_clear(t)


BUILD = """
import sys, time
from pathlib import Path
from tercet import Tercet
from tercet.testing.tiny import tiny_engine
folder, id, mine, other = sys.argv[1:]
with Tercet.open(folder, embedder=None, engines={"tiny": tiny_engine()}) as t:
    Path(mine).touch()
    while not Path(other).exists():
        time.sleep(0.001)
    print(t.scope(user="alice").promote(id).id)
"""


@pytest.mark.slow
def test_two_processes_at_once_make_one(opened: Open, tmp_path: Path) -> None:
    with opened() as t:
        text = t.scope(user="alice").remember("Pears are ripe.")
    flags = [str(tmp_path / name) for name in "ab"]
    said = [sys.executable, "-c", BUILD, str(tmp_path / "vault"), text.id]
    builders = [subprocess.Popen([*said, *order], stdout=subprocess.PIPE, text=True) for order in (flags, flags[::-1])]
    try:
        made = [builder.communicate(timeout=300)[0].strip() for builder in builders]
    finally:
        for builder in builders:
            builder.kill()
    assert [builder.returncode for builder in builders] == [0, 0]
    with opened() as t:
        assert [cube.id for cube in t.scope(user="alice").list(where={"kind": "activation"})] == list({*made})
        assert len(files(t)) == 2
        all_clear(t)


FULL = """
import resource, signal, sys
from tercet import Tercet
from tercet.errors import VaultError
from tercet.testing.tiny import tiny_engine
with Tercet.open(sys.argv[1], embedder=None, engines={"tiny": tiny_engine()}) as t:
    alice = t.scope(user="alice")
    text = alice.remember("Pears are ripe. " * 8)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))
    try:
        alice.promote(text, precision="fp32")
    except VaultError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    print([path for path in (t.vault.folder / "blobs").rglob("*") if path.is_file()])
    print(alice.recall("pears")[0].cube.id == text.id, t.doctor(), alice.promote(text).tokens if 0 else "")
"""


@pytest.mark.slow
def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="no limits on this system")
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True)
    said, left, rest = done.stdout.splitlines()
    assert "The disk is full" in said
    assert left == "[]"
    assert rest.strip() == "True {'default': []}"


def test_doctor_finds_orphans_and_torn_files(alice: ScopedMemory) -> None:
    path = file_of(alice, alice.promote(alice.remember("Pears are ripe.")))
    orphan = path.with_name("0" * 64)
    orphan.write_bytes(b"x" * 10)
    torn = blobs.folder_of(alice._tenant.path) / "x.part"
    torn.write_bytes(b"y")
    import os

    os.utime(torn, (0, 0))
    found = alice.tercet.doctor(repair=True)["default"]
    assert len(found) == 2
    assert all(one.what == "blobs" and one.repaired for one in found)
    all_clear(alice.tercet)


def test_a_backup_brings_it_along_and_what_was_erased_stays_erased(
    opened: Open, tmp_path: Path, tiny: TransformersEngine
) -> None:
    from tercet.vault.backup import restore

    with opened() as t:
        alice = t.scope(user="alice")
        kept, gone = alice.remember("Pears are ripe."), alice.remember("The boiler code is 4417.")
        cubes = [alice.promote(one) for one in (kept, gone)]
        t.backup(tmp_path / "backup")
        alice.forget(gone.id)
        alice.promote(alice.remember("Soup."))
    with Tercet.open(tmp_path / "backup", embedder=None) as copy:
        assert len(files(copy)) == 4
        all_clear(copy)
    for file in (tmp_path / "backup").glob("tenants/*"):  # what opening left beside it
        if file.suffix != ".db":
            file.unlink()
    restore(tmp_path / "backup", tmp_path / "vault")
    with opened() as t:
        alice = t.scope(user="alice")
        assert use(alice, cubes[0], tiny).cache.tokens
        with pytest.raises(MissingMemory):
            use(alice, cubes[1], tiny)
        assert len(files(t)) == 2
        all_clear(t)


def test_a_hold_keeps_it(alice: ScopedMemory) -> None:
    text = alice.remember("Pears are ripe.")
    held = replace(text, governance=replace(text.governance, hold="audit"))
    from tercet.vault.writer import Entry

    with alice._tenant.writing(by="test") as writer:
        writer.revise(text.id, Entry(held, {"pear": 1}), None, expect=None, action="revise")
    cube = alice.promote(text.id)
    with pytest.raises(Held):
        alice.demote(cube.id)


def test_the_tier_stays_within_its_budget(opened: Open, tiny: TransformersEngine) -> None:
    with opened(kv_bytes=300_000) as t:
        alice = t.scope(user="alice")
        cubes = [alice.promote(alice.remember(f"Pear number {n} is ripe.")) for n in range(12)]
        for _ in range(3):
            for cube in cubes:
                use(alice, cube, tiny)
                assert t.kv.tier.stats()["bytes"] <= 300_000
        assert t.stats()["kv_memory"]["evictions"] > 0 or t.kv.tier.stats()["caches"] < len(cubes)


def test_a_draft_that_is_given_up_leaves_nothing(alice: ScopedMemory) -> None:
    alice.remember("Pears.")

    def give_up() -> None:
        with blobs.drafting(alice._tenant.blobs) as draft:
            draft.write(b"abc")
            raise TercetError("stop")

    with pytest.raises(TercetError, match="stop"):
        give_up()
    assert files(alice.tercet) == []
