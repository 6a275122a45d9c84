"""What is looked for: one literal table, kind by kind, credentials first (where two overlap, the earlier row wins).

A row is searched in the folded text and only where one of its `needs` stands, so that a text without any costs next to
nothing. `check` sees the match and says which span of it is meant, or None.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import NamedTuple

from tercet.govern.detect import checks

Check = Callable[[re.Match[str]], tuple[int, int] | None]


@cache
def compiled(pattern: str) -> re.Pattern[str]:
    """The pattern, compiled once."""
    return re.compile(pattern)


class Gate(NamedTuple):
    """A cheap pattern, in the place of strings that a rule needs."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: a `kind`, what it is `of`, where to look (any of the strings, or a cheap pattern), and how.

    Patterns are compiled when they are first needed, which most are never.
    """

    kind: str
    of: str
    needs: Sequence[str] | Gate
    pattern: str
    check: Check | None = None


def secret(match: re.Match[str]) -> tuple[int, int] | None:
    """The group `secret`, unless it is a stand-in such as `<password>`, `$PASSWORD` or `****`."""
    value = match["secret"]
    if (value[0] in "<{$%[" and value[-1] in ">}%])") or value[0] == "$" or set(value) <= set("*xX.•-"):
        return None
    return match.span("secret")


def random_looking(match: re.Match[str]) -> tuple[int, int] | None:
    """The match, if its last 16 characters mix capitals, small letters or digits as chance does and words do not."""
    tail = match[0][-16:]
    mixed = sum(any(test(c) for c in tail) for test in (str.isupper, str.islower, str.isdigit))
    changes = sum(a.isdigit() != b.isdigit() or a.isupper() != b.isupper() for a, b in pairwise(tail))
    return match.span() if mixed >= 2 and changes >= 4 else None


def near(words: str, inner: Check | None = None, *, after: int = 12) -> Check:
    """A check that wants one of `words` (a pattern) up to 48 characters before the match or `after` behind it."""

    def check(match: re.Match[str]) -> tuple[int, int] | None:
        around = match.string[max(match.start() - 48, 0) : match.end() + after]
        if compiled(f"(?i){words}").search(around) is None:
            return None
        return match.span() if inner is None else inner(match)

    return check


def bare(valid: Callable[[str], bool]) -> Check:
    """A check of the digits and letters alone, as capitals."""

    def check(match: re.Match[str]) -> tuple[int, int] | None:
        return match.span() if valid(re.sub(r"[ .\-]", "", match[0]).upper()) else None

    return check


_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/= \n\r\t"


def key_before(match: re.Match[str]) -> tuple[int, int] | None:
    """The end of a private key with the lines that stand before it, whose beginning is elsewhere."""
    before = match.string[max(match.start() - 20_000, 0) : match.start()]  # no key is longer
    body = before[len(before.rstrip(_BASE64)) :].lstrip()
    return (match.start() - len(body), match.end()) if len(body) >= 24 else None


_GROUPS = {(4, 6, 5), (4, 6, 4)}
"""How American Express and Diners print theirs; the others print fours."""


def card(match: re.Match[str]) -> tuple[int, int] | None:
    """A card's number, in one piece or in the groups in which it is printed."""
    groups = tuple(map(len, re.findall(r"\d+", match[0])))
    fours = all(size % 4 == 0 for size in groups[:-1])  # two groups meet where a message was broken off between them
    if groups not in _GROUPS and not fours:
        return None
    return match.span() if checks.card(re.sub(r"\D", "", match[0])) else None


def iban(match: re.Match[str]) -> tuple[int, int] | None:
    """From the country's letters on, as many characters as it has, spaces left out; nothing of a word may follow."""
    text, at, seen = match.string, match.start(), ""
    wanted = checks.IBAN_LENGTHS.get(match[0][:2].upper(), 0)
    while len(seen) < wanted and at < len(text):
        if text[at].isascii() and text[at].isalnum():
            seen += text[at].upper()
        elif text[at] not in " -":
            return None
        at += 1
    followed = at < len(text) and text[at].isalnum()
    return (match.start(), at) if not followed and wanted and checks.iban(seen) else None


_FILES = frozenset(
    ("css", "gif", "html", "ico", "jpeg", "jpg", "js", "json", "md", "mp4", "pdf", "png", "py", "svg", "ts", "webp")
)


def email(match: re.Match[str]) -> tuple[int, int] | None:
    """An address; not the user of a URL, a remote of git, or the name of a file (logo@2x.png)."""
    text, start = match.string, match.start()
    before = text[max(start - 200, 0) : start]
    if re.search(r"://[^/\s?#]*$", before) or match[0].rpartition(".")[2].lower() in _FILES:
        return None
    if match["local"] == "git" and text[match.end() : match.end() + 1] == ":":
        return None
    return match.span()


