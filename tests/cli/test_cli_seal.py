"""`tercet seal` on real vaults: what it prints, what it leaves, and its exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.command_line import Cli


@pytest.fixture
def key(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A master key's file, made by the command; the environment names none."""
    for name in ("TERCET_MASTER_KEY", "TERCET_MASTER_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERCET_SIGNING_KEY", str(tmp_path / "signing.key"))
    done = cli("seal", "key", str(tmp_path / "master.key"), "--json")
    assert done.code == 0, done.err
    assert len(done.json["master"]) == 16
    return tmp_path / "master.key"


def test_a_key_is_made_once(cli: Cli, key: Path) -> None:
    before = key.read_text()
    assert cli("seal", "key", str(key)).code == 2
    assert key.read_text() == before
    done = cli("seal", "key", str(cli.store / "inside"))
    assert (done.code, "lies in the vault" in done.err) == (2, True)


def test_seal_rotate_and_exchange(cli: Cli, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    id = cli.id("The boiler code is 4417.")
    assert cli("seal", "status", "--json").json["tenants"]["default"]["sealed"] is False
    assert cli("seal", "now").code == 1
    done = cli("seal", "now", "--sealing", str(key), "--json")
    assert (done.code, done.json["tenants"][0]["database"]) == (0, True)
    done = cli("recall", "boiler")
    assert (done.code, "--sealing" not in done.out, "TERCET_MASTER_KEY_FILE" in done.err) == (1, True, True)
    monkeypatch.setenv("TERCET_MASTER_KEY_FILE", str(key))
    assert cli("recall", "boiler", "--json").json["hits"][0]["cube"]["id"] == id
    assert cli("seal", "rotate").out.startswith("Rotated the keys of default")
    assert cli("doctor").code == 0
    assert cli("stats", "--json").code == 0
    other = tmp_path / "other.key"
    assert cli("seal", "key", str(other)).code == 0
    assert cli("seal", "master", str(other)).code == 0
    done = cli("show", id)
    assert (done.code, "another master key" in done.err) == (1, True)
    monkeypatch.setenv("TERCET_MASTER_KEY_FILE", str(other))
    assert cli("show", id).code == 0
    found = cli("seal", "status")
    assert (found.code, "default  sealed" in found.out) == (0, True)
    assert b"boiler code" not in b"".join(file.read_bytes() for file in cli.store.rglob("*") if file.is_file())


def test_a_sealed_vault_is_backed_up_and_restored(
    cli: Cli, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERCET_MASTER_KEY", key.read_text().strip())
    id = cli.id("The boiler code is 4417.")
    assert cli("backup", str(tmp_path / "copy")).code == 0
    later = cli.id("Written since.")
    assert cli("backup", str(tmp_path / "copy"), "--restore").code == 0
    assert (cli("show", id).code, cli("show", later).code) == (0, 4)
    copied = b"".join(file.read_bytes() for file in (tmp_path / "copy").rglob("*") if file.is_file())
    assert b"boiler code" not in copied
    monkeypatch.delenv("TERCET_MASTER_KEY")
    assert cli("backup", str(tmp_path / "copy"), "--restore").code == 1


def test_destroy_asks_first_and_leaves_a_receipt(
    cli: Cli, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERCET_MASTER_KEY_FILE", str(key))
    cli.id("The boiler code is 4417.", "--tenant", "acme")
    id = cli.id("Another.", "--tenant", "acme")
    assert cli("seal", "destroy", "--yes").code == 2
    done = cli("seal", "destroy", "--tenant", "acme")
    assert (done.code, "--yes" in done.err) == (2, True)
    assert cli("hold", id, "--reason", "case 7", "--tenant", "acme").code == 0
    assert cli("seal", "destroy", "--tenant", "acme", "--yes").code == 3
    paper = tmp_path / "destroyed.json"
    done = cli("seal", "destroy", "--tenant", "acme", "--yes", "--despite-hold", "case 7 is closed", "--cause",
               "the contract ended", "--receipt", str(paper), "--json")  # fmt: skip
    assert (done.code, done.json["receipt"]["memories"], done.json["receipt"]["cause"]) == (0, 2, "the contract ended")
    done = cli("show", id, "--tenant", "acme")
    assert (done.code, "nobody can read" in done.err) == (1, True)
    assert cli("verify", str(paper)).code == 0
    assert cli("seal", "status", "--json").json["destroyed"][0]["tenant"] == "acme"
    paper.write_text(paper.read_text().replace('"memories":2', '"memories":3'))
    assert cli("verify", str(paper)).code == 1


@pytest.mark.parametrize("words", [["seal", "key"], ["seal", "now", "x"], ["seal", "nothing"], ["seal", "master"]])
def test_bad_usage(cli: Cli, words: list[str]) -> None:
    cli.id("Soup.")
    assert cli(*words).code == 2
