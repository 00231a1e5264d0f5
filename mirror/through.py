"""Write-through: what is pushed to an upstream of ``push: through`` goes on to its origin before the client hears 201.

The origin alone decides what is taken in. What it has taken in is held here too: blobs and manifests are linked, and a
tag's record is renewed in all replicas while its lease is held, so that of two pushes one wins, there and here.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mirror.admission import Admission
from mirror.digest import Digest
from mirror.errors import (
    Denied,
    ManifestBlobUnknown,
    MirrorError,
    NotFound,
    Unsupported,
    UploadUnknown,
    UpstreamTimeout,
)
from mirror.hosted.records import FOREIGN
from mirror.layers import keep_whole, whole
from mirror.links import Links
from mirror.manifests import Manifests
from mirror.metadata.base import BlobRecord, Link, Metadata
from mirror.names import Place, not_allowed
from mirror.oci import Manifest, Reference, Resource
from mirror.publish import Pushed
from mirror.pull import Pulling
from mirror.relay import Standing
from mirror.relayed import Relayed
from mirror.resolve import Leases
from mirror.sharing import Sharing
from mirror.store.blobs import Blob, BlobStore
from mirror.store.leases import Leases as DiskLeases
from mirror.store.session import Session
from mirror.store.uploads import Uploads
from mirror.tagging import Tagging
from mirror.tags import Lru, Tags
from mirror.upstream.authors import Authors
from mirror.upstream.failover import Upstream
from mirror.upstream.pushing import Progress

log = logging.getLogger(__name__)

_SPARE_FOR = 10.0
"""Seconds for which an upload is kept that upstream began in the place of a mount: its client begins one at once."""
_MAX_SPARE = 1000


@dataclass(frozen=True, slots=True)
class Here:
    """What is held on this side, and who may do what to it at a time."""

    uploads: Uploads
    store: BlobStore
    metadata: Metadata
    links: Links
    tags: Tags
    manifests: Manifests
    pull: Pulling
    sharing: Sharing
    leases: Leases
    disk: DiskLeases
    admission: Admission
    max_blob_size: int
    now: Callable[[], float] = time.time


class Through:
    """Takes in what is pushed to the repositories of one upstream. A `mirror.publish.Publisher`."""

    def __init__(self, upstream: Upstream, authors: Authors, here: Here, *, may_push: bool) -> None:
        """``may_push``: there are credentials to push with, the mirror's or the authors'."""
        self._upstream = upstream
        self._authors = authors
        self._here = here
        self._may_push = may_push
        self._tagging = Tagging(here.tags, here.manifests, here.metadata, here.leases, here.now)
        self._spare: Lru[tuple[str, str], deque[tuple[float, Progress]]] = Lru(_MAX_SPARE)

    async def begin(self, place: Place, principal: str, *, algorithm: str) -> Relayed:
        """A new upload, there and here."""
        self._open(place)
        origin = self._authors.origin(principal)
        begun = self._unused(place, principal) or await origin.begin(place.repository)
        standing = Standing(begun.location, 0, kept=True, sure=True, min_chunk=begun.min_chunk)
        try:
            session = await self._here.uploads.begin(
                _room(place), principal, algorithm=algorithm, notes=standing.notes()
            )
        except MirrorError:
            with contextlib.suppress(MirrorError):
                await origin.cancel(place.repository, begun.location)
            raise
        return self._relayed(place, principal, session, standing)

    async def find(self, place: Place, principal: str, upload: str) -> Relayed:
        """The upload of that id; upstream is asked how far it is, where that is in doubt."""
        self._open(place)
        session = await self.session(place, principal, upload)
        standing = Standing.of(session)
        if standing is None:
            raise UploadUnknown("there is no such upload to this upstream")
        relayed = self._relayed(place, principal, session, standing)
        await relayed.look()
        return relayed

    async def mount(
        self, place: Place, principal: str, digest: Digest, source: Place | None, readable: Callable[[Place], bool]
    ) -> bool:
        """Have upstream mount the blob, where its source is named, and at the same upstream."""
        self._open(place)
        if source is None or source.upstream != place.upstream or not self._upstream.allows(source.repository):
            return False
        instead = await self._authors.origin(principal).mount(place.repository, digest, source.repository)
        if instead is not None:
            spare = self._spare.get((principal, place.repository)) or deque(maxlen=16)
            spare.append((self._here.now(), instead))
            self._spare.put((principal, place.repository), spare)
            return False
        known = await self._here.links.get(source.upstream, source.repository, digest)
        await self._link(place, digest, known.size if known is not None else -1)
        return True

    async def put_manifest(
        self, place: Place, principal: str, manifest: Manifest, tags: Sequence[str], *, overwrite: bool
    ) -> Pushed:
        """Have upstream take in a manifest, under each of ``tags``; then it is held here, and what they name."""
        self._open(place)
        reference = Reference(place.upstream, place.repository, digest=manifest.digest)
        origin = self._authors.origin(principal)
        warnings = await self._judged(reference, manifest, principal)
        subject: Digest | None = None
        for tag in tags or (None,):
            if tag is None:
                accepted = await origin.put_manifest(place.repository, str(manifest.digest), manifest)
                await self._here.manifests.keep(reference, manifest)
            else:
                accepted = await self._tagging.put(origin, place, tag, manifest, overwrite=overwrite)
            subject = accepted.subject or subject
            warnings += tuple(word for word in accepted.warnings if word not in warnings)
        log.info("%s was pushed to %s by %s", reference, origin.host, principal or "anonymous")
        return Pushed(manifest.digest, subject, warnings)

    async def delete_tag(self, place: Place, principal: str, tag: str) -> None:
        """Delete a tag there, and forget it here."""
        self._open(place)
        await self._tagging.delete(self._authors.origin(principal), place, tag)

    async def delete_manifest(self, place: Place, principal: str, digest: Digest) -> None:
        """Delete a manifest there, and forget it here, and the tags that name it: upstream is asked from here on."""
        self._open(place)
        await self._authors.origin(principal).delete(place.repository, "manifests", str(digest))
        try:
            await self._tagging.forget(place, digest)
        finally:
            reference = Reference(place.upstream, place.repository, digest=digest)
            await self._here.manifests.forget(reference, digest, self._here.now())

    async def delete_blob(self, place: Place, principal: str, digest: Digest) -> None:
        """Delete a blob there, and forget here that the repository has it: upstream is asked from here on."""
        self._open(place)
        await self._authors.origin(principal).delete(place.repository, "blobs", str(digest))
        await self._here.links.drop(place.upstream, place.repository, digest, self._here.now())

    async def aclose(self) -> None:
        """Close all connections."""
        await self._authors.aclose()

    # For the uploads.

    async def session(self, place: Place, principal: str, upload: str) -> Session:
        """The upload's part on this disk. Raises `UploadUnknown`."""
        return await self._here.uploads.find(_room(place), principal, upload)

    async def keep(self, place: Place, digest: Digest, size: int, session: Session | None) -> None:
        """Upstream has the blob: link it, and keep the copy. A disk that fails costs a download later, no push."""
        await self._link(place, digest, size)
        if session is None:
            return
        try:
            received = await session.finish(digest, self._here.store)
            record = BlobRecord(digest, received.size, received.blake3, self._here.now())
            await self._here.metadata.put_blob(record)
            await self._here.sharing.announce(digest)
        except MirrorError as error:
            log.warning("%s was pushed, and is not kept here: %s", digest, error)

    # Its own.

    def _open(self, place: Place) -> None:
        """Refuse what is not to be pushed."""
        if not self._upstream.allows(place.repository):
            raise not_allowed(place.upstream, place.repository)
        if self._upstream.policy.offline:
            raise Unsupported(
                f"nothing can be pushed to {place.upstream}, which is offline in the mirror's settings; "
                f"see upstreams.{place.upstream}.offline"
            )
        if not self._may_push:
            raise Denied(
                f"the mirror has no credentials to push to {place.upstream} with; "
                f"set upstreams.{place.upstream}.credentials",
                detail={"setting": f"upstreams.{place.upstream}.credentials"},
            )

    def _relayed(self, place: Place, principal: str, session: Session, standing: Standing) -> Relayed:
        here, origin = self._here, self._authors.origin(principal)
        return Relayed(self, origin, here.disk, place, principal, session, standing, here.max_blob_size)

    def _unused(self, place: Place, principal: str) -> Progress | None:
        """An upload that upstream has begun for this principal a moment ago, when it would not mount."""
        spare = self._spare.get((principal, place.repository))
        while spare:
            begun_at, progress = spare.popleft()
            if self._here.now() - begun_at <= _SPARE_FOR:
                return progress
        self._spare.drop((principal, place.repository))
        return None

    async def _link(self, place: Place, digest: Digest, size: int) -> None:
        if await self._here.links.get(place.upstream, place.repository, digest) is None:
            await self._here.links.add([Link(place.upstream, place.repository, digest, "", size)])

    async def _judged(self, reference: Reference, manifest: Manifest, principal: str) -> tuple[str, ...]:
        """What agents will say; layers that were mounted, or not kept, are got first."""
        layers: dict[Digest, Blob] = {}
        foreign = {layer.digest for layer in manifest.layers if layer.media_type in FOREIGN}
        for digest in self._here.admission.layers(manifest):
            if digest in foreign:  # not asked for: upstream need not have it, and who sends it is anybody's guess
                continue
            try:
                async with asyncio.timeout(self._upstream.policy.hold_for):
                    layers[digest] = await self._layer(reference.at(digest), principal)
            except TimeoutError as error:
                raise UpstreamTimeout(f"{digest}, which is to be looked into, has not come in time") from error
            except NotFound as error:
                raise ManifestBlobUnknown(
                    f"the manifest names {digest}, which {reference.upstream}/{reference.repository} does not have; "
                    "push it first",
                    detail=[{"digest": str(digest)}],
                ) from error
        return await self._here.admission.warnings(reference, manifest, layers.get)

    async def _layer(self, reference: Reference, principal: str) -> Blob:
        """A layer, for an author who could pull it: what is said of it must not tell others what is in it."""

        async def bring() -> Blob:
            answer = await self._here.pull.blob(reference, read=True)
            keep_whole(answer)
            return await whole(answer)

        lent, repository = self._upstream.lent, reference.repository
        if lent is None:
            return await bring()
        login = self._authors.login(principal)
        await lent.may_pull(repository, Resource.BLOB, str(reference.digest), login)
        return await lent.lend(repository, principal, login, until=0.0).persist(bring)


def _room(place: Place) -> str:
    """What uploads to the place are noted under: no hosted repository's name."""
    return f"through {place.upstream}/{place.repository}"
