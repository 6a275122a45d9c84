"""Adapters and KV caches at the border: what leaves, in which form and on whose right, and what does not come in."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="pip install 'tercet[models]'")

from tests.tiny_vault import alice, opened, short_gate, t, tiny

from tercet import Caller, Tercet
from tercet.cube import MemCube
from tercet.engine.transformers import TransformersEngine
from tercet.errors import InvalidRequest, MissingMemory, Refused
from tercet.exchange.adapters import export_adapter
from tercet.exchange.archive import export_scope, read_archive
from tercet.exchange.restore import import_archive
from tercet.govern.rules import Rule
from tercet.parametric import adapter as peft
from tercet.parametric.gate import Bounds
from tercet.parametric.promote import Teaching
from tercet.parametric.train import Recipe
from tercet.scoped import ScopedMemory
from tercet.vault.codec import dump

PASSED = Teaching(
    Recipe(rank=2, epochs=1, pack=2, replay=0, lr=3e-3), Bounds(margin=-1, general=99, locality=0, questions=4)
)


__all__ = ["alice", "opened", "short_gate", "t", "tiny"]
pytestmark = pytest.mark.usefixtures("short_gate")


def taught(memory: ScopedMemory, *texts: str) -> MemCube:
    return memory.promote(memory.remember_many(texts), to="parameters", teaching=PASSED)


def test_an_adapter_leaves_in_pefts_form_and_comes_back_the_same(
    t: Tercet, alice: ScopedMemory, tmp_path: Path, tiny: TransformersEngine
) -> None:
    made = taught(alice, "Mara works as a smith.")
    folder = tmp_path / "lora"
    assert export_adapter(alice, f"{made.id}@1", folder).id == made.id
    told = json.loads((folder / peft.CONFIG).read_text())
    assert (told["peft_type"], told["r"]) == ("LORA", 2)
    key = tiny.adapters.attach(peft.load(folder, tiny.adapters.shapes).modules)
    assert t.lora.use(t.vault.tenant("default"), alice.scope, made.id, tiny) == key  # to the bit
    export_adapter(alice, made.id, folder)  # an adapter's folder may be written anew
    (folder / "diary.txt").write_text("mine")
    with pytest.raises(InvalidRequest, match="other things"):
        export_adapter(alice, made.id, folder)
    assert (folder / "diary.txt").read_text() == "mine"


def test_an_export_is_on_record_and_a_receipt_names_it(alice: ScopedMemory, tmp_path: Path) -> None:
    made = taught(alice, "Mara works as a smith.")
    path = tmp_path / "lora.gguf"
    export_adapter(alice, made.id, path)
    [left] = alice.forget(made.behavioural.derivations[0].id).unreachable
    assert (left.path, left.sha256) == (str(path), hashlib.sha256(path.read_bytes()).hexdigest())


def test_who_may_not_read_a_source_takes_no_adapter_out(t: Tercet, tmp_path: Path) -> None:
    root = Caller("root")
    for rule in (
        Rule("allow", "root", frozenset({"administer", "read", "write", "promote"})),
        Rule("allow", "ann", frozenset({"read"})),
        Rule("deny", "ann", frozenset({"read"}), tags=frozenset({"hidden"})),
    ):
        t.admin(by=root).add_rule(rule)
    secret = t.scope(by=root).remember("Mara plays the cello.", tags=["hidden"])
    made = t.scope(by=root).promote(secret, to="parameters", teaching=PASSED)
    with pytest.raises(MissingMemory):
        export_adapter(t.scope(by=Caller("ann")), made.id, tmp_path / "lora")
    with pytest.raises(Refused):
        export_adapter(t.scope(by=Caller("eve")), made.id, tmp_path / "lora")
    assert not (tmp_path / "lora").exists()


def test_what_was_withdrawn_does_not_leave(alice: ScopedMemory, tmp_path: Path) -> None:
    text = alice.remember("Mara works as a smith.")
    made = alice.promote(text, to="parameters", teaching=PASSED)
    with pytest.raises(InvalidRequest, match="not an adapter"):
        export_adapter(alice, text.id, tmp_path / "lora")
    alice.revise(text.id, "Mara works as a tailor.")
    with pytest.raises(Refused, match="revised"):
        export_adapter(alice, made.id, tmp_path / "lora")


def archived(memory: ScopedMemory) -> bytes:
    stream = io.BytesIO()
    export_scope(memory, stream)
    return stream.getvalue()


def test_an_archive_leaves_tensors_out_says_how_many_and_what_it_holds_comes_in(
    alice: ScopedMemory, tmp_path: Path, tiny: TransformersEngine
) -> None:
    text = alice.remember("Mara works as a smith.")
    alice.promote(text, to="parameters", teaching=PASSED)
    alice.promote(text)
    data = archived(alice)
    assert json.loads(data.split(b"\n")[0])["left_out"] == 2
    with Tercet.open(tmp_path / "other", embedder=None, engines={"tiny": tiny}) as other:
        done = import_archive(other.scope(user="alice"), io.BytesIO(data))
        assert (done.added, done.skipped) == ((text.id,), ())
        # They are made again there, from what came in, by the same call.
        again = other.scope(user="alice").promote(text.id, to="parameters", teaching=PASSED)
        assert [link.id for link in again.behavioural.derivations] == [text.id]


@pytest.mark.parametrize("kind", ["parameters", "activation"])
def test_an_archive_with_a_tensor_cube_is_refused_whole(alice: ScopedMemory, kind: str) -> None:
    """As somebody would write who wants weights of his own to be used here."""
    text = alice.remember("Mara works as a smith.")
    head, row, _, _ = archived(alice).split(b"\n")
    told: dict[str, Any] = json.loads(row)
    model = dict.fromkeys(("name", "revision", "weights", "tokenizer", "template", "rope", "dtype"), "x")
    size = {"rank": 2} if kind == "parameters" else {"tokens": 1}
    payload = {"blobs": [["0" * 64, 1, "adapter"]], "model": {**model, "adapters": []}, **size}
    told["versions"][0]["header"]["payload"] = payload
    lines = head + b"\n" + dump(told).encode() + b"\n"
    lines += dump({"cubes": 1, "sha256": hashlib.sha256(lines).hexdigest()}).encode() + b"\n"
    for data in (lines, gzip.compress(lines)):
        with pytest.raises(InvalidRequest, match="KV caches and adapters do not travel"):
            read_archive(io.BytesIO(data), tenant="default")
        with pytest.raises(InvalidRequest):
            import_archive(alice, io.BytesIO(data))
    assert [cube.id for cube in alice.list()] == [text.id]
