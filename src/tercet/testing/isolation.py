"""Many tenants, random operations through every front door, and a book of what each may ever see."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import random
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from tercet.aio import AsyncTercet
from tercet.cube import MemCube
from tercet.errors import MissingMemory, Refused
from tercet.exchange.archive import export_scope, read_archive
from tercet.exchange.restore import import_archive
from tercet.govern.rules import Rule
from tercet.kernel import Tercet
from tercet.scope import Caller
from tercet.scoped import ScopedMemory
from tercet.vault.ids import parse_id

WORDS = (
    "boiler",
    "code",
    "garden",
    "Oslo",
    "Bergen",
    "soup",
    "invoice",
    "train",
    "piano",
    "winter",
    "summer",
    "letter",
)
HIDDEN = "hidden"
"""A tag that readers may not see."""
KEEPER, READER = Caller("keeper"), Caller("ann", roles={"reader"})
GUEST = Caller("guest", purpose="visit")
"""Of whom no rule speaks: it reads what it is lent, in a tenant that has rules."""
RULES = (
    Rule("allow", "keeper", {"administer", "read", "write", "revise", "forget", "share"}),
    Rule("allow", "role:reader", {"read"}),
    Rule("deny", "role:reader", {"read"}, tags={HIDDEN}),
)


Main = Callable[[Sequence[str]], int]


class LeakError(AssertionError):
    """Something of another's was returned, counted, or told apart."""


@dataclass
class Loan:
    """A grant to the guest: what it names, and how many reads are left (None: any number)."""

    id: str
    ids: set[str]
    left: int | None


@dataclass
class Book:
    """What one tenant holds: texts by id, which of them are secret, what was erased, what is lent to the guest."""

    name: str
    key: str
    ruled: bool
    texts: dict[str, str] = field(default_factory=dict)
    secret: set[str] = field(default_factory=set)
    erased: set[str] = field(default_factory=set)
    loans: list[Loan] = field(default_factory=list)

    def seen_by(self, reader: bool) -> set[str]:  # noqa: FBT001  # one question
        """The ids that the keeper, or the reader, may see."""
        return set(self.texts) - (self.secret if reader and self.ruled else set())

    def lent(self) -> set[str]:
        """The ids that the guest may see."""
        return {id for loan in self.loans if loan.left != 0 for id in loan.ids}

    def lend(self, ids: set[str]) -> None:
        """Take a read of what an answer with these ids stands on: what is not counted first, then what is older."""
        left = set(ids)
        for loan in sorted((one for one in self.loans if one.left != 0), key=lambda one: one.left is not None):
            met = left & loan.ids
            if met and loan.left is not None:
                loan.left -= 1
            left -= met


@contextmanager
def traced(t: Tercet, tenant: str) -> Iterator[list[str]]:
    """Gather the SQL statements, with their bindings, that a tenant's idle connections run meanwhile."""
    statements: list[str] = []

    def record(_: apsw.Cursor, statement: str, bindings: Any) -> bool:  # noqa: ANN401  # as apsw calls it
        statements.append(f"{statement} {bindings!r}")
        return True

    held = t.vault.tenant(tenant)
    with held.reading():
        pass  # so that there is one
    for connection in held._idle:  # noqa: SLF001  # what SQLite sees is what is asked
        connection.exec_trace = record
    try:
        yield statements
    finally:
        for connection in held._idle:  # noqa: SLF001
            connection.exec_trace = None


def told(t: Tercet, tenant: str, id: str, call: Callable[[], object]) -> tuple[str, list[str]]:
    """What a call on an id that is not there answers, and the statements it ran, both without the id."""
    with traced(t, tenant) as statements:
        try:
            call()
        except (MissingMemory, Refused) as error:
            answer = f"{type(error).__name__}: {error}".replace(id, "ID")
        else:
            raise LeakError(f"{tenant} was given something for {id}, which is another's or made up")
    raw = repr(parse_id(id))
    return answer, [line.replace(raw, "ID").replace(id, "ID") for line in statements]


