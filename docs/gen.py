"""Fill the parts of the manual that code knows best: `python docs/gen.py`; `--check` exits 1 if one is stale.

A page marks such a part with `<!-- generated: NAME -->` and `<!-- end -->`; NAME is a key of `BLOCKS`.
"""

from __future__ import annotations

import argparse
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any

import tercet
from tercet import errors
from tercet.cli import COMMANDS, options
from tercet.lifecycle import EDGES, State
from tercet.text.recall.policies import POLICIES
from tercet.text.recall.signals import SIGNALS

PAGES = Path(__file__).parent
WIDTH, USAGE_WIDTH = 100, 80
FIRST = ("Tercet", "ScopedMemory", "AsyncTercet", "Message", "Hits", "Hit", "Page", "Receipt", "MemCube")
"""Names that the reference begins with; the others follow by the alphabet."""
_MARKED = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_SECTION = re.compile(r"^(\w[\w ]*)\n-{3,}\n", re.MULTILINE)


def lifecycle() -> str:
    """States against states: "yes" where the edge is legal."""
    rows = [[f"`{a}`", *("yes" if b in EDGES[a] else "–" for b in State)] for a in State]
    return table(["from \\ to", *(f"`{state}`" for state in State)], rows)


def error_tree() -> str:
    """Every error class: what it is besides, and what it means."""
    classes = [c for c in vars(errors).values() if inspect.isclass(c) and c.__module__ == errors.__name__]
    rows = [[f"`{c.__name__}`", ", ".join(f"`{b.__name__}`" for b in c.__bases__), summary(c)] for c in classes]
    return table(["error", "is a", "raised when"], rows)


def policies() -> str:
    """Every policy of the literal table: its signals with their weights, what it needs, where the weights are from."""
    rows = []
    for name, policy in POLICIES.items():
        weights = ", ".join(f"`{signal}` {weight:g}" for signal, weight in policy.weights.items())
        needs = policy.needs + (f" (else `{policy.fallback}`)" if policy.fallback else "")
        rows.append([f"`{name}`", f"{weights}; bias {policy.bias:g}", needs, policy.fitted_on])
    return table(["policy", "weights", "needs", "fitted on"], rows)


def signals() -> str:
    """Every signal that a policy may weigh."""
    return table(["signal", "what it measures"], [[f"`{name}`", summary(signal)] for name, signal in SIGNALS.items()])


def names() -> str:
    """Every exported name but the errors, with the signatures and docstrings of what it offers."""
    public = sorted(tercet.__all__, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))
    shown = {name: found for name in public if not _is_error(found := getattr(tercet, name))}
    return "\n\n".join(part for name, found in shown.items() for part in _entry(name, found))


def commands() -> str:
    """Every command: what it is for, how it is called, its own options; those of every command once."""
    everywhere = options.Parser(prog="tercet", description="")
    options.add_common(everywhere)
    common = {action.dest for action in everywhere._actions}
    parts = [
        "## Options of every command\n\nThey may stand anywhere on the line.",
        _arguments(everywhere, leave_out=set()),
    ]
    for name, (module, says) in COMMANDS.items():
        parser = options.Parser(prog=f"tercet {name}", description=says)
        import_module(module).add_arguments(parser)
        parts += [f"## `{name}`", says, f"```text\n{_usage(parser)}\n```", _arguments(parser, leave_out=common)]
    return "\n\n".join(part for part in parts if part)


BLOCKS: Mapping[str, Callable[[], str]] = {
    "lifecycle": lifecycle,
    "errors": error_tree,
    "policies": policies,
    "signals": signals,
    "names": names,
    "commands": commands,
}


def requirements(project: Mapping[str, Any], group: str) -> list[str]:
    """Names of the packages that pyproject.toml asks for: "dependencies", or an extra; our own extras left out."""
    table = project["project"]
    lines = table[group] if group == "dependencies" else table["optional-dependencies"][group]
    return [name for line in lines if (name := re.split(r"[^\w.-]", line)[0]) != table["name"]]


def filled(page: str) -> str:
    """The page with its generated parts as the code has them now."""
    return _MARKED.sub(lambda part: f"{part[1]}{BLOCKS[part[2]]()}\n{part[3]}", page)


def stale() -> dict[Path, str]:
    """Pages that differ from what the code says, and what they should be."""
    pages = {path: path.read_text(encoding="utf-8") for path in sorted(PAGES.rglob("*.md"))}
    return {path: new for path, old in pages.items() if (new := filled(old)) != old}


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def summary(thing: object) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())


