"""What crosses the border, as plain JSON values: one function for each thing that a door shows."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tercet.admin import KeptRule
    from tercet.cube import MemCube
    from tercet.govern.injections import Injection
    from tercet.govern.keys import Key
    from tercet.govern.shares import Share
    from tercet.text.recall.hits import Hit
    from tercet.vault.branches import Branch, Snapshot
    from tercet.vault.doctor import Finding
    from tercet.vault.erase import Receipt
    from tercet.vault.rewind import Diff, Rewound

Json = dict[str, Any]


def cube_json(cube: MemCube) -> Json:
    """A cube: what every reader wants first, then the rest of the header. Times are ISO 8601 with their zone."""
    d, g, b = cube.descriptive, cube.governance, cube.behavioural
    return {
        "id": cube.id,
        "kind": cube.kind.value,
        "type": d.type,
        "text": cube.text,
        "version": cube.version,
        "state": cube.state.value,
        "tenant": g.tenant,
        "user": g.scope.user,
        "agent": g.scope.agent,
        "session": g.scope.session,
        "speaker": d.origin.speaker,
        "role": d.origin.role,
        "ref": d.origin.ref,
        "observed": _iso(d.observed),
        "recorded": _iso(d.recorded),
        "happened": {
            "start": _iso(d.happened.start),
            "end": _iso(d.happened.end),
            "span": list(d.happened.span) if d.happened.span else None,
        }
        if d.happened
        else None,
        "tags": list(d.tags),
        "metadata": dict(d.metadata),
        "origin": {
            "source": d.origin.source.value,
            "episode": d.origin.episode,
            "span": list(d.origin.span) if d.origin.span else None,
            "detail": d.origin.detail,
        },
        "slot": asdict(d.slot) if d.slot else None,
        "commitment": d.commitment,
        "expires": _iso(g.expires),
        "hold": g.hold,
        "priority": g.priority,
        "sensitivity": g.sensitivity.name.lower(),
        "trust": g.trust.name.lower(),
        "parent": b.parent,
        "derivations": [asdict(link) for link in b.derivations],
        "method": b.method,
        "valid": {"from": _iso(b.valid_from), "to": _iso(b.valid_to)},
        "superseded_by": b.superseded_by,
    }


def hit_json(hit: Hit) -> Json:
    """A hit: its score, the reasons and the cube, whose id and text stand in front, too."""
    return {
        "id": hit.cube.id,
        "text": hit.cube.text,
        "score": hit.score,
        "why": dict(hit.why),
        "cube": cube_json(hit.cube),
        "contradictions": [
            {
                "id": other.cube.id,
                "text": other.cube.text,
                "valid": {"from": _iso(other.valid_from), "to": _iso(other.valid_to)},
                "rule": other.rule,
                "cube": cube_json(other.cube),
            }
            for other in hit.contradictions
        ],
    }


def snapshot_json(snapshot: Snapshot) -> Json:
    """A snapshot."""
    return asdict(snapshot) | {"at": _iso(snapshot.at)}


def branch_json(branch: Branch) -> Json:
    """A branch."""
    return asdict(branch) | {"at": _iso(branch.at)}


def diff_json(diff: Diff) -> Json:
    """What two moments show differently."""
    return asdict(diff)


def rewound_json(rewound: Rewound) -> Json:
    """What a restore did."""
    return asdict(rewound)


def injection_json(injection: Injection) -> Json:
    """An answer and the memories that went into it."""
    scope = injection.scope
    return {
        "answer": injection.answer,
        "at": _iso(injection.at),
        "by": injection.by,
        "user": scope.user,
        "agent": scope.agent,
        "session": scope.session,
        "memories": [{"id": one.cube, "version": one.version, "score": one.score} for one in injection.memories],
    }


def receipt_json(receipt: Receipt) -> Json:
    """What an erasure did: the receipt as it is signed."""
    from tercet.govern.receipt import receipt_document

    return receipt_document(receipt)


def finding_json(tenant: str, finding: Finding) -> Json:
    """Something a check found."""
    return {"tenant": tenant, **asdict(finding)}


def rule_json(kept: KeptRule) -> Json:
    """A rule with its number."""
    from tercet.govern.rules import to_json

    return {"n": kept.n, **to_json(kept.rule)}


def key_json(key: Key) -> Json:
    """A key, without what opens."""
    scope = {part: getattr(key.within, part) for part in ("tenant", "user", "agent", "session")}
    sets = {name: sorted(getattr(key, name)) for name in ("rights", "roles", "purposes")}
    times = {name: _iso(getattr(key, name)) for name in ("made", "expires", "revoked")}
    return {"id": key.id, "name": key.name, **scope, **sets, **times}


def share_json(share: Share) -> Json:
    """A grant; `left` are the reads that it still has."""
    scope = {part: getattr(share.scope, part) for part in ("tenant", "user", "agent", "session")}
    told = {name: getattr(share, name) for name in ("id", "to", "by", "purpose", "reads", "used", "left")}
    times = {name: _iso(getattr(share, name)) for name in ("made", "until", "revoked")}
    where = None if share.where is None else dict(share.where)
    return {**told, "cubes": list(share.cubes), **scope, "where": where, **times}


def _iso(when: datetime | None) -> str | None:
    return when.isoformat() if when else None
