"""AI-native memory's third layer, per user: an adapter of what a user has said, made by a job, if the user asks for it.

Of the layers (Shang et al. 2024, 2406.18312; 2503.08102) L0 is what was observed and L1 what is read in words; this is
L2, parameters. It lags behind: what was said since is recalled as text. It is kept by the user's number, which is
never given twice, so that it goes with the user's name.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from tercet.cube import Kind, MemCube, Trust
from tercet.errors import InvalidRequest
from tercet.lifecycle import READABLE
from tercet.scope import Scope
from tercet.vault import jobs
from tercet.vault.codec import dump
from tercet.vault.connection import query, scalar, undamaged

if TYPE_CHECKING:
    import apsw

    from tercet.vault.reader import Reader
    from tercet.vault.writer import Writer

JOB, STATE = "learn", "learn:"
LEAST = 2
"""Sentences below which no adapter is made."""


@dataclass(frozen=True, slots=True)
class Personal:
    """A user's wish that a model learn what is said of them, and what came of it.

    Attributes
    ----------
    engine
        Which model learns; None: the one that can.
    hours
        How often it is looked whether there is something new.
    days
        How long a memory must have stood unchanged before it is learnt.
    most
        How many memories are learnt at most, the newest first.
    adapter
        The id of the adapter, once there is one.
    outcome, why
        What came of the last look: "learnt", "nothing new", "refused" (by the gate), and the reason.
    tried
        A hash of the memories of the last attempt, so that one that was refused is not repeated.
    """

    engine: str | None = None
    hours: float = 24.0
    days: float = 1.0
    most: int = 400
    adapter: str | None = None
    outcome: str = ""
    why: str = ""
    tried: str = ""

    def __post_init__(self) -> None:
        if not self.hours > 0 or not self.days >= 0 or self.most < LEAST:
            raise InvalidRequest(f"hours are above 0, days 0 or more, most {LEAST} or more; not {self}.")

    @property
    def every(self) -> timedelta:
        """`hours` as a duration."""
        return timedelta(hours=self.hours)


def ask(writer: Writer, scope: Scope, wish: Personal, *, at: datetime) -> Personal:
    """Take down a user's wish, with the job; an adapter that is there stays. Raises InvalidRequest."""
    owner = owner_of(writer.connection, scope)
    held = read(writer.reader, owner)
    if held is not None:
        wish = replace(wish, adapter=held.adapter, outcome=held.outcome, why=held.why, tried=held.tried)
    keep(writer, owner, wish)
    jobs.enqueue(writer.connection, JOB, {"owner": owner}, at=at, sooner=True)
    return wish


def stop(writer: Writer, scope: Scope) -> None:
    """Take the wish back; the adapter stays until it is demoted. Raises InvalidRequest if there is none."""
    owner = owner_of(writer.connection, scope)
    if read(writer.reader, owner) is None:
        raise InvalidRequest("Nobody asked a model to learn this user.")
    drop(writer, owner)


def drop(writer: Writer, owner: int) -> None:
    """Let go of a wish and its job."""
    writer.connection.execute("DELETE FROM meta WHERE key = ?", (f"{STATE}{owner}",))
    writer.connection.execute("DELETE FROM jobs WHERE name = ? AND body = ?", (JOB, dump({"owner": owner})))


def keep(writer: Writer, owner: int, wish: Personal) -> None:
    """Write what is wished and what came of it."""
    writer.connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"{STATE}{owner}", dump(asdict(wish))))


def read(reader: Reader, owner: int) -> Personal | None:
    """A user's wish, by number; None if there is none. Raises VaultDamaged."""
    text = scalar(reader.connection, "SELECT value FROM meta WHERE key = ?", (f"{STATE}{owner}",))
    if not isinstance(text, str):
        return None
    with undamaged("What a user wants learnt"):
        told: dict[str, Any] = json.loads(text)
        return Personal(**told)


def every(reader: Reader) -> list[Personal]:
    """The wishes of all users of a tenant."""
    rows = query(reader.connection, "SELECT key FROM meta WHERE key GLOB ?", (f"{STATE}*",))
    found = [read(reader, int(key.removeprefix(STATE))) for (key,) in rows]
    return [one for one in found if one is not None]


def move(writer: Writer, old: str, new: str) -> None:
    """Let those who named one engine have another."""
    for (key,) in query(writer.connection, "SELECT key FROM meta WHERE key GLOB ?", (f"{STATE}*",)):
        owner = int(key.removeprefix(STATE))
        wish = read(writer.reader, owner)
        if wish is not None and wish.engine == old:
            keep(writer, owner, replace(wish, engine=new))


def owner_of(connection: apsw.Connection, scope: Scope) -> int:
    """A user's number. Raises InvalidRequest for a scope that names more or less than a user, or one nobody knows."""
    if scope.user is None or scope.agent is not None or scope.session is not None:
        raise InvalidRequest("A personal adapter is one user's: name the user, no agent and no session.")
    found = scalar(connection, "SELECT n FROM owners WHERE user = ?", (scope.user,))
    if not isinstance(found, int):
        raise InvalidRequest("There is no memory of this user yet, so there is nothing to learn; remember something.")
    return found


def scope_of(connection: apsw.Connection, tenant: str, owner: int) -> Scope | None:
    """The scope of a user's number; None once the name has gone with the last memory."""
    rows = query(connection, "SELECT user FROM owners WHERE n = ?", (owner,))
    return Scope(tenant, user=rows[0][0]) if rows and rows[0][0] else None


def sentences(reader: Reader, scope: Scope, wish: Personal, *, at: datetime) -> list[MemCube]:
    """What there is to learn: the user's texts that stand unchanged since `days`, the newest `most`, oldest first.

    What models said, or what was made from something, is left out: it would be learnt twice.
    """
    before = at - timedelta(days=wish.days)
    found = [cube for cube in reader.cubes(reader.numbers(scope, {"kind": Kind.TEXT.value})) if _fit(cube, before)]
    return found[-wish.most :]


def _fit(cube: MemCube, before: datetime) -> bool:
    recorded = cube.descriptive.recorded
    return (
        cube.state in READABLE
        and cube.governance.trust is not Trust.QUARANTINED
        and cube.descriptive.origin.role not in {"assistant", "system", "tool"}
        and not cube.behavioural.derivations
        and cube.behavioural.superseded_by is None
        and (recorded is None or recorded <= before)
    )
