"""Message content as words: text parts joined, everything else as a readable mark in brackets.

Text is kept verbatim. What is no text leaves a mark ("[image: a red boat]", "[call weather({"city": "Oslo"})]"), so
that a memory shows that something stood there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TypeAlias

from tercet.errors import InvalidRequest

Part: TypeAlias = Mapping[str, object]
FIDELITY = frozenset({"auto", "low", "high", "original"})  # what OpenAI's "detail" means when it is no description


def readable(content: object, *, strict: bool = True) -> str:
    """The words of a message's `content`: a string, a list of parts, one part, or None (no words).

    Parameters
    ----------
    strict
        Refuse a part of an unknown type. Otherwise keep it as its JSON, which is what an export deserves: the person
        who imports it did not write it.

    Raises
    ------
    InvalidRequest
        If it is none of these, a part lacks its text, or `strict` and a part's type is unknown.
    """
    match content:
        case None:
            return ""
        case str():
            return content
        case Mapping():
            return _part(content, strict=strict)
        case list() | tuple():
            return "\n".join(filter(None, (readable(part, strict=strict) for part in content)))
        case _:
            raise InvalidRequest(f"content must be a string or a list of parts, not {type(content).__name__}.")


def call(name: object, arguments: object) -> str:
    """A call of a tool: `arguments` is the JSON a model wrote, or the value it means."""
    written = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return f"[call {name}({written})]"


def calls(items: object) -> str:
    """OpenAI's `tool_calls`, one a line.

    Raises
    ------
    InvalidRequest
        If it is no list of calls with a name.
    """
    if not isinstance(items, list | tuple):
        raise InvalidRequest(f"tool_calls must be a list, not {type(items).__name__}.")
    lines = []
    for item in items:
        body = item.get("function", item.get("custom", item)) if isinstance(item, Mapping) else None
        if not isinstance(body, Mapping) or not isinstance(body.get("name"), str):
            raise InvalidRequest("Each of tool_calls needs a `function` with a `name`.")
        lines.append(call(body["name"], body.get("arguments", body.get("input", ""))))
    return "\n".join(lines)


def _part(part: Part, *, strict: bool) -> str:
    kind = part.get("type", part.get("content_type"))
    if kind == "tool_result":
        return readable(part.get("content"), strict=strict)
    if isinstance(kind, str) and kind in PARTS:
        return PARTS[kind](part)
    if strict:
        raise InvalidRequest(f"A content part of type {kind!r} is not known; known are {', '.join(sorted(PARTS))}.")
    return f"[{kind or 'part'}: {json.dumps(part, ensure_ascii=False)}]"


def _words(part: Part, field: str = "text") -> str:
    words = part.get(field)
    if not isinstance(words, str):
        raise InvalidRequest(f"A content part of type {part.get('type')!r} needs a string in `{field}`.")
    return words


def _refusal(part: Part) -> str:
    return _words(part, "refusal")


def _thinking(part: Part) -> str:
    return f"[thinking: {_words(part, 'thinking')}]"


def _image(part: Part) -> str:
    inner, metadata = part.get("image_url"), part.get("metadata")
    drawn = metadata.get("dalle") if isinstance(metadata, Mapping) else None
    for holder, field in ((part, "alt"), (part, "caption"), (part, "detail"), (inner, "alt"), (inner, "caption"),
                          (inner, "detail"), (drawn, "prompt")):  # fmt: skip
        words = holder.get(field) if isinstance(holder, Mapping) else None
        if isinstance(words, str) and words.strip() and words not in FIDELITY:
            return f"[image: {words}]"
    return "[image]"


def _audio(part: Part) -> str:
    inner = part.get("input_audio")
    for holder in (part, inner):
        words = holder.get("transcript") if isinstance(holder, Mapping) else None
        if isinstance(words, str) and words.strip():
            return f"[audio: {words}]"
    return "[audio]"


def _file(part: Part) -> str:
    inner = part.get("file")
    for holder in (part, inner):
        for field in ("filename", "file_name", "title"):
            name = holder.get(field) if isinstance(holder, Mapping) else None
            if isinstance(name, str) and name.strip():
                return f"[file: {name}]"
    return "[file]"


def _tool_use(part: Part) -> str:
    return call(_words(part, "name"), part.get("input", {}))


PARTS: Mapping[str, Callable[[Part], str]] = {
    "text": _words,
    "input_text": _words,
    "output_text": _words,
    "audio_transcription": _words,
    "refusal": _refusal,
    "thinking": _thinking,
    "image": _image,
    "image_url": _image,
    "input_image": _image,
    "image_asset_pointer": _image,
    "audio": _audio,
    "input_audio": _audio,
    "audio_asset_pointer": _audio,
    "file": _file,
    "input_file": _file,
    "document": _file,
    "tool_use": _tool_use,
}
"""Part type -> what stands for it. `tool_result` is rendered by its own content."""
