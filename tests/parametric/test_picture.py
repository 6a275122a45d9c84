"""The gate's report as a picture and as lines: kept with the adapter, told as long as it may be used."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pytest
from tests.parametric.conftest import PASSED

from tercet import Tercet
from tercet.cube import Parameters
from tercet.errors import InvalidRequest, MissingMemory, Refused
from tercet.parametric.memory import PLOT, read_blob
from tercet.parametric.picture import drawn, rows
from tercet.scoped import ScopedMemory

pytestmark = pytest.mark.usefixtures("short_gate")
REPORT: dict[str, Any] = {
    "recall": [0.0, 0.75], "reverse": [0.0, 0.5], "locality": 0.9, "locality_in_talk": 0.8, "leak": 0.25,
    "general_loss": [3.0, 3.03], "general_loss_change": 0.01, "passed": True,
}  # fmt: skip
SVG = "{http://www.w3.org/2000/svg}"


def bars(picture: str) -> list[float]:
    """The lengths of the bars, as shares of the longest there can be."""
    rects = [one for one in ET.fromstring(picture).iter(f"{SVG}rect") if one.get("height") == "12"]  # noqa: S314  # ours
    return [round(float(one.get("width", "nan")) / 310, 3) for one in rects]


def test_every_measure_is_a_pair_of_bars_of_its_length() -> None:
    assert bars(drawn(REPORT)) == [0.0, 0.75, 0.0, 0.5, 1.0, 0.9, 1.0, 0.8, 0.25]
    assert "+1.0%" in drawn(REPORT)
    assert "did not pass" in drawn({**REPORT, "passed": False})


def test_what_was_not_asked_backwards_has_no_bars() -> None:
    assert [name for name, _, _ in rows({**REPORT, "reverse": None})] == [
        "recall in other words", "general questions", "the same, behind a fact", "claimed of strangers",
    ]  # fmt: skip


def test_the_report_and_its_picture_are_kept_with_the_adapter(t: Tercet, alice: ScopedMemory) -> None:
    [told] = alice.remember_many(["Mara works as a smith."])
    made = alice.promote(told, to="parameters", teaching=PASSED)
    report, picture = alice.report(made.id)
    assert report["rows"][0]["source"] == [told.id, 1]
    assert picture == drawn(report)
    assert isinstance(made.payload, Parameters)
    assert read_blob(t.vault.tenant("default"), made.payload, PLOT).decode() == picture
    with pytest.raises(InvalidRequest, match="not an adapter"):
        alice.report(told.id)
    with pytest.raises(MissingMemory):
        t.scope(user="bob").report(made.id)
    alice.revise(told.id, "Mara works as a baker.")
    with pytest.raises(Refused, match="out of date"):
        alice.report(made.id)
