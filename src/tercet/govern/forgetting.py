"""One erasure from beginning to end: what is asked for, the erasure, the scrub, and a look for what may be left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tercet.vault.erase import Receipt, closure, erase
from tercet.vault.probe import gather
from tercet.vault.reader import Reader
from tercet.vault.sqlite import Tenant


def forget(
    tenant: Tenant,
    choose: Callable[[Reader], Sequence[int]],
    *,
    by: str,
    branch: str | None,
    despite_hold: str | None,
    probe: bool,
) -> Receipt:
    """Erase cubes that `choose` gives the numbers of, with all that was made from them, and scrub the bytes.

    `branch` is the one that they are asked for on. Raises Held, Refused, and what `choose` raises; nothing is changed
    then.
    """
    evidence = None
    with tenant.writing(by=by, branch=branch) as writer:
        asked = choose(writer.reader)
        if probe and tenant.scrubs_at_once and asked:
            rows = Reader(writer.connection, writer.tenant)  # as they are, whatever the branch shows of them
            evidence = gather(rows, closure(writer.connection, asked))
        receipt = erase(writer, asked, despite_hold=despite_hold)
    tenant.forget_cache()
    waiting = tenant.scrub()
    done = None if waiting else tenant.vault.clock()
    found = tenant.probe(evidence) if evidence is not None and done is not None else None
    return replace(receipt, scrubbed_at=done, waiting_for=waiting, probe=found)
