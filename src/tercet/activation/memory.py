"""KV caches as memories: built from cubes, kept as blobs, and used only while their rows and sources stand.

Every use reads the row again, and the heads of all its sources: what was erased, revised, archived or quarantined
withdraws the cache at that moment, whoever did it, and whatever this process still has in memory.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tercet.activation import pack
from tercet.activation.compose import aside
from tercet.activation.pack import Packed
from tercet.activation.prefix import PrefixIndex
from tercet.activation.tier import BUDGET, RamTier
from tercet.cube import Activation, BlobRef, Kind, MemCube, derive
from tercet.cube import Text as TextPayload
from tercet.engine.base import differences, require
from tercet.errors import InvalidRequest, MissingMemory, Refused, StaleWrite, VaultDamaged
from tercet.vault import blobs
from tercet.vault.allowed import Allowed, everything
from tercet.vault.codec import dump
from tercet.vault.connection import marks, query
from tercet.vault.ids import parse_id
from tercet.vault.standing import check_standing
from tercet.vault.writer import Entry

if TYPE_CHECKING:
    from pathlib import Path

    from tercet.cube import ModelIdentity
    from tercet.engine.base import CacheEngine
    from tercet.engine.cache import KVCache
    from tercet.scope import Scope
    from tercet.vault.reader import Reader
    from tercet.vault.sqlite import Tenant

log = logging.getLogger(__name__)

METHOD = "kv/1"
DATA, JOINED, MANIFEST = "kv", "joined", "manifest"
WHOLE, COMPRESSED = "kv", "kv-compressed"
"""The types of cubes whose cache has all rows, or a share of them."""
MOST_MANIFEST = 64 << 20
_PRODUCTS = """
SELECT DISTINCT d.product FROM derivations d JOIN cubes s ON s.n = d.source JOIN cubes p ON p.n = d.product
WHERE p.kind = 'activation' AND s.id IN ({}) ORDER BY 1
"""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is known of a cache without opening it: its tokens, of which the first `head` are the prompt's opening.

    `seconds` is what its prefill took when it was built; `compressor` what chose the rows to keep, "" if all are there.
    """

    tokens: tuple[int, ...]
    head: int
    precision: str
    seconds: float
    compressor: str = ""
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Form:
    """How a cache is kept: in which precision, with a second one for joining or not, and with which share of its rows.

    A compressed cache is not joined with others: it has lost the rows that would have to be computed anew.
    """

    precision: str = "bf16"
    joinable: bool = True
    compressor: str | None = None
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Used:
    """A cache that stands, ready to run on. `seconds`: what reading, checking and unpacking it took."""

    cube: MemCube
    cache: KVCache
    manifest: Manifest
    from_ram: bool
    seconds: float


def promote(
    tenant: Tenant, sources: Sequence[MemCube], engine: CacheEngine, *, words: tuple[str, str], form: Form, by: str,
    find: Callable[[Reader], Sequence[MemCube]],
) -> MemCube:  # fmt: skip
    """Prefill `words`, an opening and the text that tells the sources, and keep the cache as a cube made from them.

    The same sources, model, text and form give the cube that is there already. `find` gives the sources once more,
    within the transaction; it raises if they may not be used any longer.

    Raises
    ------
    InvalidRequest
        If a source is no text, the context is longer than the model takes, or the form is unknown.
    StaleWrite
        If a source was revised meanwhile.
    VaultError
        If the disk is full or fails; nothing is kept then.
    """
    require(engine, "cache", "A KV memory")
    if any(not isinstance(cube.payload, TextPayload) for cube in sources):
        raise InvalidRequest("Only texts are promoted to activations; this one is a tensor already.")
    head = engine.encode(words[0])
    tokens = (*head, *engine.encode(words[1]))
    begin = time.perf_counter()
    cache = _prefilled(engine, tokens, form)
    seconds = time.perf_counter() - begin
    links = [[cube.id, cube.version] for cube in sources]
    joinable = form.joinable and not form.compressor and "compose" in engine.abilities
    apart = aside(engine, head, tokens[len(head) :]) if joinable else None
    shelf = tenant.blobs
    with blobs.drafting(shelf) as data, blobs.drafting(shelf) as more, blobs.drafting(shelf) as note:
        pack.write(cache, form.precision, data.write)
        kept = [data.seal(DATA)]
        if apart is not None:
            pack.write(apart, form.precision, more.write)
            kept.append(more.seal(JOINED))
        manifest = {
            "format": METHOD, "tokens": tokens, "head": len(head), "precision": form.precision,
            "seconds": seconds, "compressor": (form.compressor or "") if cache.compressed else "", "share": form.share,
            "sources": links, "model": repr(engine.identity), "data": kept[0].sha256,
        }  # fmt: skip
        note.write(dump(manifest).encode())
        payload = Activation((*kept, note.seal(MANIFEST)), engine.identity, len(tokens))
        draft = derive(sources, payload, method=METHOD, type=COMPRESSED if cache.compressed else WHOLE)
        with tenant.writing(by=by) as writer:
            for cube, found in zip(sources, find(writer.reader), strict=True):
                if found.version != cube.version:
                    raise StaleWrite(cube.id, expected=cube.version, found=found.version)
            name = _name([links, repr(engine.identity), hashlib.sha256(repr(tokens).encode()).hexdigest(),
                          form.precision, apart is not None, *([form.compressor, form.share] if form.compressor else [])
                          ])  # fmt: skip
            twin = writer.reader.named(draft.scope, name)
            if twin is not None:
                return twin
            for draft_file in (data, note) if apart is None else (data, more, note):
                draft_file.place()
            [made] = writer.put([Entry(_named(draft, name, sources), {})], None, action="promote")
            return made


