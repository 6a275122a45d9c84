"""Labels of sensitivity, and who may say that something is confirmed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tercet import Caller, InvalidRequest, MemCube, MissingMemory, Refused, Tercet, derive
from tercet.cube import Governance, Sensitivity, Text, Trust
from tercet.exchange.archive import export_scope
from tercet.exchange.restore import import_archive
from tercet.govern.rules import Rule

ROOT, WRITER = Caller("root", purpose="upkeep"), Caller("ann", purpose="upkeep")
AD, SILENT = Caller("ann", purpose="marketing"), Caller("ann")
WRITES = {"read", "write", "revise"}


@pytest.fixture
def t(tmp_path: Path) -> Iterator[Tercet]:
    with Tercet.open(tmp_path / "vault", embedder=None) as t:
        t.admin(by=ROOT).add_rule(Rule("allow", "root", WRITES | {"administer", "share"}))
        t.admin(by=ROOT).add_rule(Rule("allow", "ann", WRITES))
        t.admin(by=ROOT).add_rule(
            Rule("deny", "*", {"read"}, min_sensitivity=Sensitivity.SECRET, purposes={"marketing"})
        )
        yield t


@pytest.mark.parametrize(
    ("given", "label"), [("public", 0), ("internal", 1), (2, 2), (Sensitivity.SECRET, 3), (None, 2)]
)
def test_labels_by_name_number_and_value(t: Tercet, given: Sensitivity | str | int | None, label: int) -> None:
    cube = t.scope(by=ROOT).remember("The pin is 4417.", sensitivity=given)
    assert t.scope(by=ROOT).get(cube.id).governance.sensitivity == label


@pytest.mark.parametrize("given", ["SECRET", "huge", "", 4, -1, True, 1.0, b"secret"])
def test_what_is_no_label(t: Tercet, given: object) -> None:
    root = t.scope(by=ROOT)
    cube = root.remember("The pin is 4417.")
    with pytest.raises(InvalidRequest, match="sensitivity is one of"):
        root.remember("The pin is 4417.", sensitivity=given)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="sensitivity is one of"):
        root.revise(cube.id, "The pin is 4418.", sensitivity=given)  # type: ignore[arg-type]
    assert root.history(cube.id) == [cube]


def test_a_rule_reads_the_label_for_a_purpose(t: Tercet) -> None:
    root = t.scope(by=ROOT)
    cube = root.remember("The pin is 4417.")
    assert t.scope(by=AD).list().total == 1
    root.revise(cube.id, "The pin is 4417.", sensitivity="secret")
    assert t.scope(by=AD).list().total == 0
    assert t.scope(by=AD).recall("pin") == []
    assert t.scope(by=WRITER).list().total == 1
    assert t.scope(by=SILENT).list().total == 0  # who does not say a purpose matches a deny that names some


def test_filters_know_the_order_of_labels(t: Tercet) -> None:
    root = t.scope(by=ROOT)
    cubes = [root.remember(f"Note {level}.", sensitivity=level) for level in Sensitivity]
    for where, wanted in (
        ({"sensitivity": "public"}, cubes[:1]),
        ({"sensitivity": {"$gte": "private"}}, cubes[2:]),
        ({"sensitivity": ["internal", 3]}, [cubes[1], cubes[3]]),
        ({"sensitivity": {"$ne": "secret"}}, cubes[:3]),
    ):
        assert list(root.list(where=where)) == wanted
        assert {hit.cube.id for hit in root.recall("note", where=where)} == {cube.id for cube in wanted}
    for value in ("huge", 9, {"$gt": 1.5}, True):
        with pytest.raises(InvalidRequest):
            root.list(where={"sensitivity": value})


def test_lowering_takes_the_right_to_share_and_a_rollback_lowers_none(t: Tercet) -> None:
    root, ann = t.scope(by=ROOT), t.scope(by=WRITER)
    cube = root.remember("The pin is 4417.")
    raised = ann.revise(cube.id, "The pin is 4418.", sensitivity="secret")
    assert raised.governance.sensitivity is Sensitivity.SECRET
    with pytest.raises(Refused, match="share"):
        ann.revise(cube.id, "The pin is 4418.", sensitivity="public")
    assert ann.revise(cube.id, "The pin is 4419.").governance.sensitivity is Sensitivity.SECRET  # left out: as it is
    assert ann.rollback(cube.id, version=1).governance.sensitivity is Sensitivity.SECRET
    assert root.revise(cube.id, "The pin is 4417.", sensitivity="public").governance.sensitivity is Sensitivity.PUBLIC


def test_a_made_thing_has_the_strictest_label_whoever_keeps_it(t: Tercet) -> None:
    root, ann = t.scope(by=ROOT), t.scope(by=WRITER)
    sources = [root.remember("The pin is 4417.", sensitivity="secret"), root.remember("Soup.", sensitivity="public")]
    made = derive(sources, Text("A pin and soup."), method="m")
    assert made.governance.sensitivity is Sensitivity.SECRET
    with pytest.raises(Refused, match="share"):
        ann.remember(made, sensitivity="public")
    lowered = replace(made, governance=replace(made.governance, sensitivity=Sensitivity.PUBLIC))
    with pytest.raises(Refused, match="share"):
        ann.remember(lowered)
    assert ann.remember(made).governance.sensitivity is Sensitivity.SECRET
    assert root.remember(lowered).governance.sensitivity is Sensitivity.PUBLIC


def test_what_is_raised_raises_what_was_made_of_it(t: Tercet) -> None:
    root, marketing = t.scope(by=ROOT), t.scope(by=AD)
    pin, soup = root.remember("The pin is 4417."), root.remember("Soup.", sensitivity="public")
    page = root.remember(derive([pin, soup], Text("A pin, 4417, and soup."), method="m"))
    book = root.remember(derive([page], Text("On 4417."), method="m"))
    menu = root.remember(derive([soup], Text("A soup of the day."), method="m"))
    root.freeze(book.id)
    before = root.changes(limit=100)[-1].seq
    assert marketing.list().total == 5

    t.scope(by=WRITER).revise(pin.id, "The pin is 4417.", sensitivity="secret")
    assert [cube.id for cube in marketing.list()] == [soup.id, menu.id]
    assert {hit.cube.id for hit in marketing.recall("4417 soup")} == {soup.id, menu.id}
    with pytest.raises(MissingMemory):
        marketing.get(page.id)
    raised = root.get(page.id)
    assert (raised.version, raised.text, raised.governance.sensitivity) == (2, page.text, Sensitivity.SECRET)
    assert raised.behavioural.derivations == page.behavioural.derivations
    assert root.get(book.id).state is book.state.FROZEN
    told = [(change.id, change.action) for change in root.changes(since=before)]
    assert told == [(pin.id, "revise"), (page.id, "label"), (book.id, "label")]

    root.revise(page.id, page.text, sensitivity="internal")  # lowered by who may share it, and left so
    t.scope(by=WRITER).revise(pin.id, "The pin is 4418.")
    assert root.get(page.id).governance.sensitivity is Sensitivity.INTERNAL
    assert root.get(book.id).governance.sensitivity is Sensitivity.SECRET
    assert t.doctor(by=ROOT) == {"default": []}


def test_a_label_raised_on_a_branch_stays_there(t: Tercet) -> None:
    root = t.scope(by=ROOT)
    pin = root.remember("The pin is 4417.")
    page = root.remember(derive([pin], Text("On 4417."), method="m"))
    t.branch("b", by=ROOT)
    branch = t.scope(by=ROOT, branch="b")
    own = branch.remember(derive([pin], Text("On b, 4417."), method="m"))
    branch.revise(pin.id, "The pin is 4417.", sensitivity="secret")
    assert {cube.id: int(cube.governance.sensitivity) for cube in branch.list()} == {pin.id: 3, page.id: 3, own.id: 3}
    assert {cube.id: int(cube.governance.sensitivity) for cube in root.list()} == {pin.id: 2, page.id: 2}


def test_only_who_administers_hands_in_what_is_confirmed(t: Tercet, tmp_path: Path) -> None:
    root, ann = t.scope(by=ROOT), t.scope(by=WRITER)
    draft = MemCube(Text("The pin is 4417."), governance=Governance(trust=Trust.CONFIRMED))
    with pytest.raises(Refused, match="confirmed"):
        ann.remember(draft)
    with pytest.raises(Refused, match="confirmed"):
        ann.remember_many(["Soup.", draft])
    assert root.list().total == 0
    kept = root.remember(draft)
    assert kept.governance.trust is Trust.CONFIRMED
    stream = io.BytesIO()
    export_scope(root, stream)
    with Tercet.open(tmp_path / "other", embedder=None) as other:
        for rule in (Rule("allow", "root", WRITES | {"administer"}), Rule("allow", "ann", WRITES)):
            other.admin(by=ROOT).add_rule(rule)
        import_archive(other.scope(by=WRITER), io.BytesIO(stream.getvalue()))
        assert other.scope(by=ROOT).get(kept.id).governance.trust is Trust.OBSERVED
    with Tercet.open(tmp_path / "third", embedder=None) as third:
        import_archive(third.scope(), io.BytesIO(stream.getvalue()))
        assert third.scope().get(kept.id).governance.trust is Trust.CONFIRMED
