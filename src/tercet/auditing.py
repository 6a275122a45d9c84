"""Proof of what a vault has done: receipts of erasures, its journal, and anchors for it."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tercet.admin import administered_tenant
from tercet.errors import InvalidRequest
from tercet.govern.audit import Audited, anchor_document, audit, check_receipt
from tercet.govern.destruction import check_destruction
from tercet.govern.receipt import (
    DESTRUCTION,
    Signer,
    contents,
    find_signer,
    format_of,
    public_key,
    tenant_of,
    write_document,
)
from tercet.scope import Caller
from tercet.vault.erase import Receipt, receipt_at
from tercet.vault.journal import Line, lines
from tercet.vault.reader import check_limit

if TYPE_CHECKING:
    from tercet.govern.gate import Gate
    from tercet.vault.sqlite import SqliteVault


class Auditing:
    """A part of `Tercet`. Every call asks for the right to administer the tenant (left out: "default")."""

    vault: SqliteVault
    gate: Gate

    def __init__(self, signing_key: str | os.PathLike[str] | None) -> None:
        self._key = signing_key
        self._signer: Signer | None = None
        self._signing = threading.Lock()

    def receipt(self, seq: int, *, tenant: str | None = None, by: Caller | None = None) -> Receipt:
        """The receipt of the erasure that ended at that line of the journal, signed as things stand now.

        A receipt that had to wait for its scrub has a successor once the scrub is done. Raises InvalidRequest.
        """
        with administered_tenant(self, tenant, by).reading() as reader:
            receipt = receipt_at(reader, seq)
        return receipt if self.signer is None else self.signer.receipt(receipt)

    def verify(
        self,
        receipt: Receipt | bytes | str | os.PathLike[str],
        *,
        key: str | os.PathLike[str] | None = None,
        by: Caller | None = None,
    ) -> Audited:
        """Check a receipt (or its file): the signature, the journal, and that nothing of what it names is in the vault.

        That of a tenant whose keys were destroyed is held against what the vault says of that.

        `key` is the signer's public key (or its file); left out: the one that signs here. Raises InvalidRequest if
        there is no such file, or the key is none.
        """
        data = contents(receipt)
        if format_of(data) == DESTRUCTION:  # the tenant's rules went with its keys: there is nobody to ask
            return check_destruction(self.vault, data, self._public(key))
        return check_receipt(administered_tenant(self, tenant_of(data), by), data, self._public(key))

    def audit(
        self, *, tenant: str | None = None, since: int = 0, limit: int = 1000, by: Caller | None = None
    ) -> list[Line]:
        """Lines of a tenant's journal after `since`, oldest first: who did what. Pass the last `.seq` to go on."""
        check_limit(limit)
        with administered_tenant(self, tenant, by).reading() as reader:
            return lines(reader.connection, since=since, limit=limit)

    def verify_audit(
        self,
        papers: Sequence[Receipt | bytes | str | os.PathLike[str]] = (),
        *,
        tenant: str | None = None,
        key: str | os.PathLike[str] | None = None,
        by: Caller | None = None,
    ) -> Audited:
        """Check a tenant's whole journal, and hold it against its mark and against receipts and anchors.

        An edit, a removed or a swapped line breaks the chain; a journal that was chained anew, or cut off, contradicts
        every paper from before. Raises InvalidRequest as `verify` does.
        """
        held = [contents(paper) for paper in papers]
        return audit(administered_tenant(self, tenant, by), held, self._public(key))

    def anchor(
        self, path: str | os.PathLike[str], *, tenant: str | None = None, by: Caller | None = None
    ) -> Mapping[str, Any]:
        """Write the journal's head, signed, to a file to be kept elsewhere; returns what it says.

        Raises InvalidRequest if there is no signing key.
        """
        held = administered_tenant(self, tenant, by)
        if self.signer is None:
            raise InvalidRequest("An anchor that is not signed proves nothing: open the vault with a signing key.")
        document = self.signer.signed(anchor_document(held))
        write_document(Path(path).expanduser(), document)
        return document

    @property
    def signer(self) -> Signer | None:
        """What signs receipts, made on first use; None if nothing does. Raises VaultError for a named key of no use."""
        if self._key is None:
            return None
        with self._signing:
            if self._signer is None:
                self._signer = find_signer(self._key, apart_from=self.vault.folder)
                if self._signer is None:
                    self._key = None
            return self._signer

    def _public(self, key: str | os.PathLike[str] | None) -> str | None:
        if key is not None:
            return public_key(key)
        return None if self.signer is None else self.signer.public
