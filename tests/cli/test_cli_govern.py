"""Commands that govern: freeze, hold, archive, forget with a receipt, verify, audit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.command_line import Cli


def test_freeze_and_back(cli: Cli) -> None:
    id = cli.id("The boiler code is 4417.")
    done = cli("freeze", id, "--json")
    assert (done.code, done.json["cubes"][0]["state"]) == (0, "frozen")
    assert cli("revise", id, "Another.").code == 1
    assert cli("freeze", id).code == 1
    assert cli("freeze", id, "--undo", "--json").json["cubes"][0]["state"] == "generated"
    assert cli("freeze", "no-such-id").code == 4


def test_archive_and_back(cli: Cli) -> None:
    id = cli.id("The boiler code is 4417.")
    assert cli("archive", id).code == 0
    assert cli("recall", "boiler", "--json").json["hits"] == []
    assert len(cli("recall", "boiler", "--where", "state=archived", "--json").json["hits"]) == 1
    assert cli("archive", id, "--undo").code == 1  # the use has brought it back already
    assert cli("archive", id).code == 0
    assert cli("archive", id, "--undo", "--json").json["cubes"][0]["state"] == "activated"


def test_hold_refuses_with_exit_code_3(cli: Cli) -> None:
    id = cli.id("The boiler code is 4417.")
    assert cli("hold", id).code == 2
    assert cli("hold", id, "--reason", "case 7").code == 0
    done = cli("forget", id)
    assert (done.code, "case 7" in done.err) == (3, True)
    assert cli("forget", "--all", "--yes").code == 3
    assert cli("hold", id, "--release", "--reason", "x").code == 2
    assert cli("hold", id, "--release").code == 0
    assert cli("hold", id, "--reason", "case 8").code == 0
    done = cli("forget", id, "--despite-hold", "court order 7", "--json")
    assert (done.code, done.json["receipt"]["despite_hold"]) == (0, "court order 7")


def test_everything_is_counted_first(cli: Cli) -> None:
    for i in range(3):
        cli.id(f"Number {i}.", "--tag", "a")
    for words in (["--all"], ["--where", "{}"], ["--where", "tags=a"]):
        done = cli("forget", *words)
        assert done.code == 2
        assert "3 memories, all that this scope holds" in done.err
    assert cli("forget", "--all", "--where", "tags=a", "--yes").code == 2
    assert cli("list", "--json").json["total"] == 3
    done = cli("forget", "--where", "{}", "--yes", "--json")
    assert (done.code, done.json["forgotten"]) == (0, 3)


@pytest.mark.parametrize(("given", "code"), [("30d", 0), ("90s", 0), ("2099-01-01T00:00Z", 0), ("soon", 2), ("0d", 2)])
def test_expires(cli: Cli, given: str, code: int) -> None:
    done = cli("remember", "Short-lived.", "--expires", given, "--json")
    assert done.code == code
    assert code or done.json["cube"]["expires"] is not None


def test_a_receipt_is_written_and_verified(cli: Cli, tmp_path: Path) -> None:
    id = cli.id("The boiler code is 4417.")
    assert cli("export", str(tmp_path / "out.jsonl")).code == 0
    file = tmp_path / "receipt.json"
    done = cli("forget", id, "--receipt", str(file))
    assert done.code == 0
    for said in ("found nothing", "out.jsonl", "journal head"):
        assert said in done.out
    assert cli("verify", str(file)).code == 0
    assert cli("audit", "verify", str(file), "--json").json["passed"] is True
    file.write_bytes(file.read_bytes().replace(id.encode(), id[:-1].encode() + (b"0" if id[-1] != "0" else b"1")))
    done = cli("verify", str(file), "--json")
    assert (done.code, done.json["passed"]) == (1, False)
    assert cli("verify", str(tmp_path / "nowhere")).code == 2
    assert cli("verify", str(file), "--public-key", "nonsense").code == 2


def test_audit(cli: Cli, tmp_path: Path) -> None:
    for i in range(3):
        cli.id(f"Number {i}.")
    done = cli("audit", "log", "--limit", "4", "--json")
    assert [line["seq"] for line in done.json["lines"]] == [1, 2, 3, 4]
    assert done.json["truncated"] is True
    assert cli("audit", "log", "--since", "4", "--json").json["lines"][0]["seq"] == 5
    assert "local" in cli("audit", "log").out
    anchor = tmp_path / "anchor.json"
    assert cli("audit", "anchor", str(anchor)).code == 0
    assert json.loads(anchor.read_bytes())["format"] == "tercet-anchor"
    assert cli("audit", "verify", str(anchor)).code == 0
    anchor.write_bytes(anchor.read_bytes()[:-2] + b"\n")
    assert cli("audit", "verify", str(anchor)).code == 1
    assert cli("audit", "anchor").code == 2
    assert cli("audit", "log", "file").code == 2
    assert cli("audit", "sing").code == 2
