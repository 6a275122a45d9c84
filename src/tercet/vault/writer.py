"""Everything that changes a tenant's file, within one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from tercet import lifecycle
from tercet.cube import Kind, Link, MemCube, Scalar
from tercet.errors import IllegalTransition, InvalidRequest, MissingMemory, StaleWrite
from tercet.lifecycle import State
from tercet.scope import Scope
from tercet.vault import blobs, jobs, slots
from tercet.vault.codec import commit, dump, encode, from_micros, to_micros
from tercet.vault.connection import marks, query, scalar
from tercet.vault.heads import attributes, heading
from tercet.vault.ids import Entropy, IdSource, format_id, parse_id
from tercet.vault.journal import Chain
from tercet.vault.past import vectors_of
from tercet.vault.reader import Reader
from tercet.vault.search import words
from tercet.vault.search.columns import WIDE
from tercet.vault.spaces import Space, left

INDEX_EVERY = 10_000
"""Vectors after which a large vault is asked whether its index should be written anew."""


Kept: TypeAlias = Sequence[tuple[int, bytes, bytes | None]]
"""(space, vectors, states) of a text, as rows have them."""


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

    def __init__(self, reader: Reader, *, by: str, at: datetime, ids: IdSource, entropy: Entropy) -> None:
        self.reader, self.at, self.ids, self.entropy = reader, at, ids, entropy
        self.connection, self.tenant, self.branch = reader.connection, reader.tenant, reader.line.branch
        self.chain = Chain(self.connection, by=by, at=at, branch=self.branch)
        self.erased = False  # whether an erasure is part of it: `erase` says so
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
        filed: dict[str, MemCube] = {}
        for entry in entries:
            owner, scope = self.scope(entry.cube.scope)
            twin = self._twin(entry.cube)
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
            # An archive brings its slots as they were filed.
            if cube.descriptive.slot is not None and action == "remember":
                filed |= slots.file(self, n, cube)
        return [filed.get(cube.id, cube) for cube in done]

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
            raise IllegalTransition(f"Memory {id} is frozen and takes no new version; `unfreeze` it first.")
        return self.rewrite(n, old, entry, self.space(space), action)

    def rewrite(
        self, n: int, old: MemCube, entry: Entry, space: int | None, action: str, *, kept: Kept = ()
    ) -> MemCube:
        """Write the next version of the cube with that number, whatever state it is in.

        A branch that has no row of its own for the cube gets one; its parent's stays as it is. `kept` are vectors
        that an earlier version with this text had.
        """
        owner, scope = self.scope(old.scope)
        new = _numbered(entry.cube, old.id, old.version + 1, self.at, old.scope)
        columns = {"version": new.version, "words": sum(entry.terms.values()), "marks": entry.marks, **heading(new)}
        if old.state is not State.ARCHIVED:
            columns["due"] = _micros(_looked_at(new, self.at))
        if self.owns(n):
            self._unindex(n, owner, old)
            changed = ", ".join(f"{name} = ?" for name in columns)
            self.connection.execute(f"UPDATE cubes SET {changed} WHERE n = ?", (*columns.values(), n))  # noqa: S608
        else:
            run = scalar(self.connection, "SELECT run FROM cubes WHERE n = ?", (n,))
            self.reader.cover(n)
            n = self._head(
                {"id": parse_id(old.id), "scope": scope, "state": old.state.value, "run": run} | columns
            )  # fmt: skip
        new = self._version((n, scope), new, piece=None, action=action)
        self._index(entry, owner, new, space, n, kept)
        if _ends(new):
            self.wake(n)
        return new

    def restate(self, n: int, old: MemCube, new: MemCube, action: str) -> MemCube:
        """Write the next version of the cube with that number, of the same words under another header."""
        behavioural = replace(new.behavioural, parent=None)
        new = replace(new, descriptive=replace(new.descriptive, recorded=None), behavioural=behavioural)
        entry = Entry(new, words.counts(new.text), self.reader.marks(n))
        kept = vectors_of(self.connection, n, old.version)
        return self.rewrite(n, old, entry, None, action, kept=kept)

    def owns(self, n: int) -> bool:
        """Whether the row is one of the branch that is written to, and not of a parent."""
        if not self.branch:
            return True
        return bool(scalar(self.connection, "SELECT branch FROM cubes WHERE n = ?", (n,)) == self.branch)

    def _head(self, columns: Mapping[str, Scalar | bytes]) -> int:
        columns = {"branch": self.branch, **columns}
        insert = f"INSERT INTO cubes ({', '.join(columns)}) VALUES ({marks([*columns])}) RETURNING n"  # noqa: S608
        return int(scalar(self.connection, insert, tuple(columns.values())))

    def embedded(self, rows: Sequence[tuple[int, MemCube, bytes, bytes | None]], space: Space) -> None:
        """Fill in vectors that an `embed` job made: (cube number, the version that was embedded, vectors, states).

        A space that was left and dropped takes none.
        """
        space_n = self.space(space)
        if space_n is None:
            return
        for n, cube, vectors, states in rows:
            # A cube revised or erased since the job read it takes no old vector.
            found = query(self.connection, "SELECT version, branch FROM cubes WHERE n = ?", (n,))
            if found and found[0][0] == cube.version:
                self.connection.execute(
                    "INSERT INTO vectors (cube, space, vectors, states) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    (n, space_n, vectors, states),
                )
                self._embedded += 1
                self.chain.branch = found[0][1]
                self.chain.append("embed", cube.id, cube.version, place=(n, self.scope(cube.scope)[1]))
        self.chain.branch = self.branch

    def used(self, counts: Mapping[str, tuple[int, datetime]]) -> None:
        """Add a batch of uses; a cube used for the first time, or in the archive, becomes activated."""
        for id, (count, last) in counts.items():
            find = "SELECT n, state FROM cubes WHERE id = ? AND branch = 0"
            for n, state in query(self.connection, find, (parse_id(id),)):
                self.connection.execute(
                    "INSERT INTO uses VALUES (?, ?, ?) ON CONFLICT (cube) DO UPDATE "
                    "SET count = count + excluded.count, last = max(last, excluded.last)",
                    (n, count, to_micros(last)),
                )
                if state in {State.GENERATED, State.MERGED, State.ARCHIVED}:
                    self.move(n, State.ACTIVATED, by="read")
                    self.wake(n)

    def move(self, n: int, target: State, *, by: str, due: datetime | None = None) -> None:
        """One edge of the lifecycle for the cube of that number, with its journal line.

        `by` is what fires it, a right or `lifecycle.RETENTION`; `due` when its time in the archive ends.

        Raises
        ------
        IllegalTransition, Refused
            If there is no such edge, or `by` does not fire it.
        InvalidRequest
            For a row that the writer's branch does not own.
        """
        find = "SELECT id, scope, state, former, half_life FROM cubes WHERE n = ?"
        [(id, scope, now, before, half_life)] = query(self.connection, find, (n,))
        if not self.owns(n):
            raise InvalidRequest(f"Memory {format_id(id)} is its parent's in this branch; revise it here first.")
        current, former = State(now), State(before or State.GENERATED)
        lifecycle.step(current, target, former=former, by=by)
        if target is not State.ARCHIVED:  # a cube with a half-life is looked at once it could have faded by half
            due = None if half_life is None else _later(self.at, half_life)
        self.connection.execute(
            "UPDATE cubes SET state = ?, former = ?, due = ? WHERE n = ?",
            (target.value, current.value if target is State.FROZEN else None, _micros(due), n),
        )
        self.chain.append(target.value, format_id(id), place=(n, scope), former=current.value)

    def place(self, n: int, state: State) -> None:
        """The state that a cube had where it comes from (an archive, say); it has just been put in."""
        [(id, scope)] = query(self.connection, "SELECT id, scope FROM cubes WHERE n = ?", (n,))
        # In the archive a cube does not fade, and how long it was there is not known.
        due = "due = NULL, " if state is State.ARCHIVED else ""
        self.connection.execute(f"UPDATE cubes SET {due} state = ? WHERE n = ?", (state.value, n))  # noqa: S608
        self.chain.append(state.value, format_id(id), place=(n, scope))

    def wake(self, n: int) -> None:
        """Let the sweep look at a cube when its next end comes."""
        [(expires, due)] = query(self.connection, "SELECT expires, due FROM cubes WHERE n = ?", (n,))
        ends = [one for one in (expires, due) if one is not None]
        if ends:
            jobs.enqueue(self.connection, "sweep", {}, at=from_micros(min(ends)), sooner=True)

    def look_again(self, n: int) -> None:
        """Let a cube that was put into a state fade from now on; how long one has been in the archive is not known."""
        [(state, half_life)] = query(self.connection, "SELECT state, half_life FROM cubes WHERE n = ?", (n,))
        due = None if half_life is None or state == State.ARCHIVED else _later(self.at, half_life)
        self.connection.execute("UPDATE cubes SET due = ? WHERE n = ?", (_micros(due), n))
        self.wake(n)

    def exported(
        self, path: str, sha256: bytes, numbers: Sequence[int], *, recipient: str | None = None, mark: str | None = None
    ) -> None:
        """Take down that cubes were written to a file outside, which no erasure reaches, and to whom it goes."""
        n = scalar(
            self.connection,
            "INSERT INTO exports (at, path, sha256, recipient, mark) VALUES (?, ?, ?, ?, ?) RETURNING n",
            (to_micros(self.at), path, sha256, recipient, mark),
        )
        self.connection.executemany("INSERT INTO exported VALUES (?, ?)", [(one, n) for one in numbers])
        self.chain.append("export", export=n, cubes=len(numbers))

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
        """The number of an embedding space, made if need be; None for one that the vault has left and dropped."""
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
        if left(self.connection, space.name) is not None:
            return None
        return int(
            scalar(self.connection, "INSERT INTO spaces (name, dim) VALUES (?, ?) RETURNING n", (space.name, space.dim))
        )

    def _twin(self, draft: MemCube) -> MemCube | None:
        if draft.ref is None:
            return None
        twin = self.reader.named(draft.scope, draft.ref)
        if twin is None:
            return None
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
        if draft.id and self._here(raw):
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
        columns: dict[str, Scalar | bytes] = {
            "id": raw,
            "scope": scope,
            "state": new.state.value,
            "version": new.version,
            "run": None if new.scope.session else parse_id(episode[0] if episode else id),
            "words": sum(entry.terms.values()),
            "marks": entry.marks,
            "due": _micros(_looked_at(new, self.at)),
            **heading(new),
        }
        n = self._head(columns)
        new = self._version((n, scope), new, piece=piece, action=action)
        if _ends(new):
            self.wake(n)
        return n, new

    def _here(self, raw: bytes) -> bool:
        """Whether a cube of that id is in the writer's branch, hidden perhaps, or seen from it."""
        if scalar(self.connection, "SELECT 1 FROM cubes WHERE id = ? AND branch = ?", (raw, self.branch)):
            return True
        try:
            return bool(self.branch and self.reader.head(format_id(raw), Scope(self.tenant)))
        except MissingMemory:
            return False

    def _version(self, at: tuple[int, int], cube: MemCube, *, piece: int | None, action: str) -> MemCube:
        header, salt = dump(encode(cube)), self.entropy(16)
        commitment = commit(salt, cube, header)
        seq = self.chain.append(action, cube.id, cube.version, place=at, commitment=commitment.hex())
        self.connection.execute(
            "INSERT INTO versions (seq, cube, version, branch, piece, text, header, salt, commitment) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (seq, at[0], cube.version, self.branch, piece, None if piece else cube.text, header, salt, commitment),
        )
        blobs.name(self.connection, at[0], cube)
        for link in cube.behavioural.derivations:
            self.connection.execute(
                "INSERT INTO derivations VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (at[0], cube.version, self._source(link), link.version),
            )
        return replace(cube, descriptive=replace(cube.descriptive, commitment=commitment.hex()))

    def _source(self, link: Link) -> int:
        """The number of a row that has the version which a link names. Raises MissingMemory."""
        n, _ = self.reader.head(link.id, Scope(self.tenant))
        if not scalar(self.connection, _HAS, (n, link.version)) and self.branch:  # its parent's row has the older ones
            rows = query(self.connection, "SELECT n, branch FROM cubes WHERE id = ?", (parse_id(link.id),))
            below = [row for row, branch in rows if branch in self.reader.line.numbers]
            n = next((row for row in below if scalar(self.connection, _HAS, (row, link.version))), n)
        if not scalar(self.connection, _HAS, (n, link.version)):
            raise MissingMemory(link.id)
        return n

    def _index(self, entry: Entry, owner: int, cube: MemCube, space: int | None, n: int, kept: Kept = ()) -> None:
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
        elif kept:
            self.connection.executemany(
                "INSERT INTO vectors (cube, space, vectors, states) VALUES (?, ?, ?, ?)", [(n, *row) for row in kept]
            )
        elif cube.kind is Kind.TEXT:
            jobs.enqueue(self.connection, "embed", {}, at=self.at)

    def _unindex(self, n: int, owner: int, old: MemCube) -> None:
        self.flush()  # a cube written and revised in one transaction is indexed before it is taken out again
        words.remove(self.connection, owner, n, words.counts(old.text))
        self.connection.execute("DELETE FROM attributes WHERE owner = ? AND cube = ?", (owner, n))
        self.keep_vectors(n, old.version)
        self.connection.execute("DELETE FROM vectors WHERE cube = ?", (n,))

    def keep_vectors(self, n: int, version: int) -> None:
        """Keep the vectors of a version that is the newest no longer: the past is searched by meaning, too."""
        self.connection.execute(
            "INSERT OR IGNORE INTO old_vectors SELECT cube, ?, space, vectors, states FROM vectors WHERE cube = ?",
            (version, n),
        )


_HAS = "SELECT 1 FROM versions WHERE cube = ? AND version = ?"


def _looked_at(cube: MemCube, at: datetime) -> datetime | None:
    """When a sweep looks at a cube first: no policy archives what is stronger than a half."""
    half_life = cube.governance.half_life_days
    return None if half_life is None or cube.state is State.ARCHIVED else _later(at, half_life)


def _ends(cube: MemCube) -> bool:
    return cube.governance.expires is not None or cube.governance.half_life_days is not None


def _later(at: datetime, days: float) -> datetime:
    try:
        return at + timedelta(days=days)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


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
