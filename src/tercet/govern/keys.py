"""API keys: 256 random bits, shown once, kept as a hash, bound to a tenant, revocable at once.

A key reads `tk_TENANT.ID.SECRET`: the tenant's name in base64, so that its file can be found; the id, which logs and
the journal may say; the secret, in base64, which nothing keeps. The prefix lets scanners of leaked secrets find it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import apsw

from tercet.errors import InvalidRequest, Refused, TercetError
from tercet.govern.gate import NO_KEY
from tercet.scope import Caller, Scope, check_name, check_names, check_rights
from tercet.vault.codec import from_micros, to_micros
from tercet.vault.connection import undamaged
from tercet.vault.policy import KeyRow, add_key, key_row, key_rows, revoke_key, shorten_key
from tercet.vault.writer import Writer

PREFIX = "tk_"
SECRET_BYTES = 32
NEXT = "~"
"""Between a key's id and the number of its rotation: rules and grants name the id before it."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it may be shown: not what opens.

    `within` is the scope that it opens, `rights` the only ones it gives (of those that the rules give its caller),
    `purposes` those it may be used for (none: any). It opens nothing from `expires` on, nor once `revoked`.
    """

    id: str
    name: str
    within: Scope
    rights: frozenset[str]
    roles: frozenset[str]
    purposes: frozenset[str]
    made: datetime
    expires: datetime | None
    revoked: datetime | None


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made. `text` is what opens; it is here, once, and nowhere else."""

    key: Key
    text: str = field(repr=False)


def draft_key(
    within: Scope,
    name: str,
    *,
    rights: AbstractSet[str],
    roles: AbstractSet[str] = frozenset(),
    purposes: AbstractSet[str] = frozenset(),
    made: datetime,
    expires: datetime | None = None,
) -> Key:
    """A key that is not kept yet. Raises InvalidRequest for what cannot be one."""
    if expires is not None and (not isinstance(expires, datetime) or expires.utcoffset() is None or expires <= made):
        raise InvalidRequest(f"A key expires at a time with a zone that is still to come, not {expires!r:.80}.")
    return Key(
        id=secrets.token_hex(8),
        name=check_name(name, "a key's name"),
        within=within,
        rights=check_rights(rights, "A key"),
        roles=check_names(roles, "roles"),
        purposes=check_names(purposes, "purposes"),
        made=made,
        expires=expires,
        revoked=None,
    )


def keep(writer: Writer, key: Key, *, action: str = "create key") -> NewKey:
    """Make a key's secret and keep its hash."""
    text = _text(key.within.tenant, key.id, secrets.token_bytes(SECRET_BYTES))
    add_key(writer, KeyRow(key.id, _hash(text), _body(key), to_micros(key.made), _micros(key.expires), None),
            action=action)  # fmt: skip
    return NewKey(key, text)


def list_keys(connection: apsw.Connection, tenant: str) -> list[Key]:
    """All keys of a tenant, oldest first, those that open nothing any more among them."""
    return [_key(row, tenant) for row in key_rows(connection)]


def rotate(writer: Writer, id: str, *, grace: timedelta) -> NewKey:
    """A new key in place of one that is good; the old one opens for `grace` more.

    Raises
    ------
    InvalidRequest
        If there is no such key, it opens nothing any more, or the grace is negative.
    """
    if not isinstance(grace, timedelta) or grace < timedelta(0):
        raise InvalidRequest(f"A grace is a span of time, not {grace!r:.80}.")
    family = [key for key in list_keys(writer.connection, writer.tenant) if _same(key.id, id)]
    old = max(family, key=_number, default=None)
    if old is None or not _live(old, writer.at):
        raise InvalidRequest(f"No key {id!r} that could be rotated; `tercet keys list` shows them.")
    if grace:
        shorten_key(writer, old.id, to_micros(writer.at + grace))
    else:
        revoke_key(writer, old.id)
    new = replace(old, id=f"{old.id.partition(NEXT)[0]}{NEXT}{_number(old) + 1}", made=writer.at)
    return keep(writer, new, action="rotate key")


