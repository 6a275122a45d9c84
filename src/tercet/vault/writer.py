"""Everything that changes a tenant's file, within one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import apsw

from tercet import lifecycle
from tercet.cube import Kind, MemCube, Scalar
from tercet.errors import InvalidRequest, MissingMemory, StaleWrite
from tercet.lifecycle import State
from tercet.scope import Scope
from tercet.vault import blobs, jobs
from tercet.vault.codec import commit, dump, encode, to_micros
from tercet.vault.connection import marks, query, scalar
from tercet.vault.ids import Entropy, IdSource, parse_id
from tercet.vault.journal import Chain
from tercet.vault.reader import Reader
from tercet.vault.search import words
from tercet.vault.search.columns import WIDE

INDEX_EVERY = 10_000
"""Vectors after which a large vault is asked whether its index should be written anew."""


@dataclass(frozen=True, slots=True)
class Space:
    """An embedding space: vectors are compared only within one."""

    name: str
    dim: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A cube on its way in, with what was worked out before the transaction began.

    `vectors` and `states` are the bytes a row keeps (None: an `embed` job makes them later), `terms` the words,
    `marks` bits that recall reads (the vault only keeps them).
    """

    cube: MemCube
    terms: Mapping[str, int]
    marks: int = 0
    vectors: bytes | None = None
    states: bytes | None = None


