"""Which memories are worth a KV cache, by measured cost. A policy proposes; the worker, or a person, carries it out.

Everything is in seconds. A cache of T tokens saves `saves` seconds at each use and takes `build` seconds to make; to
keep it costs its bytes times `price` a day. Uses are observed: each adds 1 to a memory's heat, which halves every
`half_life` days, so that heat x ln 2 / half_life estimates the uses a day to come.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tercet.vault import jobs
from tercet.vault.codec import from_micros, to_micros
from tercet.vault.connection import query, scalar, undamaged
from tercet.vault.sqlite import Tenant

EVERY = timedelta(hours=1)
STATE = "promotion"
COLD = 0.05
"""Heat below which a memory is forgotten by the policy: a use, 4.3 half-lives ago."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What was measured of an engine on this machine: seconds a token to prefill and to load, bytes a token to keep."""

    prefill: float
    load: float
    bytes: float


@dataclass(frozen=True, slots=True)
class Candidate:
    """A memory that the policy looks at: `kept` says whether its cache is there."""

    id: str
    tokens: int
    heat: float
    kept: bool = False


@dataclass(frozen=True, slots=True)
class MeasuredCost:
    """Promote where saves x uses > build + rent, over `horizon` days; demote where saves x uses < rent.

    uses = heat ln 2 / half_life x horizon; saves = T (prefill - load); build = T prefill x `effort` (reading it apart,
    and writing it); rent = T bytes x price x horizon, `price` in seconds a GB a day. That the build is not counted
    again when a cache is kept leaves a gap between the two thresholds, so that nothing flutters.
    """

    half_life: float = 2.0
    horizon: float = 4.0
    price: float = 2.0
    effort: float = 1.2

    def uses(self, heat: float) -> float:
        """Uses expected over the horizon."""
        return heat * math.log(2) / self.half_life * self.horizon

    def worth(self, tokens: int, heat: float, pace: Pace, *, kept: bool) -> float:
        """Seconds that a cache is expected to bring over the horizon, what it costs taken off."""
        gain = self.uses(heat) * tokens * (pace.prefill - pace.load)
        rent = tokens * pace.bytes / 1e9 * self.price * self.horizon
        return gain - rent - (0.0 if kept else tokens * pace.prefill * self.effort)

    def decide(self, candidates: Iterable[Candidate], pace: Pace) -> tuple[list[str], list[str]]:
        """Ids to promote, the most worth first, and ids to demote."""
        up, down = list[tuple[float, str]](), list[str]()
        for one in candidates:
            worth = self.worth(one.tokens, one.heat, pace, kept=one.kept)
            if one.kept and worth < 0:
                down.append(one.id)
            elif not one.kept and worth > 0:
                up.append((-worth, one.id))
        return [id for _, id in sorted(up)], sorted(down)


POLICY = MeasuredCost()
"""What the worker goes by."""


def cooled(heat: float, days: float, half_life: float) -> float:
    """Heat after so many days without a use."""
    return heat * math.exp2(-days / half_life)


def observe(tenant: Tenant, policy: MeasuredCost, *, at: datetime, by: str) -> dict[int, float]:
    """The heat of every memory by its number, from the uses counted since the last look, which is written down.

    The state is a line of `meta`: when, and for each warm memory its heat and the count that it had.
    """
    with tenant.writing(by=by) as writer:
        connection = writer.connection
        then, known = _state(scalar(connection, "SELECT value FROM meta WHERE key = ?", (STATE,)))
        days = max(0.0, (to_micros(at) - then) / 86_400e6) if then else 0.0
        heats, counts = dict[int, float](), dict[int, int]()
        for n, count in query(connection, "SELECT u.cube, u.count FROM uses u JOIN cubes c ON c.n = u.cube"):
            heat, seen = known.get(n, (0.0, 0))
            heats[n] = cooled(heat, days, policy.half_life) + max(0, count - seen)
            counts[n] = count
        state = {"at": to_micros(at), "heat": {str(n): [round(heats[n], 4), counts[n]] for n in sorted(heats)}}
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (STATE, json.dumps(state)))
    return {n: heat for n, heat in heats.items() if heat >= COLD}


def want(tenant: Tenant, *, at: datetime) -> None:
    """Put down the job that tends KV caches, if the last time was long enough ago."""
    if not tenant.path.exists():
        return
    with tenant.maintaining() as connection:
        then, _ = _state(scalar(connection, "SELECT value FROM meta WHERE key = ?", (STATE,)))
        if then is None or from_micros(then) + EVERY <= at:
            jobs.enqueue(connection, "tend", {}, at=at)


def kv_numbers(tenant: Tenant) -> dict[str, Any]:
    """How many KV caches a tenant keeps, their bytes on disk, uses of them and of texts, and what the policy noted."""
    with tenant.reading() as reader:
        connection = reader.connection
        then, known = _state(scalar(connection, "SELECT value FROM meta WHERE key = ?", (STATE,)))
        by_kind = dict(
            query(connection, "SELECT c.kind, sum(u.count) FROM uses u JOIN cubes c ON c.n = u.cube GROUP BY 1")
        )
        return {
            "caches": scalar(connection, "SELECT count(*) FROM cubes WHERE kind = 'activation'"),
            "bytes": scalar(connection, "SELECT coalesce(sum(size), 0) FROM (SELECT DISTINCT sha256, size FROM blobs)"),
            "uses": by_kind.get("activation", 0),
            "text_uses": by_kind.get("text", 0),
            "tended": from_micros(then).isoformat() if then else None,
            "warm": sum(heat >= COLD for heat, _ in known.values()),
            "hottest": round(max((heat for heat, _ in known.values()), default=0.0), 3),
        }


def _state(text: object) -> tuple[int | None, Mapping[int, tuple[float, int]]]:
    if not isinstance(text, str):
        return None, {}
    with undamaged("What the promotion policy noted"):
        told = json.loads(text)
        return int(told["at"]), {int(n): (float(heat), int(seen)) for n, (heat, seen) in told["heat"].items()}
