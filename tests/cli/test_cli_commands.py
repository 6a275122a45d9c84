"""Each command does what it says, and `--json` prints one document of a known shape."""

from __future__ import annotations

import json
from pathlib import Path

import apsw
import pytest
from tests.cli.command_line import Cli

from tercet import Tercet
from tercet.cli import COMMANDS
from tercet.testing import FakeEmbedder

OSLO, SOUP = "I moved to Oslo in May.", "Lunch was soup."


def test_recall_puts_the_answer_first(cli: Cli) -> None:
    cli("remember", SOUP)
    cli("remember", "The boiler code is 4417.")
    done = cli("recall", "what is the boiler code?", "--json")
    assert done.code == 0
    found = done.json
    assert set(found) == {"hits", "total", "truncated", "evidence"}
    first = found["hits"][0]
    assert set(first) == {"id", "text", "score", "why", "cube", "contradictions"}
    assert first["text"] == first["cube"]["text"] == "The boiler code is 4417."
    assert 0 <= first["score"] <= 1
    assert first["why"]["by"].startswith("words")


def test_remember_keeps_every_label(cli: Cli) -> None:
    text = "We signed last Friday."
    options = [
        "--at",
        "2024-05-01T09:00+02:00",
        "--tag",
        "home",
        "--tag",
        "big",
        "--ref",
        "m-1",
        "--type",
        "event",
        "--speaker",
        "Ana",
        "--role",
        "user",
    ]
    id = cli.id(
        text, *options, "--meta", "n=5", "--meta", 'code="5"', "--meta", "who=Bo", "--user", "u", "--agent", "a"
    )
    cube = cli("show", id, "--json").json["cube"]
    wanted = {
        "id": id,
        "text": text,
        "type": "event",
        "observed": "2024-05-01T09:00:00+02:00",
        "happened": {"start": "2024-04-26T00:00:00+02:00", "end": "2024-04-27T00:00:00+02:00", "span": [10, 21]},
        "tags": ["home", "big"],
        "metadata": {"n": 5, "code": "5", "who": "Bo"},
        "ref": "m-1",
        "speaker": "Ana",
        "role": "user",
        "tenant": "default",
        "user": "u",
        "agent": "a",
        "session": None,
        "version": 1,
        "kind": "text",
    }
    assert {key: cube[key] for key in wanted} == wanted


def test_standard_input_is_kept_without_its_last_line_end(cli: Cli) -> None:
    cli("remember", "-", stdin="Zwei\nZeilen ✓\n".encode())
    [cube] = cli("list", "--json").json["cubes"]
    assert cube["text"] == "Zwei\nZeilen ✓"


def test_a_text_that_looks_like_an_option_goes_after_two_dashes(cli: Cli) -> None:
    assert cli("remember", "--", "--json").code == 0
    assert [cube["text"] for cube in cli("list", "--json").json["cubes"]] == ["--json"]


