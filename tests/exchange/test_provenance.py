"""Where an archive says that it comes from, and whose copy a leaked one is."""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tercet import Caller, InvalidRequest, Refused, ScopedMemory, Tercet
from tercet.exchange.archive import export_scope, opened
from tercet.exchange.export import export_file
from tercet.exchange.provenance import check
from tercet.exchange.restore import import_archive
from tercet.exchange.watermark import MARK, find_leaks, recipient
from tercet.testing import FakeEmbedder
from tercet.testing.base import all_clear
from tercet.vault.codec import dump


@pytest.fixture
def t(tmp_path: Path) -> Iterator[Tercet]:
    with Tercet.open(tmp_path / "vault", embedder=FakeEmbedder(), signing_key=tmp_path / "signing.key") as t:
        yield t
        all_clear(t)


@pytest.fixture
def alice(t: Tercet) -> ScopedMemory:
    view = t.scope(user="alice", by=Caller("keeper", purpose="handing over"))
    cube = view.remember("The boiler code is 4417.")
    view.revise(cube.id, "The boiler code is 4418.")
    view.remember("The garden is green.")
    return view


def written(view: ScopedMemory, name: str | None = None, *, decoy: bool = False) -> bytes:
    stream = io.BytesIO()
    export_scope(view, stream, to=None if name is None else recipient(view, name, decoy=decoy))
    return stream.getvalue()


def last_of(data: bytes) -> dict[str, object]:
    found: dict[str, object] = json.loads(data.splitlines()[-1])
    return found


def test_it_says_who_wrote_what_from_where_for_whom_and_why(t: Tercet, alice: ScopedMemory) -> None:
    data = written(alice, "Dr. Grey")
    found = check(opened(io.BytesIO(data)).last, t.signer.public if t.signer else None)
    assert found.problems == ()
    d = found.document
    assert (d["tenant"], d["by"], d["purpose"], d["recipient"]) == ("default", "keeper", "handing over", "Dr. Grey")
    assert (d["cubes"], d["sha256"]) == (2, last_of(data)["sha256"])
    rows = [json.loads(line) for line in opened(io.BytesIO(data)).rows]
    told = {(row["id"], one["version"]): one["commitment"] for row in rows for one in row["versions"]}
    held = {(line.id, line.version): line.detail["commitment"] for line in t.audit() if line.detail.get("commitment")}
    assert told == held  # the journal it comes from knows each version by the same commitment


def edited(data: bytes, change: str) -> bytes:
    """The archive with another claim, and its hashes made to fit as anybody could."""
    import hashlib

    lines = data.splitlines()
    last = json.loads(lines[-1])
    if change == "text":
        lines[1] = lines[1].replace(b"4417", b"4419")
        last["sha256"] = hashlib.sha256(b"".join(line + b"\n" for line in lines[:-1])).hexdigest()
    elif change == "both":
        lines[1] = lines[1].replace(b"4417", b"4419")
        last["sha256"] = hashlib.sha256(b"".join(line + b"\n" for line in lines[:-1])).hexdigest()
        last["provenance"]["sha256"] = last["sha256"]
    elif change == "signature":
        last["provenance"]["signature"] = "00" * 64
    elif change == "number":
        last["provenance"]["cubes"] = True
    else:
        last["provenance"][change] = "somebody else"
    return b"\n".join([*lines[:-1], dump(last).encode(), b""])


@pytest.mark.parametrize(
    "change", ["text", "both", "signature", "number", "by", "tenant", "recipient", "format", "key"]
)
def test_an_edit_is_refused_even_where_every_hash_fits(tmp_path: Path, alice: ScopedMemory, change: str) -> None:
    data = edited(written(alice), change)
    with Tercet.open(tmp_path / "other", embedder=None) as other:
        with pytest.raises(InvalidRequest, match="not what it says"):
            import_archive(other.scope(user="alice"), io.BytesIO(data))
        assert other.scope().list().total == 0


def test_a_key_that_is_named_must_have_signed(tmp_path: Path, t: Tercet, alice: ScopedMemory) -> None:
    data = written(alice)
    assert t.signer is not None
    bare = data.splitlines()
    unsigned = {key: value for key, value in last_of(data).items() if key != "provenance"}
    stripped = b"\n".join([*bare[:-1], dump(unsigned).encode(), b""])
    with Tercet.open(tmp_path / "other", embedder=None) as other:
        for archive, key in ((data, "0" * 64), (stripped, t.signer.public)):
            with pytest.raises(InvalidRequest):
                import_archive(other.scope(user="alice"), io.BytesIO(archive), key=key)
        done = import_archive(other.scope(user="alice"), io.BytesIO(data), key=t.signer.public)
        assert (len(done.added), done.provenance.signed) == (2, t.signer.public)
        # An archive from before there was such a line is taken in as ever.
        assert len(import_archive(other.scope(user="alice"), io.BytesIO(stripped)).unchanged) == 2


def test_without_a_signing_key_it_says_the_same_unsigned(tmp_path: Path) -> None:
    with Tercet.open(tmp_path, embedder=None, signing_key=None) as t:
        t.scope().remember("Soup.")
        found = check(opened(io.BytesIO(written(t.scope()))).last, None)
    assert (found.signed, found.problems) == (None, ())
    assert found.document["by"] == "local"


