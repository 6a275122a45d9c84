"""The portable archive: what survives the way there and back, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tercet import InvalidRequest, MemCube, Message, MissingMemory, ScopedMemory, Tercet, Text, derive
from tercet.cube import Descriptive, Governance, Grant, Happened, Sensitivity, Slot, Trust
from tercet.exchange.archive import export_scope, is_archive, read_archive
from tercet.exchange.restore import Imported, import_archive
from tercet.lifecycle import State

TIME = "2024-05-01T09:00:00+02:00"
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[ScopedMemory]:
    with Tercet.open(tmp_path / "here", embedder=None) as tercet:
        yield tercet.scope()


@pytest.fixture
def there(tmp_path: Path) -> Iterator[ScopedMemory]:
    with Tercet.open(tmp_path / "there", embedder=None) as tercet:
        yield tercet.scope()


def exported(memory: ScopedMemory) -> bytes:
    stream = io.BytesIO()
    export_scope(memory, stream)
    return stream.getvalue()


def imported(memory: ScopedMemory, archive: bytes) -> Imported:
    return import_archive(memory, io.BytesIO(archive))


def sealed(rows: list[dict[str, Any]], **head: object) -> bytes:
    """An archive of rows made by hand, whose hash is right."""
    lines = [{"format": "tercet-archive", "version": 1} | head, *rows]
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return body + json.dumps({"cubes": len(rows), "sha256": hashlib.sha256(body).hexdigest()}).encode() + b"\n"


def rows(archive: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in archive.splitlines()][1:-1]


def plain(cube: MemCube) -> MemCube:
    """The cube without what a vault makes anew: its commitment and the episode's id."""
    origin = replace(cube.descriptive.origin, episode=None)
    return replace(cube, descriptive=replace(cube.descriptive, origin=origin, commitment=None))


def everything(memory: ScopedMemory) -> list[list[MemCube]]:
    return [[plain(version) for version in memory.history(cube.id)] for cube in memory.list()]


def fill(memory: ScopedMemory) -> list[MemCube]:
    """Memories with every field that a caller can set, versions, a document, other users."""
    alice = memory.tercet.scope(user="alice", agent="a/b")
    full = alice.remember(
        "We signed the lease last Friday.", at=TIME, tags=["home", "money"], metadata={"n": 5, "x": None}, ref="m-1"
    )
    alice.revise(full.id, "We signed it on Monday after all.", at="2024-05-07T10:00:00+02:00", tags=["home"])
    alice.revise(full.id, "It was Tuesday.")
    alice.rollback(full.id, version=1)
    said = memory.remember(Message("Привет 👋\n\x1b[31m", name="Ana", role="assistant", session="s 1", ref="t"))
    draft = MemCube(
        Text("The office closes at six."),
        Descriptive(
            type="preference",
            slot=Slot("office", "closes"),
            happened=Happened(NOON, NOON + timedelta(hours=6)),
        ),
        Governance(
            access=frozenset({Grant("bob", "read", "work")}),
            expires=NOON + timedelta(days=9999),
            half_life_days=30.5,
            hold="case 12",
            priority=3,
            sensitivity=Sensitivity.SECRET,
            trust=Trust.CONFIRMED,
            watermark="w",
        ),
    )
    ruled = memory.remember(draft)
    summary = memory.remember(
        derive([said, ruled], Text("Ana greets; the office closes."), method="summary/v1", share=True)
    )
    return [full, said, ruled, summary]


def test_everything_survives_the_way_there_and_back(here: ScopedMemory, there: ScopedMemory) -> None:
    made = fill(here)
    archive = exported(here)
    done = imported(there, archive)
    assert done == Imported(tuple(cube.id for cube in made), (), (), ())
    assert everything(there) == everything(here)
    assert [len(versions) for versions in everything(there)] == [4, 1, 1, 1]
    assert [cube.state for cube in there.list()] == [cube.state for cube in here.list()]
    assert rows(exported(there))[1:] != []
    assert there.tercet.doctor() == {"default": []}


