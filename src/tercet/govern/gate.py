"""The one place where access is decided: every front door leads through it, and none around it.

Three things must agree: where the caller belongs (`Caller.within`, its rights, its key), the policy that the vault was
opened with, and the rules that stand in the tenant's own file. The last two default to yes while there are none. Grants
widen what they say, for reading, at the doors that ask for what is `lent`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

import apsw

from tercet.cube import Grant, MemCube, Trust
from tercet.errors import Refused
from tercet.govern.access import Access
from tercet.govern.policy import Lending, Rules, grant_values, refuse
from tercet.govern.rules import Rule, from_json
from tercet.govern.shares import Lent, maker, scope_of, subjects, union
from tercet.scope import Caller, Right, Scope
from tercet.vault.allowed import EVERYTHING, NOTHING, Allowed
from tercet.vault.codec import to_micros
from tercet.vault.connection import undamaged
from tercet.vault.ids import Clock
from tercet.vault.policy import Token, granted, key_row, newest_key, rule_rows, rules_token
from tercet.vault.reader import Reader
from tercet.vault.shares import ShareRow, share_rows

NO_KEY = "This key opens nothing here: it is wrong, expired or revoked. An administrator makes one with `tercet keys`."
"""Said of every key that does not open, whatever is wrong with it."""
HOUSE = Caller("tercet")
"""The vault's own jobs, which hand nothing to anybody: this very object, none that is equal, is let through."""


ELSEWHERE = "there: it belongs elsewhere"


