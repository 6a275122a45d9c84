"""Headers as JSON and back. Only what differs from the default is written, so that a plain turn costs few bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from tercet.cube import (
    Activation,
    Behavioural,
    BlobRef,
    Descriptive,
    Governance,
    Grant,
    Happened,
    Link,
    MemCube,
    ModelIdentity,
    Origin,
    Parameters,
    Payload,
    Sensitivity,
    Slot,
    Source,
    Text,
    Trust,
)
from tercet.lifecycle import State
from tercet.scope import Scope

Json = dict[str, Any]


def to_micros(when: datetime) -> int:
    """Microseconds since 1970, UTC."""
    delta = when - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def from_micros(value: int) -> datetime:
    """The moment, in UTC."""
    seconds, micros = divmod(value, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros)


def dump(value: Mapping[str, Any]) -> str:
    """Compact JSON with its keys in order, so that equal values are equal bytes."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def commit(salt: bytes, cube: MemCube, header: str) -> bytes:
    """What binds a version to its content without telling it: SHA-256 of salt, id, scope, version, header and text."""
    scope = cube.scope
    # No name has control characters, so the parts cannot be confused.
    names = (scope.tenant, scope.user or "", scope.agent or "", scope.session or "")
    parts = (cube.id, str(cube.version), *names, header, cube.text)
    return hashlib.sha256(b"\0".join((salt, *(part.encode() for part in parts)))).digest()


def encode(cube: MemCube) -> Json:
    """The whole header but the id, scope, version and state, which have columns; and what a payload refers to."""
    d, g, b = cube.descriptive, cube.governance, cube.behavioural
    fields: Json = {
        "type": d.type if d.type != "fact" else None,
        "slot": [d.slot.subject, d.slot.attribute] if d.slot else None,
        "happened": _happened(d.happened),
        "observed": d.observed.isoformat() if d.observed else None,
        "recorded": d.recorded.isoformat() if d.recorded else None,
        "origin": _origin(d.origin),
        "tags": list(d.tags),
        "metadata": dict(d.metadata),
        "commitment": d.commitment,
        "access": sorted(([one.subject, one.right, one.context] for one in g.access), key=str),
        "expires": g.expires.isoformat() if g.expires else None,
        "half_life_days": g.half_life_days,
        "hold": g.hold,
        "priority": g.priority,
        "sensitivity": int(g.sensitivity) if g.sensitivity is not Sensitivity.PRIVATE else None,
        "trust": int(g.trust) if g.trust is not Trust.OBSERVED else None,
        "watermark": g.watermark,
        "parent": b.parent,
        "derivations": [[link.id, link.version] for link in b.derivations],
        "method": b.method,
        "valid": [_iso(b.valid_from), _iso(b.valid_to)] if b.valid_from or b.valid_to else None,
        "superseded_by": b.superseded_by,
        "space": b.space,
        "model": _model(b.model),
        "payload": _payload(cube.payload),
    }
    # Zero says something of its own (public, quarantined, a half-life of 0): only a default of zero may be left out.
    return {
        key: value for key, value in fields.items() if value not in (None, [], {}) and (key, value) != ("priority", 0)
    }


def decode(fields: Json, *, id: str, scope: Scope, version: int, state: str, text: str | None) -> MemCube:
    """A cube from its header and what stands in columns."""
    origin = fields.get("origin", {})
    slot, happened, valid = fields.get("slot"), fields.get("happened"), fields.get("valid") or [None, None]
    payload = read_payload(fields.get("payload"), text)
    return MemCube(
        payload,
        Descriptive(
            id=id,
            type=fields.get("type", "fact"),
            slot=Slot(*slot) if slot else None,
            happened=read_happened(happened),
            observed=_time(fields.get("observed")),
            recorded=_time(fields.get("recorded")),
            origin=Origin(
                source=Source(origin.get("source", Source.USER.value)),
                episode=origin.get("episode"),
                span=tuple(origin["span"]) if "span" in origin else None,
                **{key: origin.get(key) for key in ("speaker", "role", "ref", "detail")},
            ),
            tags=tuple(fields.get("tags", ())),
            metadata=MappingProxyType(fields.get("metadata", {})),
            commitment=fields.get("commitment"),
        ),
        Governance(
            scope=scope,
            access=frozenset(Grant(*row) for row in fields.get("access", ())),
            expires=_time(fields.get("expires")),
            half_life_days=fields.get("half_life_days"),
            hold=fields.get("hold"),
            priority=fields.get("priority", 0),
            sensitivity=Sensitivity(fields.get("sensitivity", Sensitivity.PRIVATE)),
            trust=Trust(fields.get("trust", Trust.OBSERVED)),
            watermark=fields.get("watermark"),
        ),
        Behavioural(
            version=version,
            parent=fields.get("parent"),
            derivations=tuple(Link(*row) for row in fields.get("derivations", ())),
            method=fields.get("method"),
            state=State(state),
            valid_from=_time(valid[0]),
            valid_to=_time(valid[1]),
            superseded_by=fields.get("superseded_by"),
            space=fields.get("space"),
            model=_read_model(fields.get("model")),
        ),
    )


def read_payload(fields: Json | None, text: str | None) -> Payload:
    """Text, or what `encode` wrote of a tensor payload."""
    if fields is None:
        return Text(text or "")
    blobs = tuple(BlobRef(*row) for row in fields["blobs"])
    model = _read_model(fields["model"])
    assert model is not None  # noqa: S101  # both tensor payloads are written with their model
    if "tokens" in fields:
        return Activation(blobs, model, fields["tokens"])
    return Parameters(blobs, model, fields["rank"])


def read_happened(row: list[Any] | None) -> Happened | None:
    """A `Happened` from [start, end, span]."""
    if row is None:
        return None
    return Happened(datetime.fromisoformat(row[0]), datetime.fromisoformat(row[1]), tuple(row[2]) if row[2] else None)


def _happened(value: Happened | None) -> list[Any] | None:
    return [value.start.isoformat(), value.end.isoformat(), value.span] if value else None


def _origin(origin: Origin) -> Json:
    fields = {
        "source": origin.source.value if origin.source is not Source.USER else None,
        "episode": origin.episode,
        "span": list(origin.span) if origin.span else None,
        "speaker": origin.speaker,
        "role": origin.role,
        "ref": origin.ref,
        "detail": origin.detail,
    }
    return {key: value for key, value in fields.items() if value is not None}


def _payload(payload: Payload) -> Json | None:
    if isinstance(payload, Text):
        return None
    blobs = [[blob.sha256, blob.size, blob.role] for blob in payload.blobs]
    size = {"tokens": payload.tokens} if isinstance(payload, Activation) else {"rank": payload.rank}
    return {"blobs": blobs, "model": _model(payload.model), **size}


def _model(model: ModelIdentity | None) -> Json | None:
    if model is None:
        return None
    names = ("name", "revision", "weights", "tokenizer", "template", "rope", "dtype")
    return {name: getattr(model, name) for name in names} | {"adapters": list(model.adapters)}


def _read_model(fields: Json | None) -> ModelIdentity | None:
    return ModelIdentity(**{**fields, "adapters": tuple(fields["adapters"])}) if fields else None


def _iso(when: datetime | None) -> str | None:
    return when.isoformat() if when else None


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