class Writer:
    """The changes one transaction makes. `Tenant.write` opens and ends it."""

    def __init__(
        self, connection: apsw.Connection, tenant: str, *, by: str, at: datetime, ids: IdSource, entropy: Entropy
    ) -> None:
        self.connection, self.tenant, self.at, self.ids, self.entropy = connection, tenant, at, ids, entropy
        self.chain = Chain(connection, by=by, at=at)
        self.reader = Reader(connection, tenant)
        self._embedded = 0
        self._postings: list[tuple[int, int, Mapping[str, int]]] = []

    def flush(self) -> None:
        """Write what was gathered over the batch; called once before the commit."""
        words.add(self.connection, self._postings)
        self._postings = []
        if self._embedded:
            rows = scalar(self.connection, "SELECT max(n) FROM vectors")
            if rows > WIDE and rows // INDEX_EVERY != (rows - self._embedded) // INDEX_EVERY:
                jobs.enqueue(self.connection, "index", {}, at=self.at)
            self._embedded = 0

    def put(self, entries: Sequence[Entry], space: Space | None, *, action: str = "remember") -> list[MemCube]:
        """Take in drafts; returns the cubes in the same order. A `ref` that is there already gives the cube it names.

        Raises
        ------
        InvalidRequest
            If a ref names a cube with another text.
        """
        episode, offset = "", 0
        space_n = self.space(space)
        done: list[MemCube] = []
        for entry in entries:
            owner, scope = self.scope(entry.cube.scope)
            twin = self._twin(scope, entry.cube)
            if twin is not None:
                done.append(twin)
                continue
            quoted = entry.cube.kind is Kind.TEXT and not entry.cube.behavioural.derivations
            if quoted and not episode:
                episode = self.ids(self.at)
                self.chain.append(action, episode=episode)
            n, cube = self._insert(entry, scope, (episode, offset) if quoted else None, action)
            offset += len(cube.text) + 1
            self._index(entry, owner, cube, space_n, n)
            done.append(cube)
        return done

    def revise(self, id: str, entry: Entry, space: Space | None, *, expect: int | None, action: str) -> MemCube:
        """Write the next version of a cube; everything the old text was found by goes, in the same transaction.

        Raises
        ------
        MissingMemory
            If the entry's scope does not see the cube.
        StaleWrite
            If `expect` is not its newest version.
        IllegalTransition
            If the cube is frozen.
        """
        n, old = self.reader.head(id, entry.cube.scope)
        if expect is not None and old.version != expect:
            raise StaleWrite(id, expected=expect, found=old.version)
        if old.state is State.FROZEN:
            lifecycle.step(old.state, State.GENERATED)
        owner, scope = self.scope(old.scope)
        new = _numbered(entry.cube, old.id, old.version + 1, self.at, old.scope)
        self._unindex(n, owner, old)
        new = self._version((n, scope), new, piece=None, action=action)
        columns = {"version": new.version, "words": sum(entry.terms.values()), "marks": entry.marks, **heading(new)}
        changed = ", ".join(f"{name} = ?" for name in columns)
        self.connection.execute(f"UPDATE cubes SET {changed} WHERE n = ?", (*columns.values(), n))  # noqa: S608
        self._index(entry, owner, new, self.space(space), n)
        return new

    def embedded(self, rows: Sequence[tuple[int, MemCube, bytes, bytes | None]], space: Space) -> None:
        """Fill in vectors that an `embed` job made: (cube number, the version that was embedded, vectors, states)."""
        space_n = self.space(space)
        for n, cube, vectors, states in rows:
            # A cube revised or erased since the job read it takes no old vector.
            if scalar(self.connection, "SELECT version FROM cubes WHERE n = ?", (n,)) == cube.version:
                self.connection.execute(
                    "INSERT INTO vectors (cube, space, vectors, states) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (n, space_n, vectors, states),
                )
                self._embedded += 1
                self.chain.append("embed", cube.id, cube.version, place=(n, self.scope(cube.scope)[1]))

    def used(self, counts: Mapping[str, tuple[int, datetime]]) -> None:
        """Add a batch of uses; a cube used for the first time becomes activated."""
        for id, (count, last) in counts.items():
            for n, state, scope in query(
                self.connection, "SELECT n, state, scope FROM cubes WHERE id = ?", (parse_id(id),)
            ):
                self.connection.execute(
                    "INSERT INTO uses VALUES (?, ?, ?) ON CONFLICT (cube) DO UPDATE "
                    "SET count = count + excluded.count, last = max(last, excluded.last)",
                    (n, count, to_micros(last)),
                )
                if state == State.GENERATED:
                    self.move((n, scope, id), State.GENERATED, State.ACTIVATED)

    def move(self, cube: tuple[int, int, str], current: State, target: State) -> None:
        """One edge of the lifecycle for a cube (number, scope number, id), with its journal line."""
        n, scope, id = cube
        lifecycle.step(current, target)
        self.connection.execute("UPDATE cubes SET state = ? WHERE n = ?", (target.value, n))
        self.chain.append(target.value, id, place=(n, scope))

    def scope(self, scope: Scope) -> tuple[int, int]:
        """The numbers of a scope's owner and of the scope itself, which are made if need be."""
        user, rest = scope.user or "", (scope.agent or "", scope.session or "")
        owner = scalar(self.connection, "SELECT n FROM owners WHERE user = ?", (user,))
        if owner is None:
            owner = scalar(self.connection, "INSERT INTO owners (user) VALUES (?) RETURNING n", (user,))
        find = "SELECT n FROM scopes WHERE owner = ? AND agent = ? AND session = ?"
        n = scalar(self.connection, find, (owner, *rest))
        if n is None:
            insert = "INSERT INTO scopes (owner, agent, session) VALUES (?, ?, ?) RETURNING n"
            n = scalar(self.connection, insert, (owner, *rest))
        return owner, n

    def space(self, space: Space | None) -> int | None:
        """The number of an embedding space, made if need be."""
        if space is None:
            return None
        rows = query(self.connection, "SELECT n, dim FROM spaces WHERE name = ?", (space.name,))
        if rows and rows[0][1] != space.dim:
            raise InvalidRequest(
                f"The space {space.name!r} has {rows[0][1]} dimensions here and the embedder gives {space.dim}: "
                "give the embedder another space name."
            )
        if rows:
            return int(rows[0][0])
        return int(
            scalar(self.connection, "INSERT INTO spaces (name, dim) VALUES (?, ?) RETURNING n", (space.name, space.dim))
        )

    def _twin(self, scope: int, draft: MemCube) -> MemCube | None:
        if draft.ref is None:
            return None
        rows = query(self.connection, "SELECT n FROM cubes WHERE scope = ? AND ref = ?", (scope, draft.ref))
        if not rows:
            return None
        [twin] = self.reader.cubes([rows[0][0]])
        # The ref names what was observed; an import that runs again after an edit hands in the first text again.
        if all(old.text != draft.text for old in self.reader.history(twin.id, Scope(self.tenant))):
            raise InvalidRequest(
                f"The ref {draft.ref!r} already names memory {twin.id} with another text; revise that one, "
                "or give this one a ref of its own."
            )
        return twin

    def _insert(self, entry: Entry, scope: int, episode: tuple[str, int] | None, action: str) -> tuple[int, MemCube]:
        draft = entry.cube
        id = draft.id or self.ids(self.at)
        raw = parse_id(id)
        if raw is None:
            raise InvalidRequest(f"{id!r} is not a memory's id (a UUID).")
        if scalar(self.connection, "SELECT 1 FROM erased WHERE id = ?", (raw,)):
            raise InvalidRequest(f"Memory {id} was erased here and does not come back.")
        if scalar(self.connection, "SELECT 1 FROM cubes WHERE id = ?", (raw,)):
            raise InvalidRequest(f"Memory {id} is here already.")
        piece = None
        if episode is not None:
            id_of_episode, start = episode
            if draft.descriptive.origin.span:
                start = draft.descriptive.origin.span[0]
            piece = scalar(
                self.connection,
                "INSERT INTO episodes (id, start, text) VALUES (?, ?, ?) RETURNING n",
                (parse_id(id_of_episode), start, draft.text),
            )
            origin = replace(draft.descriptive.origin, episode=id_of_episode, span=(start, start + len(draft.text)))
            draft = replace(draft, descriptive=replace(draft.descriptive, origin=origin))
        new = _numbered(draft, id, max(draft.version, 1), self.at, draft.scope)
        columns = {
            "id": raw,
            "scope": scope,
            "state": new.state.value,
            "version": new.version,
            "run": None if new.scope.session else parse_id(episode[0] if episode else id),
            "words": sum(entry.terms.values()),
            "marks": entry.marks,
            **heading(new),
        }
        insert = f"INSERT INTO cubes ({', '.join(columns)}) VALUES ({marks([*columns])}) RETURNING n"  # noqa: S608
        n = scalar(self.connection, insert, tuple(columns.values()))
        new = self._version((n, scope), new, piece=piece, action=action)
        return n, new

    def _version(self, at: tuple[int, int], cube: MemCube, *, piece: int | None, action: str) -> MemCube:
        header, salt = dump(encode(cube)), self.entropy(16)
        commitment = commit(salt, cube, header)
        seq = self.chain.append(action, cube.id, cube.version, place=at, commitment=commitment.hex())
        self.connection.execute(
            "INSERT INTO versions (seq, cube, version, piece, text, header, salt, commitment) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (seq, at[0], cube.version, piece, None if piece else cube.text, header, salt, commitment),
        )
        blobs.name(self.connection, at[0], cube)
        for link in cube.behavioural.derivations:
            source, _ = self.reader.head(link.id, Scope(self.tenant))
            if not scalar(
                self.connection, "SELECT 1 FROM versions WHERE cube = ? AND version = ?", (source, link.version)
            ):
                raise MissingMemory(link.id)
            self.connection.execute(
                "INSERT INTO derivations VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (at[0], cube.version, source, link.version),
            )
        return replace(cube, descriptive=replace(cube.descriptive, commitment=commitment.hex()))

    def _index(self, entry: Entry, owner: int, cube: MemCube, space: int | None, n: int) -> None:
        self._postings.append((owner, n, entry.terms))
        self.connection.executemany(
            "INSERT INTO attributes VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
            [(owner, key, value, n) for key, value in attributes(cube)],
        )
        if space is not None and entry.vectors is not None:
            self.connection.execute(
                "INSERT INTO vectors (cube, space, vectors, states) VALUES (?, ?, ?, ?)",
                (n, space, entry.vectors, entry.states),
            )
            self._embedded += 1
        elif cube.kind is Kind.TEXT:
            jobs.enqueue(self.connection, "embed", {}, at=self.at)

    def _unindex(self, n: int, owner: int, old: MemCube) -> None:
        self.flush()  # a cube written and revised in one transaction is indexed before it is taken out again
        words.remove(self.connection, owner, n, words.counts(old.text))
        self.connection.execute("DELETE FROM attributes WHERE owner = ? AND cube = ?", (owner, n))
        self.connection.execute("DELETE FROM vectors WHERE cube = ?", (n,))