def test_remember_reads_a_file(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "notes.md"
    file.write_text("# Notes\n\nThe boiler code is 4417.\n\n## Garden\n\nThe hose leaks.\n", encoding="utf-8")
    found = cli("remember", "--file", str(file), "--json").json
    assert found["total"] == len(found["cubes"]) > 1
    assert any("4417" in cube["text"] for cube in found["cubes"])
    refused = cli("remember", "--file", str(file), "--tag", "x")
    assert refused.code == 2
    assert "--tag" in refused.err


def test_list_goes_page_by_page(cli: Cli) -> None:
    for n in range(5):
        cli("remember", f"Number {n}.")
    first = cli("list", "--limit", "3", "--json").json
    assert (len(first["cubes"]), first["total"], first["truncated"]) == (3, 5, True)
    rest = cli("list", "--cursor", first["cursor"], "--json").json
    assert [cube["text"] for cube in rest["cubes"]] == ["Number 3.", "Number 4."]
    assert (rest["truncated"], rest["cursor"]) == (False, None)


@pytest.mark.parametrize(
    ("conditions", "texts"),
    [
        (["tags=2024"], [OSLO]),
        (["stars=4"], [OSLO]),
        (['{"stars": {"$lt": 4}}'], [SOUP]),
        (["speaker=Ana", "tags=home"], [OSLO]),
        (["type=event"], [SOUP]),
        (["tags=nothing"], []),
        (["{}"], [OSLO, SOUP]),
    ],
)
def test_conditions(cli: Cli, conditions: list[str], texts: list[str]) -> None:
    cli("remember", OSLO, "--tag", "home", "--tag", "2024", "--meta", "stars=4", "--speaker", "Ana")
    cli("remember", SOUP, "--type", "event", "--meta", "stars=3")
    options = [word for one in conditions for word in ("--where", one)]
    assert [cube["text"] for cube in cli("list", *options, "--json").json["cubes"]] == texts
    assert {hit["text"] for hit in cli("recall", "soup in Oslo", *options, "--json").json["hits"]} == set(texts)


def test_recall_between_two_times(cli: Cli) -> None:
    for year in (2021, 2022, 2023):
        cli("remember", f"Harvest {year} was good.", "--at", f"{year}-10-01T00:00Z")
    found = cli("recall", "harvest", "--since", "2022-01-01T00:00Z", "--until", "2023-01-01T00:00Z", "--json").json
    assert [hit["text"] for hit in found["hits"]] == ["Harvest 2022 was good."]


def test_why_shows_each_signal(cli: Cli) -> None:
    cli("remember", OSLO)
    plain, told = cli("recall", "Oslo"), cli("recall", "Oslo", "--why")
    assert OSLO in plain.out
    assert "words +" not in plain.out
    assert "words +" in told.out


def test_context_stays_within_its_budget(cli: Cli) -> None:
    for n in range(20):
        cli("remember", f"The code of door {n} is {n * 7}.")
    found = cli("context", "door codes", "--budget", "60", "--json").json
    assert found["budget"] == 60
    assert 0 < found["tokens"] <= 60
    assert "code of door" in found["context"]


def test_versions(cli: Cli) -> None:
    id = cli.id(OSLO)
    assert cli("revise", id, "I moved to Bergen in June.", "--expect", "1", "--json").json["cube"]["version"] == 2
    stale = cli("revise", id, "Elsewhere.", "--expect", "1", "--json")
    assert (stale.code, stale.json["error"]) == (1, "StaleWrite")
    back = cli("rollback", id, "--version", "1", "--json").json["cube"]
    assert (back["version"], back["text"]) == (3, OSLO)
    history = cli("history", id, "--json").json
    assert [cube["text"] for cube in history["cubes"]] == [OSLO, "I moved to Bergen in June.", OSLO]
    assert history["total"] == 3
    assert cli("history", id).out.count(OSLO) == 2


def test_forget_by_id(cli: Cli) -> None:
    one, two, three = cli.id("First thing."), cli.id("Second thing."), cli.id("Third thing.")
    done = cli("forget", one, "--json", two).json
    assert done["forgotten"] == 2
    assert set(done["receipt"]["erased"]) == {one, two}
    assert done["receipt"]["scrubbed_at"] is not None
    assert cli("show", one).code == 4
    assert [cube["id"] for cube in cli("list", "--json").json["cubes"]] == [three]


def test_forget_by_a_filter_counts_first(cli: Cli) -> None:
    for n in range(3):
        cli("remember", f"Draft {n}.", "--tag", "draft")
    cli("remember", OSLO)
    counted = cli("forget", "--where", "tags=draft")
    assert counted.code == 2
    assert "3 memories" in counted.err
    assert cli("list", "--json").json["total"] == 4
    assert cli("forget", "--where", "tags=draft", "--yes", "--json").json["forgotten"] == 3
    assert [cube["text"] for cube in cli("list", "--json").json["cubes"]] == [OSLO]


def test_archive_there_and_back(cli: Cli, tmp_path: Path) -> None:
    id = cli.id(OSLO, "--tag", "home")
    cli("revise", id, "I moved to Bergen.")
    file = tmp_path / "all.jsonl.gz"
    assert cli("export", str(file), "--json").json == {"file": str(file), "exported": 1}
    assert file.stat().st_mode & 0o077 == 0
    again = cli("export", str(file))
    assert (again.code, "--force" in again.err) == (2, True)
    assert cli("export", str(file), "--force").code == 0
    other = Cli(tmp_path / "other", cli.capsys, cli.patch)
    wanted = {"imported": 1, "updated": 0, "unchanged": 0, "skipped": [], "total": 1}
    for counts in (wanted, wanted | {"imported": 0, "unchanged": 1}):
        told = other("import", str(file), "--json").json
        assert told.pop("provenance")["by"] == "local"
        assert len(told.pop("signed")) == 64
        assert told == counts
    texts = [cube["text"] for cube in other("history", id, "--json").json["cubes"]]
    assert texts == [OSLO, "I moved to Bergen."]
    other("forget", id)
    [skipped] = other("import", str(file), "--json").json["skipped"]
    assert skipped["id"] == id
    assert "erased" in skipped["reason"]


def test_archive_by_pipe(cli: Cli, tmp_path: Path) -> None:
    cli.id(OSLO)
    archive = cli("export", "-").out.encode()
    assert cli("export", "-", "--json").code == 2
    other = Cli(tmp_path / "other", cli.capsys, cli.patch)
    assert other("import", "-", "--json", stdin=archive).json["imported"] == 1


def test_import_of_a_chat_export(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    file.write_text(json.dumps([{"role": "user", "content": OSLO, "ref": "a"}, {"role": "user", "content": SOUP}]))
    wanted = {"imported": 2, "updated": 0, "unchanged": 0, "skipped": [], "total": 2}
    assert cli("import", str(file), "--json").json == wanted
    assert cli("import", str(file), "--json").json["unchanged"] >= 1


def test_doctor_finds_and_repairs(cli: Cli) -> None:
    cli("remember", OSLO)
    assert cli("doctor", "--json").json["ok"] is True
    [file] = (cli.store / "tenants").glob("*.db")
    connection = apsw.Connection(str(file))
    connection.execute("DELETE FROM postings")
    connection.close()
    found = cli("doctor", "--json")
    assert found.code == 1
    assert [(one["tenant"], one["what"]) for one in found.json["findings"]] == [("default", "words")]
    repaired = cli("doctor", "--repair", "--json")
    assert (repaired.code, repaired.json["ok"]) == (0, True)
    assert cli("doctor").code == 0
    assert cli("recall", "Oslo", "--json").json["hits"][0]["text"] == OSLO


def test_backup_opens_as_a_vault(cli: Cli, tmp_path: Path) -> None:
    cli("remember", OSLO)
    copy = tmp_path / "copy"
    done = cli("backup", str(copy), "--json").json
    assert [Path(file).is_file() for file in done["files"]] == [True]
    assert cli("list", "--store", str(copy), "--json").json["cubes"][0]["text"] == OSLO
    assert cli("backup", str(copy)).code == 1


def test_a_restore_brings_back_what_was_lost_and_not_what_was_forgotten(cli: Cli, tmp_path: Path) -> None:
    cli("remember", OSLO)
    soup = cli("remember", SOUP, "--json").json["cube"]["id"]
    copy = str(tmp_path / "copy")
    cli("backup", copy)
    cli("forget", soup)
    cli("remember", "Written after the backup.")
    done = cli("backup", copy, "--restore", "--json")
    assert done.code == 0
    assert done.json["erased"] == [soup]
    assert [cube["text"] for cube in cli("list", "--json").json["cubes"]] == [OSLO]
    assert cli("show", soup).code == 4
    assert cli("backup", str(tmp_path / "nowhere"), "--restore").code == 1


def test_stats(cli: Cli) -> None:
    cli("remember", OSLO)
    cli("remember", SOUP, "--tenant", "other")
    found = cli("stats", "--json").json
    assert found["recall_by"].startswith("words")
    assert {name: one["cubes"] for name, one in found["tenants"].items()} == {"default": 1, "other": 1}
    assert list(cli("stats", "--tenant", "other", "--json").json["tenants"]) == ["other"]


def test_worker_makes_the_vectors_that_are_missing(cli: Cli) -> None:
    cli("remember", OSLO)
    waiting = cli("stats", "--json").json["tenants"]["default"]["jobs"]
    assert waiting == {"embed": 1}
    assert cli("worker", "--once", "--json", by_words=False).json["done"] >= 1
    found = cli("stats", "--json", by_words=False).json
    assert found["recall_by"] == "words and vectors"
    assert list(found["tenants"]["default"]["vectors"].values()) == [1]
    assert found["tenants"]["default"]["without_vector"] == 0


def test_reembed_moves_to_the_embedder_that_is_here(cli: Cli) -> None:
    with Tercet.open(cli.store, embedder=FakeEmbedder()) as tercet:
        tercet.scope().remember_many([OSLO, SOUP])
    assert cli("worker", "--once", "--json", by_words=False).code == 0  # which does not throw away another's vectors
    assert list(cli("doctor", "--json").json["spaces"]["default"]) == ["fake/32"]
    assert cli("reembed", "--json").code == 1  # by words: there is no embedder
    assert len(cli("reembed", "--keep", "--json", by_words=False).json["spaces"]["default"]) == 2
    moved = cli("reembed", "--json", by_words=False).json
    assert moved["made"] == 0
    [(space, found)] = moved["spaces"]["default"].items()
    assert space.startswith("all-MiniLM-L6-v2/")
    assert (found["vectors"], found["left"]) == (2, None)
    assert "2 vectors in all-MiniLM-L6-v2/" in cli("doctor").out


def test_the_caller_is_recorded(cli: Cli) -> None:
    cli("remember", OSLO, "--as", "night-script")
    with Tercet.open(cli.store, embedder=None) as tercet:
        assert {change.by for change in tercet.scope().changes()} == {"night-script"}


def test_tenants_and_users_do_not_see_each_other(cli: Cli) -> None:
    id = cli.id(OSLO, "--tenant", "a", "--user", "ann")
    assert cli("show", id, "--tenant", "a", "--user", "ann").code == 0
    for scope in (["--tenant", "b"], [], ["--tenant", "a", "--user", "bob"]):
        assert cli("show", id, *scope).code == 4
        assert cli("forget", id, *scope).code == 4
        assert cli("recall", "Oslo", *scope, "--json").json["hits"] == []


@pytest.mark.slow
def test_eval_prints_one_object_of_numbers(cli: Cli) -> None:
    file = str(Path(__file__).parents[2] / "src/tercet/demo/conversation.json")
    found = cli("eval", "locomo", file, "--json", by_words=False).json
    assert found["questions"] == 34
    assert 0.8 <= found["recall@10"] <= 1
    assert {"recall@5", "recall@20", "recall_all@10", "hit@10", "mrr", "by_category", "fitted_on"} <= set(found)


SHAPES = {
    "remember": (["A new thing."], {"cube"}),
    "recall": (["Oslo"], {"hits", "total", "truncated", "evidence"}),
    "context": (["Oslo"], {"context", "tokens", "budget", "tokenizer", "answer"}),
    "list": ([], {"cubes", "total", "truncated", "cursor"}),
    "show": (["ID"], {"cube"}),
    "revise": (["ID", "Bergen."], {"cube"}),
    "freeze": (["ID"], {"cubes"}),
    "hold": (["ID", "--reason", "case 7"], {"cubes"}),
    "archive": (["ID"], {"cubes"}),
    "audit": (["log"], {"lines", "truncated"}),
    "history": (["ID"], {"cubes", "total", "truncated"}),
    "rollback": (["ID", "--version", "1"], {"cube"}),
    "quarantine": (["list"], {"cubes", "total", "truncated", "cursor"}),
    "trace": (["ID"], {"answers", "total", "truncated"}),
    "forget": (["ID"], {"receipt", "forgotten"}),
    "export": (["FILE.jsonl"], {"file", "exported"}),
    "import": (["FILE.txt"], {"imported", "updated", "unchanged", "skipped", "total"}),
    "worker": (["--once"], {"done"}),
    "doctor": ([], {"ok", "tenants", "findings", "recall_by", "schema", "spaces"}),
    "backup": (["FILE.backup"], {"folder", "files"}),
    "stats": ([], {"folder", "recall_by", "tenants", "kv_memory", "kv_paces", "kv_policy"}),
    "access": (["list"], {"rules", "total"}),
    "share": (["ID", "--with", "bob"], {"grant"}),
    "grants": ([], {"grants", "total"}),
    "seal": (["status"], {"master", "tenants", "destroyed"}),
    "keys": (["create", "ci", "--right", "read"], {"key", "text"}),
    "snapshot": (["s"], {"snapshot"}),
    "branch": (["b"], {"branch"}),
    "diff": (["now", "now"], {"a", "b", "added", "removed", "revised"}),
}


def test_every_command_has_its_shape_here() -> None:
    # These have tests of their own.
    elsewhere = {
        "eval", "demo", "reembed", "restore", "verify", "promote", "demote", "chat", "revoke",
        "externalise", "learn", "merge", "migrate-model",
    }  # fmt: skip
    assert set(SHAPES) | elsewhere == set(COMMANDS)


@pytest.mark.parametrize("name", SHAPES)
def test_one_document_on_stdout_and_nothing_else(cli: Cli, tmp_path: Path, name: str) -> None:
    id = cli.id(OSLO)
    (tmp_path / "FILE.txt").write_text(SOUP)
    words, keys = SHAPES[name]
    filled = [id if word == "ID" else str(tmp_path / word) if word.startswith("FILE") else word for word in words]
    done = cli("--json", name, *filled)
    assert (done.code, done.err) == (0, "")
    assert set(done.json) == keys
    assert done.out.count("\n") == 1


@pytest.mark.parametrize("name", SHAPES)
def test_a_person_gets_lines(cli: Cli, tmp_path: Path, name: str) -> None:
    id = cli.id(OSLO)
    (tmp_path / "FILE.txt").write_text(SOUP)
    filled = [id if w == "ID" else str(tmp_path / w) if w.startswith("FILE") else w for w in SHAPES[name][0]]
    done = cli(name, *filled)
    assert (done.code, done.err) == (0, "")
    assert done.out.strip()
    assert not done.out.startswith("{")
    assert "\x1b" not in done.out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command(cli: Cli, name: str) -> None:
    done = cli(name, "--help", by_words=False)
    assert done.code == 0
    assert done.out.startswith(f"usage: tercet {name}")
    assert COMMANDS[name][1] in " ".join(done.out.split())
    assert "--json" in done.out
