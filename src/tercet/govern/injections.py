"""What entered which prompt: gathered in memory and written in groups, ids and scores only, never content."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import apsw

from tercet.errors import MissingMemory, VaultError
from tercet.scope import Scope
from tercet.vault.allowed import EVERYTHING
from tercet.vault.codec import from_micros, to_micros
from tercet.vault.connection import marks, query, scalar
from tercet.vault.ids import RandomIds, format_id, parse_id
from tercet.vault.reader import Reader
from tercet.vault.sqlite import Tenant

TOGETHER = 64
"""Answers gathered before they are written, with one sync of the disk. The loss window: a process that is killed loses
the trace of the last 63 answers at most; closing, tracing and the next group write what is gathered."""
HELD = 100 * TOGETHER
"""Answers kept while the vault cannot be written (a full disk); beyond it the oldest go, and the log says so."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Injected:
    """A memory in a prompt: exactly this version, with the score it was found by; None for both once it is erased.

    The score alone is None for one that was not found, but came along in a KV cache with one that was.
    """

    cube: str
    version: int | None
    score: float | None


@dataclass(frozen=True, slots=True)
class Injection:
    """An answer: when it was asked for, by whom, about whom, and the memories that went into it, the best first."""

    answer: str
    at: datetime
    by: str
    scope: Scope
    memories: tuple[Injected, ...]


@dataclass(frozen=True, slots=True)
class _Waiting:
    injection: Injection
    salt: bytes
    question: bytes


class InjectionLog:
    """Notes what entered which prompt. Its ids and salts are its own: reading leaves the ids of writes as they are."""

    def __init__(self) -> None:
        self._ids = RandomIds()
        self._lock = threading.Lock()
        self._waiting: dict[str, list[_Waiting]] = {}

    def note(
        self, tenant: Tenant, question: str, told: Sequence[tuple[str, int, float | None]], *, scope: Scope, by: str
    ) -> str:
        """Note an answer that has these memories (id, version, score); returns its id. Written with its group."""
        at = tenant.vault.clock()
        salt = self._ids.entropy(16)
        memories = tuple(Injected(*one) for one in told)
        with self._lock:
            answer = self._ids(at)
            waiting = self._waiting.setdefault(tenant.name, [])
            commitment = hashlib.sha256(salt + question.encode()).digest()
            waiting.append(_Waiting(Injection(answer, at, by, scope, memories), salt, commitment))
            due = len(waiting) % TOGETHER == 0
        if due:
            self.flush(tenant)
        return answer

    def flush(self, tenant: Tenant) -> None:
        """Write what is gathered of a tenant. A vault that cannot be written keeps it waiting, up to `HELD`."""
        with self._lock:
            taken = self._waiting.pop(tenant.name, [])
        if not taken:
            return
        try:
            with tenant.writing(by="tercet") as writer:
                for one in taken:
                    _write(writer.connection, one)
        except VaultError as error:
            log.warning("%d answers are not traced yet: %s", len(taken), error)
            with self._lock:
                held = [*taken, *self._waiting.get(tenant.name, [])]
                if len(held) > HELD:
                    log.warning("%d answers will never be traced: too many wait", len(held) - HELD)
                self._waiting[tenant.name] = held[-HELD:]


def trace(reader: Reader, id: str, scope: Scope) -> list[Injection]:
    """The answers that a memory went into, oldest first; or the one answer of that id, with its memories.

    Of a memory that the scope sees, all answers are told; of one that is gone, those that were asked for in the scope.
    A reader that is `under` something names no memory that is not allowed, and one that is gone only where no rule
    would have looked at what it was.

    Raises
    ------
    MissingMemory
        If the id is neither a memory that the scope sees or saw in an answer, nor an answer asked for within it.
    """
    raw = parse_id(id) or b""
    answered = query(reader.connection, f"{_ANSWERS} WHERE answer = ?", (raw,))
    if answered and scope.covers(_scope(reader, answered[0])):
        found = _injection(reader, answered[0], None)
        seen = tuple(memory for memory in found.memories if _seen(reader, memory.cube))
        if found.memories and not seen:
            raise MissingMemory(id)
        return [replace(found, memories=seen)]
    rows = query(
        reader.connection,
        f"{_ANSWERS} WHERE n IN (SELECT injection FROM injected WHERE cube = ?) ORDER BY n",  # noqa: S608
        (raw,),
    )
    try:
        reader.head(id, scope)
    except MissingMemory:
        if not reader.erased(id) or not _seen(reader, id):
            raise
        rows = [row for row in rows if scope.covers(_scope(reader, row))]
        if not rows:
            raise
    return [_injection(reader, row, raw) for row in rows]


def _seen(reader: Reader, id: str) -> bool:
    if reader.allowed is EVERYTHING:
        return True
    try:
        reader.head(id, Scope(reader.tenant))
    except MissingMemory:
        return reader.allowed.gone == "TRUE" and reader.erased(id)
    return True


_ANSWERS = "SELECT n, answer, at, by, user, agent, session FROM injections"


def _write(connection: apsw.Connection, one: _Waiting) -> None:
    made, scope = one.injection, one.injection.scope
    n = scalar(
        connection,
        "INSERT INTO injections (answer, at, by, user, agent, session, salt, question) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
        "RETURNING n",
        (parse_id(made.answer), to_micros(made.at), made.by, scope.user or "", scope.agent or "", scope.session or "",
         one.salt, one.question),
    )  # fmt: skip
    # What was forgotten while this waited leaves its id and no more.
    ids = [parse_id(memory.cube) for memory in made.memories]
    statement = f"SELECT id FROM erased WHERE id IN ({marks(ids)})"  # noqa: S608
    gone = {raw for (raw,) in query(connection, statement, ids)}
    connection.executemany(
        "INSERT INTO injected VALUES (?, ?, ?, ?, ?)",
        [
            (n, place, raw, *((None, None) if raw in gone else (memory.version, memory.score)))
            for place, (raw, memory) in enumerate(zip(ids, made.memories, strict=True))
        ],
    )


def _scope(reader: Reader, row: tuple[Any, ...]) -> Scope:
    user, agent, session = (part or None for part in row[4:7])
    return Scope(reader.tenant, user, agent, session)


def _injection(reader: Reader, row: tuple[Any, ...], only: bytes | None) -> Injection:
    n, answer, at, by = row[:4]
    held = query(
        reader.connection, "SELECT cube, version, score FROM injected WHERE injection = ? ORDER BY place", (n,)
    )
    memories = tuple(Injected(format_id(raw), version, score) for raw, version, score in held if only in (None, raw))
    return Injection(format_id(answer), from_micros(at), by, _scope(reader, row), memories)