def test_what_came_in_is_found_filtered_and_revised_as_any_other(here: ScopedMemory, there: ScopedMemory) -> None:
    fill(here)
    imported(there, exported(here))
    assert [hit.cube.text for hit in there.recall("when was the lease signed", limit=1)] == [
        "We signed the lease last Friday."
    ]
    assert [cube.ref for cube in there.list(where={"tags": "money"})] == ["m-1"]
    [cube] = there.list(where={"ref": "m-1"})
    assert there.revise(cube.id, "Signed.", expect=4).version == 5
    assert there.remember(Message("Привет 👋\n\x1b[31m", name="Ana", session="s 1", ref="t")).id == there.list()[1].id


def test_passages_of_one_document_stay_in_one_episode(here: ScopedMemory, there: ScopedMemory, tmp_path: Path) -> None:
    file = tmp_path / "notes.md"
    file.write_text("# One\n\nFirst passage.\n\n# Two\n\nSecond passage.\n\n# Three\n\nThird passage.\n")
    here.remember("Before.")
    here.remember_document(file)
    here.remember("After.")
    imported(there, exported(here))
    origins = [[cube.descriptive.origin for cube in memory.list()] for memory in (here, there)]
    mine, theirs = ([origin.episode for origin in one] for one in origins)
    assert len(set(mine)) == len(set(theirs)) == 3
    assert [mine.index(one) for one in mine] == [theirs.index(one) for one in theirs]
    assert [one.span for one in origins[0]] == [one.span for one in origins[1]]


def test_a_state_survives(here: ScopedMemory, there: ScopedMemory) -> None:
    cube = here.remember("Kept as it is.")
    here.revise(cube.id, "Kept as it was.")
    here.freeze(cube.id)
    imported(there, exported(here))
    assert [(one.state, one.version, one.text) for one in there.list()] == [(State.FROZEN, 2, "Kept as it was.")]


def test_a_rolled_back_version_quotes_the_episode_that_is_here(here: ScopedMemory, there: ScopedMemory) -> None:
    cube = here.remember("One.")
    here.revise(cube.id, "Two.")
    here.rollback(cube.id, version=1)
    imported(there, exported(here))
    episodes = [one.descriptive.origin.episode for one in there.history(cube.id)]
    assert episodes[0] == episodes[2] != here.history(cube.id)[0].descriptive.origin.episode


def test_twice_is_once(here: ScopedMemory, there: ScopedMemory) -> None:
    made = fill(here)
    archive = exported(here)
    imported(there, archive)
    before, seq = everything(there), there.changes()[-1].seq
    assert imported(there, archive) == Imported((), (), tuple(cube.id for cube in made), ())
    assert imported(here, archive).unchanged == tuple(cube.id for cube in made)
    assert everything(there) == before
    assert there.changes()[-1].seq == seq


def test_later_versions_come_in_and_earlier_ones_do_not_go_back(here: ScopedMemory, there: ScopedMemory) -> None:
    cube = here.remember("One.")
    old = exported(here)
    imported(there, old)
    here.revise(cube.id, "Two.")
    here.revise(cube.id, "Three.")
    assert imported(there, exported(here)).updated == (cube.id,)
    assert everything(there) == everything(here)
    assert imported(there, old).unchanged == (cube.id,)
    assert there.get(cube.id).text == "Three."


def test_another_content_under_the_same_id_is_skipped(here: ScopedMemory, there: ScopedMemory) -> None:
    cube = here.remember("One.")
    imported(there, exported(here))
    here.revise(cube.id, "Two here.")
    there.revise(cube.id, "Two there.")
    [skipped] = imported(there, exported(here)).skipped
    assert (skipped.id, "another content" in skipped.reason) == (cube.id, True)
    assert there.get(cube.id).text == "Two there."


def test_what_was_erased_does_not_come_back(here: ScopedMemory, there: ScopedMemory) -> None:
    gone, summary = here.remember("One."), None
    kept = here.remember("Two.")
    summary = here.remember(derive([gone, kept], Text("One and two."), method="summary/v1"))
    archive = exported(here)
    here.forget(gone.id)
    done = imported(here, archive)
    assert [one.id for one in done.skipped] == [gone.id, summary.id]
    assert done.unchanged == (kept.id,)
    for id in (gone.id, summary.id):
        with pytest.raises(MissingMemory):
            here.get(id)
    # A vault that never knew it takes it in, with what was made from it.
    assert imported(there, archive).added == (gone.id, kept.id, summary.id)
    assert set(there.forget(gone.id).erased) == {gone.id, summary.id}


