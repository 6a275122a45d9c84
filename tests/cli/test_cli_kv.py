"""`tercet promote`, `chat` and `demote`, over a model in a folder that tercet.toml names."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.command_line import Cli

pytest.importorskip("torch", reason="pip install 'tercet[models]'")


@pytest.fixture
def told(cli: Cli, tmp_path: Path) -> Cli:
    from tercet.testing.tiny import tiny_engine

    engine = tiny_engine()
    engine.model.save_pretrained(tmp_path / "model")
    engine.tokenizer.save_pretrained(tmp_path / "model")
    cli.store.mkdir(parents=True, exist_ok=True)
    (cli.store / "tercet.toml").write_text(f'[engines.tiny]\nmodel = "{(tmp_path / "model").as_posix()}"\n')
    return cli


def test_promote_chat_demote(told: Cli) -> None:
    id = told.id("Pears are ripe.")
    done = told("promote", id, "--precision", "int8", "--json")
    assert done.code == 0, done.err
    assert set(done.json) == {"cube", "tokens", "bytes"}
    assert done.json["cube"]["kind"] == "activation"
    assert done.json["cube"]["derivations"] == [{"id": id, "version": 1}]
    kv = done.json["cube"]["id"]
    told_so = f"(activation, {done.json['tokens']} tokens, made from {id})"
    assert told_so in told("list").out
    assert told("show", kv).out.startswith(told_so)
    [reply] = told("chat", "Which pears?", "--max-tokens", "5", "--json").json["replies"]
    assert (reply["kv"], reply["memories"], reply["reused"]) == ([kv], [id], done.json["tokens"])
    lines = told("chat", "--max-tokens", "3", stdin=b"Which pears?\n\nAnd plums?\n").out
    assert lines.count("tokens from KV memory") == 2
    assert told("stats", "--json").json["tenants"]["default"]["kv"]["caches"] == 1
    assert "kv policy" in told("stats").out
    gone = told("demote", kv, "--json")
    assert (gone.code, gone.json["demoted"], gone.json["receipt"]["erased"]) == (0, kv, [kv])
    assert "Forgot 1 memory" in told("demote", told("promote", id, "--json").json["cube"]["id"]).out
    assert "tokens" in told("promote", id).out


def test_due_and_its_slips(told: Cli) -> None:
    id = told.id("Pears are ripe.")
    assert told("promote", "--due", "--json").json == {"tenants": {"default": {"promoted": [], "demoted": []}}}
    assert "0 promoted" in told("promote", "--due").out
    assert told("promote").code == 2
    assert told("promote", id, "--due").code == 2
    assert told("promote", id, "--engine", "large").code == 2
    assert told("demote", id).code == 2
    assert told("demote", "01890000-0000-7000-8000-000000000000").code == 4
    assert told("chat", "x", "--share", "500", "--max-tokens", "2").code == 0  # nothing is joined, so nothing is shared


def test_compress(told: Cli) -> None:
    id = told.id("Pears are ripe, and so are the plums, but the apples are not. " * 2)
    whole = told("promote", id, "--alone", "--json").json
    small = told("promote", id, "--compress", "k-norm", "--share", "0.25", "--json")
    assert small.code == 0, small.err
    assert small.json["bytes"] < 0.6 * whole["bytes"]
    assert small.json["tokens"] == whole["tokens"]
    assert told("doctor").code == 0
    for slip in (("--share", "0.5"), ("--compress", "zip"), ("--compress", "tova", "--share", "0")):
        assert told("promote", id, *slip).code == 2
    assert told("promote", "--due", "--compress", "tova").code == 2
