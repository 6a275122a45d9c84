"""Embedders the user brings: any callable, or an endpoint that speaks OpenAI's `/v1/embeddings`."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from tercet.errors import EmbeddingFailed, InvalidRequest
from tercet.text.embed.base import Embedding, Floats

PROBE = "dimension"  # embedded once to learn the dimension, where it was not given
BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})  # answers after which another try makes sense
LONGEST_WAIT = 20.0  # seconds between two tries, whatever the server asks for


def unit_rows(values: object, count: int, dim: int | None) -> Floats:
    """What an embedder answered, as float32 (count, dim) with rows of unit norm.

    Raises `EmbeddingFailed` unless it is one vector a text, of the right dimension, finite and not zero.
    """
    try:
        rows = np.array(values, np.float64)
    except (TypeError, ValueError) as error:
        raise EmbeddingFailed(f"The embedder's answer is not a table of numbers: {error}") from error
    if rows.ndim != 2 or len(rows) != count or rows.shape[1] == 0:
        raise EmbeddingFailed(
            f"The embedder answered {count} texts with shape {rows.shape}: one vector each is wanted."
        )
    if dim is not None and rows.shape[1] != dim:
        raise EmbeddingFailed(f"The embedder gave vectors of {rows.shape[1]} numbers; this space has {dim}.")
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not norms.all():
        row = int(np.flatnonzero(~np.isfinite(norms[:, 0]) | (norms[:, 0] == 0))[0])
        raise EmbeddingFailed(f"The embedder's vector for text {row} is zero or not finite.")
    units: Floats = (rows / norms).astype(np.float32)
    return units


class FromCallable:
    """An embedder out of a function from a list of texts to one vector each: a list of lists, or an array (texts, dim).

    `space` names the vector space; give it another name whenever the function changes its vectors. Left out, it is the
    function's own name with the dimension, which does not tell two lambdas apart. `dim` is found by embedding one word
    if it is left out. What the function raises becomes an `EmbeddingFailed`. Whether a long text is cut is up to the
    function.
    """

    def __init__(
        self, function: Callable[[list[str]], Any], *, space: str | None = None, dim: int | None = None
    ) -> None:
        self._function, self._dim, self._space = function, dim, space

    @cached_property
    def space(self) -> str:
        """The name of the space. Raises `EmbeddingFailed` where the dimension is part of it, as `dim` does."""
        named = getattr(self._function, "__qualname__", type(self._function).__qualname__)
        return self._space or f"callable/{getattr(self._function, '__module__', '')}.{named}/{self.dim}"

    @cached_property
    def dim(self) -> int:
        """The length of a vector. Raises `EmbeddingFailed` if it must be found out and the function fails."""
        return self._dim or self._rows([PROBE], None).shape[1]

    def embed(self, texts: Sequence[str]) -> list[Embedding]:
        """One vector a text, in order. Raises `EmbeddingFailed`."""
        if not texts:
            return []
        return [Embedding(row[None]) for row in self._rows(list(texts), self.dim)]

    def _rows(self, texts: list[str], dim: int | None) -> Floats:
        try:
            values = self._function(texts)
        except Exception as error:  # whatever a stranger's function may raise, the caller sees one kind of failure
            raise EmbeddingFailed(f"The embedder raised {type(error).__name__}: {error}") from error
        return unit_rows(values, len(texts), dim)


class OpenAIEmbedder:
    """An endpoint that speaks OpenAI's embeddings protocol, such as llama.cpp, vLLM, Ollama or OpenAI itself.

    Parameters
    ----------
    base_url:
        Such as `http://localhost:8080/v1`; `/embeddings` is added. Redirects are not followed.
    model:
        Sent with each request, and part of the space's name.
    api_key:
        Sent as a bearer token; in no message, no repr and no log.
    dim:
        Length of a vector; found by embedding one word if left out.
    timeout:
        Seconds that one request may take.
    tries:
        How often a request is made in all, where the server is busy or cannot be reached.
    batch:
        Texts in one request.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key: str | None = None,
        *,
        dim: int | None = None,
        timeout: float = 30.0,
        tries: int = 4,
        batch: int = 64,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise InvalidRequest(f"{base_url!r} is not an http(s) address.")
        if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
            raise InvalidRequest("The API key holds characters that no header can carry.")  # and is not shown
        if tries < 1 or batch < 1:
            raise InvalidRequest("`tries` and `batch` are at least 1.")
        self.base_url, self.model, self.timeout, self.tries, self.batch = base_url, model, timeout, tries, batch
        self._api_key, self._dim, self._parts = api_key, dim, parts

    @property
    def space(self) -> str:
        """Model and dimension: a model that is asked for shorter vectors has another space. Raises as `dim` does."""
        return f"openai/{self.model}/{self.dim}"

    def __repr__(self) -> str:
        return f"OpenAIEmbedder({self.base_url!r}, {self.model!r})"

    @cached_property
    def dim(self) -> int:
        """The length of a vector. Raises `EmbeddingFailed` if it must be found out and the endpoint fails."""
        return self._dim or self._rows([PROBE], None).shape[1]

    def embed(self, texts: Sequence[str]) -> list[Embedding]:
        """One vector a text, in order. Raises `EmbeddingFailed` once the tries are used up or the answer is unfit."""
        batches = [list(texts[i : i + self.batch]) for i in range(0, len(texts), self.batch)]
        return [Embedding(row[None]) for batch in batches for row in self._rows(batch, self.dim)]

    def _rows(self, texts: list[str], dim: int | None) -> Floats:
        answer = self._ask(json.dumps({"model": self.model, "input": texts, "encoding_format": "float"}).encode())
        try:
            data = sorted(json.loads(answer)["data"], key=lambda entry: int(entry["index"]))
            places, vectors = [entry["index"] for entry in data], [entry["embedding"] for entry in data]
        except (ValueError, KeyError, TypeError) as error:
            raise EmbeddingFailed(f"{self.base_url} gave no embeddings answer: {_start(answer)}") from error
        if places != list(range(len(texts))):
            raise EmbeddingFailed(f"{self.base_url} answered {len(texts)} texts with {len(places)} other vectors.")
        return unit_rows(vectors, len(texts), dim)

    def _ask(self, body: bytes) -> bytes:
        for left in reversed(range(self.tries)):
            wait = 0.5 * 2 ** (self.tries - 1 - left)
            try:
                status, asked, answer = self._post(body)
            except (OSError, http.client.HTTPException) as error:
                problem: str = f"could not be reached: {type(error).__name__}: {error}"
            else:
                if status == http.HTTPStatus.OK:
                    return answer
                problem = f"answered {status}: {self._hidden(_start(answer))}"
                if status not in BUSY:
                    raise EmbeddingFailed(f"{self.base_url} {problem}")
                wait = float(asked) if asked and asked.isdigit() else wait
            if left:
                time.sleep(min(wait, LONGEST_WAIT))
        raise EmbeddingFailed(f"{self.base_url} {problem} ({self.tries} tries)")

    def _post(self, body: bytes) -> tuple[int, str | None, bytes]:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._parts.hostname or "", self._parts.port, timeout=self.timeout)
        headers = {"Content-Type": "application/json"}
        if self._api_key is not None:
            headers["Authorization"] = f"Bearer {self._api_key}"
        try:
            connection.request("POST", f"{self._parts.path.rstrip('/')}/embeddings", body, headers)
            response = connection.getresponse()
            return response.status, response.getheader("Retry-After"), response.read()
        finally:
            connection.close()

    def _hidden(self, text: str) -> str:
        return text.replace(self._api_key, "***") if self._api_key else text


def _start(answer: bytes) -> str:
    return answer[:300].decode("utf-8", "replace")
