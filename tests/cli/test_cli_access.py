"""`tercet access` and `tercet keys`, and every other command under rules or with a key."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.command_line import Cli

ROOT = ("--as", "root")


@pytest.fixture
def ruled(cli: Cli) -> Cli:
    """A tenant with two memories and three rules."""
    cli.id("The boiler is loud.", "--user", "alice")
    cli.id("The boiler code is 4417.", "--user", "alice", "--tag", "hidden")
    assert cli(*ROOT, "access", "allow", "root", "administer,read,write,revise,forget").code == 0
    assert cli(*ROOT, "access", "allow", "ann", "read").code == 0
    assert cli(*ROOT, "access", "deny", "ann", "read", "--tag", "hidden").code == 0
    return cli


def test_rules_are_listed_added_and_removed(cli: Cli) -> None:
    cli.id("Soup.")
    assert "No rules" in cli("access", "list").out
    assert cli("access", "list", "--json").json == {"rules": [], "total": 0}
    cli(*ROOT, "access", "allow", "root", "administer")
    done = cli(
        *ROOT,
        "access",
        "allow",
        "role:nurse",
        "read,write",
        "--user",
        "alice",
        "--tag",
        "a",
        "--tag",
        "b",
        "--own",
        "--max-sensitivity",
        "private",
        "--only-for",
        "care",
        "--hours",
        "9-17",
        "--network",
        "10.0.0.0/8",
        "--until",
        "2099-01-01T00:00:00Z",
        "--json",
    )
    assert done.json["rule"] == {
        "n": 2, "effect": "allow", "subject": "role:nurse", "rights": ["read", "write"], "user": "alice", "own": True,
        "tags": ["a", "b"], "max_sensitivity": 2, "purposes": ["care"], "hours": [9, 17], "networks": ["10.0.0.0/8"],
        "until": "2099-01-01T00:00:00+00:00",
    }  # fmt: skip
    assert "role:nurse" in cli(*ROOT, "access", "list").out
    assert cli(*ROOT, "access", "remove", "2", "--json").json == {"removed": 2}
    assert [rule["n"] for rule in cli(*ROOT, "access", "list", "--json").json["rules"]] == [1]


@pytest.mark.parametrize(
    "words",
    [
        ["allow", "ann"], ["allow", "ann", "fly"], ["allow", "ann", ""], ["allow", "ann", "read", "write"],
        ["allow", "ann", "read", "--hours", "nine"], ["allow", "ann", "read", "--until", "soon"],
        ["allow", "ann", "read", "--until", "2099-01-01"], ["allow", "ann", "read", "--network", "here"],
        ["remove"], ["remove", "x"], ["remove", "99"], ["remove", "1"], ["list", "1"], ["permit", "ann", "read"],
        ["deny", "root", "administer"],
    ],
)  # fmt: skip
def test_bad_usage_of_access(ruled: Cli, words: list[str]) -> None:
    before = ruled(*ROOT, "access", "list", "--json").json
    assert ruled(*ROOT, "access", *words).code == 2
    assert ruled(*ROOT, "access", "list", "--json").json == before


def test_every_command_keeps_to_the_rules(ruled: Cli, tmp_path: Path) -> None:
    loud, code = ruled(*ROOT, "list", "--json").json["cubes"]
    ann, nobody = ("--as", "ann"), ("--as", "eve")
    assert [cube["id"] for cube in ruled(*ann, "list", "--json").json["cubes"]] == [loud["id"]]
    assert ruled(*ann, "list", "--json").json["total"] == 1
    assert [hit["id"] for hit in ruled(*ann, "recall", "boiler code", "--json").json["hits"]] == [loud["id"]]
    assert "4417" not in ruled(*ann, "context", "boiler code").out
    out = tmp_path / "out.jsonl"
    assert ruled(*ann, "export", str(out), "--json").json["exported"] == 1
    assert "code is 4417" not in out.read_text()
    for words in (["show", code["id"]], ["history", code["id"]], ["show", "no-such-id"]):
        assert ruled(*ann, *words).code == 4
    refused = [["remember", "x"], ["revise", loud["id"], "x"], ["rollback", loud["id"], "--version", "1"],
               ["forget", loud["id"]], ["forget", "--where", "tags=hidden", "--yes"], ["import", str(out)], ["stats"],
               ["doctor"], ["backup", str(tmp_path / "copy")], ["access", "list"], ["keys", "list"]]  # fmt: skip
    for words in refused:
        done = ruled(*ann, *words)
        assert (done.code, done.out) == (3, ""), words
    for words in (["list"], ["recall", "boiler"], ["show", loud["id"]], ["export", str(tmp_path / "x")], *refused):
        done = ruled(*nobody, *words)
        assert (done.code, done.out) == (3, ""), words
    assert not (tmp_path / "copy").exists()
    assert ruled(*ROOT, "backup", str(tmp_path / "copy")).code == 0
    assert ruled(*ann, "backup", "--restore", str(tmp_path / "copy")).code == 3
    assert ruled(*ROOT, "backup", "--restore", str(tmp_path / "copy")).code == 0
    assert ruled(*ROOT, "list", "--json").json["total"] == 2


def test_the_time_machine_and_the_audit_keep_to_the_rules(ruled: Cli, tmp_path: Path) -> None:
    """Each command asks as its caller or its key: exit code 3, nothing said, nothing changed."""
    receipt, anchor = str(tmp_path / "receipt"), str(tmp_path / "anchor")
    id = ruled(*ROOT, "list", "--json").json["cubes"][0]["id"]
    assert ruled(*ROOT, "snapshot", "s").code == ruled(*ROOT, "branch", "b").code == 0
    assert ruled(*ROOT, "forget", id, "--receipt", receipt).code == 0
    text = ruled(*ROOT, "keys", "create", "ci", "--right", "read", "--right", "forget", "--json").json["text"]
    commands = [["snapshot", "new"], ["snapshot"], ["snapshot", "--drop", "s"], ["branch", "b2"], ["branch"],
                ["branch", "--drop", "b"], ["diff", "s"], ["restore", "s"], ["audit", "verify"], ["audit", "log"],
                ["audit", "anchor", anchor], ["verify", receipt]]  # fmt: skip
    before = ruled(*ROOT, "audit", "log", "--json").json
    for who in (("--as", "ann"), ("--as", "eve"), ("--key", text), ()):
        for words in commands:
            done = ruled(*who, *words)
            assert (done.code, done.out) == (3, ""), (who, words)
    assert ruled(*ROOT, "audit", "log", "--json").json == before
    assert not (tmp_path / "anchor").exists()
    for words in commands:
        assert ruled(*ROOT, *words).code in {0, 4}, words
    by = {line["action"]: line["by"] for line in ruled(*ROOT, "audit", "log", "--json").json["lines"]}
    assert (by["snapshot"], by["branch"], by["drop"]) == ("root",) * 3


def test_keys(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    hers = cli.id("The boiler is loud.", "--user", "alice")
    his = cli.id("The garden is green.", "--user", "bob")
    made = cli("keys", "create", "ci", "--right", "read", "--right", "write", "--user", "alice", "--role", "robot",
               "--only-for", "support", "--days", "30", "--json").json  # fmt: skip
    key, text = made["key"], made["text"]
    assert text not in cli("keys", "list").out + cli("keys", "list", "--json").out
    assert cli("keys", "list", "--json").json["keys"] == [key]
    assert (key["rights"], key["user"], key["roles"], key["purposes"]) == (
        ["read", "write"],
        "alice",
        ["robot"],
        ["support"],
    )
    assert [cube["id"] for cube in cli("--key", text, "list", "--json").json["cubes"]] == [hers]
    monkeypatch.setenv("TERCET_KEY", text)
    assert cli("list", "--json").json["total"] == 1
    assert cli("remember", "Mine.", "--json").json["cube"]["user"] == "alice"
    assert cli("show", his).code == 4
    for words in (["forget", hers], ["list", "--user", "bob"], ["list", "--tenant", "other"], ["stats"],
                  ["keys", "list"], ["list", "--purpose", "sales"]):  # fmt: skip
        done = cli(*words)
        assert done.code == 3, words
        assert text.rpartition(".")[2] not in done.out + done.err
    monkeypatch.delenv("TERCET_KEY")
    again = cli("keys", "rotate", key["id"], "--grace", "1", "--json").json
    for one in (text, again["text"]):
        assert cli("--key", one, "list", "--json").json["total"] == 2
    assert cli("keys", "revoke", key["id"], "--json").json == {"revoked": [key["id"], f"{key['id']}~2"]}
    for one in (text, again["text"], "tk_x", "x"):
        done = cli("--key", one, "list")
        assert done.code == 3
        assert "opens nothing" in done.err
    assert "revoked" in cli("keys", "list").out


@pytest.mark.parametrize(
    "words",
    [
        ["create"], ["create", "ci"], ["create", "ci", "--right", "fly"],
        ["create", "ci", "--right", "read", "--days", "0"], ["create", "ci", "--right", "read", "--days", "nan"],
        ["create", "ci", "--right", "read", "--days", "1e99"],
        ["rotate"], ["rotate", "none"], ["revoke", "none"], ["list", "x"], ["make", "x"],
    ],
)  # fmt: skip
def test_bad_usage_of_keys(cli: Cli, words: list[str]) -> None:
    cli.id("Soup.")
    assert cli("keys", *words).code == 2
    assert cli("keys", "list", "--json").json["keys"] == []


def test_a_key_on_the_line_comes_before_its_command(cli: Cli) -> None:
    cli.id("Soup.")
    text = cli("keys", "create", "ci", "--right", "read", "--json").json["text"]
    assert cli("--key", text, "--purpose", "x", "list").code == 0
    assert cli("list", f"--key={text}").code == 0
