"""Any endpoint that speaks OpenAI's chat completions. Text only: it declares `generate` and nothing else.

KV caches, scores and adapters stay on the other side, so nothing is promoted with such an engine; memories go into its
prompt as text. Nothing is sent anywhere but to the address that was given, and only when it is asked.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from typing import Any, Self

from tercet.cube import ModelIdentity
from tercet.engine.base import Ability, Turn
from tercet.errors import EngineFailed, InvalidRequest


class OpenAICompatible:
    """A model behind an address.

    Parameters
    ----------
    model
        What the endpoint calls it.
    url
        The address up to and with `/v1`.
    key_env
        The environment variable that holds the key; left out, none is sent.
    context
        Tokens that the model takes.
    """

    abilities: frozenset[Ability] = frozenset({"generate"})

    def __init__(
        self, model: str, *, url: str, key_env: str | None = None, context: int = 8192, timeout: float = 120.0
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise InvalidRequest(f"An endpoint's url begins with http:// or https://, not {url!r}.")
        self.model, self.url, self.key_env, self.context, self.timeout = (
            model,
            url.rstrip("/"),
            key_env,
            context,
            timeout,
        )
        self.identity = ModelIdentity(model, self.url, "remote", "remote", "remote", "remote", "remote")

    @classmethod
    def load(cls, model: str, **options: Any) -> Self:  # noqa: ANN401  # as the class takes
        """The same as the class."""
        return cls(model, **options)

    @property
    def asked(self) -> str:
        """What a request names as its model."""
        return self.model

    def headers(self) -> dict[str, str]:
        """What a request is sent with. Raises InvalidRequest if the key is not in the environment."""
        found = {"Content-Type": "application/json"}
        if self.key_env is not None:
            key = os.environ.get(self.key_env)
            if not key:
                raise InvalidRequest(f"The environment has no {self.key_env}, which holds the key of {self.url}.")
            found["Authorization"] = f"Bearer {key}"
        return found

    def generate(self, messages: Sequence[Turn], *, max_tokens: int = 256) -> Iterator[str]:
        """Answer, at temperature 0, in pieces as they come. Raises EngineFailed."""
        body = {
            "model": self.asked,
            "messages": list(messages),
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
        }
        sent = json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/chat/completions", sent, self.headers())  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:  # noqa: S310  # checked above
                for line in answer:
                    text = line.decode("utf-8", "replace").strip()
                    if text == "data: [DONE]":
                        return
                    if text.startswith("data:"):
                        yield from _piece(text.removeprefix("data:"))
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(500).decode("utf-8", "replace")
            raise EngineFailed(f"{self.url} answered {error.code}: {said}") from error
        except OSError as error:
            raise EngineFailed(f"{self.url} could not be reached: {error}.") from error

    def close(self) -> None:
        """Nothing is held open."""


def _piece(text: str) -> Iterator[str]:
    try:
        piece = json.loads(text)["choices"][0]["delta"].get("content")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise EngineFailed(f"The endpoint sent {text!r:.120}, which is no piece of a chat completion.") from error
    if isinstance(piece, str) and piece:
        yield piece
