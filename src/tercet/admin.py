"""What an administrator does: see which tenants there are, and say who may do what in one of them."""

from __future__ import annotations

import logging
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from tercet.errors import InvalidRequest, Refused, VaultError
from tercet.govern import keys
from tercet.govern.gate import permits, read_rules
from tercet.govern.keys import Key, NewKey
from tercet.govern.policy import Rules
from tercet.govern.rules import Rule, to_json
from tercet.scope import DEFAULT_TENANT, Caller, Scope
from tercet.vault.codec import dump
from tercet.vault.policy import add_rule, remove_rule
from tercet.vault.writer import Writer

if TYPE_CHECKING:
    from tercet.govern.gate import Gate
    from tercet.kernel import Tercet
    from tercet.vault.sqlite import SqliteVault, Tenant

log = logging.getLogger(__name__)

MAX_RULES = 1000


@dataclass(frozen=True, slots=True)
class KeptRule:
    """A rule of a tenant's file, with the number that names it."""

    n: int
    rule: Rule


class Guarded(Protocol):
    """What has a vault, and a gate before it."""

    vault: SqliteVault
    gate: Gate


class Admin:
    """One tenant's rules and keys, for a caller that administers it; and which other tenants it administers."""

    def __init__(self, tercet: Tercet, by: Caller, tenant: str) -> None:
        self.tercet, self.by, self.tenant = tercet, by, tenant
        require(tercet, by, tenant)

    def tenants(self) -> list[str]:
        """The names of all tenants that the caller administers."""
        return administered(self.tercet, self.by)

    def rules(self) -> list[KeptRule]:
        """The rules of the tenant's file; while there are none, every caller may do everything."""
        with self.tercet.vault.tenant(self.tenant).reading() as reader:
            self.tercet.gate.administer(reader, self.by, self.tenant)
            return [KeptRule(n, rule) for n, rule in read_rules(reader.connection, self.tenant)]

    def add_rule(self, rule: Rule) -> KeptRule:
        """Keep a rule; it holds from the next call on, in every process.

        The first must let the caller itself administer, and none may leave the tenant without an administrator whom
        no time, purpose or address binds.

        Raises
        ------
        InvalidRequest
            If the rule is of another tenant, nobody could administer after it, or there are 1,000.
        """
        if not isinstance(rule, Rule) or rule.tenant not in (DEFAULT_TENANT, self.tenant):
            raise InvalidRequest(f"A rule for tenant {self.tenant!r} is wanted, not {rule!r:.80}.")
        body = to_json(rule)
        with self.tercet.vault.tenant(self.tenant).writing(by=self.by.signed) as writer:
            self._check(writer)
            n = add_rule(writer, dump(body))
            return next(one for one in self._still_administered(writer) if one.n == n)

    def remove_rule(self, n: int) -> None:
        """Take a rule away.

        Raises
        ------
        InvalidRequest
            If there is none of that number, or nobody could administer without it.
        """
        with self.tercet.vault.tenant(self.tenant).writing(by=self.by.signed) as writer:
            self._check(writer)
            if type(n) is not int or not remove_rule(writer, n):
                raise InvalidRequest(f"There is no rule {n!r}; `tercet access list` shows them.")
            self._still_administered(writer)

    def create_key(
        self,
        name: str,
        *,
        rights: AbstractSet[str],
        within: Scope | None = None,
        roles: AbstractSet[str] = frozenset(),
        purposes: AbstractSet[str] = frozenset(),
        expires: datetime | None = None,
    ) -> NewKey:
        """Make an API key; its text is in the answer and nowhere else.

        Parameters
        ----------
        name
            The name of the caller that it makes, which rules and the journal speak of.
        rights
            The only rights it may use, of those that the rules give the caller.
        within
            The scope it opens; left out, the whole tenant.
        roles
            Groups that its caller belongs to.
        purposes
            The purposes it may be used for; left out, any.
        expires
            When it opens nothing any more; left out, never.

        Raises
        ------
        InvalidRequest
            For no right, an unknown one, another tenant's scope, or a time that is past or without a zone.
        """
        scope = within or Scope(self.tenant)
        if scope.tenant != self.tenant:
            raise InvalidRequest(f"A key of tenant {self.tenant!r} cannot open {scope.tenant!r}.")
        with self.tercet.vault.tenant(self.tenant).writing(by=self.by.signed) as writer:
            self._check(writer)
            made = keys.draft_key(
                scope, name, rights=rights, roles=roles, purposes=purposes, made=writer.at, expires=expires
            )
            return keys.keep(writer, made)

    def keys(self) -> list[Key]:
        """All keys, oldest first, without what opens; those that open nothing any more among them."""
        with self.tercet.vault.tenant(self.tenant).reading() as reader:
            self.tercet.gate.administer(reader, self.by, self.tenant)
            return keys.list_keys(reader.connection, self.tenant)

    def rotate_key(self, id: str, *, grace: timedelta = timedelta(0)) -> NewKey:
        """A new key in place of one; the old one opens for `grace` more, left out: not at all.

        Raises InvalidRequest if there is no such key that opens, or the grace is negative.
        """
        with self.tercet.vault.tenant(self.tenant).writing(by=self.by.signed) as writer:
            self._check(writer)
            return keys.rotate(writer, id, grace=grace)

    def revoke_key(self, id: str) -> list[Key]:
        """Let a key, and all that it was rotated into, open nothing from now on; returns those that did.

        Raises InvalidRequest if there is no such key.
        """
        with self.tercet.vault.tenant(self.tenant).writing(by=self.by.signed) as writer:
            self._check(writer)
            return keys.revoke(writer, id)

    def _check(self, writer: Writer) -> None:
        self.tercet.gate.administer(writer.reader, self.by, self.tenant)

    def _still_administered(self, writer: Writer) -> list[KeptRule]:
        found = [KeptRule(n, rule) for n, rule in read_rules(writer.connection, self.tenant)]
        if len(found) > MAX_RULES:
            raise InvalidRequest(f"A tenant has at most {MAX_RULES:,} rules; let one speak of a role instead of names.")
        rules = Rules([one.rule for one in found])
        if not any(permits(rules, one, self.tenant, writer.at) for one in _lasting_administrators(rules)):
            raise InvalidRequest(
                "Nobody could administer this tenant any more; first allow somebody to `administer`, at any time, from "
                "anywhere and for any purpose."
            )
        if not permits(rules, self.by, self.tenant, writer.at):
            raise InvalidRequest(
                f"{self.by.name!r}, who asks, could not administer this tenant any more; let another administrator do "
                "it, or ask as the one that the rule allows."
            )
        return found