def attributes(cube: MemCube) -> list[tuple[str, Scalar]]:
    """What filters find a cube by beside its columns: (key, value)."""
    held: list[tuple[str, Scalar]] = [("tags", tag) for tag in cube.tags]
    return held + [(f"metadata.{key}", value) for key, value in cube.metadata.items() if value is not None]


def heading(cube: MemCube) -> dict[str, Scalar]:
    """What a cube's head repeats of its newest version, by column."""
    d, g, b = cube.descriptive, cube.governance, cube.behavioural
    return {
        "kind": d.kind.value,
        "type": d.type,
        "ref": d.origin.ref,
        "speaker": d.origin.speaker,
        "role": d.origin.role,
        "observed": _micros(d.observed),
        "happened_from": _micros(d.happened.start) if d.happened else None,
        "happened_to": _micros(d.happened.end) if d.happened else None,
        "expires": _micros(g.expires),
        "half_life": g.half_life_days,
        "held": int(g.hold is not None),
        "sensitivity": int(g.sensitivity),
        "trust": int(g.trust),
        "subject": d.slot.subject if d.slot else None,
        "attribute": d.slot.attribute if d.slot else None,
        "valid_from": _micros(b.valid_from),
        "valid_to": _micros(b.valid_to),
    }


def _numbered(cube: MemCube, id: str, version: int, at: datetime, scope: Scope) -> MemCube:
    d, b = cube.descriptive, cube.behavioural
    parent = b.parent if b.parent is not None else version - 1 or None
    return replace(
        cube,
        descriptive=replace(d, id=id, observed=d.observed or at, recorded=d.recorded or at, commitment=None),
        governance=cube.governance if cube.scope == scope else replace(cube.governance, scope=scope),
        behavioural=replace(b, version=version, parent=parent),
    )


def _micros(when: datetime | None) -> int | None:
    return None if when is None else to_micros(when)
