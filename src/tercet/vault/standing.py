"""Whether what was made from memories may still be used: a cache or an adapter stands as long as its sources do."""

from __future__ import annotations

from tercet.cube import MemCube, Trust
from tercet.errors import Refused
from tercet.lifecycle import READABLE
from tercet.scope import Scope
from tercet.vault.reader import Reader


def check_standing(reader: Reader, scope: Scope, cube: MemCube, called: str) -> None:
    """Return if a made cube may be used, and its sources stand as they were when it was made.

    `called` is what messages call it. A reader that is `under` something must allow each of the sources. Raises
    MissingMemory if one is not seen, Refused if the cube or one of them was withdrawn, or one was revised.
    """
    if cube.state not in READABLE or cube.governance.trust is Trust.QUARANTINED:
        raise Refused(f"{called} {cube.id} is {cube.state} or in quarantine; it is not used.")
    for link in cube.behavioural.derivations:
        _, source = reader.head(link.id, scope)
        if source.version != link.version:
            raise Refused(f"{called} {cube.id} is out of date: its source {link.id} was revised. Promote it again.")
        if source.state not in READABLE or source.governance.trust is Trust.QUARANTINED:
            raise Refused(f"{called} {cube.id} is withdrawn: its source {link.id} may not be used ({source.state}).")