def _lasting_administrators(rules: Rules) -> list[Caller]:
    """One caller for each subject that a rule lets administer without conditions."""
    callers = []
    for rule in rules.rules:
        if rule.effect == "allow" and "administer" in rule.rights and rule.lasting:
            kind, colon, name = rule.subject.partition(":")
            if colon and kind == "key":
                continue  # a key can expire or be revoked
            if colon and kind == "role":
                callers.append(Caller("somebody", roles={name}))
            else:
                callers.append(Caller("somebody" if rule.subject == "*" else rule.subject))
    return callers


def require(tercet: Guarded, by: Caller, tenant: str) -> None:
    """Return if the caller administers the tenant; nothing is opened for one that belongs elsewhere. Raises Refused."""
    tercet.gate.enter(by, "administer", Scope(tenant))
    with tercet.vault.tenant(tenant).reading() as reader:
        tercet.gate.administer(reader, by, tenant)


def administered_tenant(tercet: Guarded, tenant: str | None, by: Caller | None) -> Tenant:
    """A tenant's file (left out: the caller's own, or "default"), if the caller administers it. Raises Refused."""
    caller = by or Caller()
    name = (caller.within or Scope()).within(tenant=tenant).tenant
    require(tercet, caller, name)
    return tercet.vault.tenant(name)


def administered(tercet: Guarded, by: Caller) -> list[str]:
    """The tenants that the caller administers. Raises Refused if there are some, and it administers none."""
    names = tercet.vault.tenants()
    found, refused = list[str](), None
    for name in names:
        try:
            require(tercet, by, name)
        except Refused as error:
            refused = error
        else:
            found.append(name)
    if refused is not None and not found:
        raise refused
    return found


def require_all(tercet: Guarded, by: Caller) -> None:
    """Return if the caller administers every tenant whose rules can be read. Raises Refused."""
    for path in tercet.vault.paths():
        try:
            name = tercet.vault.owner(path)
            if name is not None:
                require(tercet, by, name)
        except VaultError as error:
            # Whoever mends a damaged vault must get at it; nothing that this is asked for gives content.
            log.info("the rules of %s cannot be read: %s", path.name, error)
