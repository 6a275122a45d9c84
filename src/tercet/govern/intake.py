"""What every draft passes on its way in, whatever door it came by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache

from tercet.cube import Kind, MemCube, Text, Trust
from tercet.errors import InvalidRequest
from tercet.govern.quarantine import screened
from tercet.govern.redact import Policy, Redactor, read_policy
from tercet.text.recall import frame

ECHO = "This only repeats what `context` gave; nothing was kept."


class Intake:
    """Takes out what Tercet itself put into a prompt, redacts, and gives each draft the trust of its origin.

    Parameters
    ----------
    redaction
        Kind or group -> allow, mask or refuse; what is left out is as by default.

    Raises
    ------
    InvalidRequest
        For a kind or an action that there is not.
    """

    def __init__(self, redaction: Mapping[str, str] | None = None) -> None:
        self.policy: Policy = read_policy(redaction)

    def admit(self, drafts: Sequence[MemCube], secret: Callable[[], bytes], *, foreign: bool = False) -> list[MemCube]:
        """The drafts as they may be stored; those that only repeat what Tercet said are left out.

        `foreign` ones come from another vault: they are kept whole and in number, and screened whatever their origin.
        Raises Refused if the policy refuses something in them.
        """
        kept = list(drafts) if foreign else [own for draft in drafts if (own := without_ours(draft)) is not None]
        return [screened(cube, foreign=foreign) for cube in Redactor(self.policy, cache(secret)).redact(kept)]

    def revise(self, draft: MemCube, secret: Callable[[], bytes]) -> MemCube:
        """The next version of a cube, redacted, and screened at the trust it has: a release may have raised that.

        Raises InvalidRequest if it only repeats what Tercet said, and Refused as `admit` does.
        """
        own = without_ours(draft)
        if own is None:
            raise InvalidRequest(ECHO)
        [draft] = Redactor(self.policy, cache(secret)).redact([own])
        return screened(draft, foreign=True) if draft.governance.trust is Trust.UNTRUSTED else draft


def without_ours(draft: MemCube) -> MemCube | None:
    """The draft without what `context` rendered; None if that was all of it."""
    if draft.kind is not Kind.TEXT:
        return draft
    rest = frame.without(draft.text)
    if rest == draft.text:
        return draft
    if not rest:
        return None
    d = draft.descriptive
    happened = d.happened
    if happened is not None and happened.span is not None:
        said = draft.text[slice(*happened.span)]
        at = rest.find(said)
        happened = replace(happened, span=(at, at + len(said))) if at >= 0 else None
    return replace(draft, payload=Text(rest), descriptive=replace(d, happened=happened))
