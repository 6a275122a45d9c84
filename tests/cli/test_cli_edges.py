"""Bad input, exit codes, terminals, pipes and signals."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.cli.command_line import SOURCE, Cli, spawn

from tercet import Caller, Refused, Scope, Tercet
from tercet.cli import COMMANDS
from tercet.cli.options import split
from tercet.cli.out import one_line, progress
from tercet.govern.access import AllowAll, Right

ESCAPES = "\x1b[31mred\x1b]0;title\x07 \x9b31m \u202egnp\u202c \u2066x\u2069 \x7f"


def state(store: Path) -> dict[str, object]:
    """What a vault holds, as its own statistics tell it; use counts and ranks have no place there."""
    with Tercet.open(store, embedder=None) as tercet:
        return dict(tercet.stats()["tenants"])


BAD: dict[str, tuple[list[str], bytes, str]] = {
    "empty text": (["remember", ""], b"", "empty"),
    "blank text": (["remember", " \t "], b"", "empty"),
    "no text": (["remember"], b"", "text in quotes"),
    "10 MB of text": (["remember", "-"], b"a" * 10_000_000, "1,000,000"),
    "invalid UTF-8 by pipe": (["remember", "-"], b"caf\xe9 au lait", "0xe9"),
    "invalid UTF-8 as argument": (["remember", "caf\udce9"], b"", "Unicode"),
    "NUL bytes": (["remember", "-"], b"a\0b", "NUL"),
    "time without zone": (["remember", "x", "--at", "2024-05-01T09:00"], b"", "time zone"),
    "no time at all": (["remember", "x", "--at", "yesterday"], b"", "yesterday"),
    "unknown option": (["remember", "x", "--tags", "a"], b"", "Did you mean '--tag'"),
    "unknown command": (["rember", "x"], b"", "Did you mean 'remember'"),
    "no command": ([], b"", "Which command"),
    "several words": (["remember", "I", "moved"], b"", "quotes"),
    "no key in metadata": (["remember", "x", "--meta", "home"], b"", "key=value"),
    "a key twice": (["remember", "x", "--meta", "a=1", "--meta", "a=2"], b"", "twice"),
    "a number too large": (["remember", "x", "--meta", "n=99999999999999999999"], b"", "64 bits"),
    "no finite number": (["remember", "x", "--meta", "n=1e999"], b"", "finite"),
    "unknown role": (["remember", "x", "--role", "boss"], b"", "boss"),
    "empty user": (["remember", "x", "--user", ""], b"", "user"),
    "control character in a user": (["remember", "x", "--user", "a\nb"], b"", "control"),
    "same ref, other text": (["remember", "Another text.", "--ref", "taken"], b"", "taken"),
    "a file and a text": (["remember", "x", "--file", "notes.md"], b"", "--file"),
    "no such file": (["remember", "--file", "nowhere.md"], b"", "nowhere.md"),
    "limit 0": (["recall", "x", "--limit", "0"], b"", "limit"),
    "limit -1": (["list", "--limit", "-1"], b"", "limit"),
    "limit no number": (["list", "--limit", "many"], b"", "many"),
    "empty question": (["recall", ""], b"", "question"),
    "unknown operator": (["recall", "x", "--where", '{"a": {"$near": 1}}'], b"", "$near"),
    "broken JSON": (["recall", "x", "--where", '{"a": '], b"", "JSON"),
    "a condition that is no pair": (["recall", "x", "--where", "home"], b"", "key=value"),
    "a condition twice": (["recall", "x", "--where", "tags=a", "--where", "tags=b"], b"", "twice"),
    "a bound too large": (["recall", "x", "--where", "n=99999999999999999999"], b"", "64 bits"),
    "since without zone": (["recall", "x", "--since", "2024-05-01"], b"", "time zone"),
    "unknown policy": (["recall", "x", "--policy", "magic"], b"", "magic"),
    "bad cursor": (["list", "--cursor", "zz"], b"", "cursor"),
    "no budget": (["context", "x", "--budget", "0"], b"", "budget"),
    "forget nothing": (["forget"], b"", "forget"),
    "no version": (["rollback", "ID", "--version", "9"], b"", "version 9"),
    "poll of no time": (["worker", "--poll", "0"], b"", "--poll"),
    "import of nothing": (["import", "nowhere.json"], b"", "nowhere.json"),
    "import of junk": (["import", "-"], b"junk", "archive"),
    "eval of nothing": (["eval", "locomo", "nowhere.json"], b"", "nowhere.json"),
    "eval of an unknown suite": (["eval", "magic", "nowhere.json"], b"", "magic"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_usage_exits_2_says_why_and_changes_nothing(cli: Cli, name: str) -> None:
    words, stdin, message = BAD[name]
    id = cli.id("A thing.", "--ref", "taken")
    before = state(cli.store)
    words = [id if word == "ID" else word for word in words]
    done = cli(*words, stdin=stdin)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("tercet: ")
    assert message in done.err
    assert "Traceback" not in done.err
    told = cli(*words, "--json", stdin=stdin)
    assert told.code == 2
    assert told.json == {"error": "InvalidRequest", "message": told.json["message"]}
    assert message in told.json["message"]
    assert state(cli.store) == before


@pytest.mark.parametrize(
    "text",
    [
        "😀 👩‍👩‍👧 and ﷽",
        "مرحبا بالعالم، انتقلت إلى أوسلو",
        "quotes \" and ' and ; DROP TABLE cubes; --",
        "a/b\\c %s {} $HOME",
        ESCAPES,
        "line one\nline two\r\nline three\ttab",
        "e\u0301 and é",
    ],
)
def test_any_text_comes_back_as_it_was(cli: Cli, text: str) -> None:
    id = cli.id(text)
    assert cli("show", id, "--json").json["cube"]["text"] == text


@pytest.mark.parametrize("question", ['a "OR" (b* AND NEAR', "* - ^ : ' \" ;", "NOT", "😀", "' OR 1=1 --", "a:b/c\\d"])
def test_operators_and_quotes_in_a_question_are_only_words(cli: Cli, question: str) -> None:
    cli("remember", "A thing.")
    assert cli("recall", question, "--json").code == 0


def test_a_slash_in_a_scope_is_just_a_slash(cli: Cli) -> None:
    id = cli.id("x", "--user", "a/b", "--session", "../../etc")
    assert cli("show", id, "--user", "a/b", "--session", "../../etc").code == 0
    assert cli("show", id, "--user", "a").code == 4


def test_same_ref_twice_is_kept_once(cli: Cli) -> None:
    assert cli.id("One.", "--ref", "r") == cli.id("One.", "--ref", "r")
    assert cli("list", "--json").json["total"] == 1


@pytest.mark.parametrize(
    "words", [["show"], ["history"], ["revise", "Text."], ["rollback", "--version", "1"], ["forget"]]
)
def test_what_is_not_there_exits_4(cli: Cli, words: list[str]) -> None:
    cli("remember", "A thing.")
    name, *rest = words
    for id in ("nope", "01a20086-aef9-7001-8d0a-f08f8ebbfaaa"):
        done = cli(name, id, *rest, "--json")
        assert (done.code, done.json["error"]) == (4, "MissingMemory")


def test_a_refusal_exits_3(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: AllowAll, caller: Caller, right: Right, scope: Scope) -> None:
        raise Refused(f"{caller.name} may not {right} in {scope.tenant}.")

    monkeypatch.setattr(AllowAll, "check", refuse)
    done = cli("remember", "x", "--as", "guest", "--json")
    assert (done.code, done.json) == (3, {"error": "Refused", "message": "guest may not write in default."})


def test_a_store_that_cannot_be_exits_1(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = cli("remember", "x", "--store", str(tmp_path / "file"), "--json")
    assert (done.code, done.json["error"]) == (1, "VaultError")


def test_reading_where_no_vault_is(cli: Cli, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    read = cli("recall", "x", "--store", nowhere, "--json")
    assert (read.code, read.json) == (0, {"hits": [], "total": 0, "truncated": False, "evidence": 0.0})
    assert "no vault" in read.err
    for words in (["doctor"], ["backup", str(tmp_path / "copy")], ["export", str(tmp_path / "all.jsonl")]):
        done = cli(*words, "--store", str(tmp_path / "never"))
        assert done.code == 1
        assert "no vault" in done.err
    assert not (tmp_path / "all.jsonl").exists()


def test_options_stand_anywhere(cli: Cli, tmp_path: Path) -> None:
    other = str(tmp_path / "other")
    for words in (
        ["--store", other, "--json", "remember", "One.", "--user", "u"],
        ["--user=u", "remember", "--json", "Two.", f"--store={other}"],
        ["remember", "Three.", "--user", "u", "--store", other, "--json"],
    ):
        assert cli(*words).json["cube"]["user"] == "u"
    assert cli("--json", "--user", "u", "list", "--store", other).json["total"] == 3
    assert not cli.store.exists()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--store", "list", "recall", "x"], ("recall", ["--store", "list", "x"])),
        (["--store=list", "--json", "recall"], ("recall", ["--store=list", "--json"])),
        (["recall", "list"], ("recall", ["list"])),
        (["--json"], (None, ["--json"])),
        ([], (None, [])),
    ],
)
def test_the_value_of_an_option_is_no_command(words: list[str], found: tuple[str | None, list[str]]) -> None:
    assert split(words) == found


@pytest.mark.parametrize(
    "words", [["list"], ["show", "ID"], ["recall", "red title"], ["history", "ID"], ["context", "red"]]
)
def test_a_memory_cannot_drive_the_terminal(cli: Cli, words: list[str]) -> None:
    id = cli.id(ESCAPES, "--speaker", "Eve", "--meta", f"note={ESCAPES}")
    words = [id if word == "ID" else word for word in words]
    shown, document = cli(*words), cli(*words, "--json")
    assert "red" in shown.out
    for printed in (shown.out, document.out):
        assert not set("\x1b\x07\x9b\x7f\u202e\u202c\u2066\u2069") & set(printed)
    assert json.loads(document.out)


def test_an_error_cannot_drive_the_terminal_either(cli: Cli) -> None:
    done = cli("show", "\x1b[31m\x9b\udcff", "--json")
    assert done.code == 4
    assert not {"\x1b", "\x9b"} & set(done.err + done.out)


def test_interruption_is_quiet(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Tercet, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Tercet, "work", interrupt)
    done = cli("worker")
    assert (done.code, done.out, done.err) == (130, "", "")


def test_a_worker_that_is_told_to_stop_ends_after_its_job(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    def work(*_: Tercet, **__: object) -> int:
        ran.append(1)
        if len(ran) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return 2

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Tercet, "work", work)
    done = cli("worker", "--poll", "0.001", "--json")
    assert (done.code, done.json) == (0, {"done": 6})
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_reader_that_leaves_is_no_error(cli: Cli) -> None:
    for n in range(3):
        cli("remember", f"Number {n}.")
    reading, writing = os.pipe()
    process = spawn("list", "--store", str(cli.store), stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    os.close(reading)
    _, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint) == (141, b"")


def on_a_terminal(*words: str, **env: str) -> str:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    process = spawn(*words, stdout=theirs, stderr=theirs, env={"TERM": "xterm", **env})
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # Linux answers so once the other side is closed
            piece = b""
        if not piece:
            break
        written += piece
    os.close(ours)
    assert process.wait(timeout=60) == 0
    return written.decode()


def test_colour_only_on_a_terminal_that_wants_it(cli: Cli) -> None:
    cli("remember", "A thing.")
    words = ("list", "--words", "--store", str(cli.store))
    assert "\x1b[1m" in on_a_terminal(*words)
    assert "\x1b[" not in on_a_terminal(*words, NO_COLOR="1")
    assert "\x1b[" not in on_a_terminal(*words, TERM="dumb")
    assert "\x1b[" not in cli("list").out


def test_a_terminal_that_knows_no_unicode_still_shows_something(cli: Cli) -> None:
    cli("remember", "Blåbær and 😀.")
    environment = {"PYTHONIOENCODING": "ascii"}
    process = spawn("list", "--store", str(cli.store), stdout=subprocess.PIPE, env=environment)
    shown, _ = process.communicate(timeout=60)
    assert (process.returncode, b"Bl\\xe5b\\xe6r" in shown) == (0, True)
    process = spawn("list", "--json", "--store", str(cli.store), stdout=subprocess.PIPE, env=environment)
    document, _ = process.communicate(timeout=60)
    assert json.loads(document)["cubes"][0]["text"] == "Blåbær and 😀."


HEAVY = {"numpy", "apsw", "onnxruntime", "tokenizers", "numkong", "Stemmer", "tqdm", "platformdirs"}


@pytest.mark.parametrize(
    "words", [["--help"], ["recall", "--help"], ["demo", "--help"], ["recall", "x", "--limti", "3"]]
)
def test_help_and_slips_load_nothing_heavy(words: list[str]) -> None:
    program = (
        f"import sys; from tercet.cli import main; main({words!r}); "
        "print('LOADED', *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    loaded = set(done.stdout.partition("LOADED")[2].split())
    assert "argparse" in loaded
    assert not HEAVY & loaded


def test_help_lists_every_command(cli: Cli) -> None:
    page = cli("--help", by_words=False).out
    for name, (_, says) in COMMANDS.items():
        assert f"  {name} " in page
        assert says in page


def test_version(cli: Cli) -> None:
    import tercet

    assert cli("--version", by_words=False).out == f"tercet {tercet.__version__}\n"
    assert cli("--version", "--json", by_words=False).json == {"version": tercet.__version__}


def test_the_command_as_installed_pipes_invalid_bytes(cli: Cli) -> None:
    process = spawn(
        "remember",
        "-",
        "--store",
        str(cli.store),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    printed, complaint = process.communicate(b"caf\xe9", timeout=60)
    assert (process.returncode, printed) == (2, b"")
    assert b"not UTF-8" in complaint


def test_a_bar_moves_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with progress("keeping", " memories") as bar:
        assert bar is None
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress("keeping", " memories") as bar:
        assert bar is not None
        bar(3, 7)
        time.sleep(0.35)  # a bar waits a moment before it shows, lest short work flicker
        bar(7, 7)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "keeping: 100%" in printed.err


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("one  two\nthree", None, "one two three"),
        ("one two three", 8, "one two…"),
        ("日本語のテキスト", 9, "日本語の…"),
        ("e\u0301" * 9, 9, "e\u0301" * 9),
        ("\x1b[1m", 4, "…"),
    ],
)
def test_a_line_is_cut_to_columns(text: str, width: int | None, shown: str) -> None:
    assert one_line(text, width) == shown
