"""Receipts: what they tell, that they are genuine, and that a change is seen."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import stat
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tercet import InvalidRequest, MemCube, Message, Receipt, ScopedMemory, Tercet, Text, VaultError, chores, derive
from tercet.cube import Payload
from tercet.exchange.archive import export_scope
from tercet.exchange.export import export_file
from tercet.govern.receipt import Signer, contents, default_path, public_of
from tercet.testing import FakeEmbedder
from tercet.testing.base import all_clear
from tercet.testing.dump import bytes_of, dump
from tercet.testing.processes import finish, start
from tercet.vault.connection import query

WORD = "zyxwvutsrq"


@pytest.fixture
def t(tmp_path: Path) -> Iterator[Tercet]:
    with Tercet.open(tmp_path / "vault", embedder=FakeEmbedder(), signing_key=tmp_path / "keys" / "mine") as t:
        yield t


@pytest.fixture
def alice(t: Tercet) -> ScopedMemory:
    scope = t.scope(user="alice")
    scope.remember_many([f"Filler number {i}, about boilers." for i in range(40)])
    return scope


@pytest.fixture
def receipt(alice: ScopedMemory) -> Receipt:
    cube = alice.remember(f"The code is {WORD}.")
    alice.revise(cube.id, f"The code was {WORD}.")
    return alice.forget(cube.id)


def test_a_receipt_is_genuine_and_says_what_was_done(t: Tercet, receipt: Receipt) -> None:
    assert t.verify(receipt).problems == ()
    assert receipt.versions == {receipt.erased[0]: 2}
    assert receipt.probe is not None
    assert (receipt.probe.found, receipt.probe.words > 0, receipt.probe.vectors) == ((), True, 1)
    assert receipt.probe.bytes >= (t.vault.folder / "tenants" / "default.db").stat().st_size
    assert t.receipt(receipt.seq).erased == receipt.erased
    assert t.verify(t.receipt(receipt.seq)).passed
    with pytest.raises(InvalidRequest, match="No erasure"):
        t.receipt(1)


def test_an_edit_of_any_byte_is_seen(t: Tercet, receipt: Receipt) -> None:
    whole = contents(receipt)
    assert t.verify(whole).passed
    dice = random.Random(1)  # noqa: S311  # a test's choices
    for at in range(len(whole)):
        other = bytes([dice.choice([byte for byte in range(256) if byte != whole[at]])])
        for edited in (
            whole[:at] + other + whole[at + 1 :],
            whole[:at] + whole[at + 1 :],
            whole[:at] + b" " + whole[at:],
        ):
            if edited != whole:
                assert not t.verify(edited).passed, (at, edited)
    for broken in (b"", b"{}", b"[]", b"null", b"{" * 5000, whole.replace(b"tercet-receipt", b"tercet-anchor")):
        assert not t.verify(broken).passed


def test_another_key_is_told_of(t: Tercet, receipt: Receipt, tmp_path: Path) -> None:
    other = Signer(tmp_path / "keys" / "other")
    [problem] = t.verify(receipt, key=other.public).problems
    assert "another key" in problem
    assert t.verify(receipt, key=public_of(tmp_path / "keys" / "mine")).passed
    forged = other.receipt(replace(receipt, rows={}))
    assert any("another key" in one for one in t.verify(forged).problems)
    stolen = replace(forged, key=receipt.key)
    assert any("does not fit" in one for one in t.verify(stolen).problems)
    unsigned = replace(receipt, signature=None)
    assert any("not signed" in one for one in t.verify(unsigned).problems)
    with pytest.raises(InvalidRequest, match="no public key"):
        t.verify(receipt, key="not a key")


def test_a_receipt_of_another_vault_or_tenant_does_not_pass(t: Tercet, receipt: Receipt, tmp_path: Path) -> None:
    """Signed with the same key, but of another journal."""
    with Tercet.open(tmp_path / "other", embedder=None, signing_key=tmp_path / "keys" / "mine") as other:
        theirs = other.scope().forget(other.scope().remember("Theirs.").id)
        assert other.verify(theirs).passed
        problems = t.verify(theirs).problems
        assert any("not what it was" in one or "no line" in one for one in problems)
        assert any("ledger" in one for one in problems)
        assert any("tenant" in one for one in t.verify_audit([receipt], tenant="Other Co").problems)


def test_what_is_put_back_is_seen(t: Tercet, receipt: Receipt) -> None:
    """Whoever writes rows by hand under an erased id, or takes the id off the ledger."""
    with t.vault.tenant("default").maintaining() as connection:
        raw = query(connection, "SELECT id FROM erased")[0][0]
        connection.execute("UPDATE cubes SET id = ? WHERE n = (SELECT min(n) FROM cubes)", (raw,))
    assert any("the table cubes" in one for one in t.verify(receipt).problems)
    with t.vault.tenant("default").maintaining() as connection:
        connection.execute("DELETE FROM erased")
    assert any("ledger" in one for one in t.verify(receipt).problems)


def test_keys_are_made_once_and_kept_to_their_owner(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "signing.key"
    first, second = Signer(path), Signer(path)
    assert first.public == second.public
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o644)
        with pytest.raises(VaultError, match="chmod 600"):
            Signer(path)
        path.chmod(0o600)
    path.write_text("not a key")
    with pytest.raises(VaultError, match="no signing key"):
        Signer(path)
    assert sorted(one.name for one in path.parent.iterdir()) == ["signing.key", "signing.pub"]


def test_the_key_lies_outside_the_vault(tmp_path: Path) -> None:
    with Tercet.open(tmp_path, embedder=None, signing_key=tmp_path / "signing.key") as t:
        cube = t.scope().remember("One.")
        with pytest.raises(InvalidRequest, match="lies in the vault"):
            t.scope().forget(cube.id)
        assert t.scope().get(cube.id) == cube


def test_without_a_key_receipts_are_not_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Asked for, or because the default one cannot be made: that is no reason not to forget."""
    with Tercet.open(tmp_path, embedder=None, signing_key=None) as t:
        receipt = t.scope().forget(t.scope().remember("One.").id)
        assert receipt.signature is None
        assert any("not signed" in one for one in t.verify(receipt).problems)
        with pytest.raises(InvalidRequest, match="signing key"):
            t.anchor(tmp_path / "anchor")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TERCET_SIGNING_KEY", str(tmp_path / "file" / "signing.key"))
    assert default_path() == tmp_path / "file" / "signing.key"
    with Tercet.open(tmp_path, embedder=None) as t:
        assert t.scope().forget(t.scope().remember("Two.").id).signature is None
        assert "not signed" in caplog.text


