"""T10, T21: what was deleted is gone and stays away; what was done, by whom and from what, can be shown."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import timedelta
from io import BytesIO
from pathlib import Path

import pytest

from tercet import InvalidRequest, Message, MissingMemory, ScopedMemory, Tercet, Text, derive
from tercet.exchange.archive import export_scope
from tercet.exchange.restore import import_archive
from tercet.scope import Caller
from tercet.testing import FakeEmbedder
from tercet.testing.base import all_clear
from tercet.testing.dump import bytes_of, dump
from tercet.vault.backup import restore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "vault"


@pytest.fixture
def t(folder: Path) -> Iterator[Tercet]:
    with Tercet.open(folder, embedder=FakeEmbedder()) as t:
        yield t


@pytest.fixture
def alice(t: Tercet) -> ScopedMemory:
    scope = t.scope(user="alice")
    scope.remember_many([f"Filler number {i}, about boilers and soup." for i in range(60)])
    return scope


def test_delete_deletes_and_nothing_brings_it_back(
    t: Tercet, alice: ScopedMemory, folder: Path, tmp_path: Path
) -> None:
    """T10. Canaries that were revised, labelled, linked, archived, frozen, backed up and exported: gone by words, by
    vectors, by any version, from every byte of the folder; and a restore, an import, a rollback or a new index does
    not bring one back.
    """
    words = [f"canary{uuid.uuid4().hex}" for _ in range(8)]
    cubes = alice.remember_many([Message(f"The code is {word}.", name=word, tags=(word,)) for word in words])
    for cube in cubes[:4]:
        alice.revise(cube.id, f"{cube.text} It changed.")
    made = [alice.remember(derive([cube], Text(f"Made of {cube.text}"), method="m")) for cube in cubes[2:6]]
    alice.archive(cubes[6].id)
    alice.freeze(cubes[7].id)
    alice.recall(f"What of {words[0]}?")
    archive = BytesIO()
    export_scope(alice, archive)
    t.backup(tmp_path / "backup")

    receipt = alice.forget([cube.id for cube in cubes])
    assert set(receipt.erased) == {cube.id for cube in (*cubes, *made)}
    assert receipt.scrubbed_at is not None
    assert receipt.probe is not None
    assert receipt.probe.found == ()
    assert len(receipt.unreachable) == 1
    assert t.verify(receipt).passed

    def gone(t: Tercet) -> None:
        alice = t.scope(user="alice")
        for cube, word in zip(cubes, words, strict=True):
            with pytest.raises(MissingMemory):
                alice.get(cube.id)
            with pytest.raises(MissingMemory):
                alice.rollback(cube.id, version=1)
            for question in (word, f"The code is {word}."):
                for where in (None, {"state": {"$ne": "generated"}}):
                    assert word not in repr([hit.cube for hit in alice.recall(question, limit=500, where=where)])
            assert word not in alice.context(word, budget=50_000)
            assert alice.list(where={"tags": word}).total == 0
        assert not [word for word in words if word.encode() in bytes_of(folder)]
        assert not [word for word in words if word in repr(dump(t))]
        all_clear(t)

    gone(t)
    archive.seek(0)
    skipped = import_archive(alice, archive).skipped
    assert {one.id for one in skipped} == set(receipt.erased)
    t.vault.tenant("default").index()
    t.doctor(repair=True)
    gone(t)
    with pytest.raises(InvalidRequest, match="erased"):
        alice.remember(cubes[0])
    t.close()
    restore(tmp_path / "backup", folder)
    with Tercet.open(folder, embedder=FakeEmbedder()) as again:
        gone(again)
        assert again.scope(user="alice").list().total == 60


def test_delete_reaches_snapshots_and_branches(t: Tercet, alice: ScopedMemory, folder: Path, tmp_path: Path) -> None:
    """T10. Revised on a branch and on a branch of that, written on one alone, hidden by a restore: gone from each, from
    every line of the past and every byte, and no snapshot, undo, backup or import brings one back.
    """
    word, words = "canary", [f"canary{uuid.uuid4().hex}" for _ in range(7)]
    first, second = alice.remember_many([f"The code is {one}." for one in words[:2]])
    t.snapshot("s")
    hidden = alice.remember(f"The code is {words[2]}.")
    undo = t.restore("s").undo
    t.branch("b", from_="s")
    b = t.scope(user="alice", branch="b")
    b.revise(first.id, f"On b: {words[3]}.")
    t.branch("c", from_="b")
    c = t.scope(user="alice", branch="c")
    c.revise(first.id, f"On c: {words[4]}.")
    only = c.remember(f"Only on c: {words[5]}.")
    made = c.remember(derive([c.get(first.id), c.get(second.id)], Text(f"Made on c: {words[6]}."), method="m"))
    t.snapshot("of c", branch="c")
    archive = BytesIO()
    export_scope(c, archive)
    t.backup(tmp_path / "backup")
    last = t.audit(limit=10_000)[-1].seq

    gone = {*alice.forget([first.id, second.id, hidden.id]).erased, *c.forget(only.id).erased}
    assert gone == {first.id, second.id, hidden.id, only.id, made.id}

    def nowhere(t: Tercet) -> None:
        views = [t.scope(user="alice", branch=name) for name in (None, "b", "c")]
        for view in [*views, *(view.as_of(known=line) for view in views for line in range(66, last + 1, 4))]:
            assert word not in repr([cube.text for cube in view.list(limit=1000)])
            assert word not in repr([hit.cube.text for hit in view.recall(f"code on c {words[0]}", limit=100)])
            for id in gone:
                with pytest.raises(MissingMemory):
                    view.history(id)
        assert not [one for one in words if one.encode() in bytes_of(folder)]
        all_clear(t)

    nowhere(t)
    for name in ("of c", undo, "s"):
        t.restore(name)
    archive.seek(0)
    assert {one.id for one in import_archive(alice, archive).skipped} >= gone - {hidden.id}
    nowhere(t)
    t.close()
    restore(tmp_path / "backup", folder)
    with Tercet.open(folder, embedder=FakeEmbedder()) as again:
        nowhere(again)
        again.drop("c")
        again.drop("b")
        assert again.scope(user="alice").list(limit=1000).total == 60


def test_a_delete_that_waits_says_so(t: Tercet, alice: ScopedMemory) -> None:
    """T10. No "deleted" is said of bytes that are still there."""
    cube = alice.remember("The code is 4417.")
    with t.vault.tenant("default").reading() as reader:
        reader.numbers(alice.scope)
        receipt = alice.forget(cube.id)
        assert (receipt.scrubbed_at, receipt.waiting_for is not None) == (None, True)
        with pytest.raises(MissingMemory):
            alice.get(cube.id)
    assert t.receipt(receipt.seq).scrubbed_at is None
    t.work(until_idle=True)
    assert t.receipt(receipt.seq).scrubbed_at is not None


def test_who_did_what_when_and_from_what(t: Tercet, alice: ScopedMemory, tmp_path: Path) -> None:
    """T21. Each write, change of state and erasure is a line that names its caller; a made thing names its sources, a
    hit its reasons; and the whole can be checked by somebody who was not there.
    """
    importer, steward = t.scope(user="alice", by=Caller("importer")), t.scope(user="alice", by=Caller("steward"))
    source = importer.remember("I moved to Oslo in May.", expires=timedelta(days=900))
    product = importer.remember(derive([source], Text("Lives in Oslo."), method="summary/v1"))
    steward.hold(source.id, "case 7")
    steward.freeze(product.id)
    [hit] = [hit for hit in alice.recall("Who lives in Oslo?") if hit.cube.id == product.id]
    assert {"by"} < hit.why.keys()
    assert [(link.id, link.version) for link in hit.cube.behavioural.derivations] == [(source.id, 1)]
    assert hit.cube.behavioural.method == "summary/v1"
    told = [(line.by, line.action, line.id) for line in t.audit()[-4:]]
    assert told == [
        ("importer", "remember", source.id),
        ("importer", "remember", product.id),
        ("steward", "hold", source.id),
        ("steward", "frozen", product.id),
    ]
    t.anchor(tmp_path / "anchor")
    receipt = steward.forget(source.id, despite_hold="court order 7")
    found = t.verify_audit([tmp_path / "anchor", receipt])
    assert (found.problems, found.anchored) == ((), receipt.seq)
    assert [line.detail["despite_hold"] for line in t.audit() if line.action == "erasure"] == ["court order 7"]
    assert "Oslo" not in repr(t.audit())
    with t.vault.tenant("default").maintaining() as connection:
        connection.execute("UPDATE journal SET by = 'nobody' WHERE seq = 3")
    assert not t.verify_audit().passed