def _prefilled(engine: CacheEngine, tokens: Sequence[int], form: Form) -> KVCache:
    if not form.compressor:
        return engine.prefill(tokens)
    from tercet.activation.compress import views

    return views.prefill(engine, tokens, views.named(form.compressor), form.share)


class KVMemory:
    """The caches of a vault, as this process uses them."""

    def __init__(self, budget: int = BUDGET) -> None:
        self.tier = RamTier(budget)
        self._manifests: dict[str, Manifest] = {}
        self._files: dict[str, tuple[str, ...]] = {}
        self._indexes: dict[tuple[str, Scope, ModelIdentity, Allowed], PrefixIndex] = {}

    def use(
        self, tenant: Tenant, scope: Scope, id: str, engine: CacheEngine, *, joined: bool = False, check: bool = True,
        allowed: Callable[[Reader], Allowed] = everything,
    ) -> Used:  # fmt: skip
        """A cache to run on: its row and its sources read now, its bytes checked, its tensors in the model's dtype.

        `joined` asks for the one that was read to stand behind other memories, where there is one. `allowed` says what
        may be read; it is asked within the snapshot, and holds for the cache and all its sources.

        Raises
        ------
        MissingMemory
            If the scope does not see the cube: it was erased, or a source of it was; or it may not be read.
        Refused
            If a source was revised, archived or quarantined since.
        InvalidRequest
            If it is no KV cache, or another model's; it says what differs.
        VaultDamaged
            If its bytes are not what was written.
        """
        begin = time.perf_counter()
        with tenant.reading() as reader:
            try:
                cube = standing(reader.under(allowed(reader)), scope, id)
            except (MissingMemory, Refused):
                self.forget(id)
                raise
        payload = cube.payload
        assert isinstance(payload, Activation)  # noqa: S101  # `standing` saw to it
        if payload.model != engine.identity:
            raise InvalidRequest(
                f"KV memory {id} was made by another model ({differences(engine.identity, payload.model)}); "
                "promote its text again with this engine."
            )
        if payload.tokens > engine.context:
            raise InvalidRequest(f"KV memory {id} has {payload.tokens:,} tokens; the model takes {engine.context:,}.")
        self._files[id] = tuple(one.sha256 for one in payload.blobs)
        manifest = self.manifest(tenant, cube)
        data = next((one for one in payload.blobs if joined and one.role == JOINED), _blob(payload, DATA))
        path = blobs.find(tenant.blobs, data)

        def load(into_memory: bool) -> Packed:  # noqa: FBT001  # the tier's call
            with _readable(path):
                buffer = blobs.read(tenant.blobs, data) or (pack.loaded(path) if into_memory else pack.mapped(path))
            return pack.read(buffer, most=payload.tokens, check=check)

        packed, from_ram = self.tier.get(data.sha256, saves=manifest.seconds, load=load)
        if packed.tokens != manifest.tokens or len(packed.tokens) != payload.tokens:
            raise VaultDamaged(f"KV memory {id}: its file holds other tokens than its manifest; promote it again.")
        cache = packed.cache(payload.model, getattr(engine, "dtype", None))
        if cache.compressed is not bool(manifest.compressor):
            raise VaultDamaged(f"KV memory {id}: its file has other rows than its manifest says; promote it again.")
        return Used(cube, cache, manifest, from_ram, time.perf_counter() - begin)

    def manifest(self, tenant: Tenant, cube: MemCube) -> Manifest:
        """What a cube's manifest says. Raises VaultDamaged if it is not what was written."""
        payload = cube.payload
        assert isinstance(payload, Activation)  # noqa: S101  # only such are asked for
        note = _blob(payload, MANIFEST)
        if note.sha256 not in self._manifests:
            self._manifests[note.sha256] = _read_manifest(tenant.blobs, note, payload)
        return self._manifests[note.sha256]

    def covering(self, reader: Reader, scope: Scope, engine: CacheEngine, ids: Iterable[str]) -> list[MemCube]:
        """The caches of this model that were made from any of these cubes and stand: the widest first, then whole ones.

        A reader that is `under` something leaves out those that, or whose sources, are not allowed.
        """
        found = []
        raw = [parse_id(id) for id in ids]
        for cube in reader.cubes([n for (n,) in query(reader.connection, _PRODUCTS.format(marks(raw)), raw)]):
            if isinstance(cube.payload, Activation) and cube.payload.model == engine.identity:
                try:
                    found.append(standing(reader, scope, cube.id))
                except (MissingMemory, Refused):
                    self.forget(cube.id)
        return sorted(
            found, key=lambda cube: (-len(cube.behavioural.derivations), cube.descriptive.type == COMPRESSED, cube.id)
        )

    def longest(
        self, tenant: Tenant, scope: Scope, engine: CacheEngine, prompt: Sequence[int], *,
        allowed: Callable[[Reader], Allowed] = everything,
    ) -> tuple[str, int] | None:  # fmt: skip
        """The cache that holds most of a prompt's beginning, and how many tokens of it; a use of it checks the rest.

        Compressed ones are left out: they cannot be cut, and nobody asked for an approximation here.
        """
        with tenant.reading() as reader:
            reader = reader.under(allowed(reader))  # noqa: PLW2901  # the same snapshot, less of it
            cubes = {cube.id: cube for cube in reader.cubes(reader.numbers(scope, {"kind": Kind.ACTIVATION.value}))}
        key = (tenant.name, scope, engine.identity, reader.allowed)
        index = self._indexes.setdefault(key, PrefixIndex(salt=tenant.name, model=engine.identity))
        for id in index.keys() - cubes.keys():
            index.drop(id)
        for id in cubes.keys() - index.keys():
            payload = cubes[id].payload
            whole = cubes[id].descriptive.type != COMPRESSED
            if whole and isinstance(payload, Activation) and payload.model == engine.identity:
                try:
                    index.add(id, self.manifest(tenant, cubes[id]).tokens)
                except VaultDamaged as error:
                    log.warning("a KV memory is left aside: %s", error)
        return index.longest(prompt)

    def forget(self, id: str) -> None:
        """Drop what this process has of a withdrawn cache."""
        for sha256 in self._files.pop(id, ()):
            self.tier.drop(sha256)
            self._manifests.pop(sha256, None)
        for index in self._indexes.values():
            index.drop(id)


