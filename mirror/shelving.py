"""Where imported artifacts come to stand: beside what was pulled from their upstreams, or among what is hosted.

Bytes first, then what links them to a repository, then the tag. What stops on the way leaves blobs on the disk that
nobody can ask for yet; eviction knows them.
"""

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mirror.accesses import Accesses
from mirror.arriving import Arrived, no_room
from mirror.config.hosted import LACKING
from mirror.digest import Digest
from mirror.errors import ManifestInvalid, NameUnknown, NotFound, StoreError
from mirror.hosted.records import Described
from mirror.layouts.assembly import Assembled
from mirror.listing import note_referrer
from mirror.manifests import Manifests
from mirror.metadata.base import BlobRecord, Link, Metadata, TagRecord
from mirror.names import Place, not_allowed
from mirror.oci import Manifest, Reference
from mirror.publishing import Hosted
from mirror.pull import Pulling
from mirror.sharing import Sharing
from mirror.store.blobs import BlobStore
from mirror.store.session import Received
from mirror.store.staging import Staging
from mirror.tagging import Tagging
from mirror.upstream.failover import Upstream

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shelved:
    """``bytes`` that came to this disk for an artifact; ``held``: all was here already, under this name.

    ``warnings``: words for its author.
    """

    bytes: int
    held: bool
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shelves:
    """Puts artifacts where they belong. ``hosted`` takes in what is for ``prefix``; None where nothing can be hosted.

    ``pull`` answers for hosted content. ``listing``: held by who adds to a list of referrers. ``now`` gives seconds
    since the epoch. All calls may raise `MirrorError`.
    """

    upstreams: Mapping[str, Upstream]
    store: BlobStore
    metadata: Metadata
    manifests: Manifests
    tagging: Tagging
    accesses: Accesses
    sharing: Sharing
    pull: Pulling
    prefix: str
    hosted: Hosted | None
    now: Callable[[], float] = time.time
    listing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def refuse(self, reference: Reference) -> None:
        """Raise `NameUnknown` for what cannot be here, whatever an archive holds."""
        if reference.upstream == self.prefix:
            if self.hosted is None:
                raise NameUnknown(f"nothing is hosted under {self.prefix}/: {LACKING}", detail={"setting": "cluster"})
        elif not self.upstreams[reference.upstream].allows(reference.repository):
            raise not_allowed(reference.upstream, reference.repository)

    async def put(
        self, reference: Reference, artifact: Assembled, arrived: Arrived, staging: Staging, by: str
    ) -> Shelved:
        """Have ``artifact`` be what ``reference`` names. ``by`` is who has it hosted."""
        for manifest in artifact.manifests:
            self.accesses.manifest(manifest)  # so that what is held of it stays for now
        if reference.upstream == self.prefix:
            return await self._host(reference, artifact, arrived, staging, by)
        return await self._cache(reference, artifact, arrived, staging)

    async def _cache(self, reference: Reference, artifact: Assembled, arrived: Arrived, staging: Staging) -> Shelved:
        """As if it had just been pulled."""
        known = await self._known(reference, artifact)
        came = await self._commit(artifact, arrived, staging)
        place = Place(reference.upstream, reference.repository)
        for manifest in artifact.manifests:
            await self.manifests.keep(reference, manifest)
            await self._list(place, manifest)
        if reference.tag is not None:
            await self.tagging.note(place, reference.tag, artifact.named)
        if not await self._known(reference, artifact) or not all(map(self.store.holds, artifact.digests())):
            raise StoreError("it could not be taken down, or is gone again; the mirror's log says why")
        return Shelved(came, known and not came)

    async def _host(
        self, reference: Reference, artifact: Assembled, arrived: Arrived, staging: Staging, by: str
    ) -> Shelved:
        """As if it had been pushed."""
        hosted = self.hosted
        assert hosted is not None, "it would have been refused"
        hosted.refuse()
        known = False
        with contextlib.suppress(NotFound):
            known = (await self.pull.manifest(reference)).digest == artifact.named.digest
        came = await self._commit(artifact, arrived, staging)
        for blob in artifact.blobs:
            if (draft := arrived.drafts.get(blob.digest)) is not None:  # what only the disk has is not this author's
                await hosted.take_over(reference.repository, Received(draft.digest, draft.size, draft.blake3))
        place, warnings = Place(reference.upstream, reference.repository), tuple[str, ...]()
        for manifest in artifact.manifests:
            tags = [reference.tag] if reference.tag is not None and manifest is artifact.named else []
            pushed = await hosted.put_manifest(place, by, manifest, tags, overwrite=True)
            warnings = pushed.warnings
        return Shelved(came, known and not came, warnings)

    async def _list(self, place: Place, manifest: Manifest) -> None:
        """Where a manifest refers to another one, have it be found there too while upstream is not asked."""
        if b'"subject"' not in manifest.body:
            return
        try:
            described = await asyncio.to_thread(Described.of, manifest)
        except ManifestInvalid as error:
            log.info("%s refers to nothing: %s", manifest.digest, error)
            return
        async with self.listing:
            await note_referrer(self.metadata, place, described, self.now())

    async def _known(self, reference: Reference, artifact: Assembled) -> bool:
        """Whether it is taken down that ``reference`` names this."""
        named, place = artifact.named, (reference.upstream, reference.repository)
        if reference.tag is not None:
            record = await self.metadata.tag(*place, reference.tag)
            if not isinstance(record, TagRecord) or record.digest != named.digest:
                return False
        link = await self.metadata.link(*place, named.digest)
        return isinstance(link, Link) and link.media_type == named.media_type

    async def _commit(self, artifact: Assembled, arrived: Arrived, staging: Staging) -> int:
        """Have all of it on the disk under its digests; how many bytes came."""
        came = 0
        for digest in artifact.digests():
            came += await self._commit_one(digest, arrived, staging)
        return came

    async def _commit_one(self, digest: Digest, arrived: Arrived, staging: Staging) -> int:
        draft = arrived.drafts.get(digest)
        if self.store.holds(digest):  # also where a pull was quicker
            return 0
        if draft is None or draft.path is None:
            raise StoreError(f"{digest} was held, and is gone again; import the archive again")
        try:
            await staging.commit(draft)
        except OSError as error:
            log.error("the disk fails (%s); %s is not imported", error.strerror or error, digest)
            raise StoreError(no_room(digest, error)) from error
        arrived.drafts[digest] = dataclasses.replace(draft, path=None)
        try:
            await self.metadata.put_blob(BlobRecord(digest, draft.size, draft.blake3, self.now()))
        except StoreError as error:  # only a check of the disk will miss it
            log.error("%s was imported, but could not be noted: %s", digest, error)
        await self.sharing.announce(digest)
        return draft.size