def test_a_mark_names_whose_copy_leaked(tmp_path: Path, t: Tercet, alice: ScopedMemory) -> None:
    copies = {name: written(alice, name) for name in ("Grey", "Green")}
    file = tmp_path / "leaked.txt"
    for name, data in copies.items():
        # One line of it, somewhere in something else, is enough.
        file.write_bytes(b"<p>look at this:</p>\n" + data.splitlines()[2] + b"\nmore")
        [leak] = find_leaks(t, file)
        assert (leak.recipient, leak.by, leak.found) == (name, "keeper", ("mark",))
        file.write_bytes(gzip.compress(data))
        assert [one.recipient for one in find_leaks(t, file)] == [name]
    file.write_bytes(b"\n".join(copies.values()))
    assert [one.recipient for one in find_leaks(t, file)] == ["Grey", "Green"]
    file.write_bytes(written(alice) + b"tw_" + b"0" * 48)
    assert find_leaks(t, file) == []


def test_words_are_not_touched_and_the_mark_comes_off(tmp_path: Path, t: Tercet, alice: ScopedMemory) -> None:
    """What a mark cannot do: the texts alone tell nothing, unless a decoy is among them."""
    plain, marked = written(alice), written(alice, "Grey")

    def texts(data: bytes) -> list[str]:
        return [one["text"] for line in opened(io.BytesIO(data)).rows for one in json.loads(line)["versions"]]

    assert texts(plain) == texts(marked)
    file = tmp_path / "leaked.txt"
    file.write_text("\n".join(texts(marked)))
    assert find_leaks(t, file) == []
    file.write_bytes(MARK.sub("", marked.decode()).encode())
    assert find_leaks(t, file) == []
    with_decoy = texts(written(alice, "Green", decoy=True))
    assert len(with_decoy) == len(texts(plain)) + 1
    file.write_text(" ".join(with_decoy).upper().replace(" ", "\n"))
    [leak] = find_leaks(t, file)
    assert (leak.recipient, leak.found) == ("Green", ("decoy",))


def test_a_copy_of_a_copy_names_every_hand(tmp_path: Path, t: Tercet, alice: ScopedMemory) -> None:
    data = written(alice, "Grey", decoy=True)
    with Tercet.open(tmp_path / "grey", embedder=FakeEmbedder(), signing_key=tmp_path / "grey.key") as grey:
        done = import_archive(grey.scope(user="alice"), io.BytesIO(data))
        assert len(done.added) == 3
        hers = grey.scope(user="alice")
        mark = hers.get(done.added[0]).governance.watermark
        assert mark is not None
        assert MARK.fullmatch(mark)
        assert import_archive(hers, io.BytesIO(written(alice, "Green"))).updated == ()  # the same, through other hands
        passed_on = written(hers, "Black")
        file = tmp_path / "leaked"
        file.write_bytes(passed_on)
        assert [one.recipient for one in find_leaks(grey, file)] == ["Black"]
        assert [one.recipient for one in find_leaks(t, file)] == ["Grey"]
    # It comes home as what is here already.
    assert len(import_archive(alice, io.BytesIO(written(alice, "Blue"))).unchanged) == 2


def test_nobody_can_be_framed(tmp_path: Path, t: Tercet, alice: ScopedMemory) -> None:
    """Without the tenant's secret no mark of another can be made, and a row that was edited names nobody."""
    marks = {MARK.search(written(alice, name).decode())[0] for name in ("Grey", "Grey", "Green")}  # type: ignore[index]
    assert len(marks) == 3
    file = tmp_path / "leaked"
    file.write_text(" ".join(marks))
    assert len(find_leaks(t, file)) == 3
    with t.vault.tenant("default").maintaining() as connection:
        connection.execute("UPDATE exports SET recipient = 'Innocent' WHERE recipient = 'Green'")
    assert [one.recipient for one in find_leaks(t, file)] == ["Grey", "Grey"]


def test_a_receipt_names_who_has_a_copy(tmp_path: Path, t: Tercet, alice: ScopedMemory) -> None:
    path = tmp_path / "for-grey.jsonl"
    export_file(alice, path, to=recipient(alice, "Grey"))
    receipt = alice.forget(alice.list()[0].id)
    assert [(one.path, one.recipient) for one in receipt.unreachable] == [(str(path), "Grey")]
    assert t.verify(receipt).passed


def test_bad_input(tmp_path: Path, t: Tercet, alice: ScopedMemory) -> None:
    for name in ("", " x", "a\nb", 7):
        with pytest.raises(InvalidRequest):
            recipient(alice, name)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="cannot be read"):
        find_leaks(t, tmp_path / "nowhere")
    broken = tmp_path / "broken.gz"
    broken.write_bytes(b"\x1f\x8b" + bytes(20))
    with pytest.raises(InvalidRequest, match="damaged"):
        find_leaks(t, broken)
    file = tmp_path / "x"
    file.write_text("x")
    with pytest.raises(Refused):
        find_leaks(t, file, by=Caller("eve", rights=frozenset({"read"})))
    assert not re.search("Grey", file.read_text())
