"""The portable archive: every version of every text cube of a scope, as JSON lines that any program can read.

    {"format": "tercet-archive", "version": 1, "tercet": …, "exported": …, "scope": {…}}
    {"id": …, "scope": {…}, "state": …, "versions": [{"version": 1, "text": …, "header": {…}}, …]}
    …
    {"cubes": n, "sha256": the hash of every byte before this line, in hex, "provenance": {…}}

A header is as the vault writes it (`tercet.vault.codec`), without its salted commitment, which an import makes anew; it
stands beside each version, so that the journal it comes from can be asked. The provenance says who wrote the archive,
from where, when and for whom, over that hash, signed as receipts are; a `watermark` in the headers names the recipient.
Ids, texts, tags, metadata, all times, speakers, refs, versions, states, holds and derivations survive the way there and
back; episodes get new ids (the spans in them stay), and use counts stay behind. KV caches and adapters are made again
from their sources rather than carried; the first line counts those left out.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from tercet import __version__
from tercet.cube import Kind, MemCube
from tercet.errors import InvalidRequest, VaultError
from tercet.exchange.provenance import provenance
from tercet.exchange.typed import misfit
from tercet.exchange.watermark import Recipient
from tercet.lifecycle import State
from tercet.scope import Scope
from tercet.vault.allowed import EVERYTHING
from tercet.vault.codec import decode, dump, encode
from tercet.vault.ids import format_id, parse_id

if TYPE_CHECKING:
    from tercet.scoped import Progress, ScopedMemory

log = logging.getLogger(__name__)

FORMAT, VERSION = "tercet-archive", 1
BATCH = 500
GZIP = b"\x1f\x8b"
PARTS = ("user", "agent", "session")


@dataclass(frozen=True, slots=True)
class Record:
    """One cube of an archive: its versions, oldest first, and the state it is in."""

    versions: tuple[MemCube, ...]
    state: State

    @property
    def id(self) -> str:
        """The id that all versions have."""
        return self.versions[0].id

    @property
    def scope(self) -> Scope:
        """The scope that all versions have."""
        return self.versions[0].scope


class Sink(Protocol):
    """Where an archive is written: a file, standard output, a compressor."""

    def write(self, data: bytes, /) -> object:
        """Write all of it."""


STREAM = "(a stream)"
"""What stands for the path of an export that went to a stream."""


def export_scope(
    memory: ScopedMemory, stream: Sink, *, progress: Progress | None = None, to: Recipient | None = None
) -> int:
    """Write what the caller may read of a scope, as of one moment, to a binary stream; returns how many cubes.

    A cube that has a version which the caller may not read is left out whole. The export goes on record, so that an
    erasure can name it; `export_file` records the file by its path and hash. `to` is for whom it is (`watermark`).
    Raises Refused.
    """
    hashed = _Hashed(stream)
    numbers = write_archive(memory, hashed, progress=progress, to=to)
    put_on_record(memory, STREAM, hashed.digest.digest(), numbers, to)
    return len(numbers)


def put_on_record(
    memory: ScopedMemory, path: str, sha256: bytes, numbers: Sequence[int], to: Recipient | None = None
) -> None:
    """Take down an export. From a vault that cannot be written nothing can be erased either: it is not on record.

    One for somebody must be, or its mark would name nobody. Raises VaultError.
    """
    if not numbers:
        return
    told = {} if to is None else {"recipient": to.name, "mark": to.mark}
    try:
        with memory.tercet.vault.tenant(memory.scope.tenant).writing(by=memory.by.signed) as writer:
            writer.exported(path, sha256, numbers, **told)
    except VaultError as error:
        if to is not None:
            raise
        log.warning("the export to %s is not on record: %s", path, error)


class _Hashed:
    """A sink that hashes what goes through it."""

    def __init__(self, sink: Sink) -> None:
        self.sink, self.digest = sink, hashlib.sha256()

    def write(self, data: bytes) -> None:
        self.digest.update(data)
        self.sink.write(data)


def write_archive(
    memory: ScopedMemory, stream: Sink, *, progress: Progress | None = None, to: Recipient | None = None
) -> list[int]:
    """Write what the caller may read of a scope to a binary stream; returns the numbers of the cubes written."""
    gate = memory.tercet.gate
    gate.enter(memory.by, "read", memory.scope)
    with memory.tercet.vault.tenant(memory.scope.tenant).reading(memory.moment) as whole:
        reader = whole.under(gate.allowed(whole, memory.by, "read", memory.scope))
        numbers = reader.numbers(memory.scope, {"kind": Kind.TEXT.value})
        if reader.allowed is not EVERYTHING:
            numbers = [n for n in numbers if all(map(reader.allowed.covers, reader.versions(n)))]
        head = {
            "format": FORMAT,
            "version": VERSION,
            "tercet": __version__,
            "exported": memory.tercet.clock().isoformat(),
            "scope": _scope(memory.scope) | {"tenant": memory.scope.tenant},
            "left_out": len(reader.numbers(memory.scope)) - len(numbers),
        }
        if to is not None:
            head |= {"recipient": to.name, "mark": to.mark}
        digest = hashlib.sha256()

        def write(row: Mapping[str, Any]) -> None:
            line = dump(row).encode() + b"\n"
            digest.update(line)
            stream.write(line)

        write(head)
        for start in range(0, len(numbers), BATCH):
            for cube in reader.cubes(numbers[start : start + BATCH]):
                write(_row(cube, reader.history(cube.id, memory.scope), to))
            if progress is not None:
                progress(min(start + BATCH, len(numbers)), len(numbers))
        decoys = [] if to is None or not numbers else to.decoys(memory.scope, memory.tercet.clock())
        for decoy in decoys:
            write(_row(decoy, [decoy], to))
        last = {"cubes": len(numbers) + len(decoys), "sha256": digest.hexdigest()}
        write(last | {"provenance": provenance(memory, last, to)})
    return numbers


def is_archive(path: Path) -> bool:
    """Whether a file begins as an archive does, compressed or not. Raises OSError."""
    with path.open("rb") as stream:
        begin = stream.read(4096)
    if begin.startswith(GZIP):
        try:
            begin = zlib.decompressobj(wbits=31).decompress(begin, 4096)
        except zlib.error:
            return False
    return f'"format":"{FORMAT}"'.encode() in begin.partition(b"\n")[0]


def read_archive(stream: IO[bytes], *, tenant: str) -> list[Record]:
    """Every record of an archive, as cubes of a tenant. It is read whole, so that damage is known before any is used.

    Raises
    ------
    InvalidRequest
        If it is no archive, of a newer form, cut short, or not what was written; it says at which line.
    """
    return records_of(opened(stream), tenant=tenant)


@dataclass(frozen=True, slots=True)
class Opened:
    """An archive that is whole: the lines between the first and the last, and these two."""

    head: Mapping[str, Any]
    rows: tuple[bytes, ...]
    last: Mapping[str, Any]


def records_of(archive: Opened, *, tenant: str) -> list[Record]:
    """Every record of a whole archive, as cubes of a tenant. Raises InvalidRequest."""
    records: dict[str, Record] = {}
    for number, line in enumerate(archive.rows, 2):
        try:
            record = _record(_object(line, f"{number}th"), tenant)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            said = str(error) if isinstance(error, InvalidRequest) else repr(error)
            raise InvalidRequest(f"Line {number} of the archive cannot be read: {said}") from None
        if record.id in records:
            raise InvalidRequest(f"Line {number} of the archive has memory {record.id} a second time.")
        records[record.id] = record
    return list(records.values())


def opened(stream: IO[bytes]) -> Opened:
    """An archive, once all of it is known to be what was written. Raises InvalidRequest."""
    data = stream.read()
    try:
        lines = (gzip.decompress(data) if data.startswith(GZIP) else data).split(b"\n")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InvalidRequest(f"The archive is damaged: {error}.") from None
    if lines.pop() != b"" or len(lines) < 2:
        raise InvalidRequest("The archive is cut short: its last line is missing.")
    head, last = _object(lines[0], "first"), _object(lines[-1], "last")
    if head.get("format") != FORMAT:
        raise InvalidRequest("This is no Tercet archive.")
    if head.get("version") != VERSION:
        raise InvalidRequest(f"The archive has version {head.get('version')!r} and {VERSION} can be read here.")
    if "sha256" not in last:
        raise InvalidRequest("The archive is cut short: its last line is missing.")
    digest = hashlib.sha256(b"".join(line + b"\n" for line in lines[:-1])).hexdigest()
    if digest != last["sha256"] or last.get("cubes") != len(lines) - 2:
        raise InvalidRequest("The archive is damaged: it is not what was written (its sha256 differs).")
    return Opened(head, tuple(lines[1:-1]), last)


def _object(line: bytes, which: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidRequest(f"This is no whole Tercet archive: its {which} line is no JSON object.")
    return value


def _scope(scope: Scope) -> dict[str, str]:
    return {part: value for part in PARTS if (value := getattr(scope, part)) is not None}


def _row(cube: MemCube, versions: list[MemCube], to: Recipient | None) -> dict[str, Any]:
    return {
        "id": cube.id,
        "scope": _scope(cube.scope),
        "state": cube.state.value,
        "versions": [
            {
                "version": one.version,
                "text": one.text,
                "header": header(one if to is None else to.marked(one)),
                "commitment": one.descriptive.commitment,
            }
            for one in versions
        ],
    }


def header(cube: MemCube) -> dict[str, Any]:
    """What an archive keeps of a cube beside its id, scope, version, state and text."""
    return {key: value for key, value in encode(cube).items() if key != "commitment"}


def _record(row: Mapping[str, Any], tenant: str) -> Record:
    raw = parse_id(row["id"])
    if raw is None or not row["versions"]:
        raise InvalidRequest(f"{row['id']!r} is no id, or has no version.")
    scope = Scope(tenant, **row["scope"])
    versions = tuple(
        decode(
            one["header"], id=format_id(raw), scope=scope, version=one["version"], state="generated", text=one["text"]
        )
        for one in row["versions"]
    )
    if [one.version for one in versions] != list(range(1, len(versions) + 1)):
        raise InvalidRequest(f"Memory {row['id']} does not have versions 1, 2, …")
    for one in versions:
        _check(one)
    return Record(versions, State(row["state"]))


def _check(cube: MemCube) -> None:
    """What the types of a header do not say by themselves."""
    d, g, b = cube.descriptive, cube.governance, cube.behavioural
    if cube.kind is not Kind.TEXT:
        raise InvalidRequest(f"Memory {cube.id} is no text; KV caches and adapters do not travel in an archive.")
    if (wrong := misfit(cube, "cube")) is not None:
        raise InvalidRequest(f"Memory {cube.id} has a value of the wrong type, {wrong}.")
    spans = (d.happened.start, d.happened.end) if d.happened else ()
    for when in (d.observed, d.recorded, g.expires, b.valid_from, b.valid_to, *spans):
        if isinstance(when, datetime) and when.utcoffset() is None:
            raise InvalidRequest(f"Memory {cube.id} has a time without a zone, {when.isoformat()}.")


def without_episode(cube: MemCube) -> MemCube:
    """The cube as it is compared: where its words stand in an episode is the vault's own matter."""
    origin = replace(cube.descriptive.origin, episode=None, span=None)
    return replace(cube, descriptive=replace(cube.descriptive, origin=origin))
