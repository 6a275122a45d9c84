"""The whole contract of a vault, as one class to subclass."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tercet.cube import (
    Behavioural,
    Descriptive,
    Governance,
    Grant,
    Happened,
    MemCube,
    Origin,
    Sensitivity,
    Slot,
    Source,
    Text,
    Trust,
)
from tercet.testing.changing import ChangeTests
from tercet.testing.erasing import ForgetTests
from tercet.testing.filtering import FilterTests
from tercet.testing.keeping import UpkeepTests
from tercet.testing.lasting import LastingTests
from tercet.testing.lending import SharingTests
from tercet.testing.living import LifeTests
from tercet.testing.reading import ReadTests
from tercet.testing.remembering import RememberTests
from tercet.testing.slotting import SlotTests
from tercet.testing.tenancy import ScopeTests
from tercet.testing.travelling import TimeTests

WHEN = datetime(2024, 5, 1, 9, 30, 0, 17, tzinfo=UTC)
LATER = datetime(2031, 1, 1, tzinfo=UTC)


class VaultTests(
    RememberTests,
    ReadTests,
    ChangeTests,
    ForgetTests,
    FilterTests,
    ScopeTests,
    UpkeepTests,
    LifeTests,
    TimeTests,
    LastingTests,
    SlotTests,
    SharingTests,
):
    """Every promise of the contract is one test. Subclass it and provide `open_tercet`."""

    @pytest.fixture(params=["public", "quarantined", "secret"])
    def full_draft(self, request: pytest.FixtureRequest) -> MemCube:
        """A draft whose every field differs from its default; the lowest and the highest of what is ordered."""
        secret = request.param == "secret"
        governance = Governance(
            access=frozenset({Grant("bob", "read"), Grant("bob", "read", "work"), Grant("agent", "use", None)}),
            expires=LATER,
            half_life_days=30.0 if secret else 0.5,
            priority=-3,
            sensitivity=Sensitivity.SECRET if secret else Sensitivity.PUBLIC,
            trust=Trust.QUARANTINED if request.param == "quarantined" else Trust.CONFIRMED,
            watermark="w",
            hold="case 7" if secret else None,
        )
        descriptive = Descriptive(
            type="preference",
            slot=Slot("Ann", "favourite soup"),
            happened=Happened(WHEN, LATER, (0, 4)),
            observed=WHEN,
            origin=Origin(Source.IMPORT, speaker="Ann", role="tool", ref="r-1", detail="by hand"),
            tags=("b", "a"),
            metadata={"n": 0, "f": 0.0, "no": False, "s": "", "z": None},
        )
        behavioural = Behavioural(method="m/v1", valid_from=WHEN, valid_to=LATER, superseded_by=None)
        return MemCube(Text("Soup."), descriptive, governance, behavioural)