def revoke(writer: Writer, id: str) -> list[Key]:
    """Let a key, and all that it was rotated into, open nothing from now on; returns those that did.

    Raises InvalidRequest if there is no such key.
    """
    family = [key for key in list_keys(writer.connection, writer.tenant) if _same(key.id, id)]
    if not family:
        raise InvalidRequest(f"No key {id!r} here; `tercet keys list` shows them.")
    good = [key for key in family if _live(key, writer.at)]
    for key in good:
        revoke_key(writer, key.id)
    return [replace(key, revoked=writer.at) for key in good]


def tenant_of(text: str) -> str:
    """The tenant whose file knows a key. Raises Refused if it is no key."""
    return _parts(text)[0]


def open_with(
    connection: apsw.Connection, text: str, *, at: datetime, purpose: str | None, network: str | None
) -> Caller:
    """The caller that a key makes. Raises Refused, in the same words whatever is wrong with the key."""
    tenant, id = _parts(text)
    row = key_row(connection, id)
    kept = row.hash if row is not None else bytes(32)
    if not hmac.compare_digest(kept, _hash(text)) or row is None or not row.live(to_micros(at)):
        raise Refused(NO_KEY)
    key = _key(row, tenant)
    if key.purposes:
        if purpose is None and len(key.purposes) == 1:
            [purpose] = key.purposes
        if purpose not in key.purposes:
            raise Refused(f"This key is for {', '.join(sorted(key.purposes))}, not for {purpose!r}: say which purpose.")
    return Caller(
        key.name,
        purpose=purpose,
        roles=key.roles,
        network=network,
        within=key.within,
        rights=key.rights,
        key=key.id,
    )


def _parts(text: str) -> tuple[str, str]:
    parts = text.removeprefix(PREFIX).split(".") if isinstance(text, str) and text.startswith(PREFIX) else []
    try:
        tenant, id, secret = parts
        name = base64.urlsafe_b64decode(tenant + "=" * (-len(tenant) % 4)).decode()
        # One spelling only, so that the hash is of the key that was given out.
        if _text(name, id, base64.urlsafe_b64decode(secret + "=")) != text:
            raise ValueError(name)
        return Scope(name).tenant, id
    except (ValueError, TercetError):
        raise Refused(NO_KEY) from None


def _text(tenant: str, id: str, secret: bytes) -> str:
    return f"{PREFIX}{_encode(tenant.encode())}.{id}.{_encode(secret)}"


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _hash(text: str) -> bytes:
    # 256 random bits need no slow hash: nobody can try them all.
    return hashlib.sha256(text.encode()).digest()


def _body(key: Key) -> str:
    scope = {part: getattr(key.within, part) for part in ("user", "agent", "session")}
    sets = {part: sorted(getattr(key, part)) for part in ("rights", "roles", "purposes")}
    return json.dumps({"name": key.name, **scope, **sets}, ensure_ascii=False, sort_keys=True)


def _key(row: KeyRow, tenant: str) -> Key:
    with undamaged(f"Key {row.id}"):
        body: dict[str, Any] = json.loads(row.body)
        return Key(
            id=row.id,
            name=body["name"],
            within=Scope(tenant, body["user"], body["agent"], body["session"]),
            rights=check_rights(frozenset(body["rights"]), "A key"),
            roles=frozenset(body["roles"]),
            purposes=frozenset(body["purposes"]),
            made=from_micros(row.at),
            expires=None if row.expires is None else from_micros(row.expires),
            revoked=None if row.revoked is None else from_micros(row.revoked),
        )


def _same(held: str, asked: str) -> bool:
    return asked in (held, held.partition(NEXT)[0])


def _number(key: Key) -> int:
    return int(key.id.partition(NEXT)[2] or 1)


def _live(key: Key, at: datetime) -> bool:
    return key.revoked is None and (key.expires is None or at < key.expires)


def _micros(when: datetime | None) -> int | None:
    return None if when is None else to_micros(when)
