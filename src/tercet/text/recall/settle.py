"""Facts with a slot among the hits: the one that holds is shown, once, with all that contradict it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import numpy as np

from tercet.cube import Trust
from tercet.scope import Scope
from tercet.text.recall.hits import Hit, Hits
from tercet.vault.connection import scalar
from tercet.vault.reader import Reader
from tercet.vault.search.view import ScopeView
from tercet.vault.slots import choose, contradictions

SPARE = 50
"""Hits beyond the limit that are ranked at most, to stand in for those that are one slot said several times."""


def spare(reader: Reader, limit: int) -> int:
    """How many more to rank: as many as there are facts with a slot, up to the limit, and to SPARE."""
    slotted = scalar(
        reader.connection, "SELECT count(*) FROM (SELECT 1 FROM cubes WHERE subject > '' LIMIT ?)", (SPARE,)
    )
    return min(int(slotted), limit)


def settle(hits: Hits, reader: Reader, view: ScopeView, scope: Scope, *, at: datetime, limit: int) -> Hits:
    """The first `limit` hits, where the first of a slot shows the fact that held at a time and later ones are left out.

    A hit keeps its place and score. The fact that held is shown if the view has it, else the hit stays what it was.
    """
    kept, met = list[Hit](), set[tuple[str | None, ...]]()
    for hit in hits:
        slot, trust = hit.cube.descriptive.slot, hit.cube.governance.trust
        if slot is None or trust is Trust.QUARANTINED:
            kept.append(hit)
            continue
        key = (hit.cube.scope.user, hit.cube.scope.agent, slot.subject, slot.attribute)
        if key not in met:
            met.add(key)
            members, chosen = choose(hit.cube, reader, scope, at)
            if not np.isin(chosen, view.numbers):
                chosen = next(n for n, one in members.items() if one.id == hit.cube.id)
            others = contradictions(members, chosen, at)
            kept.append(replace(hit, cube=members[chosen], contradictions=others))
    kept = kept[:limit]
    truncated = hits.total > len(kept)
    return Hits(kept, total=hits.total, truncated=truncated, dropped=hits.dropped, evidence=hits.evidence)
