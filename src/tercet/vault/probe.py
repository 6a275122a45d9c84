"""A look for what was erased, after it was scrubbed: by its words, by its vectors, and in the bytes of every file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw

from tercet.vault.connection import key_of, marks, query, scalar
from tercet.vault.reader import Reader
from tercet.vault.search import words

SAMPLE = 25
"""Cubes of an erasure that are looked for, spread evenly over it: the cost of a probe has a bound."""
WINDOW, LEAST = 48, 6
"""Bytes of a text that are looked for at most, and letters that a word has at least, to be none but this one."""
ASKED = 3
"""Vectors that are asked for as recall would."""
WORDS = 3
"""Words a cube is looked for by: the longest that nothing else of its owner has."""
CHUNK = 4 * 2**20
WORK = 2**30
"""Bytes times strings that are compared at most, about a second; in larger files fewer strings are looked for."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What a search found of what was erased.

    Attributes
    ----------
    words, vectors, strings
        How many words, vectors and byte strings were looked for.
    files, bytes
        Where: the tenant's own files, and those that belong to no tenant.
    found
        What was there all the same, without its content; empty is what it should be.
    """

    words: int
    vectors: int
    strings: int
    files: int
    bytes: int
    found: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What to look for: numbers of the cubes, their words (owner, term), vectors and byte strings.

    A vector comes with the user it is about and its space's name and dimension.
    """

    numbers: tuple[int, ...]
    words: tuple[tuple[int, str], ...]
    vectors: tuple[tuple[str, str, int, bytes], ...]
    strings: tuple[bytes, ...]


def gather(reader: Reader, numbers: Sequence[int]) -> Evidence:
    """What to look for once these cubes are erased; taken before, kept in memory only. Every version counts."""
    connection = reader.connection
    some = numbers[:: max(1, -(-len(numbers) // SAMPLE))]
    terms, strings = list[tuple[int, str]](), set[bytes]()
    for n in some:
        owner = scalar(connection, "SELECT s.owner FROM cubes c JOIN scopes s ON s.n = c.scope WHERE c.n = ?", (n,))
        versions = reader.versions(n)
        both = (versions[0], versions[-1])
        known = words.counts(" ".join(cube.text for cube in both))
        rare = {term for term in known if _only(connection, owner, term, numbers)}
        terms += [(owner, term) for term in sorted(rare)]
        for cube in both:
            text = cube.text.encode()
            middle = max(0, len(text) // 2 - WINDOW // 2)
            strings |= {text[middle : middle + WINDOW]} if len(text) >= LEAST else set()
            apart = {word for word in cube.text.split() if rare.issuperset(words.counts(word))}
            long = sorted((-len(word), word) for word in apart if len(word) >= LEAST)
            strings |= {word.encode()[:WINDOW] for _, word in long[:WORDS]}
        strings |= {
            term.encode()[:WINDOW]
            for term in sorted(rare, key=lambda term: (len(term), term))[-WORDS:]
            if len(term) >= LEAST
        }
    vectors = query(connection, _VECTORS.format(marks(some)), tuple(some))
    strings |= {blob[:WINDOW] for *_, blob in vectors}
    return Evidence(tuple(some), tuple(terms), tuple(vectors), tuple(sorted(strings)))


_VECTORS = """
SELECT o.user, p.name, p.dim, v.vectors FROM vectors v JOIN spaces p ON p.n = v.space
JOIN cubes c ON c.n = v.cube JOIN scopes s ON s.n = c.scope JOIN owners o ON o.n = s.owner WHERE v.cube IN ({})
"""


def look(connection: apsw.Connection, path: Path, evidence: Evidence, *, vfs: str | None = None) -> Probe:
    """Search the tables and the files of a tenant's vault. Raises OSError, apsw.Error.

    A byte string that something else, still kept, holds too proves nothing and is passed over. Other tenants' files
    are left alone: nothing that one tenant does writes to them, and what they hold is nobody else's to learn.
    """
    gone = set(evidence.numbers)
    found = [
        f"a word of memory number {n} is in the index of words"
        for owner, term in evidence.words
        for n in words.find(connection, [owner], term)[0].tolist()
        if n in gone
    ]
    for table in ("vectors", "old_vectors", "versions", "attributes", "uses", "exported"):
        statement = f"SELECT DISTINCT cube FROM {table} WHERE cube IN ({marks(evidence.numbers)})"  # noqa: S608
        found += [f"memory number {n} has rows in {table}" for (n,) in query(connection, statement, evidence.numbers)]
    files = {file: file.stat().st_size for file in _files(path)}
    size = sum(files.values())
    strings = evidence.strings[:: max(1, -(-len(evidence.strings) * size // WORK))]
    hits: dict[bytes, set[str]] = {}
    for file in files:
        for chunk in _chunks(connection, file, path, vfs):
            for string in strings:
                if string in chunk:
                    hits.setdefault(string, set()).add(file.name)
    for string, names in hits.items():
        if not _kept(connection, string):
            found.append(f"{len(string)} bytes of it are in {', '.join(sorted(names))}")
    return Probe(len(evidence.words), len(evidence.vectors), len(strings), len(files), size, tuple(found))


def _only(connection: apsw.Connection, owner: int, term: str, numbers: Sequence[int]) -> bool:
    """Whether no other cube of the owner has a term."""
    return set(words.find(connection, [owner], term)[0].tolist()) <= set(numbers)


def _files(path: Path) -> Iterator[Path]:
    """The files of the vault's folder but those of other tenants; an index of a log has numbers of pages only."""
    folder = path.parent.parent
    for file in sorted(folder.rglob("*")):
        room, *rest = file.relative_to(folder).parts
        own = room not in {"tenants", "segments", "ledger"} or (rest and rest[0].split(".")[0] == path.stem)
        if own and not file.name.endswith("-shm") and file.is_file():
            yield file


def _chunks(connection: apsw.Connection, file: Path, path: Path, vfs: str | None) -> Iterator[bytes]:
    """A file's bytes in parts that overlap; a sealed database's as who has its key would see them, in memory."""
    if file.name == path.name and key_of(connection) is not None:
        yield connection.serialize("main")
        return
    if file.name != path.name:
        with file.open("rb") as stream:
            before = b""
            while data := stream.read(CHUNK):
                yield before + data
                before = data[-WINDOW:]
        return
    # Through SQLite: if this process closed a file of its own on it, the locks of its connections would be dropped.
    flags = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_MAIN_DB
    opened = apsw.VFSFile(vfs or "", str(file), [flags, 0])
    try:
        size = opened.xFileSize()
        for at in range(0, size, CHUNK):
            start = max(0, at - WINDOW)
            stop = min(size, at + CHUNK)
            yield opened.xRead(stop - start, start)
    finally:
        opened.xClose()


def _kept(connection: apsw.Connection, string: bytes) -> bool:
    """Whether some row that is there holds a byte string."""
    tables = query(connection, "SELECT name FROM sqlite_schema WHERE type = 'table'")
    for (table,) in [*tables, ("sqlite_schema",)]:
        names = [row[1] for row in query(connection, f'PRAGMA table_info("{table}")')]
        holds = " OR ".join(f'instr(CAST("{name}" AS BLOB), :it)' for name in names)
        if query(connection, f'SELECT 1 FROM "{table}" WHERE {holds} LIMIT 1', {"it": string}):  # noqa: S608  # our names
            return True
    return False
