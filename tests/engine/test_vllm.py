"""Adapters on a vLLM server. The server is a STUB that speaks its published protocol; vLLM itself is not run here.

What the stub holds to is the documented part: the bodies of both routes, that `lora_path` is a folder in PEFT's form,
that loading a name twice is a 400 and unloading an unknown one a 404, and that a request names an adapter as its model.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.tiny_vault import short_gate

from tercet import Tercet
from tercet.engine.transformers import TransformersEngine
from tercet.engine.vllm import VLLM
from tercet.errors import EngineFailed, InvalidRequest, MissingMemory, Unsupported
from tercet.parametric.adapter import load
from tercet.parametric.gate import Bounds
from tercet.parametric.promote import Teaching
from tercet.parametric.train import Recipe
from tercet.testing.tiny import tiny_engine

__all__ = ["short_gate"]
PASSED = Teaching(
    Recipe(rank=2, epochs=1, pack=2, replay=0, lr=3e-3), Bounds(margin=-1, general=99, locality=0, questions=4)
)


class Stub(BaseHTTPRequestHandler):
    """A server of the model "base" and of what it was told to load: it answers with the name that was asked for."""

    loaded: ClassVar[dict[str, list[str]]] = {}
    updating = True

    def do_POST(self) -> None:  # http.server's name
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/chat/completions":
            known = body["model"] in {"base", *self.loaded}
            piece = {"choices": [{"delta": {"content": f"as {body['model'][:8]}"}}]}
            return self._say(*(200, f"data: {json.dumps(piece)}\n\ndata: [DONE]\n\n") if known else (404, "no such"))
        if not self.updating or self.path not in {"/v1/load_lora_adapter", "/v1/unload_lora_adapter"}:
            return self._say(404, '{"detail":"Not Found"}')
        name = body["lora_name"]
        if self.path.endswith("unload_lora_adapter"):
            if self.loaded.pop(name, None) is None:
                return self._error(404, "NotFoundError", f"The lora adapter '{name}' cannot be found.")
            return self._say(200, f"Success: LoRA adapter '{name}' removed successfully.")
        folder = Path(body["lora_path"])
        if name in self.loaded or json.loads((folder / "adapter_config.json").read_text())["peft_type"] != "LORA":
            return self._error(400, "InvalidUserInput", f"The lora adapter '{name}' has already been loaded.")
        self.loaded[name] = sorted(one.name for one in folder.iterdir())
        return self._say(200, f"Success: LoRA adapter '{name}' added successfully.")

    def _error(self, code: int, kind: str, message: str) -> None:
        self._say(code, json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}}))

    def _say(self, code: int, text: str) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Stub, "loaded", {})
    server = HTTPServer(("127.0.0.1", 0), Stub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    engine = tiny_engine()
    engine.model.save_pretrained(folder)
    engine.tokenizer.save_pretrained(folder)
    return folder


def test_what_is_described_without_weights_is_the_model(model: Path) -> None:
    whole, told = TransformersEngine.load(model), TransformersEngine.described(model)
    assert told.base == whole.base
    assert told.adapters.shapes == whole.adapters.shapes
    assert {one.device.type for one in told.model.parameters()} == {"meta"}
    assert TransformersEngine.described(model, dtype="bfloat16").base != whole.base


@pytest.mark.usefixtures("short_gate")
def test_a_turn_asks_with_the_adapter_and_forgetting_unloads_it(tmp_path: Path, url: str, model: Path) -> None:
    there = tmp_path / "adapters"
    far = {"kind": "vllm", "model": "base", "url": url, "base": str(model), "dtype": "float32", "folder": str(there)}
    with Tercet.open(tmp_path / "vault", embedder=None, engines={"near": str(model), "far": far}) as t:
        alice = t.scope(user="alice")
        texts = alice.remember_many(["Mara works as a smith.", "Jon lives in Oslo."])
        one, two = (alice.promote(text, to="parameters", engine="near", teaching=PASSED) for text in texts)
        said = alice.chat("What does she do?", engine="far", adapters=[one.id], limit=0)
        [key] = Stub.loaded
        assert (said.text, said.adapters) == (f"as {key[:8]}", (one.id,))
        assert Stub.loaded[key] == ["adapter_config.json", "adapter_model.safetensors"]
        near = t.engines.get("near")
        assert isinstance(near, TransformersEngine)
        assert near.adapters.attach(load(there / key, near.adapters.shapes).modules) == key
        assert alice.chat("And now?", engine="far", limit=0).text == "as base"
        with pytest.raises(InvalidRequest, match="one adapter a request"):
            alice.chat("?", engine="far", adapters=[one.id, two.id], limit=0)
        alice.forget(texts[0].id)
        assert key not in Stub.loaded
        assert not (there / key).exists()
        with pytest.raises(MissingMemory):
            alice.chat("?", engine="far", adapters=[one.id], limit=0)
        with pytest.raises(Unsupported, match="Training an adapter"):
            alice.promote(texts[1], to="parameters", engine="far", teaching=PASSED)
    assert Stub.loaded == {}  # closed: nothing of ours stays on the server


def test_a_server_that_does_not_take_adapters_is_told_what_it_needs(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = tiny_engine()
    engine = VLLM("base", base=tiny.base, shapes=tiny.adapters.shapes, folder=tmp_path, url=url)
    modules = {name: _Pair(shape) for name, shape in tiny.adapters.shapes.items()}
    monkeypatch.setattr(Stub, "updating", False)
    with pytest.raises(EngineFailed, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
        engine.adapters.attach(modules)
    assert list(tmp_path.iterdir()) == []  # what the server did not take does not lie about
    monkeypatch.setattr(Stub, "updating", True)
    key = engine.adapters.attach(modules)
    assert engine.adapters.attach(modules) == key  # twice is once
    Stub.loaded.clear()  # as after a restart of the server
    with engine.adapters.using([key]), pytest.raises(EngineFailed, match="404"):
        list(engine.generate([{"role": "user", "content": "?"}]))
    engine.close()
    with pytest.raises(InvalidRequest, match="before they are used"), engine.adapters.using([key]):
        pass
    with pytest.raises(InvalidRequest, match="says in `base`"):
        VLLM.load("base", url=url)


class _Pair:
    scale = 1.0

    def __init__(self, shape: tuple[int, int]) -> None:
        import torch

        self.a: Any = torch.zeros(2, shape[1])
        self.b: Any = torch.zeros(shape[0], 2)
