"""Receipts and anchors: what was done, signed, so that it can be checked later by whoever has the public key.

A document is one line of canonical JSON (keys in order, no spaces, no escapes that need not be); its signature is
Ed25519 (RFC 8032) over the same line without the signature. A file that is not canonical to the byte is not genuine.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from tercet.errors import InvalidRequest, VaultError
from tercet.scope import Scope
from tercet.vault.codec import dump
from tercet.vault.erase import Receipt
from tercet.vault.files import make_folder

log = logging.getLogger(__name__)

FORMAT, ANCHOR, VERSION = "tercet-receipt", "tercet-anchor", 1
PROVENANCE, DESTRUCTION = "tercet-provenance", "tercet-destruction"
VARIABLE = "TERCET_SIGNING_KEY"
"""Environment variable that names the key's file."""

Document = dict[str, Any]


class Signer:
    """An Ed25519 key in a file of its own: 32 bytes in hex, which its owner alone may read. Beside it, the public key.

    Raises
    ------
    VaultError
        If the file cannot be read or made, is no key, or may be read by others.
    """

    def __init__(self, path: Path) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        try:
            if not path.exists():
                _make(path)
            if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
                raise VaultError(f"The signing key {path} may be read by others: `chmod 600 {path}`.")
            self._key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text(encoding="ascii")))
            self.public = self._key.public_key().public_bytes_raw().hex()
            shown = public_of(path)
            if not shown.exists():
                shown.write_text(self.public + "\n", encoding="ascii")
        except OSError as error:
            if isinstance(error, VaultError):
                raise
            raise VaultError(f"The signing key {path} cannot be read or made: {error.strerror}.") from error
        except ValueError:
            raise VaultError(f"{path} is no signing key: it holds something other than 32 bytes in hex.") from None

    def sign(self, data: bytes) -> bytes:
        """The Ed25519 signature of these bytes."""
        return self._key.sign(data)

    def signed(self, document: Mapping[str, Any]) -> Document:
        """The document with the public key and the signature in it."""
        bare = {**document, "key": self.public}
        bare.pop("signature", None)
        return {**bare, "signature": self.sign(dump(bare).encode()).hex()}

    def receipt(self, receipt: Receipt) -> Receipt:
        """The receipt, signed."""
        document = self.signed(receipt_document(receipt))
        return replace(receipt, key=document["key"], signature=document["signature"])


def default_path() -> Path:
    """Where the key is unless it is named: TERCET_SIGNING_KEY, else in the user's configuration folder."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named).expanduser()
    import platformdirs

    return platformdirs.user_config_path("tercet", appauthor=False) / "signing.key"


def find_signer(key: str | os.PathLike[str], *, apart_from: Path) -> Signer | None:
    """The signer of a key's file; of the default one for "auto", or None, with a warning, where that is of no use.

    Raises InvalidRequest for a file within the folder `apart_from`, VaultError for a named one of no use.
    """
    if str(key) == "auto":
        try:
            return Signer(default_path())
        except VaultError as error:
            log.warning("receipts are not signed: %s", error)
            return None
    path = Path(key).expanduser()
    if apart_from.resolve() in path.resolve().parents:
        raise InvalidRequest(f"The signing key {path} lies in the vault's folder: whoever changes that could sign.")
    return Signer(path)


def contents(paper: Receipt | bytes | str | os.PathLike[str]) -> bytes:
    """A receipt or anchor as it stands in a file, or that file's bytes. Raises InvalidRequest if it cannot be read."""
    if isinstance(paper, bytes):
        return paper
    if isinstance(paper, Receipt):
        return to_bytes(receipt_document(paper))
    try:
        return Path(paper).expanduser().read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{paper} cannot be read: {error.strerror}.") from error


def format_of(data: bytes) -> str | None:
    """What kind of paper it says it is; None if it says nothing that could be read."""
    try:
        return str(json.loads(data)["format"])
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def tenant_of(data: bytes) -> str | None:
    """The tenant that a paper names; None if it names none that could be."""
    try:
        return Scope(json.loads(data)["tenant"]).tenant
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Write a receipt or anchor to a file, on the disk on return. Raises VaultError."""
    try:
        with path.open("wb") as stream:
            stream.write(to_bytes(document))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise VaultError(f"{path} cannot be written: {error.strerror}.") from error


def public_of(path: Path) -> Path:
    """Where the public half of a key's file is."""
    return path.with_suffix(".pub")


def public_key(given: str | os.PathLike[str]) -> str:
    """A public key as 64 hex digits, from those or from a file that holds them. Raises InvalidRequest."""
    text = str(given).strip().lower()
    try:
        if len(text) != 64 or not set(text) <= set("0123456789abcdef"):
            text = Path(given).expanduser().read_text(encoding="ascii").strip().lower()
        if len(bytes.fromhex(text)) == 32:
            return text
    except (OSError, ValueError):
        pass  # said below
    raise InvalidRequest(f"{given} is no public key: 64 hex digits, or a file that holds them.")


def receipt_document(receipt: Receipt) -> Document:
    """A receipt as JSON values."""
    found = _plain(asdict(receipt))
    return {"format": FORMAT, "version": VERSION, **found}


def to_bytes(document: Mapping[str, Any]) -> bytes:
    """The document as it stands in a file."""
    return dump(document).encode() + b"\n"


@dataclass(frozen=True, slots=True)
class Paper:
    """A receipt, an anchor or a provenance line as it was read, and what is wrong with it; nothing: believe it."""

    document: Document
    problems: tuple[str, ...]


def read(data: bytes, public: str | None) -> Paper:
    """Read a receipt or anchor and check its signature against a public key (None: none is known here)."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.get("format") not in {FORMAT, ANCHOR, PROVENANCE, DESTRUCTION}:
        return Paper({}, ("it is neither a receipt nor an anchor of Tercet's, or it was damaged",))
    problems = []
    try:
        if to_bytes(document) != data:
            problems.append("it is not, byte for byte, what was written")
    except (TypeError, ValueError):
        problems.append("it holds what no receipt holds")
    if document.get("version") != VERSION:
        problems.append(f"it has version {document.get('version')!r:.20} and {VERSION} can be read here")
    problems += _signature_problems(document, public)
    return Paper(document, tuple(problems))


def _signature_problems(document: Document, public: str | None) -> list[str]:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    bare = dict(document)
    signature, key = bare.pop("signature", None), bare.get("key")
    if not isinstance(signature, str) or not isinstance(key, str):
        return ["it is not signed"]
    if public is None:
        return ["there is no public key here to check it with; name the signer's with --key"]
    if key != public:
        return [f"it was signed with another key ({key[:16]}…) than the one it is checked with ({public[:16]}…)"]
    try:
        raw = bytes.fromhex(signature)
        if raw.hex() != signature:  # blanks and capitals mean the same to `fromhex`, and are not what was written
            raise ValueError(signature)
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(raw, dump(bare).encode())
    except (InvalidSignature, ValueError):
        return ["its signature does not fit: it was changed after it was signed"]
    return []


def _plain(value: Any) -> Any:  # noqa: ANN401  # any value of a receipt
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value.isoformat() if isinstance(value, datetime) else value


def _make(path: Path) -> None:
    """A new key, whole under its name or not at all; who comes second uses the first one's."""
    make_folder(path.parent)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(os.urandom(32).hex())
            stream.flush()
            os.fsync(handle)
        try:
            os.link(part, path)
        except FileExistsError:
            return
    finally:
        part.unlink(missing_ok=True)