def _is_error(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, Exception)


def _entry(name: str, thing: Any) -> Iterator[str]:  # noqa: ANN401  # any exported object
    yield f"## `{name}`"
    called: Callable[..., Any] = thing
    if is_dataclass(thing) or inspect.isfunction(thing):
        yield _signature(name, called)
    yield prose(thing)
    if inspect.isfunction(thing):
        return
    members = {key: _plain(found) for key, found in vars(thing).items() if not key.startswith("_")}
    values = [[f"`{key}`", summary(found)] for key, found in members.items() if isinstance(found, property)]
    if values:
        yield table(["attribute", "meaning"], values)
    for key, method in members.items():
        if not inspect.isfunction(method) or hasattr(method, "__wrapped__"):  # a wrapped one is told of elsewhere
            continue
        yield f"### `{name}.{key}`"
        yield _signature(key, method)
        yield prose(method)


def _plain(member: object) -> object:
    return member.__func__ if isinstance(member, classmethod) else member


def prose(thing: object) -> str:
    """A docstring in NumPy's style as Markdown."""
    text = inspect.getdoc(thing) or ""
    head, *sections = _SECTION.split(text)
    parts = [_paragraphs(head)]
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        parts.append(f"**{title}**\n\n{_items(body)}")
    return "\n\n".join(parts)


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.strip().split("\n\n"))


def _items(body: str) -> str:
    """`name` lines, each followed by its indented description, as a list."""
    items: list[tuple[str, list[str]]] = []
    for line in body.strip().splitlines():
        if line and not line[0].isspace():
            items.append((line, []))
        elif items:
            items[-1][1].append(line.strip())
    return "\n".join(
        f"- {', '.join(f'`{one}`' for one in name.split(', '))}: {' '.join(words)}" for name, words in items
    )


def _signature(name: str, function: Callable[..., Any]) -> str:
    found = inspect.signature(function)
    parts: list[str] = []
    starred = False
    for parameter in found.parameters.values():
        if parameter.name in {"self", "cls"}:
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            parts, starred = [*parts, "*"], True
        prefix = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        parts.append(f"{prefix}{parameter.name}: {parameter.annotation}{_default(parameter)}")
    result = "" if isinstance(function, type) else f" -> {found.return_annotation}"
    line = f"{name}({', '.join(parts)}){result}"
    if len(line) > WIDTH:
        line = f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + f"){result}"
    return f"```py\n{line}\n```"


def _default(parameter: inspect.Parameter) -> str:
    value = parameter.default
    if value is parameter.empty:
        return ""
    if type(value).__module__ == "dataclasses":  # made anew for each instance
        return " = …"
    return f" = {getattr(value, '__name__', None) or (str(value) if isinstance(value, Enum) else repr(value))}"


def _usage(parser: argparse.ArgumentParser) -> str:
    """The usage on lines of our own width: argparse breaks them by the terminal's."""
    words = " ".join(parser.format_usage().removeprefix("usage: ").replace(" [-h]", "").split())
    pieces = re.findall(r"\[[^\]]*\]|\S+", words)
    lines = [pieces[0]]
    for piece in pieces[1:]:
        if len(lines[-1]) + len(piece) >= USAGE_WIDTH:
            lines.append("   ")
        lines[-1] += f" {piece}"
    return "\n".join(lines)


def _arguments(parser: argparse.ArgumentParser, *, leave_out: set[str]) -> str:
    """What a parser takes, as a table. Argparse has no public list of it."""
    rows = []
    for action in parser._actions:
        if action.dest in leave_out or action.dest == "help":
            continue
        choices = ", ".join(f"`{choice}`" for choice in action.choices or ())
        value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
        label = ", ".join(f"`{option}{value}`" for option in action.option_strings)
        says = [(action.help or "").replace("%%", "%"), choices and f"one of {choices}"]
        rows.append([label or f"`{action.metavar or action.dest.upper()}`", "; ".join(filter(None, says))])
    return table(["argument", "meaning"], rows) if rows else ""


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--check", action="store_true", help="change nothing; exit 1 if a page is stale")
    check = asked.parse_args().check
    found = stale()
    for path, new in found.items():
        if not check:
            path.write_text(new, encoding="utf-8")
        print(f"{path.relative_to(PAGES)} {'is stale; run python docs/gen.py' if check else 'written'}")
    return 1 if check and found else 0


if __name__ == "__main__":
    sys.exit(main())
