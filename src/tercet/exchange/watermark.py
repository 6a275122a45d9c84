"""Marks that name whom an archive was written for, and finding them again in a copy that leaked.

A mark is keyed by the tenant's secret, so that nobody who holds one copy can make the mark of another. It stands in a
field of its own, `watermark` in the header of each version; no text is changed. Whoever knows that can take it out:
`decoy` adds a memory of its own, with words that occur nowhere else, which survives where the text alone is copied.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tercet.admin import administered_tenant
from tercet.cube import Descriptive, Governance, MemCube, Origin, Source, Text
from tercet.errors import InvalidRequest
from tercet.keeping import secret
from tercet.scope import Caller, Scope, check_name
from tercet.vault.codec import from_micros
from tercet.vault.connection import query
from tercet.vault.ids import RandomIds

if TYPE_CHECKING:
    from tercet.kernel import Tercet
    from tercet.scoped import ScopedMemory

MARK = re.compile(r"tw_([0-9a-f]{16})[0-9a-f]{32}")
CONSONANTS, VOWELS = "bdfglmnprstvzkhj", "aeio"
MAX_FILE = 1 << 30
"""Bytes of a file in which marks are looked for, unpacked."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """For whom an export is; `mark` names that export, `words` are those of its decoy (empty: there is none)."""

    name: str
    mark: str
    words: str = ""

    def marked(self, cube: MemCube) -> MemCube:
        """The cube with the mark behind those that it came with: a copy of a copy names every hand."""
        marks = [*(cube.governance.watermark or "").split(), self.mark]
        return replace(cube, governance=replace(cube.governance, watermark=" ".join(marks)))

    def decoys(self, scope: Scope, now: datetime) -> list[MemCube]:
        """The memory that is in this copy alone, if there is to be one; the caller of `recipient` chose that."""
        if not self.words:
            return []
        described = Descriptive(
            id=RandomIds()(now), observed=now, recorded=now, origin=Origin(Source.IMPORT), type="fact"
        )
        cube = MemCube(Text(f"The reference for this file is {self.words}."), described, Governance(scope))
        return [replace(cube, behavioural=replace(cube.behavioural, version=1))]


@dataclass(frozen=True, slots=True)
class Leak:
    """A copy that was found out: the export it comes from, for whom it was written, by whom, where to, and when.

    `found` says by what: "mark", "decoy" or both.
    """

    recipient: str
    by: str
    path: str
    at: datetime
    found: tuple[str, ...]


def recipient(memory: ScopedMemory, name: str, *, decoy: bool = False) -> Recipient:
    """A new mark for an export to somebody. Raises InvalidRequest, Refused, VaultError."""
    check_name(name, "recipient")
    memory.enter("read")
    key, token = secret(memory, "read"), secrets.token_hex(8)
    return Recipient(name, _mark(key, token, name), _words(key, token, name) if decoy else "")


def find_leaks(tercet: Tercet, path: Path, *, tenant: str | None = None, by: Caller | None = None) -> list[Leak]:
    """The exports of a tenant that a file comes from: an archive, a part of one, or any text that holds of it.

    Raises
    ------
    InvalidRequest
        If the file cannot be read, or is larger than 1 GB.
    Refused
        If the caller does not administer the tenant.
    """
    held = administered_tenant(tercet, tenant, by)
    data = _read(path)
    plain = re.sub(rb"\s+", b" ", data).lower()
    with held.reading() as reader:
        rows = query(
            reader.connection,
            "SELECT e.recipient, e.mark, e.path, e.at, j.by FROM exports e LEFT JOIN journal j "
            "ON j.action = 'export' AND j.detail ->> '$.export' = e.n WHERE e.mark IS NOT NULL ORDER BY e.n",
        )
    if not rows:
        return []
    key, leaks = held.secret(), []
    for name, mark, where, at, who in rows:
        match = MARK.fullmatch(mark)
        if match is None or mark != _mark(key, match[1], name):
            continue  # the row was changed: it names nobody
        words = _words(key, match[1], name)
        found = [what for what, sign in (("mark", mark), ("decoy", words)) if sign.encode() in plain]
        if found:
            leaks.append(Leak(name, who or "", where, from_micros(at), tuple(found)))
    return leaks


def _mark(key: bytes, token: str, name: str) -> str:
    return f"tw_{token}{_hmac(key, 'mark', token, name).hex()[:32]}"


def _words(key: bytes, token: str, name: str) -> str:
    """Four made-up words, 48 bits."""
    bits = int.from_bytes(_hmac(key, "decoy", token, name)[:6], "big")
    syllables = [CONSONANTS[bits >> 6 * n & 15] + VOWELS[bits >> 6 * n + 4 & 3] for n in range(8)]
    return " ".join("".join(syllables[n : n + 2]) for n in range(0, 8, 2))


def _hmac(key: bytes, *parts: str) -> bytes:
    return hmac.digest(key, b"\0".join(part.encode() for part in ("tercet-watermark", *parts)), hashlib.sha256)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE + 1)
        if data.startswith(b"\x1f\x8b"):
            data = zlib.decompressobj(wbits=31).decompress(data, MAX_FILE + 1)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}.") from error
    except zlib.error as error:
        raise InvalidRequest(f"{path} is compressed and damaged: {error}.") from None
    if len(data) > MAX_FILE:
        raise InvalidRequest(f"{path} is larger than 1 GB; look through it in parts.")
    return data
