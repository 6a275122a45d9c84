"""snapshot, branch, diff, restore, and looks into the past from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cli.command_line import Cli


def listed(cli: Cli, *words: str) -> list[str]:
    return [cube["text"] for cube in cli("list", "--json", *words).json["cubes"]]


def test_a_snapshot_a_change_a_diff_a_restore_and_its_undo(cli: Cli) -> None:
    one = cli.id("The boiler code is 4417.")
    taken = cli("snapshot", "before", "--json").json["snapshot"]
    assert (taken["name"], taken["branch"]) == ("before", "main")
    cli("revise", one, "The heating is off.")
    two = cli.id("Made up.")
    said = cli("diff", "before", "--json").json
    assert ([d["id"] for d in said["added"]], [d["id"] for d in said["revised"]]) == ([two], [one])
    assert f"+ {two}" in cli("diff", "before").out
    done = cli("restore", "before", "--json").json
    assert (done["revised"], done["hidden"]) == ([one], [two])
    assert listed(cli) == ["The boiler code is 4417."]
    assert cli("show", two).code == 4
    assert "tercet restore" in cli("restore", done["undo"]).out
    assert listed(cli) == ["The heating is off.", "Made up."]
    names = [one["name"] for one in cli("snapshot", "--list", "--json").json["snapshots"]]
    assert names[:2] == ["before", "before before"]
    assert cli("snapshot", "--drop", "before").code == 0
    assert cli("restore", "before").code == 4


def test_a_branch_is_worked_on_with_every_command(cli: Cli) -> None:
    one = cli.id("The boiler code is 4417.")
    assert cli("branch", "b", "--json").json["branch"]["parent"] == "main"
    assert cli("revise", one, "Changed on b.", "--branch", "b").code == 0
    cli.id("Only on b.", "--branch", "b")
    assert listed(cli, "--branch", "b") == ["Changed on b.", "Only on b."]
    assert listed(cli) == ["The boiler code is 4417."]
    assert "Only on b." in cli("--branch", "b", "recall", "only").out
    assert "Only on b." not in cli("recall", "only").out
    assert "Changed on b." in cli("context", "changed", "--branch", "b").out
    assert [v["version"] for v in cli("history", one, "--branch", "b", "--json").json["cubes"]] == [1, 2]
    assert cli("branch", "c", "--from", "b").code == 0
    assert cli("branch", "--drop", "b").code == 2
    assert "b  " in cli("branch").out
    assert cli("branch", "--drop", "c").code == cli("branch", "--drop", "b").code == 0
    assert cli("list", "--branch", "b").code == 4


def test_a_look_into_the_past(cli: Cli) -> None:
    one = cli.id("I live in Oslo.", "--slot", "me", "city", "--valid-from", "2020-01-01T00:00Z")
    cli.id("I live in Bergen.", "--slot", "me", "city", "--valid-from", "2023-01-01T00:00Z")
    assert listed(cli, "--as-of", "2") == ["I live in Oslo."]
    assert listed(cli, "--as-of", "2001-01-01T00:00Z") == []
    assert len(listed(cli, "--as-of", "2100-01-01T00:00Z")) == 2
    assert cli("show", one, "--as-of", "2", "--json").json["cube"]["version"] == 1
    hits = cli("recall", "Where do I live?", "--json").json
    assert 0 <= hits["evidence"] <= 1
    [hit] = hits["hits"]
    assert (hit["text"], [c["rule"] for c in hit["contradictions"]]) == ("I live in Bergen.", ["later valid_from"])
    [then] = cli("recall", "Where do I live?", "--valid", "2021-01-01T00:00Z", "--json").json["hits"]
    assert then["text"] == "I live in Oslo."
    assert "from 2023-01-01: I live in Bergen." in cli("recall", "live", "--valid", "2021-01-01T00:00Z").out
    assert "Oslo" in cli("context", "live", "--valid", "2021-01-01T00:00Z").out
    for wrong in ("yesterday", "2024-01-01T00:00:00", "-1"):
        assert cli("list", f"--as-of={wrong}").code == 2


def test_what_is_asked_for_wrongly(cli: Cli) -> None:
    cli.id("One.")
    assert cli("snapshot", "a", "--list").code == 2
    assert cli("branch", "a", "--drop", "b").code == 2
    assert cli("snapshot", "now").code == 2
    assert cli("diff", "a", "b").code == cli("restore", "a").code == cli("snapshot", "--drop", "a").code == 4
    assert cli("branch", "b", "--from", "a").code == 4
    assert cli("snapshot", "a").code == 0
    assert cli("branch", "--drop", "a").code == 2
    assert cli("remember", "--file", "x.txt", "--slot", "a", "b").code == 2
    assert cli("snapshot").out.startswith("a")
