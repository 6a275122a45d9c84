"""Adapters as memories: trained, judged, kept as blobs, and used only while their rows and sources stand.

Every use reads the row again, and the heads of all its sources: what was erased, revised, archived or quarantined
withdraws the adapter at that moment, whoever did it, and whatever this process still has attached.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from tercet.cube import BlobRef, MemCube, Parameters
from tercet.engine.base import differences, require
from tercet.errors import InvalidRequest, MissingMemory, Refused, VaultDamaged
from tercet.lifecycle import READABLE
from tercet.parametric.signature import MANIFEST, SIGNATURE, check_manifest, check_signature
from tercet.vault import blobs
from tercet.vault.allowed import Allowed, everything
from tercet.vault.standing import check_standing

if TYPE_CHECKING:
    from tercet.engine.base import AdapterEngine
    from tercet.parametric.adapter import Adapter
    from tercet.scope import Scope
    from tercet.vault.reader import Reader
    from tercet.vault.sqlite import Tenant

METHOD, MERGED = "distil", "merge"
METHODS = frozenset({METHOD, MERGED})
"""How adapters come about; one that loses a source is taught again what is left, whichever it was."""
DATA, CONFIG, REPORT, PLOT = "adapter", "config", "report", "plot"
RESIDENT = 8
"""Adapters of a vault that stay attached; the one used longest ago goes first."""


def nobody() -> Collection[str]:
    """No key: files are held against their hashes alone."""
    return ()


class AdapterMemory:
    """The adapters of a vault, as this process uses them. `trusted` gives the public keys that may have signed them."""

    def __init__(self, resident: int = RESIDENT, *, trusted: Callable[[], Collection[str]] = nobody) -> None:
        self.resident, self.trusted = resident, trusted
        self._lock = threading.RLock()
        self._held: OrderedDict[tuple[str, tuple[BlobRef, ...]], tuple[AdapterEngine, str]] = OrderedDict()

    @contextmanager
    def using(
        self, tenant: Tenant, scope: Scope, names: Sequence[str], engine: AdapterEngine,
        allowed: Callable[[Reader], Allowed] = everything,
    ) -> Iterator[None]:  # fmt: skip
        """Compute with these adapters, all added up, in this thread; see `use` for names and errors."""
        with ExitStack() as stack:
            with self._lock:
                keys = [self.use(tenant, scope, name, engine, allowed) for name in names]
                stack.enter_context(engine.adapters.using(keys))
                while len(self._held) > max(self.resident, len(names)):
                    self._let_go(next(iter(self._held)))
            yield

    def use(
        self, tenant: Tenant, scope: Scope, name: str, engine: AdapterEngine,
        allowed: Callable[[Reader], Allowed] = everything,
    ) -> str:  # fmt: skip
        """The key under which an adapter is attached, its row and sources read now. `name` is ID, or ID@VERSION.

        `allowed` says what may be read, as of a snapshot: the adapter and all that it was taught must be.

        Raises
        ------
        MissingMemory
            If the scope does not see the cube: it was erased, or a source of it was.
        Refused
            If a source was revised, archived or quarantined since, or no trusted key signed the adapter.
        InvalidRequest
            If it is no adapter, has no such version, or is another model's; it says what differs.
        VaultDamaged
            If its bytes are not what was written.
        """
        require(engine, "adapters", "An adapter")
        id, version = pinned(name)
        try:
            with tenant.reading() as reader:
                cube = standing(reader.under(allowed(reader)), scope, id, version)
        except (MissingMemory, Refused):
            self.forget(id)
            raise
        payload = cube.payload
        assert isinstance(payload, Parameters)  # noqa: S101  # `standing` saw to it
        place = (id, payload.blobs)
        held = self._held.get(place)
        if held is not None and held[0] is engine and held[1] in engine.adapters.attached:
            self._held.move_to_end(place)
            return held[1]
        key = self._attach(tenant, cube, payload, engine)
        self._held[place] = (engine, key)
        return key

    @contextmanager
    def attached(self, tenant: Tenant, cube: MemCube, engine: AdapterEngine) -> Iterator[str]:
        """The key of an adapter that is looked at, not answered with; whether its sources stand, the caller asks.

        Raises as `use` does.
        """
        payload = cube.payload
        if not isinstance(payload, Parameters):
            raise InvalidRequest(f"Memory {cube.id} is a {cube.kind}, not an adapter.")
        with self._lock:
            before = engine.adapters.attached
            key = self._attach(tenant, cube, payload, engine)
        try:
            yield key
        finally:
            if key not in before:
                engine.adapters.detach(key)

    def _attach(self, tenant: Tenant, cube: MemCube, payload: Parameters, engine: AdapterEngine) -> str:
        return engine.adapters.attach(self.checked(tenant, cube, payload, engine).modules)

    def checked(self, tenant: Tenant, cube: MemCube, payload: Parameters, engine: AdapterEngine) -> Adapter:
        """An adapter's tensors for the model that it was made for, once its manifest, its signature and its files are
        what was kept. Raises InvalidRequest, VaultDamaged, Refused.
        """
        from tercet.engine.lora import content_hash

        if payload.model != engine.base:
            raise InvalidRequest(
                f"Adapter {cube.id} was made for another model ({differences(engine.base, payload.model)}); "
                "promote its texts again with this engine, or `migrate_model`."
            )
        manifest = read_blob(tenant, payload, MANIFEST)
        content = check_manifest(cube, payload, manifest)
        signed = any(one.role == SIGNATURE for one in payload.blobs)
        signature = read_blob(tenant, payload, SIGNATURE) if signed else None
        check_signature(cube.id, manifest, signature, self.trusted())
        adapter = fetch(tenant, payload, engine)
        if content_hash(adapter.modules) != content:
            raise VaultDamaged(f"Adapter {cube.id} has other tensors than its manifest says; promote it again.")
        return adapter

    def forget(self, id: str) -> None:
        """Detach what this process has of a withdrawn adapter."""
        with self._lock:
            for place in [one for one in self._held if one[0] == id]:
                self._let_go(place)

    def _let_go(self, place: tuple[str, tuple[BlobRef, ...]]) -> None:
        engine, key = self._held.pop(place)
        if all(other != key for _, other in self._held.values()):
            engine.adapters.detach(key)


def pinned(name: str) -> tuple[str, int | None]:
    """ID, or ID@VERSION, taken apart. Raises InvalidRequest."""
    id, at, version = name.partition("@")
    if at and not version.isdecimal():
        raise InvalidRequest(f"An adapter is named ID or ID@VERSION, not {name!r:.80}.")
    return id, int(version) if at else None


def standing(reader: Reader, scope: Scope, id: str, version: int | None = None) -> MemCube:
    """An adapter's newest version, or the one that is pinned, whose sources stand as they were when it was trained.

    A reader that is `under` something must allow the cube and each of its sources. Raises MissingMemory, Refused,
    InvalidRequest.
    """
    n, cube = reader.head(id, scope)
    if cube.state not in READABLE:  # the newest's state holds for a version that is pinned, too
        raise Refused(f"Adapter {id} is {cube.state}; it is not used.")
    if version is not None and version != cube.version:
        found = {one.version: one for one in reader.versions(n)}.get(version)
        if found is None:
            raise InvalidRequest(f"Adapter {id} has versions 1 to {cube.version}; there is no version {version}.")
        cube = found
    if not isinstance(cube.payload, Parameters):
        raise InvalidRequest(f"Memory {id} is a {cube.kind}, not an adapter; promote it to parameters first.")
    check_standing(reader, scope, cube, "Adapter")
    return cube


def fetch(tenant: Tenant, payload: Parameters, engine: AdapterEngine) -> Adapter:
    """An adapter's tensors, its files compared with their hashes, its shapes with the model's. Raises VaultDamaged."""
    from tercet.parametric import adapter

    config = json.loads(read_blob(tenant, payload, CONFIG))
    data = blob(payload, DATA)
    unsealed = blobs.read(tenant.blobs, data)
    if unsealed is not None:  # every chunk of it was authenticated
        return adapter.read(config, bytes(unsealed), engine.adapters.shapes)
    path = blobs.find(tenant.blobs, data)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != data.sha256:
        raise VaultDamaged(f"Blob {data.sha256[:12]} is not what was written; promote the memories again.")
    return adapter.read(config, path, engine.adapters.shapes)


def read_blob(tenant: Tenant, payload: Parameters, role: str) -> bytes:
    """The bytes of one of an adapter's small files, checked. Raises VaultDamaged."""
    one = blob(payload, role)
    try:
        raw = bytes(blobs.read(tenant.blobs, one) or blobs.find(tenant.blobs, one).read_bytes())
    except OSError as error:
        raise VaultDamaged(f"Blob {one.sha256[:12]} cannot be read: {error.strerror}.") from error
    if hashlib.sha256(raw).hexdigest() != one.sha256:
        raise VaultDamaged(f"Blob {one.sha256[:12]} is not what was written; promote the memories again.")
    return raw


def blob(payload: Parameters, role: str) -> BlobRef:
    """The file that has a role. Raises VaultDamaged if there is none."""
    found = next((one for one in payload.blobs if one.role == role), None)
    if found is None:
        raise VaultDamaged(f"An adapter without a file of the role {role!r}; promote the memories again.")
    return found
