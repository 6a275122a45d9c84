"""What every command's parser has in common: options that may stand anywhere, errors that help, `key=value`."""

from __future__ import annotations

import argparse
import json
from argparse import Namespace
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from tercet.errors import InvalidRequest

if TYPE_CHECKING:
    from tercet.cli.out import Answer
    from tercet.cli.session import Session
    from tercet.cube import Scalar

FOOTER = """\
exit codes: 0 done, 1 failed, 2 bad usage, 3 refused by policy, 4 not found
`tercet COMMAND --help` says more about a command."""

SCOPE = {
    "--tenant": "whose vault file it is; left out: `default`",
    "--user": "about which user",
    "--agent": "about which agent",
    "--session": "in which session",
    "--branch": "on which branch; left out: the main line",
}
TEXT_KEYS = frozenset({"kind", "type", "state", "speaker", "role", "ref", "tags", "sensitivity"})
"""Filter keys whose values are text, so that `tags=2024` means the tag "2024" and not the number."""


class Command(Protocol):
    """A module of this package: a command."""

    def add_arguments(self, parser: Parser) -> None:
        """Add what this command takes."""

    def run(self, session: Session, args: Namespace) -> Answer:
        """Do it."""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises InvalidRequest instead of leaving, and that guesses what a slip meant."""

    def __init__(self, *, prog: str, description: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Raise InvalidRequest."""
        raise InvalidRequest(f"{message[:1].upper()}{message[1:]}. `{self.prog} --help` says more.")

    def parse(self, words: Sequence[str]) -> Namespace:
        """Parse all words, or raise InvalidRequest."""
        args, extra = self.parse_known_args(words)
        unknown = next((word for word in extra if word.startswith("-") and word != "-"), None)
        if unknown is not None:
            hint = suggest(unknown.split("=")[0], self._option_string_actions)
            raise InvalidRequest(
                f"No option {unknown!r}.{hint} `{self.prog} --help` lists them; "
                "a text that begins with a dash goes after `--`."
            )
        many = next((action.dest for action in self._get_positional_actions() if action.nargs == "*"), None)
        if many is not None:
            # argparse takes only the first run of such words; those after an option belong to it, too.
            setattr(args, many, [*getattr(args, many), *extra])
        elif extra:
            raise InvalidRequest(f"{extra[0]!r} is too much; put a text of several words in quotes.")
        return args


def add_common(parser: argparse.ArgumentParser) -> None:
    """Options that may stand anywhere on the line, before the command, too."""
    group = parser.add_argument_group("everywhere")
    group.add_argument("--json", action="store_true", help="print one JSON document, and nothing else, on stdout")
    group.add_argument("--store", metavar="PATH", help="the vault's folder; left out: TERCET_STORE, or the user's data")
    for option, says in SCOPE.items():
        group.add_argument(option, metavar="NAME", help=says)
    group.add_argument("--as", metavar="NAME", dest="caller", default="local", help="who asks; the journal records it")
    group.add_argument("--purpose", metavar="NAME", help="what for, where rules tell purposes apart")
    group.add_argument("--key", metavar="KEY", help="an API key; others can see a command line, so better: TERCET_KEY")
    group.add_argument(
        "--sealing",
        metavar="PLACE",
        default="auto",
        help="a sealed vault's master key: its file, or keyring[:NAME]; left out: TERCET_MASTER_KEY, or the file that "
        "TERCET_MASTER_KEY_FILE names",
    )
    group.add_argument(
        "--redact",
        action="append",
        metavar="KIND=ACTION",
        help="allow, mask or refuse what texts hold of a kind or group (credentials, personal); may come several times",
    )
    group.add_argument("--words", action="store_true", help="work by words alone: load no embedding model")


VALUED = frozenset({"--store", "--as", "--purpose", "--key", "--sealing", "--redact", *SCOPE})
"""Those of the common options that take a value."""


def split(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The command's name (None: there is none) and the other words, those before it first."""
    place = 0
    while place < len(words):
        if not words[place].startswith("-") or words[place] == "-":
            return words[place], [*words[:place], *words[place + 1 :]]
        place += 2 if words[place] in VALUED else 1
    return None, list(words)


def suggest(word: str, known: Iterable[str]) -> str:
    """A sentence that guesses what was meant, with a space before it; empty if nothing is near."""
    import difflib

    near = difflib.get_close_matches(word, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def add_limit(parser: argparse.ArgumentParser, default: int) -> None:
    """`--limit N`."""
    parser.add_argument(
        "--limit", type=int, default=default, metavar="N", help=f"at most so many (left out: {default})"
    )


def add_sensitivity(parser: argparse.ArgumentParser) -> None:
    """`--sensitivity`."""
    levels = ["public", "internal", "private", "secret"]
    parser.add_argument("--sensitivity", choices=levels, help="a label that rules read; left out: private, or as it is")


def add_where(parser: argparse.ArgumentParser) -> None:
    """`--where`."""
    parser.add_argument(
        "--where",
        action="append",
        metavar="KEY=VALUE|JSON",
        help="only those with this tag (tags=home), type, speaker, role, ref, state or metadata; "
        'JSON knows operators, e.g. \'{"stars": {"$gte": 4}}\'; several must all hold',
    )


def add_moment(parser: argparse.ArgumentParser) -> None:
    """`--as-of` and `--valid`: a look into the past."""
    parser.add_argument(
        "--as-of", metavar="TIME|SEQ", help="as it was known at this time, with a zone, or up to this line of changes"
    )
    parser.add_argument("--valid", metavar="TIME", help="show the facts that held at this time, with a zone")


def conditions(given: Sequence[str] | None) -> dict[str, Any] | None:
    """`--where` as what the kernel takes; None if there was none.

    Raises
    ------
    InvalidRequest
        If one is neither `key=value` nor a JSON object, or a key comes twice.
    """
    if given is None:
        return None
    found: dict[str, Any] = {}
    for text in given:
        if text.lstrip().startswith("{"):
            part = _object(text)
        else:
            key, value = pair(text, "--where")
            part = {key: str(value) if key in TEXT_KEYS else scalar(value)}
        for key in part:
            if key in found:
                raise InvalidRequest(f"--where has {key!r} twice; say it once, as JSON with operators if need be.")
        found |= part
    return found


def pair(text: str, option: str) -> tuple[str, str]:
    """`key=value` as its two parts. Raises InvalidRequest."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InvalidRequest(f"{option} wants key=value, not {text!r}.")
    return key, value


def pairs(given: Sequence[str] | None, option: str) -> dict[str, Scalar] | None:
    """`key=value` several times over, as a mapping; None if there was none. Raises InvalidRequest."""
    if given is None:
        return None
    found: dict[str, Scalar] = {}
    for text in given:
        key, value = pair(text, option)
        if key in found:
            raise InvalidRequest(f"{option} has {key!r} twice.")
        found[key] = scalar(value)
    return found


def scalar(text: str) -> Scalar:
    """The number, true, false, null or quoted string that a text is in JSON, else the text itself."""
    try:
        value = json.loads(text, parse_constant=str)
    except ValueError:
        return text
    return value if value is None or isinstance(value, str | int | float | bool) else text


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"--where {text!r} is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"--where wants a JSON object, not {text!r}.")
    return value