def test_what_was_made_from_something_left_behind_is_skipped(here: ScopedMemory, there: ScopedMemory) -> None:
    source = here.remember("One.")
    summary = here.remember(derive([source], Text("Short."), method="summary/v1"))
    archive = sealed([row for row in rows(exported(here)) if row["id"] == summary.id])
    [skipped] = imported(there, archive).skipped
    assert source.id in skipped.reason


def test_a_ref_that_names_another_memory_is_skipped(here: ScopedMemory, there: ScopedMemory) -> None:
    cube = here.remember("One.", ref="r")
    there.remember("One.", ref="r")
    [skipped] = imported(there, exported(here)).skipped
    assert (skipped.id, "'r'" in skipped.reason) == (cube.id, True)
    assert there.list().total == 1


def test_a_scope_exports_its_own_and_takes_in_no_other(here: ScopedMemory, there: ScopedMemory) -> None:
    for user in ("ann", "bob"):
        here.tercet.scope(user=user).remember(f"I am {user}.")
    ann = exported(here.tercet.scope(user="ann"))
    assert [row["scope"] for row in rows(ann)] == [{"user": "ann"}]
    with pytest.raises(InvalidRequest, match="outside"):
        imported(there.tercet.scope(user="bob"), ann)
    assert there.list().total == 0
    imported(there.tercet.scope(tenant="other"), ann)
    assert there.list().total == 0
    assert there.tercet.scope(tenant="other", user="ann").list().total == 1


def damaged(archive: bytes) -> dict[str, bytes]:
    lines = archive.splitlines(keepends=True)
    packed = gzip.compress(archive)
    return {
        "nothing": b"",
        "no archive": b"hello\nworld\n",
        "a byte": archive.replace(b"Oslo", b"Osla"),
        "a line is gone": b"".join([*lines[:1], *lines[2:]]),
        "the last line is gone": b"".join(lines[:-1]),
        "cut in a line": archive[:-20],
        "no end of line": archive[:-1],
        "lines in another order": b"".join([lines[0], lines[2], lines[1], *lines[3:]]),
        "more after it": archive + b"{}\n",
        "cut while packed": packed[:-12],
        "a packed byte": packed[:40] + bytes([packed[40] ^ 255]) + packed[41:],
        "another format": sealed([], format="other"),
        "a newer form": sealed([], version=2),
    }


@pytest.mark.parametrize("name", damaged(bytes(range(256)) + b"\n\n\n\n"))
def test_a_damaged_archive_changes_nothing(here: ScopedMemory, there: ScopedMemory, name: str) -> None:
    here.remember("I moved to Oslo.")
    here.remember("Lunch was soup.")
    with pytest.raises(InvalidRequest, match="archive"):
        imported(there, damaged(exported(here))[name])
    assert there.list().total == 0
    assert not there.changes()


def changed(row: dict[str, Any], name: str) -> list[dict[str, Any]]:  # noqa: PLR0911  # a table of faults
    version = row["versions"][0]
    match name:
        case "no id":
            return [row | {"id": "nope"}]
        case "twice":
            return [row, row]
        case "no versions":
            return [row | {"versions": []}]
        case "versions from 2":
            return [row | {"versions": [version | {"version": 2}]}]
        case "unknown state":
            return [row | {"state": "asleep"}]
        case "unknown part of the scope":
            return [row | {"scope": {"team": "x"}}]
        case "a tenant of its own":
            return [row | {"scope": {"tenant": "other"}}]
        case "no text":
            return [row | {"versions": [version | {"text": None}]}]
        case "a text that is a number":
            return [row | {"versions": [version | {"text": 5}]}]
        case _:
            header = {
                "time without zone": {"observed": "2024-05-01T09:00:00"},
                "no time": {"recorded": "soon"},
                "tags that are no list": {"tags": 5},
                "tags that are no text": {"tags": [5]},
                "nested metadata": {"metadata": {"a": [1]}},
                "metadata too large": {"metadata": {"a": 10**30}},
                "unknown trust": {"trust": 99},
                "a speaker that is no text": {"origin": {"speaker": 5}},
                "a hold that is no text": {"hold": ["x"]},
                "an odd span": {"origin": {"span": ["a"]}},
                "a list for a header": None,
            }[name]
            return [row | {"versions": [version | {"header": [] if header is None else version["header"] | header}]}]


