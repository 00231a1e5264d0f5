"""The plain module of a reference, and what is said of the artifact that holds it. Reads like `mirror.pull`.

A module that is a layer goes out as that layer does, while it comes. One that lies in an archive is unpacked once, of a
layer that was verified whole, and is from then on a blob of its own.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from mirror.accesses import Accesses
from mirror.answer import Answer, Body, Collapsed, Filled, Held, Hit, Outcome, Passed, Stale, Whole
from mirror.digest import Digest
from mirror.errors import ModuleMismatch, ModuleUnknown, StoreError, UpstreamTimeout, UpstreamUnavailable
from mirror.flight import Flights
from mirror.indexes import MAX_DEPTH, leads_too_far, way_from
from mirror.layers import hashed, head, is_damaged, keep_whole, whole
from mirror.manifests import LAST_WORD, Manifests
from mirror.oci import Descriptor, Manifest, Reference
from mirror.places import Place, Places
from mirror.pull import Pulling
from mirror.store.blobs import Blob, BlobStore
from mirror.tags import Lru
from mirror.unpack import Unpacker
from mirror.upstream.queue import FairQueue
from mirror.wasm.artifact import CNCF_LAYER, RAW_LAYER, Found, layers_to_open
from mirror.wasm.description import Description
from mirror.wasm.examine import examine
from mirror.wasm.module import looks_like_wasm

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/wasm"

MAX_HOLD = 12.0
"""Seconds that a request is held at most: agents give a plain module 15 s, and Envoys may give less."""

_PLAIN = frozenset({RAW_LAYER, CNCF_LAYER})
_MAGIC = 4
_THREADS = 2
_MOST_WAITING = 200
"""Artifacts of a repository that wait for a thread to look into them; who asks for more of them is sent away."""


@dataclass(frozen=True, slots=True)
class OfModule(Answer):
    """An answer that is a module; ``manifest``: that of the tag or digest which has led to it."""

    manifest: Digest = field(kw_only=True)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A module that may be given out, and how it got here. Without a ``body`` it is a layer that is not opened yet."""

    place: Place
    body: Body | None
    outcome: Outcome