def test_a_receipt_that_waited_has_a_successor(t: Tercet, alice: ScopedMemory, tmp_path: Path) -> None:
    """It names the reader that it waits for; once the scrub is done, the next one says when."""
    cube = alice.remember(f"The code is {WORD}.")
    reader = start(READER, tmp_path / "vault")
    assert reader.stdout is not None
    assert reader.stdout.readline() == "reading\n"
    receipt = alice.forget(cube.id)
    assert receipt.scrubbed_at is None
    assert receipt.probe is None
    if Path("/proc/locks").exists():
        assert f"process {reader.pid}" in (receipt.waiting_for or "")
    assert t.verify(receipt).passed
    finish(reader)
    assert t.receipt(receipt.seq).waiting_for is not None
    assert t.vault.tenant("default").scrub(at_once=True) is None
    later = t.receipt(receipt.seq)
    assert (later.erased, later.waiting_for, later.scrubbed_at is not None) == (receipt.erased, None, True)
    assert t.verify(later).passed
    assert t.audit()[-1].action == "scrub"


READER = """
import sys
from tercet import Tercet
with Tercet.open(sys.argv[1], embedder=None) as t, t.vault.tenant("default").reading() as reader:
    reader.numbers(t.scope().scope)
    print("reading", flush=True)
    sys.stdin.readline()
"""


def test_exports_are_named_and_left_alone(t: Tercet, alice: ScopedMemory, tmp_path: Path) -> None:
    cube, other = alice.remember_many([f"The code is {WORD}.", "Another."])
    plain, packed = tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"
    for path in (plain, packed):
        export_file(alice, path)
    with (tmp_path / "stream").open("wb") as stream:
        export_scope(alice, stream)
    before = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in (plain, packed)}
    receipt = alice.forget(cube.id)
    streamed = hashlib.sha256((tmp_path / "stream").read_bytes()).hexdigest()
    named = [(one.path, one.sha256) for one in receipt.unreachable]
    assert named == [*((str(path), digest) for path, digest in before.items()), ("(a stream)", streamed)]
    assert {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in before} == before
    assert t.receipt(receipt.seq).unreachable == receipt.unreachable
    assert alice.forget(alice.remember("Never exported.").id).unreachable == ()
    assert alice.get(other.id) == other
    all_clear(t)


def test_names_go_with_the_last_memory(t: Tercet, tmp_path: Path) -> None:
    """Users, agents and sessions are content: what is empty keeps no name, in no file; the journal has numbers."""
    scope = t.scope(user="Wilhelmina Quux", agent="butler-of-quux", session="breakfast-at-quux")
    first, second = scope.remember("I like kippers."), scope.remember("And tea.")
    t.scope(user="bob").remember("Bob's.")
    receipt = scope.forget(first.id)
    assert "owners" not in receipt.rows
    assert scope.get(second.id) == second
    receipt = scope.forget(everything=True)
    assert (receipt.rows["owners"], receipt.rows["scopes"]) == (1, 1)
    assert b"uux" not in bytes_of(tmp_path / "vault")
    assert "uux" not in repr(dump(t))
    assert scope.remember("Here again.").scope.user == "Wilhelmina Quux"
    with t.vault.tenant("default").maintaining() as connection:
        connection.execute("INSERT INTO owners (user) VALUES ('Nobody Atall')")
    assert [one.what for one in t.doctor()["default"]] == ["names"]
    t.doctor(repair=True)
    all_clear(t)