FAULTS = [
    "no id",
    "twice",
    "no versions",
    "versions from 2",
    "unknown state",
    "unknown part of the scope",
    "a tenant of its own",
    "no text",
    "a text that is a number",
    "time without zone",
    "no time",
    "tags that are no list",
    "tags that are no text",
    "nested metadata",
    "metadata too large",
    "unknown trust",
    "a speaker that is no text",
    "a hold that is no text",
    "an odd span",
    "a list for a header",
]


@pytest.mark.parametrize("name", FAULTS)
def test_a_row_that_is_no_memory_is_refused(here: ScopedMemory, there: ScopedMemory, name: str) -> None:
    here.remember("I moved to Oslo.")
    [row] = rows(exported(here))
    with pytest.raises(InvalidRequest, match="archive"):
        imported(there, sealed([row, *changed(row | {"id": row["id"].replace("0", "1")}, name)]))
    assert there.list().total == 0


def test_an_archive_is_known_by_its_beginning(here: ScopedMemory, tmp_path: Path) -> None:
    here.remember("I moved to Oslo.")
    archive = exported(here)
    for name, data, known in (
        ("a.jsonl", archive, True),
        ("a.jsonl.gz", gzip.compress(archive), True),
        ("b.gz", gzip.compress(b"hello"), False),
        ("c.gz", b"\x1f\x8bjunk", False),
        ("d.txt", b"", False),
    ):
        (tmp_path / name).write_bytes(data)
        assert is_archive(tmp_path / name) is known


def test_the_archive_holds_no_salt_and_ends_with_its_hash(here: ScopedMemory) -> None:
    made = here.remember("I moved to Oslo.")
    archive = exported(here)
    *body, last = archive.splitlines(keepends=True)
    told = json.loads(last)
    assert told.pop("provenance")["sha256"] == told["sha256"]
    assert told == {"cubes": 1, "sha256": hashlib.sha256(b"".join(body)).hexdigest()}
    [version] = json.loads(body[1])["versions"]
    assert version["commitment"] == made.descriptive.commitment  # which tells nothing without its salt
    assert "commitment" not in version["header"]
    with here.tercet.vault.tenant("default").reading() as reader:
        [(salt,)] = reader.connection.execute("SELECT salt FROM versions")
    assert salt.hex().encode() not in archive
    [record] = read_archive(io.BytesIO(archive), tenant="default")
    assert plain(record.versions[0]) == plain(here.list()[0])


def test_progress_is_told(here: ScopedMemory, there: ScopedMemory) -> None:
    for n in range(3):
        here.remember(f"Number {n}.")
    told: list[tuple[int, int]] = []
    export_scope(here, io.BytesIO(), progress=lambda done, total: told.append((done, total)))
    import_archive(there, io.BytesIO(exported(here)), progress=lambda done, total: told.append((done, total)))
    assert told == [(3, 3), (3, 3)]


LABEL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
VALUE = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(LABEL.filter(str.strip), min_size=1, max_size=4),
    tags=st.lists(LABEL, max_size=3),
    metadata=st.dictionaries(LABEL, VALUE | LABEL, max_size=3),
)
def test_any_memory_survives(
    here: ScopedMemory,
    there: ScopedMemory,
    texts: list[str],
    tags: list[str],
    metadata: dict[str, str | int | float | bool | None],
) -> None:
    cube = here.remember(texts[0], tags=tags, metadata=metadata)
    for text in texts[1:]:
        here.revise(cube.id, text)
    imported(there, exported(here))
    assert [plain(one) for one in there.history(cube.id)] == [plain(one) for one in here.history(cube.id)]
