"""`tercet externalise`, `migrate-model`, `learn`, `export --adapter`, and what else commands do with adapters."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.command_line import Cli

pytest.importorskip("torch", reason="pip install 'tercet[models]'")

from tests.tiny_vault import short_gate

from tercet import Tercet
from tercet.parametric import gate
from tercet.parametric.gate import Bounds
from tercet.parametric.promote import Teaching
from tercet.parametric.train import Recipe
from tercet.testing.tiny import tiny_engine

__all__ = ["short_gate"]
pytestmark = pytest.mark.usefixtures("short_gate")
PASSED = Teaching(
    Recipe(rank=2, epochs=1, pack=2, replay=0, lr=3e-3), Bounds(margin=-1, general=99, locality=0, questions=4)
)


@pytest.fixture
def told(cli: Cli, tmp_path: Path) -> Cli:
    """A store whose tercet.toml names two tiny models."""
    cli.store.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, seed in (("old", 0), ("new", 3)):
        engine = tiny_engine(seed=seed)
        engine.model.save_pretrained(tmp_path / name)
        engine.tokenizer.save_pretrained(tmp_path / name)
        lines.append(f'[engines.{name}]\nmodel = "{(tmp_path / name).as_posix()}"\n')
    (cli.store / "tercet.toml").write_text("".join(lines))
    return cli


def adapter(cli: Cli, id: str) -> str:
    """One that a lenient gate lets through: a tiny model passes no other."""
    with Tercet.open(cli.store, embedder=None) as t:
        return t.scope(user="alice").promote(id, to="parameters", engine="old", teaching=PASSED).id


def test_externalise_demote_and_export(told: Cli, tmp_path: Path) -> None:
    id = told.id("Ada lives in Graz.", "--user", "alice")
    lora = adapter(told, id)
    done = told("externalise", lora, "--user", "alice", "--engine", "old", "--json")
    assert (done.code, done.json) == (0, {"adapter": lora, "cubes": [], "total": 0})
    assert "0 memories drawn" in told("externalise", lora, "--engine", "old").out
    assert told("externalise", id, "--engine", "old").code == 2
    assert told("externalise", lora, "--engine", "new").code == 2

    out = tmp_path / "lora.gguf"
    done = told("export", str(out), "--adapter", lora, "--engine", "old", "--json")
    assert (done.code, done.json) == (0, {"file": str(out), "adapter": lora, "version": 1})
    assert told("export", str(out), "--adapter", lora, "--engine", "old").code == 2  # it is there already
    assert told("export", str(out), "--adapter", lora, "--engine", "old", "--force").code == 0
    assert told("export", str(tmp_path / "x.jsonl"), "--engine", "old").code == 2

    reply = told(
        "chat", "Where?", "--engine", "old", "--adapter", lora, "--recite", "--limit", "0", "--max-tokens", "2"
    )
    assert "0 passages recited, 0 not verified" not in reply.out
    assert told("chat", "Where?", "--engine", "old", "--recite").code == 2

    gone = told("demote", lora, "--externalise", "--engine", "old", "--json")
    assert (gone.code, gone.json["externalised"], gone.json["demoted"]) == (0, [], lora)


def test_merge_and_stored(told: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [told.id(text, "--user", "alice") for text in ("Ada lives in Graz.", "Ada works as a smith.")]
    loras = [adapter(told, id) for id in texts]
    words = ["merge", *loras, "--engine", "old"]
    refused = told(*words)
    assert (refused.code, "held-out wordings" in refused.err) == (3, True)  # the gate that stands by default
    monkeypatch.setattr(gate, "reasons", lambda *_: [])
    done = told(*words, "--weight", "0.5", "--weight", "-1", "--stored", "nf4", "--json")
    assert done.code == 0, done.err
    assert set(done.json) == {"cube", "bytes", "report"}
    assert done.json["report"]["recipe"] == {
        "merge": "concatenate", "weights": [0.5, -1.0], "options": {}, "parts": [f"{id}@1" for id in loras],
    }  # fmt: skip
    assert done.json["report"]["stored"] == "nf4"
    said = told("merge", loras[0], "--engine", "old", loras[1], "--method", "svd", "--rank", "3", "--stored", "int8")
    assert (said.code, "rank 3, " in said.out, " bytes in int8" in said.out) == (0, True, True)
    ties = told(*words, "--method", "dare", "--rank", "2", "--density", "0.9", "--seed", "3", "--json")
    assert ties.json["report"]["recipe"]["options"] == {"rank": 2, "density": 0.9, "seed": 3}
    for wrong in (["--weight", "1"], ["--method", "svd"], ["--stored", "int4"], ["--method", "mean"]):
        assert told(*words, *wrong).code == 2
    assert told("merge", loras[0], "--engine", "old").code == 2
    assert told("merge", loras[0], "0" * 8, "--engine", "old").code == 4
    assert told("merge", *loras, "--engine", "new").code == 2

    quick = ["promote", texts[0], "--to", "parameters", "--engine", "old", "--epochs", "1", "--rank", "2"]
    kept = told(*quick, "--stored", "int8", "--json")
    assert (kept.code, kept.json["report"]["stored"]) == (0, "int8")
    held = told(*quick, "--pieces", "3", "--spare", "3", "--top", "0.5", "--json").json["report"]["recipe"]
    assert (held["pieces"], held["spare"], held["top"]) == (3, 3.0, 0.5)
    held = told(*quick, "--optimizer", "apollo-mini", "--json").json["report"]["recipe"]
    assert (held["optimizer"], held["rank"]) == ("apollo-mini", 2)
    unknown = told(*quick, "--optimizer", "lion")
    assert (unknown.code, "known are adamw, adafactor" in unknown.err) == (2, True)
    assert told(*quick, "--top", "2").code == 2
    assert told(*quick, "--stored", "int3").code == 2
    assert told("promote", texts[0], "--engine", "old", "--stored", "int8").code == 2
    assert told("promote", "--due", "--to", "parameters", "--stored", "int8").code == 2
    for option in ("--epochs", "--pieces", "--rank", "--spare", "--top", "--optimizer", "--budget"):
        misplaced = told("promote", texts[0], "--engine", "old", option, "1")
        assert (misplaced.code, f"{option} is for an adapter" in misplaced.err) == (2, True)
    done = told(*quick, "--writer", "new", "--json")
    assert (done.code, done.json["report"]["writer"]) == (0, "new")
    assert told(*quick, "--writer", "nobody").code == 2


def test_show_tells_and_draws_what_the_gate_measured(told: Cli, tmp_path: Path) -> None:
    text = told.id("Ada lives in Graz.", "--user", "alice")
    lora = adapter(told, text)
    picture = tmp_path / "gate.svg"
    shown = told("show", lora, "--plot", str(picture))
    assert (shown.code, "recall in other words" in shown.out) == (0, True)
    assert picture.read_text(encoding="utf-8").startswith("<svg")
    assert told("show", lora, "--json").json["report"]["passed"] is True
    assert told("show", text, "--plot", str(picture)).code == 2
    told("revise", text, "Ada lives in Linz.")
    gone = told("show", lora)
    assert (gone.code, "no report: " in gone.out, "recall in" in gone.out) == (0, True, False)
    assert told("show", lora, "--plot", str(picture)).code == 3


def test_migrate_model(told: Cli) -> None:
    id = told.id("Ada lives in Graz.", "--user", "alice")
    lora = adapter(told, id)
    kv = told("promote", id, "--engine", "old", "--json").json["cube"]["id"]
    assert told("migrate-model", "old", "new", "--show").code == 2  # none was begun
    later = told("migrate-model", "old", "new", "--later", "--json")
    assert (later.code, later.json["waiting"], len(later.json["items"])) == (0, 2, 2)
    done = told("migrate-model", "old", "new", "--json")
    assert done.code == 3  # the gate that stands by default refuses what a tiny model learns
    found = {one["id"]: one for one in done.json["items"]}
    assert (found[kv]["outcome"], found[lora]["outcome"]) == ("moved", "refused")
    shown = told("migrate-model", "old", "new", "--show").out
    assert f"activation {kv} moved → {found[kv]['made']}" in shown
    assert "held-out wordings" in shown
    assert told("show", lora, "--json").json["cube"]["version"] == 1
    assert told("migrate-model", "old", "old").code == 2


def test_learn(told: Cli) -> None:
    told.id("I live in Graz.", "--user", "alice")
    assert told("learn", "--user", "alice", "--show", "--json").json == {"learning": None}
    assert told("learn").code == 2
    assert told("learn", "--user", "alice", "--every", "often").code == 2
    asked = told("learn", "--user", "alice", "--engine", "new", "--every", "12h", "--stable", "0d", "--json")
    assert (asked.code, asked.json["learning"]["hours"], asked.json["learning"]["engine"]) == (0, 12.0, "new")
    assert told("worker", "--once", "--cool-after", "30d").code == 0
    assert "nothing new (1 of these memories say a fact)" in told("learn", "--user", "alice", "--show").out
    assert "No model learns" in told("learn", "--user", "alice", "--stop").out
    assert told("worker", "--once", "--cool-after", "soon").code == 2
