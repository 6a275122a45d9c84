"""Whether the journal and the vault still say what they said: the chain, anchored heads, receipts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import apsw

from tercet.errors import VaultDamaged
from tercet.govern.receipt import ANCHOR, FORMAT, VERSION, Document, Paper, read
from tercet.vault import journal, mark
from tercet.vault.connection import marks, query, scalar
from tercet.vault.ids import format_id, parse_id
from tercet.vault.sqlite import Tenant


@dataclass(frozen=True, slots=True)
class Audited:
    """What a check found. It passed if there are no `problems`.

    `lines` and `head` are the journal's, `anchored` the last line that a paper in hand vouches for (0: none does).
    """

    problems: tuple[str, ...]
    lines: int
    head: str
    anchored: int

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def audit(tenant: Tenant, papers: Sequence[bytes], public: str | None) -> Audited:
    """Walk a tenant's journal, and hold it against its mark and against receipts and anchors.

    An edit breaks the chain at the next line. Who edits and then chains all later lines anew, or cuts the journal off,
    contradicts every head that was anchored since: by a receipt, an anchor, or the mark beside the file.
    """
    with tenant.maintaining(trusting=True) as connection:
        problems, lines = list(_chain_problems(connection)), 0
        seq, head = journal.head(connection) if not problems else (0, b"")
        lines = scalar(connection, "SELECT count(*) FROM journal")
        try:
            mark.check(connection, tenant.path)
        except VaultDamaged as error:
            problems.append(str(error))
        anchored = 0
        for number, data in enumerate(papers, 1):
            paper = read(data, public)
            wrong = [*paper.problems, *_head_problems(connection, tenant.name, paper)]
            problems += [f"paper {number}: {one}" for one in wrong]
            if not wrong:
                anchored = max(anchored, paper.document["seq"])
    return Audited(tuple(problems), lines, head.hex() if seq else "", anchored)


def check_receipt(tenant: Tenant, data: bytes, public: str | None) -> Audited:
    """Hold a receipt against the vault it tells of: genuine, in the journal, and nothing of what it names is there."""
    paper = read(data, public)
    problems = [*paper.problems]
    if paper.document.get("format") != FORMAT:
        return Audited((*problems, "it is no receipt"), 0, "", 0)
    with tenant.maintaining(trusting=True) as connection:
        problems += [*_chain_problems(connection), *_head_problems(connection, tenant.name, paper)]
        problems += _remains(connection, paper.document)
        lines, (_, head) = scalar(connection, "SELECT count(*) FROM journal"), journal.head(connection)
    if paper.document.get("probe") and paper.document["probe"].get("found"):
        problems.append(f"its probe found: {'; '.join(map(str, paper.document['probe']['found']))}")
    return Audited(tuple(problems), lines, head.hex(), 0 if problems else paper.document["seq"])


def anchor_document(tenant: Tenant) -> Document:
    """The journal's end, to be signed and kept elsewhere. Raises VaultDamaged if the chain is broken."""
    with tenant.reading() as reader:
        journal.verify(reader.connection)
        seq, head = journal.head(reader.connection)
    at = tenant.vault.clock().isoformat()
    return {"format": ANCHOR, "version": VERSION, "tenant": tenant.name, "seq": seq, "head": head.hex(), "at": at}


def _chain_problems(connection: apsw.Connection) -> Iterator[str]:
    try:
        lines = journal.verify(connection)
    except VaultDamaged as error:
        yield str(error)
        return
    given = scalar(connection, "SELECT seq FROM sqlite_sequence WHERE name = 'journal'") or 0
    if given != lines:
        yield f"The journal ends at line {lines} and went up to {given}."


def _head_problems(connection: apsw.Connection, tenant: str, paper: Paper) -> Iterator[str]:
    if not paper.document:
        return
    seq, head, whose = (paper.document.get(name) for name in ("seq", "head", "tenant"))
    if whose != tenant:
        yield f"it is of tenant {whose!r:.80}, not of {tenant!r}"
        return
    found = scalar(connection, "SELECT hash FROM journal WHERE seq = ?", (seq if isinstance(seq, int) else -1,))
    if found is None:
        yield f"the journal has no line {seq!r:.30}: it was cut off, or an older file or another vault is in its place"
    elif not isinstance(found, bytes) or found.hex() != head:
        yield f"the journal's line {seq} is not what it was: its hash is another"


def _remains(connection: apsw.Connection, document: Document) -> Iterator[str]:
    """What is still there of the cubes that a receipt says are erased."""
    named = document.get("erased")
    ids = {id: parse_id(id) if isinstance(id, str) else None for id in (named if isinstance(named, list) else ())}
    yield from (f"it names {id!r:.60}, which is no id" for id, raw in ids.items() if raw is None)
    sound = [raw for raw in ids.values() if raw is not None]
    for start in range(0, len(sound), 500):
        part = sound[start : start + 500]
        listed = {id for (id,) in query(connection, f"SELECT id FROM erased WHERE id IN ({marks(part)})", part)}  # noqa: S608
        yield from (f"memory {format_id(id)} is not in the ledger of erasures" for id in part if id not in listed)
        statement = f"SELECT number FROM journal WHERE action = 'forget' AND cube IN ({marks(part)})"  # noqa: S608
        numbers = [n for (n,) in query(connection, statement, part)]
        for table, column, values in _places(connection, part, numbers):
            held = f'SELECT count(*) FROM "{table}" WHERE "{column}" IN ({marks(values)})'  # noqa: S608
            if count := scalar(connection, held, values):
                yield f"{count} rows of the table {table} are still of what was erased"


LISTS = frozenset({"erased", "journal"})
"""Tables that name what was erased, by its id alone."""


def _places(
    connection: apsw.Connection, ids: Sequence[bytes], numbers: Sequence[int]
) -> Iterator[tuple[str, str, Sequence[Any]]]:
    """Where an id or a cube's number may stand: table, column, the values that may not be there."""
    tables = query(connection, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    for table in [name for (name,) in tables if name not in LISTS]:
        for row in query(connection, f'PRAGMA table_info("{table}")'):
            if row[2] == "BLOB":
                yield table, row[1], ids
            elif row[1] in {"cube", "product", "source"}:
                yield table, row[1], numbers