def test_a_filter_that_matches_everything_is_refused(alice: ScopedMemory) -> None:
    for everything in (False, True):
        with pytest.raises(InvalidRequest):
            alice.forget(where={}, everything=everything)
    assert alice.list().total == 40
    assert len(alice.forget(everything=True).erased) == 40
    assert alice.list().total == 0


def test_a_product_of_many_is_made_again_from_the_rest(
    t: Tercet, alice: ScopedMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whoever knows the method; until somebody does, the job waits and is seen."""
    one, two, three = alice.remember_many(["One.", f"Two, {WORD}.", "Three."])
    product = alice.remember(derive([one, two, three], Text(f"One, two, three, {WORD}."), method="join/v1"))
    single = alice.remember(derive([two], Text(f"Only two, {WORD}."), method="join/v1"))
    receipt = alice.forget(two.id)
    assert set(receipt.erased) == {two.id, product.id, single.id}
    assert receipt.rebuilding == 1
    assert WORD.encode() not in bytes_of(t.vault.folder)
    t.work(until_idle=True)
    assert t.stats()["tenants"]["default"]["jobs"] == {"rebuild": 1}
    with t.vault.tenant("default").maintaining() as connection:
        connection.execute("UPDATE jobs SET due = 0")

    def join(sources: Sequence[MemCube]) -> Payload:
        return Text(" ".join(cube.text for cube in sources))

    known: Mapping[str, object] = {"join/v1": join}
    monkeypatch.setattr(chores, "REBUILDERS", known)
    assert t.work(until_idle=True) == 1
    [again] = [cube for cube in alice.list() if cube.behavioural.derivations]
    assert (again.text, again.behavioural.method, again.descriptive.type) == ("One. Three.", "join/v1", "summary")
    assert [link.id for link in again.behavioural.derivations] == [one.id, three.id]
    assert t.stats()["tenants"]["default"]["jobs"] == {}
    all_clear(t)


def test_derivations_in_a_circle_end(t: Tercet, alice: ScopedMemory) -> None:
    """No call makes one; a hand in the table does, and forgetting still ends, with all of it."""
    one = alice.remember("One.")
    two = alice.remember(derive([one], Text("Two."), method="m"))
    with t.vault.tenant("default").maintaining() as connection:
        [(a,), (b,)] = query(connection, "SELECT n FROM cubes ORDER BY n DESC LIMIT 2")
        connection.execute("INSERT INTO derivations VALUES (?, 1, ?, 1), (?, 1, ?, 1)", (b, a, a, a))
    assert set(alice.forget(two.id).erased) == {one.id, two.id}
    all_clear(t)


def test_a_probe_finds_what_is_left(t: Tercet, alice: ScopedMemory, tmp_path: Path) -> None:
    """In the words' index, in a file of the folder; but not what something else, still kept, says too."""
    cube = alice.remember(f"The code is {WORD}, as Ann Mustermann-Example said.")
    stray = tmp_path / "vault" / "left-by-somebody.txt"
    stray.write_text(f"a copy: {WORD}")
    receipt = alice.forget(cube.id)
    assert receipt.probe is not None
    assert any(stray.name in one for one in receipt.probe.found)
    assert WORD not in repr(receipt)
    assert any("probe" in one for one in t.verify(receipt).problems)
    stray.unlink()
    alice.remember("Ann Mustermann-Example came to tea.")
    cube = alice.remember(Message("It was Ann Mustermann-Example who called.", name="Ben"))
    receipt = alice.forget(cube.id)
    assert receipt.probe is not None
    assert receipt.probe.found == ()
    assert alice.forget(alice.remember("No probe.").id, probe=False).probe is None


def test_a_probe_leaves_other_tenants_alone(t: Tercet) -> None:
    """Their files are not read: what they hold is nobody else's to learn."""
    t.scope(tenant="other").remember(f"Theirs is {WORD} as well.")
    scope = t.scope()
    receipt = scope.forget(scope.remember(f"The code is {WORD}.").id)
    assert receipt.probe is not None
    assert receipt.probe.found == ()


def test_receipts_are_checked_on_a_copy_without_the_private_key(receipt: Receipt, t: Tercet, tmp_path: Path) -> None:
    """By the command line of whoever holds the public key."""
    t.close()
    shutil.copytree(tmp_path / "vault", tmp_path / "copy")
    (tmp_path / "receipt.json").write_bytes(contents(receipt))
    command = ["tercet", "verify", tmp_path / "receipt.json", "--store", tmp_path / "copy", "--json"]
    environment = {**os.environ, "TERCET_SIGNING_KEY": str(tmp_path / "auditor")}
    runs = [
        subprocess.run(_python(*command, *more), capture_output=True, text=True, env=environment, check=False)
        for more in ((), ("--public-key", public_of(tmp_path / "keys" / "mine")))
    ]
    assert [run.returncode for run in runs] == [1, 0]
    assert "another key" in runs[0].stdout
    assert json.loads(runs[1].stdout)["passed"] is True


def _python(*words: object) -> list[str]:
    import sys

    return [sys.executable, "-m", *map(str, words)]
