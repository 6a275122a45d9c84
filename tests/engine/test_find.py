"""Engines by name: given, or from a vault's tercet.toml; and an endpoint that speaks OpenAI's way."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tercet import Tercet
from tercet.engine.openai import OpenAICompatible
from tercet.errors import EngineFailed, InvalidRequest, Unsupported


class Endpoint(BaseHTTPRequestHandler):
    """Answers in three pieces, or as `status` says; keeps what it was asked."""

    asked: ClassVar[list[Any]] = []
    status = 200

    def do_POST(self) -> None:  # http.server's name
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.path, self.headers.get("Authorization"), body))
        self.send_response(self.status)
        self.end_headers()
        if self.status != 200:
            self.wfile.write(b"no such model")
            return
        for piece in ("Her dog ", "is ", "Rufus."):
            self.wfile.write(f"data: {json.dumps({'choices': [{'delta': {'content': piece}}]})}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def url() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    Endpoint.asked.clear()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def test_chats_over_an_endpoint_with_memories_as_text(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", "s3")
    (tmp_path / "tercet.toml").write_text(
        f'[engines.far]\nkind = "openai"\nmodel = "m-1"\nurl = "{url}"\nkey_env = "THE_KEY"\n'
    )
    with Tercet.open(tmp_path, embedder=None) as t:
        alice, pieces = t.scope(user="alice"), list[str]()
        text = alice.remember("My dog is called Rufus.")
        reply = alice.chat("What is my dog called?", on_piece=pieces.append)
        assert (reply.text, pieces) == ("Her dog is Rufus.", ["Her dog ", "is ", "Rufus."])
        assert (reply.memories, reply.kv) == ((text.id,), ())
        [(path, key, body)] = Endpoint.asked
        assert (path, key, body["model"], body["temperature"]) == ("/v1/chat/completions", "Bearer s3", "m-1", 0)
        assert "Rufus" in body["messages"][0]["content"]
        with pytest.raises(Unsupported, match="can 'cache'"):
            alice.promote(text)


def test_an_endpoint_that_fails_says_so(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = OpenAICompatible("m", url=url)
    with monkeypatch.context() as patch:
        patch.setattr(Endpoint, "status", 404)
        with pytest.raises(EngineFailed, match="404: no such model"):
            list(engine.generate([{"role": "user", "content": "x"}]))
    with pytest.raises(EngineFailed, match="could not be reached"):
        list(OpenAICompatible("m", url="http://127.0.0.1:9/v1").generate([{"role": "user", "content": "x"}]))
    with pytest.raises(InvalidRequest, match="has no NO_SUCH_KEY"):
        list(OpenAICompatible("m", url=url, key_env="NO_SUCH_KEY").generate([]))
    with pytest.raises(InvalidRequest, match="http"):
        OpenAICompatible("m", url="file:///etc/passwd")


@pytest.mark.parametrize(
    ("wanted", "match"),
    [
        ({"kind": "magic"}, "kind is one of"),
        ({"model": "smollm2-135m", "speed": 9}, "does not take these options"),
        ("no-such-model", "no packaged model"),
        ({"model": "smollm2-135m", "dtype": "int3"}, "dtype is one of"),
    ],
)
def test_an_engine_that_cannot_be_had_says_why(tmp_path: Path, wanted: Any, match: str) -> None:  # noqa: ANN401
    with Tercet.open(tmp_path, embedder=None, engines={"x": wanted}) as t:
        alice = t.scope(user="alice")
        text = alice.remember("Pears.")
        with pytest.raises(InvalidRequest, match=match):
            alice.promote(text)
        assert alice.recall("pears")[0].cube.id == text.id


def test_a_torn_configuration_is_said(tmp_path: Path) -> None:
    for text in ("[engines.small\n", "engines = 3\n", "[engines]\nsmall = 3\n"):
        (tmp_path / "tercet.toml").write_text(text)
        with pytest.raises(InvalidRequest, match=r"tercet\.toml"):
            Tercet.open(tmp_path, embedder=None)


def test_messages_that_are_none_are_refused(tmp_path: Path, url: str) -> None:
    with Tercet.open(tmp_path, embedder=None, engines={"x": OpenAICompatible("m", url=url)}) as t:
        alice = t.scope(user="alice")
        for wrong in (
            "",
            [],
            [{"role": "user"}],
            [{"role": "robot", "content": "x"}],
            [{"role": "assistant", "content": "x"}],
        ):
            with pytest.raises(InvalidRequest, match="message"):
                alice.chat(wrong)