def standing(reader: Reader, scope: Scope, id: str) -> MemCube:
    """A KV cube whose sources stand as they were when it was made. Raises MissingMemory, Refused, InvalidRequest.

    A reader that is `under` something must allow the cube and each of its sources.
    """
    _, cube = reader.head(id, scope)
    if not isinstance(cube.payload, Activation):
        raise InvalidRequest(f"Memory {id} is a {cube.kind}, not a KV cache; promote it first.")
    check_standing(reader, scope, cube, "KV memory")
    return cube


def _read_manifest(shelf: blobs.Shelf, note: BlobRef, payload: Activation) -> Manifest:
    path = blobs.find(shelf, note)
    try:
        with _readable(path):
            raw = (blobs.read(shelf, note) or path.read_bytes()) if note.size <= MOST_MANIFEST else b""
        if hashlib.sha256(raw).hexdigest() != note.sha256:
            raise ValueError("its bytes are not what was written")
        told: dict[str, Any] = json.loads(raw)
        tokens, head = told["tokens"], told["head"]
        if told["format"] != METHOD or told["data"] != _blob(payload, DATA).sha256:
            raise ValueError("it belongs to another cache")
        if len(tokens) != payload.tokens or not all(type(one) is int and 0 <= one < 2**31 for one in tokens):
            raise ValueError(f"it has {len(tokens):,} tokens and the memory {payload.tokens:,}")
        if type(head) is not int or not 0 <= head <= len(tokens) or told["model"] != repr(payload.model):
            raise ValueError("its opening or model is another")
        kept = str(told["precision"]), float(told["seconds"]), str(told["compressor"]), float(told.get("share", 1.0))
        return Manifest(tuple(tokens), head, *kept)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise VaultDamaged(f"A KV cache's manifest is not to be used: {error}; promote the memory again.") from error


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """The system's errors on reading in our words."""
    try:
        yield
    except OSError as error:
        raise VaultDamaged(f"Blob {path.name[:12]} cannot be read: {error.strerror}.") from error


def _blob(payload: Activation, role: str) -> BlobRef:
    found = next((one for one in payload.blobs if one.role == role), None)
    if found is None:
        raise VaultDamaged(f"A KV cache without a blob of the role {role!r}; promote the memory again.")
    return found


def _name(parts: object) -> str:
    return f"kv:{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]}"


def _named(draft: MemCube, name: str, sources: Sequence[MemCube]) -> MemCube:
    """The draft with a name, and the tags of its sources: a rule that speaks of those speaks of it, too."""
    d = draft.descriptive
    tags = tuple(dict.fromkeys(tag for cube in sources for tag in cube.tags))
    return replace(draft, descriptive=replace(d, tags=tags, origin=replace(d.origin, ref=name)))
