"""From text to terms."""

from __future__ import annotations

import re


def terms(text: str) -> list[str]:
    """The terms of a text, in order."""
    return re.findall(r"\w+", text.lower())


def question_terms(text: str) -> list[str]:
    """The terms of a question."""
    return terms(text)
