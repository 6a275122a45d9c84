from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from tercet.errors import EmbeddingFailed, InvalidRequest
from tercet.text.embed.remote import FromCallable, OpenAIEmbedder

KEY = "sk-very-secret"


def lengths(texts: list[str]) -> list[list[float]]:
    return [[len(text), 1.0, 0.0] for text in texts]


def test_a_callable_is_normalised() -> None:
    embedder = FromCallable(lengths, space="lengths")
    (found,) = embedder.embed(["abc"])
    np.testing.assert_allclose(found.vectors, np.array([[3, 1, 0]]) / 10**0.5, rtol=1e-6)
    assert found.vectors.dtype == np.float32
    assert (embedder.space, embedder.dim) == ("lengths", 3)


def test_a_callable_without_a_name_is_named_after_itself() -> None:
    assert FromCallable(lengths).space.endswith(".lengths/3")


def test_no_texts_is_no_call() -> None:
    assert FromCallable(lambda _: 1 / 0, dim=3).embed([]) == []


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ([[1.0, 2.0]], "one vector each"),
        ([1.0, 2.0], "one vector each"),
        ([[1.0], [2.0, 3.0]], "not a table"),
        ([["a", "b"], ["c", "d"]], "not a table"),
        (None, "not a table|one vector each"),
        ([[1.0, 0.0], [0.0, 0.0]], "text 1 is zero"),
        ([[1.0, float("nan")], [1.0, 0.0]], "text 0 is zero or not finite"),
        ([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]], "3 numbers; this space has 2"),
    ],
)
def test_an_unfit_answer_is_refused(answer: object, complaint: str) -> None:
    with pytest.raises(EmbeddingFailed, match=complaint):
        FromCallable(lambda _: answer, dim=2).embed(["a", "b"])


def test_what_a_callable_raises_is_named() -> None:
    def broken(_: list[str]) -> None:
        raise RuntimeError("out of memory")

    with pytest.raises(EmbeddingFailed, match="RuntimeError: out of memory") as caught:
        FromCallable(broken, dim=2).embed(["a"])
    assert isinstance(caught.value.__cause__, RuntimeError)


class Endpoint(ThreadingHTTPServer):
    """Answers with what was planned, in order; after that, with the length of each text."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.planned: list[tuple[int, Any]] = []
        self.requests: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Answer(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append({"path": self.path, "key": self.headers["Authorization"], **body})
        vectors = [{"index": i, "embedding": row} for i, row in enumerate(lengths(body["input"]))]
        planned = self.server.planned
        status, answer = planned.pop(0) if planned else (200, {"data": vectors[::-1]})
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_an_endpoint_is_asked_in_batches_and_answers_are_put_in_order(endpoint: Endpoint) -> None:
    embedder = OpenAIEmbedder(endpoint.url, "tiny", KEY, dim=3, batch=2)
    found = embedder.embed(["a", "bb", "ccc"])
    np.testing.assert_allclose([each.vectors[0, 0] / each.vectors[0, 1] for each in found], [1, 2, 3], rtol=1e-6)
    assert [request["input"] for request in endpoint.requests] == [["a", "bb"], ["ccc"]]
    assert {(r["path"], r["model"], r["key"]) for r in endpoint.requests} == {
        ("/v1/embeddings", "tiny", f"Bearer {KEY}")
    }
    assert embedder.space == "openai/tiny/3"


def test_the_dimension_is_found_out(endpoint: Endpoint) -> None:
    assert OpenAIEmbedder(endpoint.url, "tiny").dim == 3
    assert endpoint.requests[0]["key"] is None


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_endpoint_is_asked_again(endpoint: Endpoint, status: int) -> None:
    endpoint.planned = [(status, {"error": "later"})] * 2
    assert len(OpenAIEmbedder(endpoint.url, "tiny", dim=3).embed(["a"])) == 1
    assert len(endpoint.requests) == 3


def test_tries_are_bounded(endpoint: Endpoint) -> None:
    endpoint.planned = [(500, {"error": "broken"})] * 9
    with pytest.raises(EmbeddingFailed, match=r"answered 500: .*broken.* \(3 tries\)"):
        OpenAIEmbedder(endpoint.url, "tiny", dim=3, tries=3).embed(["a"])
    assert len(endpoint.requests) == 3


def test_a_refusal_is_not_repeated_and_hides_the_key(endpoint: Endpoint, caplog: pytest.LogCaptureFixture) -> None:
    endpoint.planned = [(401, {"error": f"bad key {KEY}"})]
    embedder = OpenAIEmbedder(endpoint.url, "tiny", KEY, dim=3)
    with caplog.at_level(logging.DEBUG), pytest.raises(EmbeddingFailed, match="answered 401") as caught:
        embedder.embed(["a"])
    assert len(endpoint.requests) == 1
    assert KEY not in str(caught.value) + repr(embedder) + caplog.text


@pytest.mark.parametrize(
    "answer",
    [{}, {"data": []}, {"data": [{"index": 1, "embedding": [1, 2, 3]}]}, {"data": [{"embedding": [1, 2, 3]}]}, [1]],
)
def test_an_unfit_endpoint_is_refused(endpoint: Endpoint, answer: object) -> None:
    endpoint.planned = [(200, answer)]
    with pytest.raises(EmbeddingFailed):
        OpenAIEmbedder(endpoint.url, "tiny", dim=3).embed(["a"])


def test_nobody_there_is_an_error() -> None:
    with Endpoint() as server:
        url = server.url
    with pytest.raises(EmbeddingFailed, match="could not be reached"):
        OpenAIEmbedder(url, "tiny", dim=3, tries=1).embed(["a"])


@pytest.mark.parametrize("url", ["localhost:80", "ftp://host/v1", "http:///v1"])
def test_a_bad_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest):
        OpenAIEmbedder(url, "tiny")


def test_a_key_with_a_line_break_is_refused_and_not_shown() -> None:
    with pytest.raises(InvalidRequest) as caught:
        OpenAIEmbedder("http://localhost/v1", "tiny", KEY + "\r\nX: y")
    assert KEY not in str(caught.value)
