"""One erasure from beginning to end: what is asked for, the erasure, the scrub, and a look for what may be left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tercet.vault.erase import Receipt, closure, erase
from tercet.vault.probe import gather
from tercet.vault.reader import Reader
from tercet.vault.sqlite import Tenant


def forget(
    tenant: Tenant, choose: Callable[[Reader], Sequence[int]], *, by: str, despite_hold: str | None, probe: bool
) -> Receipt:
    """Erase the cubes that `choose` gives the numbers of, with everything made from them, and scrub the bytes.

    Raises Held, Refused, and what `choose` raises; nothing is changed then.
    """
    evidence = None
    with tenant.writing(by=by) as writer:
        asked = choose(writer.reader)
        if probe and tenant.scrubs_at_once and asked:
            evidence = gather(writer.reader, closure(writer.connection, asked))
        receipt = erase(writer, asked, despite_hold=despite_hold)
    tenant.forget_cache()
    waiting = tenant.scrub()
    done = None if waiting else tenant.vault.clock()
    found = tenant.probe(evidence) if evidence is not None and done is not None else None
    return replace(receipt, scrubbed_at=done, waiting_for=waiting, probe=found)
