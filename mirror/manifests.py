"""Manifests: fetched once, verified, kept, linked to what they name; and the layers of Wasm artifacts sent for."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from mirror.answer import Answer, Whole
from mirror.digest import Digest
from mirror.errors import ManifestUnknown, UpstreamDenied, UpstreamError, UpstreamInvalid
from mirror.fill import Fill
from mirror.fills import Fills
from mirror.indexes import way_from
from mirror.links import Links
from mirror.meanwhile import first_of
from mirror.metadata.base import Link
from mirror.metrics import Metrics
from mirror.oci import MAX_MANIFEST_SIZE, Manifest, Reference
from mirror.store.blobs import BlobStore
from mirror.tags import Lru
from mirror.upstream.failover import Upstream
from mirror.wasm import artifact

log = logging.getLogger(__name__)

MAX_HOLD = 10.0
"""Seconds that a request for a manifest is held at most; clients give less time for one than for a blob."""

LAST_WORD = 0.25
"""Seconds that a client waits longer than upstream is tried, so that it hears what failed, not just that time is up."""

_PREPARE_EVERY = 10.0
"""Seconds between two looks at a manifest's layers, so that one that cannot be had is not tried with every hit."""


class Leases(Protocol):
    """Work that one worker of all replicas does at a time: `mirror.store.leases`, `mirror.cluster.leases`."""

    def hold(self, name: str) -> AbstractAsyncContextManager[object]:
        """Wait for a lease and hold it."""
        ...


class Elsewhere(Protocol):
    """What the other replicas hold: `mirror.peers`."""

    async def content(self, digest: Digest, limit: int, hinted: Sequence[str] = ()) -> bytes | None:
        """Verified content of ``limit`` bytes at most, or None; those ``hinted`` at are likely to hold it."""
        ...


