"""The provenance line of an archive: who wrote it, from where, when, for whom and why, signed as receipts are.

It stands in the archive's last line and covers the hash of every line before, and with it every memory, its version and
its salted commitment. What it proves: whoever holds that key wrote these very bytes. What it does not: that what they
say is true, or that nobody else has a copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tercet.govern.receipt import PROVENANCE, VERSION, Document, read, to_bytes
from tercet.vault.journal import head

if TYPE_CHECKING:
    from tercet.exchange.watermark import Recipient
    from tercet.scoped import ScopedMemory


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where an archive comes from, as it says itself; to be believed if there are no `problems`.

    `signed` is the public key that it was signed with, and fits; None: it is not signed.
    """

    document: Mapping[str, Any]
    signed: str | None
    problems: tuple[str, ...] = ()


UNTOLD = Provenance({}, None)
"""Of an archive that does not say where it comes from."""


def provenance(memory: ScopedMemory, last: Mapping[str, Any], to: Recipient | None) -> Document:
    """The line for an archive that ends so; without a signature where the vault has no key."""
    with memory.tercet.vault.tenant(memory.scope.tenant).reading() as reader:
        seq, hash = head(reader.connection)
    document: Document = {
        "format": PROVENANCE,
        "version": VERSION,
        "tenant": memory.scope.tenant,
        "by": memory.by.signed,
        "purpose": memory.by.purpose,
        "recipient": None if to is None else to.name,
        "at": memory.tercet.clock().isoformat(),
        "seq": seq,
        "head": hash.hex(),
        **last,
    }
    signer = memory.tercet.signer
    return document if signer is None else signer.signed(document)


def check(last: Mapping[str, Any], public: str | None) -> Provenance:
    """The provenance in an archive's last line, held against that line and a public key.

    Without a key, only that it was not changed since whoever signed it did. A line without a signature is no problem
    then: archives need none.
    """
    document = last.get("provenance")
    if not isinstance(document, dict):
        return Provenance({}, None, () if public is None else ("it does not say where it comes from",))
    key = document.get("key")
    if public is None and key is None:
        problems = [*_differing(last, document)]
        return Provenance(document, None, tuple(problems))
    paper = read(to_bytes(document), public or str(key))
    problems = [*paper.problems, *_differing(last, document)]
    return Provenance(document, None if problems else str(key), tuple(problems))


def _differing(last: Mapping[str, Any], document: Document) -> list[str]:
    if document.get("format") != PROVENANCE:
        return ["its provenance is something else"]
    fits = all(document.get(name) == last.get(name) for name in ("cubes", "sha256"))
    return [] if fits else ["its provenance is that of another archive"]
