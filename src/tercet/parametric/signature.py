"""Whether an adapter is what was kept: its manifest names every file, its base and its sources, and is signed.

A signature is Ed25519 (RFC 8032) over the manifest's bytes. It shows who kept the adapter, not what it will say.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from tercet.errors import Refused, VaultDamaged

if TYPE_CHECKING:
    from tercet.cube import MemCube, Parameters

MANIFEST, SIGNATURE = "manifest", "signature"
AGAIN = "promote the memories again"


class Signer(Protocol):
    """An Ed25519 key that signs manifests."""

    @property
    def public(self) -> str:
        """The public key, 64 hex digits: what an adapter's signature is checked with."""

    def sign(self, data: bytes) -> bytes:
        """The signature of these bytes, 64 bytes."""


def check_manifest(cube: MemCube, payload: Parameters, manifest: bytes) -> str:
    """Hold a manifest against the row of its adapter; returns the hash of the tensors that it names.

    Raises VaultDamaged if the row names other files, another base or other sources.
    """
    try:
        told: dict[str, Any] = json.loads(manifest)
        files, base, content = told["files"], told["base"], told["content"]
        sources = {(id, version) for id, version, _ in told["sources"]}
    except (ValueError, KeyError, TypeError) as error:
        raise VaultDamaged(f"Adapter {cube.id} has a manifest that cannot be read ({error!r}); {AGAIN}.") from None
    named = {one.role: one.sha256 for one in payload.blobs if one.role not in {MANIFEST, SIGNATURE}}
    links = {(link.id, link.version) for link in cube.behavioural.derivations}
    differ = [
        what
        for what, same in (
            ("files", files == named),
            ("base", base == json.loads(json.dumps(asdict(payload.model)))),
            ("sources", sources == links),
        )
        if not same
    ]
    if differ:
        raise VaultDamaged(f"Adapter {cube.id}: its row names other {' and '.join(differ)} than its manifest; {AGAIN}.")
    return str(content)


def check_signature(id: str, manifest: bytes, signature: bytes | None, trusted: Collection[str]) -> None:
    """Return if one of the trusted public keys (hex) signed the manifest; without any, nothing can be checked.

    Raises Refused if it is not signed, or by none of them, or was changed after it was signed.
    """
    if not trusted:
        return
    if signature is None:
        raise Refused(f"Adapter {id} is not signed, and this vault's adapters are; {AGAIN}.")
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    for key in trusted:
        try:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(signature, manifest)
        except (InvalidSignature, ValueError):
            continue
        return
    keys = ", ".join(f"{key[:16]}…" for key in sorted(trusted))
    raise Refused(
        f"Adapter {id} has a signature of none of the keys that are trusted here ({keys}): it was changed after it was "
        f"signed, or signed by another; name that one in `trusted`, or {AGAIN}."
    )