class Manifests:
    """The manifests that are held, and the way to those that are not."""

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        store: BlobStore,
        links: Links,
        fills: Fills,
        leases: Leases,
        elsewhere: Elsewhere,
        max_module_size: int,
        metrics: Metrics | None = None,
        fetched: Callable[[Reference, Manifest], None] | None = None,
    ) -> None:
        """``fetched`` is told of each manifest that has come from upstream."""
        self._upstreams = upstreams
        self._store = store
        self._links = links
        self._fills = fills
        self._leases = leases
        self._elsewhere = elsewhere
        self.max_module_size = max_module_size
        self._metrics = metrics or Metrics()
        self._fetched = fetched
        self._parsed: Lru[tuple[Digest, str], Manifest] = Lru(2_000)
        self._prepared: Lru[tuple[str, Digest], float] = Lru(2_000)

    def held(self, digest: Digest, media_type: str) -> Manifest | None:
        """The manifest, if it is held here. ``media_type`` is the one with which its repository serves it."""
        manifest = self._parsed.get((digest, media_type))
        if manifest is None and (body := self._read(digest)) is not None:
            try:
                manifest = Manifest.parse(body, media_type, digest)
            except UpstreamInvalid:
                return None
            self._parsed.put((digest, media_type), manifest)
        return manifest

    def remembered(self, digest: Digest) -> bytes | None:
        """The bytes of a manifest that is in memory, whatever the disk has; verified before they came there."""
        return next((manifest.body for manifest in self._parsed.values() if manifest.digest == digest), None)

    def of(self, answer: Answer) -> Manifest:
        """The manifest in an answer; parsed once, for one of 4 MiB holds up the loop for a quarter of a second."""
        held = self.held(answer.digest, answer.media_type)
        if held is not None:
            return held
        assert isinstance(answer.body, Whole), "manifests are answered whole"
        return Manifest.parse(answer.body.content, answer.media_type, answer.digest)

    def stored_at(self, digest: Digest) -> float | None:
        """When the manifest was stored here, in seconds since the epoch."""
        try:
            blob = self._store.open(digest)
        except OSError:
            return None
        return None if blob is None else blob.stored_at

    async def known(self, reference: Reference, digest: Digest) -> Manifest | None:
        """The manifest, if it is held here and this repository is known to hold it too."""
        place = reference.upstream, reference.repository
        link = await self._links.get(*place, digest)
        if link is None:
            offline = self._upstreams[reference.upstream].policy.offline
            return self.held(digest, "") if offline and await self._links.lost(*place, digest) else None
        return self.held(digest, link.media_type) if link.media_type else None

    async def obtain(self, reference: Reference, digest: Digest) -> Manifest:
        """The manifest with this digest out of the reference's repository, asking upstream where that is needed.

        Raises `ManifestUnknown`, `UpstreamError`. For one task at a time in this worker.
        """
        async with self._leases.hold(f"manifest {reference.upstream}/{reference.repository}@{digest}"):
            if (manifest := await self._from_here_or_elsewhere(reference, digest)) is not None:
                return manifest
            if self._upstreams[reference.upstream].policy.offline:
                raise ManifestUnknown(
                    f"{digest} is not held, and {reference.upstream} is offline in the mirror's settings"
                )
            if (manifest := self.held(digest, "")) is not None:
                return await self._claim(reference, manifest)
            asking = self.fetch(reference, str(digest))
            return await first_of(asking, lambda: self._from_here_or_elsewhere(reference, digest))

    async def _from_here_or_elsewhere(self, reference: Reference, digest: Digest) -> Manifest | None:
        """The manifest, if this repository is known to hold it, and this replica or another one has its bytes."""
        if (manifest := await self.known(reference, digest)) is not None:
            return manifest
        place = reference.upstream, reference.repository
        if await self._links.get(*place, digest) is None:
            await self._links.ask_elsewhere(*place, digest)
        if self.held(digest, "") is None:
            hinted = await self._fills.sharing.holders_of(digest)
            if (body := await self._elsewhere.content(digest, MAX_MANIFEST_SIZE, hinted)) is not None:
                await self._store_body(digest, body)
        return await self.known(reference, digest)

    async def fetch(self, reference: Reference, target: str) -> Manifest:
        """One GET of a tag or digest; the manifest is kept, and what it names is linked to the repository."""
        upstream = self._upstreams[reference.upstream]
        deadline = asyncio.get_running_loop().time() + self.patience(reference.upstream)
        try:
            manifest = await upstream.get_manifest(reference.repository, target, deadline=deadline)
        except UpstreamError:
            self._metrics.fills[reference.upstream, "manifest_failure"] += 1
            raise
        await self.keep(reference, manifest)
        if self._fetched is not None:
            self._fetched(reference, manifest)
        log.info(
            "fetched %s/%s %s from upstream: %s", reference.upstream, reference.repository, target, manifest.digest
        )
        return manifest

    def patience(self, upstream: str) -> float:
        """Seconds for which a manifest of this upstream is waited for."""
        return min(self._upstreams[upstream].policy.hold_for, MAX_HOLD)

    def prepare(self, reference: Reference, manifest: Manifest) -> None:
        """Send for the layers of a Wasm artifact that are not held, before anyone asks for them."""
        now = asyncio.get_running_loop().time()
        key = reference.upstream, manifest.digest
        if now - (self._prepared.get(key) or -_PREPARE_EVERY) >= _PREPARE_EVERY:
            self._prepared.put(key, now)
            self._send_for_layers(reference, manifest)

    def _send_for_layers(self, reference: Reference, manifest: Manifest) -> list[Fill]:
        policy = self._upstreams[reference.upstream].policy
        fills = []
        if not policy.offline:
            for layer in artifact.modules(manifest, self.max_module_size):
                if not self._holds(layer.digest):
                    fill = self._fills.start(reference, layer.digest, layer.size, policy.hold_for)
                    fill.content.keep_whole |= self.whole_first(layer.media_type, layer.size)
                    fills.append(fill)
        return fills

    async def arrange(self, reference: Reference, manifest: Manifest) -> None:
        """Wait until all that an agent will need of ``manifest`` is held or flowing; raise what stands against it."""
        *_, image = await way_from(manifest, lambda child: self.obtain(reference, child.digest))
        for fill in self._send_for_layers(reference, image):
            await fill.content.reached(0)

    def whole_first(self, media_type: str, size: int | None) -> bool:
        """Whether nothing of such a layer may be sent before all of it is verified."""
        return artifact.is_archive(media_type) and (size is None or size <= self.max_module_size)

    async def _claim(self, reference: Reference, manifest: Manifest) -> Manifest:
        """The manifest is held through another repository: ask whether this one has it too.

        Where links were lost, upstream's silence is no word against it, and is not waited for longer than for a tag's.
        """
        upstream = self._upstreams[reference.upstream]
        lost = await self._links.lost(reference.upstream, reference.repository, manifest.digest)
        limit = upstream.policy.revalidate_for if lost else self.patience(reference.upstream)
        deadline = asyncio.get_running_loop().time() + limit
        try:
            head = await upstream.head_manifest(
                reference.repository, str(manifest.digest), deadline=deadline, yielding=False
            )
        except UpstreamDenied:
            raise
        except UpstreamError:
            if lost:
                return manifest
            return await self.fetch(reference, str(manifest.digest))  # which goes on asking
        claimed = Manifest.parse(manifest.body, head.media_type, manifest.digest)
        await self._link(reference, claimed)
        return claimed

    async def keep(self, reference: Reference, manifest: Manifest) -> None:
        """Store a manifest, and link it and what it names to the reference's repository. A failing disk is logged."""
        self._parsed.put((manifest.digest, manifest.media_type), manifest)
        await self._store_body(manifest.digest, manifest.body)
        await self._link(reference, manifest)

    async def forget(self, reference: Reference, digest: Digest, now: float) -> None:
        """It was deleted from the reference's repository at its upstream, which is asked about it from here on.

        Whoever asks for it already comes first: what upstream said before is no later word. ``now``: seconds since the
        epoch.
        """
        async with self._leases.hold(f"manifest {reference.upstream}/{reference.repository}@{digest}"):
            await self._links.drop(reference.upstream, reference.repository, digest, now)

    async def let_go(self) -> None:
        """Forget those whose files have been evicted: who asks for one has it kept again."""
        known = self._parsed.keys()
        for gone in await asyncio.to_thread(lambda: [key for key in known if self._is_gone(key[0])]):
            self._parsed.drop(gone)

    async def _store_body(self, digest: Digest, body: bytes) -> None:
        try:
            if not self._store.holds(digest):
                await asyncio.to_thread(self._store.put, digest, body)
                await self._fills.sharing.announce(digest)
        except OSError as error:
            log.error("the disk fails (%s); the manifest %s is not kept", error.strerror or error, digest)

    async def _link(self, reference: Reference, manifest: Manifest) -> None:
        place = reference.upstream, reference.repository
        own = Link(*place, manifest.digest, manifest.media_type, len(manifest.body))
        await self._links.add([own, *(Link(*place, to.digest, to.media_type, to.size) for to in manifest.named)])

    def _read(self, digest: Digest) -> bytes | None:
        try:
            blob = self._store.open(digest)
        except OSError as error:
            log.error("the disk fails (%s); %s cannot be read", error.strerror or error, digest)
            return None
        if blob is None or blob.size > MAX_MANIFEST_SIZE:  # anybody may ask for a module as if it were a manifest
            return None
        body = bytes(blob.read(0, blob.size))
        if Digest.of(body, digest.algorithm) == digest:
            return body
        log.error("the file of %s is damaged; it is dropped and fetched again", digest)
        with contextlib.suppress(OSError):
            self._store.delete(digest)
        return None

    def _is_gone(self, digest: Digest) -> bool:
        try:
            return not self._store.holds(digest)
        except OSError:
            return False

    def _holds(self, digest: Digest) -> bool:
        try:
            return self._store.holds(digest)
        except OSError:
            return False