class Modules:
    """Answers for modules. Raises only what `mirror.errors` draws."""

    def __init__(
        self,
        hold_for: Mapping[str, float],
        store: BlobStore,
        pull: Pulling,
        manifests: Manifests,
        unpacker: Unpacker,
        places: Places,
        accesses: Accesses,
        max_module_size: int,
        folder: Path,
    ) -> None:
        """``hold_for``: seconds for which a client of each upstream may be held, where that is less than `MAX_HOLD`.

        ``folder`` is for files that have no name.
        """
        self._hold_for = hold_for
        self._store = store
        self._pull = pull
        self._manifests = manifests
        self._unpacker = unpacker
        self._places = places
        self._accesses = accesses
        self._max_module_size = max_module_size
        self._folder = folder
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="examine")
        self._turns = FairQueue(_THREADS)
        self._waiting: Counter[str] = Counter()
        self._refusals: Lru[tuple[Digest, str], str] = Lru(2_000)
        self._descriptions: Lru[tuple[Digest, str, Digest | None, bool], Description] = Lru(100)
        self._searches: Flights[_Ready] = Flights()
        self._hashing: Flights[tuple[Digest, Body]] = Flights()
        self._examinations: Flights[Description] = Flights()

    async def module(self, reference: Reference, sha256: Digest | None = None) -> OfModule:
        """The module of ``reference``, whose sha256 is the answer's digest.

        Raises `ModuleUnknown` where there is none, `ModuleMismatch` where it has another digest than ``sha256``.
        """
        async with self._bounded(reference) as until:
            manifest = await self._pull.manifest(reference)
            ready = await self._remembered(manifest) or await self._find(reference, manifest)
            _compare(reference, ready.place.module, sha256)
            if ready.body is None:
                ready = await self._layer(reference, manifest, ready)
                _compare(reference, ready.place.module, sha256)
        place, body = ready.place, ready.body
        assert place.module is not None
        assert body is not None
        for digest in (place.module, place.layer.digest, place.image):
            self._accesses.blob(digest)
        outcome = _combined(manifest.outcome, ready.outcome)
        found = MEDIA_TYPE, place.module, body, outcome, manifest.fetched_at, until
        return OfModule(*found, manifest=manifest.digest)

    async def describe(self, reference: Reference) -> Description:
        """What is said of the artifact that ``reference`` names; its layers are waited for, as agents would."""
        async with self._bounded(reference):
            way, _ = await self._way(reference, self._manifests.of(await self._pull.manifest(reference)))
            return await self.described(reference, way)

    async def described(self, reference: Reference, way: Sequence[Manifest]) -> Description:
        """The same of an artifact to which ``way`` leads from what ``reference`` names, however long that takes."""
        *indexes, image = way
        pinned = reference.digest is not None and bool(indexes)
        key = image.digest, image.media_type, indexes[0].digest if indexes else None, pinned
        known = self._descriptions.get(key)
        if known is not None:
            return known

        async def examined() -> Description:
            description = await self._examine(reference, image, indexes, pinned=pinned)
            self._descriptions.put(key, description)
            return description

        task, _ = self._examinations.join((reference.upstream, reference.repository, *key), examined)
        return await asyncio.shield(task)

    async def aclose(self) -> None:
        """Stop what was begun for clients that may be gone."""
        await self._searches.aclose()
        await self._hashing.aclose()
        await self._examinations.aclose()
        self._threads.shutdown(cancel_futures=True)

    @contextlib.asynccontextmanager
    async def _bounded(self, reference: Reference) -> AsyncIterator[float]:
        """As long as a client may be held; gives until when, by the loop's clock."""
        hold_for = min(self._hold_for.get(reference.upstream, MAX_HOLD), MAX_HOLD)
        until = asyncio.get_running_loop().time() + hold_for + LAST_WORD
        try:
            async with asyncio.timeout_at(until):
                yield until
        except TimeoutError as error:
            raise UpstreamTimeout(
                f"the module of {reference} has not come in time; the mirror goes on fetching it, so ask again",
                retry_after=1,
            ) from error

    async def _remembered(self, manifest: Answer) -> _Ready | None:
        """The module, where a manifest has led to it before, and it is still here."""
        place = await self._places.get(manifest.digest, manifest.media_type)
        if place is None or not place.unpacked:
            return None if place is None else _Ready(place, None, Hit())
        blob = self._held(place)
        return None if blob is None else _Ready(place, Held(blob), Hit())

    def _held(self, place: Place) -> Blob | None:
        """The unpacked module, if it is held whole."""
        assert place.module is not None
        try:
            blob = self._store.open(place.module)
            if blob is None or blob.size == place.size:
                return blob
            log.error("the file of the module %s is damaged; it is dropped and unpacked again", place.module)
            self._store.delete(place.module)
        except OSError as error:
            log.error("the disk fails (%s); the module %s cannot be read", error.strerror or error, place.module)
        return None

    async def _find(self, reference: Reference, manifest: Answer) -> _Ready:
        """Follow a manifest to its module."""
        (*_, image), outcome = await self._way(reference, self._manifests.of(manifest))
        layers = self._to_open(image)
        if len(layers) == 1 and layers[0].media_type in _PLAIN:
            ready = _Ready(_plain(image, layers[0]), None, outcome)
        else:
            ready = await self._searched(reference, image)
        await self._places.put(manifest.digest, manifest.media_type, ready.place)
        return replace(ready, outcome=_combined(ready.outcome, outcome))

    async def _way(self, reference: Reference, named: Manifest) -> tuple[tuple[Manifest, ...], Outcome]:
        """From an index to what agents take of it, anything else as it is; and how all of that got here."""
        outcomes: list[Outcome] = []

        async def obtain(child: Descriptor) -> Manifest:
            answer = await self._pull.manifest(reference.at(child.digest))
            outcomes.append(answer.outcome)
            return self._manifests.of(answer)

        way = await way_from(named, obtain)
        if leads_too_far(way):
            raise ModuleUnknown(
                f"{reference} is an index that leads to more than {MAX_DEPTH} others; push the plugin's manifest alone"
            )
        return way, _combined(Hit(), *outcomes)

    def _to_open(self, image: Manifest) -> list[Descriptor]:
        return [image.layers[number] for number in layers_to_open(image, self._max_module_size)]

    async def _layer(self, reference: Reference, manifest: Answer, ready: _Ready) -> _Ready:
        """The layer that is a module; where it is none, what else its artifact has."""
        place = ready.place
        answer = await self._pull.blob(reference.at(place.layer.digest), read=True)
        body = answer.body
        if place.module is None:  # its digest is no sha256
            keep_whole(answer)
            task, _ = self._hashing.join(place.layer.digest, lambda: hashed(answer))
            module, body = await asyncio.shield(task)
            place = replace(place, module=module)
            await self._places.put(manifest.digest, manifest.media_type, place)
        outcome = _combined(ready.outcome, answer.outcome)
        if looks_like_wasm(await head(body, _MAGIC)):
            return _Ready(place, body, outcome)
        (*_, image), _ = await self._way(reference, self._manifests.of(manifest))
        ready = await self._searched(reference, image)
        if ready.body is None:
            raise StoreError(f"{place.layer.digest} was damaged on the mirror's disk; ask again", retry_after=1)
        await self._places.put(manifest.digest, manifest.media_type, ready.place)
        return replace(ready, outcome=outcome)

    async def _searched(self, reference: Reference, image: Manifest) -> _Ready:
        """The module of an artifact whose layers have to be opened, once for all who wait."""
        key = image.digest, image.media_type
        refusal = self._refusals.get(key)
        if refusal is not None:
            raise ModuleUnknown(refusal)
        task, joined = self._searches.join(
            (reference.upstream, reference.repository, *key), lambda: self._search(reference, image)
        )
        ready = await asyncio.shield(task)
        return replace(ready, outcome=Collapsed()) if joined and isinstance(ready.outcome, Filled) else ready

    async def _search(self, reference: Reference, image: Manifest) -> _Ready:
        """Open the layers; twice where what the disk had turned out to be damaged, and was dropped."""
        try:
            try:
                return await self._open(reference, image)
            except StoreError as error:
                log.warning("%s; it is fetched again", error)
                return await self._open(reference, image)
        except ModuleUnknown as refusal:  # that is so for good: it follows from the content alone
            self._refusals.put((image.digest, image.media_type), refusal.message)
            raise

    async def _open(self, reference: Reference, image: Manifest) -> _Ready:
        layers, outcome = await self._contents(reference, image)
        contents = {digest: layer.read(0, layer.size) for digest, layer in layers.items()}
        looked = await self._in_thread(
            reference,
            lambda: examine(image, contents, max_module_size=self._max_module_size, read=False),
            first=True,
        )
        chosen = looked.chosen
        if chosen is None:
            await self._drop_damaged(layers.values())
            raise ModuleUnknown(f"the artifact has no module to give out: {looked.problem}; {looked.envoy.remedy}")
        descriptor = image.layers[chosen.layer]
        layer = layers[descriptor.digest]
        if chosen.name is None:
            return _Ready(_plain(image, descriptor), None, outcome)
        return await self._unpacked(image, descriptor, layer, chosen, outcome)

    async def _unpacked(
        self, image: Manifest, descriptor: Descriptor, layer: Blob, chosen: Found, outcome: Outcome
    ) -> _Ready:
        module = await self._unpacker.module(layer, chosen)
        if isinstance(module, Blob):
            return _Ready(Place(image.digest, descriptor, True, module.digest, module.size), Held(module), outcome)
        digest = await asyncio.to_thread(Digest.of, module)
        return _Ready(Place(image.digest, descriptor, True, digest, len(module)), Whole(module), outcome)

    async def _contents(self, reference: Reference, image: Manifest) -> tuple[dict[Digest, Blob], Outcome]:
        """The layers that may hold a module, whole and verified, and how they got here."""
        answers = []
        for layer in self._to_open(image):
            answer = await self._pull.blob(reference.at(layer.digest), read=True)
            keep_whole(answer)
            answers.append(answer)
        layers = {answer.digest: await whole(answer) for answer in answers}
        return layers, _combined(Hit(), *(answer.outcome for answer in answers))

    async def _drop_damaged(self, layers: Iterable[Blob]) -> None:
        """Raise `StoreError` where a layer is not what it was when it came, and let go of it."""
        for layer in layers:
            if await asyncio.to_thread(is_damaged, layer):
                with contextlib.suppress(OSError):
                    self._store.delete(layer.digest)
                raise StoreError(f"{layer.digest} was damaged on the mirror's disk; ask again", retry_after=1)

    async def _examine(
        self, reference: Reference, image: Manifest, indexes: list[Manifest], *, pinned: bool
    ) -> Description:
        layers, _ = await self._contents(reference, image)
        contents = {digest: layer.read(0, layer.size) for digest, layer in layers.items()}
        description = await self._in_thread(
            reference,
            lambda: examine(
                image,
                contents,
                max_module_size=self._max_module_size,
                index=indexes[0] if indexes else None,
                between=indexes[1:],
                pinned_index=pinned,
                folder=self._folder,
            ),
            first=False,
        )
        if description.module is None:
            await self._drop_damaged(layers.values())
        return description

    async def _in_thread(self, reference: Reference, look: Callable[[], Description], *, first: bool) -> Description:
        """Artifacts may take seconds to look into: so nobody else waits for these threads, and repositories take turns.

        Who waits for a module goes ``first``, before who wants a description.
        """
        repository = f"{reference.upstream}/{reference.repository}"
        if self._waiting[repository] >= _MOST_WAITING:
            raise UpstreamUnavailable(f"too many artifacts of {repository} wait to be looked into; ask again")
        self._waiting[repository] += 1
        try:
            turn = await self._turns.enter(repository, first=first)
        finally:
            self._waiting[repository] -= 1
            if not self._waiting[repository]:
                del self._waiting[repository]
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, look)
        except OSError as error:
            log.error("the disk fails (%s); %s cannot be looked into", error.strerror or error, reference)
            raise StoreError(f"the mirror's disk fails, and {reference} cannot be looked into there") from error
        finally:
            turn.leave()


def _plain(image: Manifest, layer: Descriptor) -> Place:
    """A layer that is a module as it is; of a digest that is no sha256 that of the module does not follow."""
    module = layer.digest if layer.digest.algorithm == "sha256" else None
    return Place(image.digest, layer, False, module, layer.size)


def _compare(reference: Reference, module: Digest | None, wanted: Digest | None) -> None:
    if module is not None and wanted is not None and module != wanted:
        raise ModuleMismatch(
            f"the module of {reference} has the sha256 {module.hex}, not {wanted.hex}; the tag has moved, or what was "
            "asked for is the digest of something else, such as that of the manifest or of a layer",
            detail={"sha256": module.hex, "asked_for": wanted.hex},
        )


def _combined(first: Outcome, *others: Outcome) -> Outcome:
    """What is told of an answer that took several steps: what failed, else what was fetched, else the first."""
    steps = (first, *others)
    stale = next((step for step in steps if isinstance(step, Stale)), None)
    if stale is not None:
        return stale
    ttl = None if isinstance(first, Passed | Stale) else first.ttl
    if any(isinstance(step, Filled) for step in steps):
        return Filled(ttl)
    return Collapsed(ttl) if any(isinstance(step, Collapsed) for step in steps) else first
