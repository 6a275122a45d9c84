"""`tercet share`, `grants`, `revoke`, `export --for`, `verify` of archives and leaks, and labels."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.command_line import Cli

from tercet.vault.codec import dump

ROOT, ALICE, BOB = ("--as", "root"), ("--as", "alice", "--user", "alice"), ("--as", "bob", "--purpose", "trip")


@pytest.fixture
def ruled(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Everybody has his own, and root administers."""
    monkeypatch.setenv("TERCET_SIGNING_KEY", str(tmp_path / "signing.key"))
    assert cli(*ROOT, "access", "allow", "root", "administer,read").code == 0
    assert cli(*ROOT, "access", "allow", "*", "read,write,revise,forget,share", "--own").code == 0
    return cli


def test_share_read_and_revoke(ruled: Cli) -> None:
    id = ruled.id(*ALICE, "The flight is at nine.")
    done = ruled(*ALICE, "share", id, "--with", "bob", "--only-for", "trip", "--reads", "2", "--until", "30d", "--json")
    grant = done.json["grant"]
    assert (done.code, grant["id"], grant["to"], grant["by"]) == (0, "g1", "bob", "alice")
    assert (grant["cubes"], grant["left"], grant["purpose"], grant["user"]) == ([id], 2, "trip", "alice")
    assert ruled(*BOB, "show", id).code == 0
    assert ruled("--as", "bob", "show", id).code == 4  # no purpose
    assert "1 of 2 reads left" in ruled(*ALICE, "grants").out
    assert ruled(*BOB, "grants", "--json").json["total"] == 1
    assert ruled(*BOB, "revoke", "g1").code == 4
    revoked = ruled(*ALICE, "revoke", "g1", "--json")
    assert (revoked.code, revoked.json["grant"]["revoked"] is not None) == (0, True)
    assert ruled(*BOB, "show", id).code == 4
    assert ruled(*ALICE, "revoke", "g9").code == 4


def test_what_the_command_line_refuses(ruled: Cli) -> None:
    id = ruled.id(*ALICE, "The flight is at nine.")
    assert ruled(*ALICE, "share", id).code == 2
    assert ruled(*ALICE, "share", "--with", "bob").code == 2
    assert ruled(*ALICE, "share", id, "--all", "--with", "bob").code == 2
    assert ruled(*ALICE, "share", id, "--with", "alice").code == 2
    assert ruled(*ALICE, "share", id, "--with", "bob", "--reads", "0").code == 2
    assert ruled(*ALICE, "share", id, "--with", "bob", "--until", "2020-01-01T00:00:00Z").code == 2
    assert ruled(*BOB, "share", id, "--with", "eve").code == 4
    assert ruled("--as", "root", "share", id, "--with", "bob").code == 3  # reads it, and may not share it
    assert ruled(*ALICE, "grants", "--json").json == {"grants": [], "total": 0}


def test_a_filter_and_a_label(ruled: Cli) -> None:
    ruled.id(*ALICE, "The flight is at nine.", "--tag", "trip")
    pin = ruled.id(*ALICE, "The pin is 4417.", "--tag", "trip", "--sensitivity", "secret")
    assert ruled(*ALICE, "share", "--where", "tags=trip", "--where", "sensitivity=private", "--with", "bob").code == 0
    assert [one["text"] for one in ruled(*BOB, "list", "--json").json["cubes"]] == ["The flight is at nine."]
    shown = ruled(*ALICE, "list", "--where", "sensitivity=secret", "--json").json["cubes"]
    assert [(one["id"], one["sensitivity"]) for one in shown] == [(pin, "secret")]
    assert ruled(*ALICE, "list", "--where", "sensitivity=huge").code == 2
    assert ruled(*ALICE, "revise", pin, "The pin was 4417.", "--sensitivity", "private").code == 0
    assert len(ruled(*BOB, "list", "--json").json["cubes"]) == 2


def test_an_archive_says_where_it_comes_from_and_whose_it_is(ruled: Cli, tmp_path: Path) -> None:
    ruled.id(*ALICE, "The flight is at nine.")
    file = tmp_path / "copy.jsonl"
    done = ruled(*ALICE, "export", str(file), "--for", "Dr. Grey", "--decoy", "--json")
    assert (done.code, done.json["recipient"], done.json["exported"]) == (0, "Dr. Grey", 1)
    assert ruled(*ALICE, "export", str(tmp_path / "x"), "--decoy").code == 2
    found = ruled("verify", str(file), "--json")
    assert (found.code, found.json["provenance"]["by"], found.json["passed"]) == (0, "alice", True)
    assert "Dr. Grey" in ruled("verify", str(file)).out
    leaked = ruled(*ROOT, "verify", "--leaked", str(file), "--json").json
    assert [(one["recipient"], one["found"]) for one in leaked["leaks"]] == [("Dr. Grey", ["mark", "decoy"])]
    assert ruled(*ALICE, "verify", "--leaked", str(file)).code == 3
    assert ruled("verify").code == 2
    changed = tmp_path / "changed.jsonl"
    *body, last = file.read_bytes().splitlines(keepends=True)
    changed.write_bytes(b"".join(body) + last.replace(b'"by":"alice"', b'"by":"carol"'))
    assert ruled("verify", str(changed)).code == 1
    assert ruled(*ALICE, "--store", str(tmp_path / "other"), "import", str(changed)).code == 2
    public = (tmp_path / "signing.pub").read_text().strip()
    other = ("--user", "alice", "--store", str(tmp_path / "other"))
    assert ruled(*other, "import", str(file), "--public-key", "0" * 64).code == 2
    taken = ruled(*other, "import", str(file), "--public-key", public, "--json").json
    assert (taken["imported"], taken["signed"]) == (2, public)
    assert dump(taken["provenance"]) == dump(found.json["provenance"])


def test_forget_counts_what_it_would_reach(cli: Cli) -> None:
    """Before --yes: on branches and what is hidden, too."""
    cli.id("One.")
    cli("branch", "draft")
    cli.id("Two.", "--branch", "draft")
    assert "This meets 2 memories" in cli("forget", "--all").err
    assert cli("list", "--json").json["total"] == 1
    assert cli("forget", "--all", "--yes", "--json").json["forgotten"] == 2