def phone(match: re.Match[str]) -> tuple[int, int] | None:
    """A number of a phone as it is written: with its country, or in the groups of a country that we know."""
    digits = re.sub(r"\D", "", match[0])
    if not 9 <= len(digits) <= 15 or re.fullmatch(r"(?:19|20)\d\d-\d\d-\d\d.*", match[0]):
        return None
    return match.span()


_PLAIN, _END = r"(?<![A-Za-z0-9_-])", r"(?![A-Za-z0-9_-])"


def key(of: str, pattern: str, *needs: str, check: Check | None = random_looking) -> Rule:
    """A row for a service's keys, which begin with something of their own."""
    return Rule("api_key", of, needs, f"{_PLAIN}(?:{pattern}){_END}", check)


def number(of: str, pattern: str, valid: Callable[[str], bool], words: str | None = None) -> Rule:
    """A row for a country's number; `words` must stand near one that chance gives too easily."""
    check = bare(valid)
    needs = Gate(f"(?i){words}" if words else r"\d\d[A-Za-z \-.]?\d")
    bounded = rf"(?i)(?<![\w.\-])(?:{pattern})(?![\w]|[.\-]\w)"
    return Rule("national_id", of, needs, bounded, near(words, check) if words else check)


_HEAD = r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
_FOOT = r"-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----"
_BODY = r"(?:[A-Za-z0-9+/=\s]|\\n|\\r|\w+: [^\n]*\n)"
_DATABASES = (
    "postgres|postgresql|mysql|mariadb|mongodb|redis|rediss|amqp|amqps|mssql|clickhouse|snowflake|kafka|smtp|smtps|"
    "oracle|cockroachdb|cassandra|neo4j|bolt|nats|mqtt|jdbc"
)
_BEFORE_HOST = r"""(?P<secret>[^\s/"'\[\]\\]{3,256})@(?=[\w\[{<])"""
_CONNECTION_WORDS = (
    r"(?:server|data source|host|user id|uid|dbname|database|databasename|driver|user)\s*=|jdbc:|initial catalog"
)