class Gate:
    """Decides. `enter` comes before anything is opened; `allowed` within the snapshot that is then used."""

    def __init__(self, access: Access | Rules, clock: Clock) -> None:
        self.access, self.clock = access, clock
        self._stored: dict[str, tuple[Token, Rules]] = {}
        self._bare = Rules(())

    def enter(self, caller: Caller, right: Right, scope: Scope, *, lent: bool = False) -> None:
        """Return if the caller may come as far as the tenant's file.

        `lent` says that grants open this door, too: they alone lead out of the scope that a caller belongs to, and
        never out of its tenant.

        Raises
        ------
        Refused
            If the scope is not one that the caller belongs to, if the right is none of its own, or by the policy.
        """
        if caller is HOUSE:
            return
        if not _belongs(caller, scope) and not (lent and _belongs(caller, scope, anywhere=True)):
            raise refuse(caller, right, ELSEWHERE)
        if caller.rights is not None and right not in caller.rights:
            raise refuse(caller, right, "here")
        if not isinstance(self.access, Rules):
            self.access.check(caller, right, scope)
        elif caller.within is None and not self.access.know(caller, scope.tenant):
            raise refuse(caller, right, "here")

    def allowed(self, reader: Reader, caller: Caller, right: Right, scope: Scope) -> Allowed:
        """What the caller may use the right on, as of the reader's snapshot.

        Raises
        ------
        Refused
            If that is nothing, whatever there is.
        """
        if caller is HOUSE:
            return EVERYTHING
        self.enter(caller, right, scope)
        found = self._judged(reader.connection, caller, right, scope)
        if found is NOTHING:
            raise refuse(caller, right, "here")
        return found

    def lent(self, reader: Reader, caller: Caller, scope: Scope) -> Lent:
        """What the caller may read of the reader's snapshot, by its own right and by grants.

        A door that asks this has to take a read of the grants that an answer is `due`: `keeping.answered` does.

        Raises
        ------
        Refused
            If that is nothing, whatever there is.
        """
        if caller is HOUSE:
            return Lent(EVERYTHING, EVERYTHING)
        self.enter(caller, "read", scope, lent=True)
        connection, belongs = reader.connection, _belongs(caller, scope)
        own = self._judged(connection, caller, "read", scope) if belongs else NOTHING
        grants = self._grants(reader, caller, scope) if own is not EVERYTHING else []
        allowed = own
        if grants:
            lending = Lending(*union(grants), alone=not belongs)
            allowed = self._judged(connection, caller, "read", scope, lending)
        if allowed is NOTHING:
            raise refuse(caller, "read", "here" if belongs else ELSEWHERE)
        return Lent(own, allowed, grants)

    def _judged(
        self, connection: apsw.Connection, caller: Caller, right: Right, scope: Scope, lent: Lending | None = None
    ) -> Allowed:
        """What all policies allow; NOTHING if that is so whatever there is. Raises Refused for a key of no use."""
        if caller.key is not None:
            self._check_key(connection, caller.key)
        policies = [self.access] if isinstance(self.access, Rules) else []
        stored = self.stored(connection, scope.tenant)
        if stored is not None:
            policies.append(stored)
        if not policies:
            if lent is None:
                return EVERYTHING
            policies = [self._bare]
        at = self.clock() if any(policy.timed for policy in policies) else None
        grants = right != "administer" and granted(connection, grant_values(caller, right))
        found = EVERYTHING
        for policy in policies:
            one = policy.allowed(caller, right, scope, at=at, granted=grants, lent=lent)
            if one is NOTHING:
                return NOTHING
            found = found.both(one)
        return found

    def _grants(self, reader: Reader, caller: Caller, scope: Scope) -> list[tuple[ShareRow, Allowed]]:
        """The grants that give this caller something, each with what its maker has a right to; none of the past."""
        if not reader.line.plain:
            return []
        connection, now = reader.connection, to_micros(self.clock())
        rows = [row for row in share_rows(connection, subjects(caller)) if row.live(now)]
        rows = [row for row in rows if row.purpose in (None, caller.purpose) and _meets(row, scope)]
        found = []
        for row in rows:
            with undamaged(f"Grant g{row.n}"):
                by = maker(row, scope.tenant)
            about = scope_of(row, scope.tenant)
            if by.key is not None:
                by = replace(by, key=newest_key(connection, by.key))
            try:
                right = self.allowed(reader, by, "share", about).both(self.allowed(reader, by, "read", about))
            except Refused:
                continue
            found.append((row, right))
        return found

    def administer(self, reader: Reader, caller: Caller, tenant: str) -> None:
        """Return if the caller administers the whole tenant. Raises Refused."""
        if self.allowed(reader, caller, "administer", Scope(tenant)) is not EVERYTHING:
            raise refuse(caller, "administer", "here")

    def vet(self, reader: Reader, caller: Caller, right: Right, scope: Scope, cubes: Iterable[MemCube]) -> Allowed:
        """Return what the right is allowed on if it covers these; so must the right to share, where they grant any.

        What a draft grants does not count for itself: nobody gives himself a right that way. Nor does a draft make
        itself believed: to hand one in as confirmed takes the right to administer, as a release from quarantine does.

        Raises
        ------
        Refused
            If the caller may not write one of them.
        """
        found, shared = self.allowed(reader, caller, right, scope), None
        for cube in cubes:
            bare = granting(cube, frozenset())
            if cube.governance.trust is Trust.CONFIRMED and not self.may(reader, caller, "administer", scope, bare):
                raise refuse(caller, "administer", "here, and it hands in a memory as confirmed")
            if not found.covers(bare):
                raise refuse(caller, right, "a memory with these tags, of this type and sensitivity")
            if cube.governance.access:
                shared = shared or self.allowed(reader, caller, "share", scope)
                if not shared.covers(bare):
                    raise refuse(caller, "share", "this memory, and it grants rights to others")
        return found

    def may(self, reader: Reader, caller: Caller, right: Right, scope: Scope, cube: MemCube) -> bool:
        """Whether the caller may use the right on a cube in hand."""
        try:
            return self.allowed(reader, caller, right, scope).covers(cube)
        except Refused:
            return False

    def stored(self, connection: apsw.Connection, tenant: str) -> Rules | None:
        """The rules in a tenant's file; None while there are none. Raises VaultDamaged for one that cannot be read."""
        token = rules_token(connection)
        if not token[0]:
            return None
        held = self._stored.get(tenant)
        if held is None or held[0] != token:
            held = token, Rules([rule for _, rule in read_rules(connection, tenant)])
            self._stored[tenant] = held
        return held[1]

    def _check_key(self, connection: apsw.Connection, id: str) -> None:
        row = key_row(connection, id)
        if row is None or not row.live(to_micros(self.clock())):
            raise Refused(NO_KEY)


def _belongs(caller: Caller, scope: Scope, *, anywhere: bool = False) -> bool:
    """Whether the scope is one that the caller belongs to; `anywhere`: whether the tenant is."""
    if caller.within is None:
        return True
    return caller.within.tenant == scope.tenant if anywhere else caller.within.covers(scope)


def _meets(row: ShareRow, scope: Scope) -> bool:
    """Whether a grant can give anything of a scope: no part of both differs."""
    pairs = ((row.user, scope.user), (row.agent, scope.agent), (row.session, scope.session))
    return all(None in pair or pair[0] == pair[1] for pair in pairs)


def granting(cube: MemCube, access: frozenset[Grant]) -> MemCube:
    """The cube with another access list."""
    if cube.governance.access == access:
        return cube
    return replace(cube, governance=replace(cube.governance, access=access))


def read_rules(connection: apsw.Connection, tenant: str) -> list[tuple[int, Rule]]:
    """(number, rule) of each rule in a tenant's file. Raises VaultDamaged."""
    found = []
    for n, body in rule_rows(connection):
        with undamaged(f"Rule {n}"):
            found.append((n, from_json(json.loads(body), tenant)))
    return found


def permits(rules: Rules, caller: Caller, tenant: str, at: datetime) -> bool:
    """Whether the rules let the caller administer a tenant at a moment."""
    return rules.allowed(caller, "administer", Scope(tenant), at=at) is EVERYTHING