class Isolation:
    """Tenants of one vault; every third has rules of its own, all have a key. `step` does one random thing.

    Parameters
    ----------
    folder
        An empty one.
    main
        The command line: from its words to its exit code.
    tenants
        How many.
    seed
        The same seed does the same things.
    cli_share
        Of how many operations the command line does one: it opens the vault anew each time.
    """

    def __init__(self, folder: Path, main: Main, *, tenants: int, seed: int, cli_share: float = 0.03) -> None:
        self.main = main
        self.folder, self.random, self.cli_share = folder, random.Random(seed), cli_share  # noqa: S311  # a test's
        self.t = Tercet.open(folder, embedder=None)
        self.asynchronous = AsyncTercet(self.t)
        self.loop = asyncio.new_event_loop()
        self.books: list[Book] = []
        self.done, self.returned, self.compared = Counter[str](), 0, 0
        for number in range(tenants):
            name = f"tenant-{number}"
            ruled = number % 3 == 1
            if ruled:
                for rule in RULES:
                    self.t.admin(tenant=name, by=KEEPER).add_rule(rule)
            rights = {"read", "write", "revise", "forget"}
            made = self.t.admin(tenant=name, by=KEEPER).create_key("keeper", rights=rights)
            self.books.append(Book(name, made.text, ruled))

    def close(self) -> None:
        """Let go of the vault."""
        self.loop.run_until_complete(self.asynchronous.close())
        self.loop.close()

    def step(self) -> None:
        """One random operation of one tenant through one door, checked. Raises LeakError."""
        book = self.random.choice(self.books)
        # Most tenants hold little at first; writing comes first so that there is something to leak.
        if len(book.texts) < 5 or self.random.random() < 0.2:
            self._write(book)
        elif self.random.random() < self.cli_share:
            self._command(book)
        else:
            action = self.random.choice(
                [self._list, self._recall, self._get, self._change, self._forget, self._foreign, self._foreign,
                 self._other_tenant, self._changes, self._context, self._archive, self._share, self._guest, self._guest]
            )  # fmt: skip
            if action == self._forget and len(book.texts) < 20:
                action = self._recall
            action(book)

    def _scope(self, book: Book, by: Caller | None = None) -> ScopedMemory:
        if by is None and self.random.random() < 0.3:
            by = self.t.caller(book.key)
        return self.t.scope(tenant=book.name, by=by or KEEPER)

    def _call(self, name: str, memory: ScopedMemory, *args: Any, **options: Any) -> Any:  # noqa: ANN401
        """Through the Python API, or through the same with `await`."""
        if self.random.random() < 0.2:
            self.done[f"async {name}"] += 1
            scope = memory.scope
            view = self.asynchronous.scope(tenant=scope.tenant, user=scope.user, by=memory.by)
            return self.loop.run_until_complete(getattr(view, name)(*args, **options))
        self.done[f"python {name}"] += 1
        return getattr(memory, name)(*args, **options)

    def _check(self, what: str, book: Book, ids: set[str], allowed: set[str], *, all_of_them: bool = False) -> None:
        self.returned += len(ids)
        if not ids <= allowed:
            raise LeakError(f"{what} of {book.name} gave {sorted(ids - allowed)[:3]}, which it may not see")
        if all_of_them and ids != allowed:
            raise LeakError(f"{what} of {book.name} gave {len(ids)} of {len(allowed)} memories")

    def _texts(self, book: Book, cubes: list[MemCube]) -> None:
        for cube in cubes:
            if book.texts.get(cube.id) != cube.text or cube.scope.tenant != book.name:
                raise LeakError(f"{cube.id} of {book.name} has another's text")

    def _text(self, book: Book) -> str:
        return f"mark{book.name} {' '.join(self.random.choices(WORDS, k=8))}"

    def _write(self, book: Book) -> None:
        text, hidden = self._text(book), self.random.random() < 0.2
        memory = self._scope(book)
        cube = self._call("remember", memory, text, tags=[HIDDEN] if hidden else ["plain"])
        book.texts[cube.id] = text
        if hidden:
            book.secret.add(cube.id)

    def _reading(self, book: Book) -> tuple[ScopedMemory, set[str]]:
        reader = self.random.random() < 0.5
        return self._scope(book, READER if reader else None), book.seen_by(reader)

    def _list(self, book: Book) -> None:
        memory, allowed = self._reading(book)
        page = self._call("list", memory, limit=10_000)
        self._check("list", book, {cube.id for cube in page}, allowed, all_of_them=True)
        self._texts(book, page)
        if page.total != len(allowed):
            raise LeakError(f"list of {book.name} counted {page.total} for {len(allowed)}")

    def _recall(self, book: Book) -> None:
        memory, allowed = self._reading(book)
        other = self.random.choice(self.books)
        question = f"mark{other.name} {' '.join(self.random.choices(WORDS, k=3))}"
        hits = self._call("recall", memory, question, limit=self.random.choice([3, 10, 1000]))
        self._check("recall", book, {hit.cube.id for hit in hits}, allowed)
        self._texts(book, [hit.cube for hit in hits])
        if hits.total != len(allowed):
            raise LeakError(f"recall of {book.name} counted {hits.total} for {len(allowed)}")

    def _context(self, book: Book) -> None:
        memory, allowed = self._reading(book)
        text = self._call("context", memory, " ".join(self.random.choices(WORDS, k=2)))
        hidden = {book.texts[id] for id in set(book.texts) - allowed} - {book.texts[id] for id in allowed}
        foreign = {word for word in text.split() if word.startswith("mark")} - {f"mark{book.name}"}
        if foreign or any(one in text for one in hidden):
            raise LeakError(f"a context of {book.name} has {foreign or 'what is hidden'} in it")

    def _get(self, book: Book) -> None:
        memory, allowed = self._reading(book)
        id = self.random.choice(sorted(book.texts))
        if id in allowed:
            cube = self._call("get", memory, id)
            self._check("get", book, {cube.id}, allowed)
            self._texts(book, [cube])
            return
        self._apart(book, memory, id)

    def _change(self, book: Book) -> None:
        id, memory = self.random.choice(sorted(book.texts)), self._scope(book)
        if self.random.random() < 0.5:
            book.texts[id] = self._call("revise", memory, id, self._text(book)).text
        else:
            version = self._call("rollback", memory, id, version=1)
            book.texts[id] = version.text
            for old in self._call("history", memory, id):
                if f"mark{book.name} " not in old.text:
                    raise LeakError(f"the history of {id} has another's text")

    def _forget(self, book: Book) -> None:
        memory = self._scope(book)
        chosen = self.random.sample(sorted(book.texts), 3)
        if self.random.random() < 0.9:
            receipt = self._call("forget", memory, chosen)
        else:  # a condition that is true of everything, everywhere
            receipt, chosen = self._call("forget", memory, where={"kind": "text"}), list(book.texts)
        self._check("forget", book, set(receipt.erased), set(chosen), all_of_them=True)
        for id in chosen:
            del book.texts[id]
            book.secret.discard(id)
            book.erased.add(id)
            for loan in book.loans:
                loan.ids.discard(id)
        book.loans = [loan for loan in book.loans if loan.ids]

    def _share(self, book: Book) -> None:
        """The keeper lends two memories to the guest, or takes a grant back."""
        if not book.ruled:
            return self._list(book)
        keeper = self.t.scope(tenant=book.name, by=KEEPER)
        if book.loans and self.random.random() < 0.3:
            loan = self.random.choice(book.loans)
            self._call("revoke", keeper, loan.id)
            book.loans.remove(loan)
            return None
        ids, reads = self.random.sample(sorted(book.texts), 2), self.random.choice([None, 1, 2, 3])
        made = self._call("share", keeper, ids, with_="guest", purpose="visit", reads=reads)
        book.loans.append(Loan(made.id, set(ids), reads))
        return None

    def _guest(self, book: Book) -> None:
        """Whom no rule knows sees what it is lent, as often as it is lent, and no other door opens."""
        if not book.ruled:
            return self._recall(book)
        memory, lent = self.t.scope(tenant=book.name, by=GUEST), book.lent()
        other = self.random.choice(self.books)
        foreign = self.random.choice(sorted(set(book.texts) - lent) + sorted(other.texts)[: 3 * (other is not book)])
        if not lent:
            for id in (foreign, *(sorted(book.texts)[:1])):
                self._refused(book, memory, id)
            return None
        how = self.random.choice(["get", "list", "recall", "foreign", "shut"])
        if how == "foreign":
            return self._apart(book, memory, foreign)
        if how == "shut":
            return self._shut(book, memory, self.random.choice(sorted(lent)))
        if how == "get":
            cubes = [self._call("get", memory, self.random.choice(sorted(lent)))]
        elif how == "list":
            cubes = self._call("list", memory, limit=10_000)
        else:
            cubes = [hit.cube for hit in self._call("recall", memory, f"mark{book.name}", limit=1000)]
        ids = {cube.id for cube in cubes}
        self._check(f"{how} of a guest", book, ids, lent, all_of_them=how != "get")
        self._texts(book, cubes)
        book.lend(ids)
        keeper = self.t.scope(tenant=book.name, by=KEEPER)
        held = {one.id: one.left for one in keeper.grants() if one.revoked is None}
        if held != {loan.id: loan.left for loan in book.loans}:
            raise LeakError(f"the grants of {book.name} have {held} reads left, and should have {book.loans}")
        return None

    def _refused(self, book: Book, memory: ScopedMemory, id: str) -> None:
        answer, _ = told(self.t, book.name, id, lambda: memory.get(id))
        if not answer.startswith("Refused"):
            raise LeakError(f"a guest who is lent nothing in {book.name} was told {answer}")

    def _shut(self, book: Book, memory: ScopedMemory, id: str) -> None:
        """What a grant does not open is shut, for what it names, too."""
        for name in ("history", "trace", "forget", "freeze"):
            told(self.t, book.name, id, lambda name=name: getattr(memory, name)(id))  # type: ignore[misc]
        with contextlib.suppress(Refused):
            raise LeakError(f"an archive of {book.name} for a guest: {export_scope(memory, io.BytesIO())}")
        with contextlib.suppress(Refused):
            raise LeakError(f"changes of {book.name} for a guest: {memory.changes()}")

    def _changes(self, book: Book) -> None:
        memory, allowed = self._reading(book)
        lines = self._call("changes", memory, since=self.random.randrange(50), limit=10_000)
        self._check("changes", book, {line.id for line in lines}, allowed | book.erased)

    def _foreign(self, book: Book) -> None:
        """Another tenant's id, and one that never was: the same answer from the same statements."""
        other = self.random.choice(self.books)
        if other is not book and other.texts:
            self._apart(book, self._reading(book)[0], self.random.choice(sorted(other.texts)))

    def _apart(self, book: Book, memory: ScopedMemory, id: str) -> None:
        calls: dict[str, Callable[[str], object]] = {
            "get": memory.get,
            "history": memory.history,
            "revise": lambda one: memory.revise(one, "Mine now."),
            "rollback": lambda one: memory.rollback(one, version=1),
            "forget": memory.forget,
        }
        name = self.random.choice(list(calls))
        self.done[f"python {name} of a foreign id"] += 1
        made_up = str(uuid.UUID(int=self.random.getrandbits(128), version=4))
        answers = [told(self.t, book.name, one, lambda one=one: calls[name](one)) for one in (id, made_up)]  # type: ignore[misc]
        if answers[0] != answers[1]:
            raise LeakError(f"{name} in {book.name} tells a foreign id from a made-up one: {answers}")
        self.compared += 1

    def _other_tenant(self, book: Book) -> None:
        """A key of one tenant in another: refused before a statement is run there."""
        other = self.random.choice(self.books)
        if other is book:
            return
        caller = self.t.caller(book.key)
        memory = self.t.scope(tenant=other.name, by=caller)
        calls: list[Callable[[], object]] = [
            memory.list,
            memory.changes,
            lambda: memory.recall("boiler"),
            lambda: memory.remember("Mine now."),
            lambda: memory.forget(everything=True),
            lambda: export_scope(memory, io.BytesIO()),
            lambda: self.t.admin(tenant=other.name, by=caller),
        ]
        self.done["python another tenant"] += 1
        _, statements = told(self.t, other.name, "", self.random.choice(calls))
        if statements:
            raise LeakError(f"a key of {book.name} ran {statements} in {other.name}")

    def _archive(self, book: Book) -> None:
        """Out of a tenant, and into it again, which changes nothing."""
        memory, allowed = self._reading(book)
        stream = io.BytesIO()
        self.done["archive export"] += 1
        export_scope(memory, stream)
        ids = {record.id for record in read_archive(io.BytesIO(stream.getvalue()), tenant=book.name)}
        self._check("export", book, ids, allowed, all_of_them=True)
        self.done["archive import"] += 1
        done = import_archive(self._scope(book), io.BytesIO(stream.getvalue()))
        self._check("import", book, {*done.added, *done.updated, *done.unchanged}, allowed)
        if done.added or done.updated:
            raise LeakError(f"an import into {book.name} changed {done}")

    def _command(self, book: Book) -> None:
        reader = book.ruled and self.random.random() < 0.5
        own = self.random.choice(sorted(book.texts))
        other = self.random.choice(self.books)
        foreign = self.random.choice(sorted(other.texts) or [own])
        words = self.random.choice([["list", "--limit", "10000"], ["recall", "boiler code"], ["show", own],
                                    ["show", foreign], ["stats"], ["history", foreign]])  # fmt: skip
        who = ["--key", book.key] if not reader else ["--tenant", book.name, "--as", "ann"]
        printed = io.StringIO()
        self.done[f"cli {words[0]}"] += 1
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
            code = self.main(["--words", "--json", "--store", str(self.folder), *who, *words])
        found = json.loads(printed.getvalue())
        if words[0] == "stats" and code == 0 and reader:  # of tenants without rules, which ann may ask for
            if found["tenants"]:
                raise LeakError(f"stats of {book.name} told of {found['tenants']}")
            return
        if reader or words[0] == "stats":  # ann has no role here, and the key does not administer
            if code != 3:
                raise LeakError(f"{words} of {book.name} ended with {code}")
            return
        if words[0] in {"show", "history"} and words[1] not in book.texts:
            if code != 4:
                raise LeakError(f"{words} of {book.name} ended with {code}")
            return
        rows = found.get("cubes") or found.get("hits") or [found.get("cube")]
        self._check(words[0], book, {row["id"] for row in rows if row}, set(book.texts))
        if words[0] in {"list", "recall"} and found["total"] != len(book.texts):
            raise LeakError(f"{words[0]} of {book.name} counted {found['total']} for {len(book.texts)}")


def run(folder: Path, main: Main, *, tenants: int, operations: int, seed: int) -> dict[str, object]:
    """Do that many operations; what was done, by door, and how much was looked at. Raises LeakError."""
    world = Isolation(folder, main, tenants=tenants, seed=seed)
    try:
        while world.done.total() < operations:
            world.step()
        return {
            "tenants": tenants,
            "operations": world.done.total(),
            "cubes_returned": world.returned,
            "foreign_ids_compared": world.compared,
            "leaks": 0,
            "by_door": dict(sorted(world.done.items())),
        }
    finally:
        world.close()