RULES: Sequence[Rule] = (
    Rule("private_key", "pem", ("PRIVATE KEY",), f"{_HEAD}{_BODY}{{16,}}(?:{_FOOT})?"),
    Rule("private_key", "pem, its end", ("PRIVATE KEY",), _FOOT, key_before),
    Rule(
        "connection",
        "url",
        ("://",),
        rf"(?i)\b(?:{_DATABASES})(?:\+[a-z0-9]+)?://[^\s/@:'\"<>]{{0,128}}:{_BEFORE_HOST}",
        secret,
    ),
    Rule(
        "url_password",
        "url",
        ("://",),
        rf"(?i)\b[a-z][a-z0-9+.\-]{{0,30}}://[^\s/@:'\"<>]{{1,128}}:{_BEFORE_HOST}",
        secret,
    ),
    Rule(
        "connection",
        "words",
        ("assword=", "ASSWORD=", "assword =", "wd=", "WD=", "wd ="),
        (r"""(?i)(?<![a-z])(?:password|pwd)\s?=\s?(?P<secret>[^\s;&'"\[\]]{3,})"""),
        near(_CONNECTION_WORDS, secret, after=60),
    ),
    Rule(
        "connection",
        "azure",
        ("Key=",),
        r"(?:Account|SharedAccess)Key=(?P<secret>[A-Za-z0-9+/]{40,}={0,2})",
        secret,
    ),
    key("openai", r"sk-(?:proj-|svcacct-|admin-|None-)?[A-Za-z0-9_-]{32,}", "sk-"),
    key("anthropic", r"sk-ant-[a-z0-9]+-[A-Za-z0-9_-]{32,}", "sk-ant-"),
    key("aws", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}", "AKIA", "ASIA", "ABIA", "ACCA", check=None),
    Rule(
        "api_key",
        "aws secret",
        ("ecret", "ECRET"),
        r"(?i:secret[ _]?access[ _]?key)\W{1,6}(?:is\W{1,3})?(?P<secret>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
        secret,
    ),
    Rule(
        "api_key",
        "azure",
        ("==",),
        r"(?<![A-Za-z0-9+/-])[A-Za-z0-9+/]{86}==",
        near("azure|storage|account"),
    ),
    key("google", r"AIza[A-Za-z0-9_-]{35}|GOCSPX-[A-Za-z0-9_-]{28}", "AIza", "GOCSPX-"),
    key(
        "github",
        r"gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,}",
        "ghp_",
        "gho_",
        "ghu_",
        "ghs_",
        "ghr_",
        "github_pat_",
    ),
    key("gitlab", r"gl(?:pat|ptt|dt|rt)-[A-Za-z0-9_-]{20,}", "glpat-", "glptt-", "gldt-", "glrt-", check=None),
    key("slack", r"xox[abeoprs]-(?:\d{1,16}-){0,4}[A-Za-z0-9-]{16,200}|xapp-\d-[A-Za-z0-9-]{20,}", "xox", "xapp-"),
    key("stripe", r"[sr]k_(?:live|test)_[A-Za-z0-9]{20,}|whsec_[A-Za-z0-9+/=]{24,}", "_live_", "_test_", "whsec_"),
    key("twilio", r"SK[0-9a-f]{32}", "SK", check=None),
    key("sendgrid", r"SG\.[A-Za-z0-9_-]{20,24}\.[A-Za-z0-9_-]{39,50}", "SG."),
    key("mailgun", r"key-[0-9a-f]{32}", "key-", check=None),
    key("huggingface", r"hf_[A-Za-z0-9]{30,}", "hf_"),
    key("npm", r"npm_[A-Za-z0-9]{36}", "npm_"),
    key("pypi", r"pypi-AgE[A-Za-z0-9_-]{50,}", "pypi-AgE"),
    key("digitalocean", r"do[opr]_v1_[0-9a-f]{64}", "_v1_", check=None),
    key("telegram", r"\d{8,10}:AA[A-Za-z0-9_-]{32,34}", ":AA"),
    key(
        "discord",
        r"[MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,}",
        "MT",
        "Mj",
        "Mz",
        "ND",
        "NT",
        "Nj",
        "Nz",
        "OD",
        "OT",
    ),
    key("shopify", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}", "shpat_", "shpca_", "shppa_", "shpss_", check=None),
    key("databricks", r"dapi[0-9a-f]{32}(?:-\d)?", "dapi", check=None),
    Rule(
        "jwt",
        "jwt",
        ("eyJ",),
        rf"{_PLAIN}eyJ[A-Za-z0-9_-]{{8,}}\.eyJ[A-Za-z0-9_-]{{8,}}\.[A-Za-z0-9_-]{{16,}}",
    ),
    Rule(
        "email",
        "address",
        ("@", "%40"),
        (
            r"(?<![\w.+%@])(?P<local>\w(?:[\w.+%'\-]{0,62}[\w+%\-])?)(?:@|%40)(?:[\w\-]{1,63}\.){1,8}(?:xn--[\w\-]{1,59}"
            r"|[^\W\d_]{2,24})(?![\w@])"
        ),
        email,
    ),
    Rule(
        "iban",
        "iban",
        Gate(r"[A-Za-z]{2}\d\d[ \-]?[A-Za-z0-9]{4}"),
        r"(?<![A-Za-z0-9])[A-Za-z]{2}\d\d",
        iban,
    ),
    Rule(
        "card",
        "card",
        Gate(r"\d(?:[ .\-]?\d){13}"),
        r"(?<![\w.\-])\d(?:[ .\-]?\d){13,18}(?![\w]|[.\-]\d)",
        card,
    ),
    number("us", r"\d{3}-\d\d-\d{4}", checks.us_ssn),
    number("gb", r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d\d ?\d\d ?\d\d ?[A-D]", checks.gb_nino),
    number("de", r"\d\d ?\d{3} ?\d{3} ?\d{3}", checks.de_idnr, r"steuer|idnr|identifikation|\btax\b|\btin\b"),
    number("fr", r"[12] ?\d\d ?\d\d ?(?:\d\d|2[AB]) ?\d{3} ?\d{3} ?\d\d", checks.fr_nir),
    number("es", r"(?:\d{8}|[XYZ]-?\d{7})-?[A-HJ-NP-TV-Z]", checks.es_dni),
    number("it", r"[A-Z]{6}\d\d[A-EHLMPR-T]\d\d[A-Z]\d{3}[A-Z]", checks.it_codice),
    number("br", r"\d{3}\.\d{3}\.\d{3}-\d\d", checks.br_cpf),
    number("br", r"\d{11}", checks.br_cpf, r"\bcpf"),
    number("in", r"\d{4} ?\d{4} ?\d{4}", checks.in_aadhaar, r"aadha|uidai"),
    number("jp", r"\d{4}[ \-]?\d{4}[ \-]?\d{4}", checks.jp_number, r"my[ _]?number|マイナンバ|個人番号"),
    number("pl", r"\d{11}", checks.pl_pesel, "pesel"),
    Rule(
        "phone",
        "number",
        Gate(r"\d(?:[ ()./\-]{0,2}\d){7}"),
        (
            r"(?<![\w.,/#\-+])(?:\+\d{1,3}(?:[ .\-/]?\(?\d{1,5}\)?){2,5}|(?:1[ .\-])?(?:\([2-9]\d\d\) ?"
            r"|[2-9]\d\d[.\-])\d{3}[.\-]\d{4}"
            r"|0\d{2,4}[ /\-]\d{3,4}(?:[ \-]?\d{3,4}){1,2}|0\d(?:[ .]\d\d){4})(?![\w]|[.,\-/]\d)"
        ),
        phone,
    ),
)
