"""The push of hosted content: uploads become blobs of the store, and the catalogue says whose they are.

What was answered with 201 is on the disk, bytes first and then the record that names them; what is pulled is read by
that record, so nothing half is ever seen. Where there are replicas, they know of it before the answer, and
`hosted.ack: all` waits for the copies too; a push that fails after its record was made may stand, and can be repeated.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from mirror.admission import Admission
from mirror.digest import Digest
from mirror.errors import ManifestBlobUnknown, NotFound, NotNow, SizeInvalid, StoreError, UpstreamError
from mirror.hosted.catalogue import Catalogue
from mirror.hosted.records import BlobLink, Described
from mirror.hosted.together import Together, Turn
from mirror.metadata.base import BlobRecord, Metadata
from mirror.names import Place
from mirror.oci import Manifest, Reference
from mirror.publish import Chunk, Pushed
from mirror.store.blobs import Blob, BlobStore
from mirror.store.session import Received, Session, told
from mirror.store.uploads import Uploads

log = logging.getLogger(__name__)

_LARGE = 64 * 1024
"""Bytes of a manifest from which on it is parsed in a thread."""

_BRING_WITHIN = 20.0
"""Seconds for which a push waits for bytes that lie on another replica's disk; they go on coming behind it."""

_RETRY_AFTER = 2


class HostedUpload:
    """A blob on its way into a repository. An `Upload`."""

    min_chunk = 0

    def __init__(self, session: Session, hosted: "Hosted", repository: str) -> None:
        self._session = session
        self._hosted = hosted
        self._repository = repository

    @property
    def id(self) -> str:
        """Not to be guessed."""
        return self._session.id

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return self._session.size

    async def append(self, chunk: Chunk) -> int:
        """As `Upload.append`; durable when it returns."""
        self._hosted.refuse()
        return await self._append(chunk, last=False)

    async def finish(self, digest: Digest, last: Chunk | None) -> None:
        """As `Upload.finish`."""
        self._hosted.refuse()
        if last is not None:
            await self._append(last, last=True)
        await self._hosted.take_in(self._repository, self._session, digest)

    async def cancel(self) -> None:
        """Forget it."""
        await self._session.cancel()

    async def _append(self, chunk: Chunk, *, last: bool) -> int:
        limit = self._hosted.max_blob_size
        if chunk.length is not None and self.size + chunk.length > limit:
            raise SizeInvalid(f"the blob is larger than hosted.max_blob_size ({limit:,} bytes)")
        return await self._session.append(chunk.content, start=chunk.start, limit=limit, last=last)


class Hosted:
    """Takes in what is pushed to hosted repositories. A `Publisher`."""

    def __init__(
        self,
        uploads: Uploads,
        store: BlobStore,
        catalogue: Catalogue,
        metadata: Metadata,
        admission: Admission,
        max_blob_size: int,
        together: Together,
        announce: Callable[[Digest], Awaitable[None]],
    ) -> None:
        """``max_blob_size`` in bytes; ``metadata`` is told of blobs, as of those that are filled.

        ``announce`` tells other replicas what lies on this disk; it never raises.
        """
        self._uploads = uploads
        self._store = store
        self._catalogue = catalogue
        self._metadata = metadata
        self._admission = admission
        self.max_blob_size = max_blob_size
        self._together = together
        self._announce = announce

    async def begin(self, place: Place, principal: str, *, algorithm: str) -> HostedUpload:
        """As `Publisher.begin`. What stands against a push is told here, and not when all bytes have come."""
        self.refuse()
        await self._together.numbered()  # Redis may have gone since it was asked last
        return self._upload(place, await self._uploads.begin(place.repository, principal, algorithm=algorithm))

    async def find(self, place: Place, principal: str, upload: str) -> HostedUpload:
        """As `Publisher.find`."""
        return self._upload(place, await self._uploads.find(place.repository, principal, upload))

    async def take_in(self, repository: str, session: Session, digest: Digest) -> None:
        """Make an upload that has all its bytes a blob of ``repository``. Raises as `Upload.finish`."""
        turn = await self._together.numbered()  # while the upload is there, so that it can be finished when this fails
        await self._own(repository, await session.finish(digest, self._store), turn)

    async def take_over(self, repository: str, blob: Received) -> None:
        """Let ``repository`` have a blob that the disk holds already, verified: it came by import."""
        self.refuse()
        if blob.size > self.max_blob_size:
            raise SizeInvalid(f"{blob.digest} is larger than hosted.max_blob_size ({self.max_blob_size:,} bytes)")
        await self._own(repository, blob, await self._together.numbered())

    async def _own(self, repository: str, blob: Received, turn: Turn) -> None:
        """Take down that ``repository`` has a blob which lies on the disk, and have the others know it."""
        try:
            await self._metadata.put_blob(BlobRecord(blob.digest, blob.size, blob.blake3, time.time()))
        except StoreError as error:  # only a check of the disk will miss it
            log.error("%s was pushed, but could not be noted: %s", blob.digest, error)
        await self._catalogue.link_blob(repository, blob.digest, blob.size, moment=turn.moment)
        await self._announce(blob.digest)
        await self._together.told()
        await self._together.copied([blob.digest])

    async def mount(
        self, place: Place, principal: str, digest: Digest, source: Place | None, readable: Callable[[Place], bool]
    ) -> bool:
        """As `Publisher.mount`."""
        self.refuse()
        if source is not None:
            return await self._mounted(place.repository, digest, source.repository)
        for repository in await self._catalogue.repositories_with(digest):
            if readable(Place(place.upstream, repository)):
                return await self._mounted(place.repository, digest, repository)
        return False

    async def put_manifest(
        self, place: Place, principal: str, manifest: Manifest, tags: Sequence[str], *, overwrite: bool
    ) -> Pushed:
        """As `Publisher.put_manifest`."""
        self.refuse()
        if len(manifest.body) > _LARGE:
            described = await asyncio.to_thread(Described.of, manifest)
        else:
            described = Described.of(manifest)
        reference = Reference(place.upstream, place.repository, digest=manifest.digest)
        if tags:
            reference = Reference(place.upstream, place.repository, tag=tags[0])
        warnings = await self._judged(reference, described)
        try:
            await asyncio.to_thread(self._store.put, manifest.digest, manifest.body)
        except OSError as error:
            raise told(error, "the manifest was not taken in") from error

        async def put(turn: Turn) -> None:
            await self._catalogue.put_manifest(
                place.repository, described, tags, overwrite=overwrite, moment=turn.moment
            )

        async with self._together.changing(place.repository) as turn:
            try:
                await put(turn)
            except ManifestBlobUnknown:  # another replica may have taken in this moment what it names
                await self._together.asked()
                await put(turn)
            await self._announce(manifest.digest)
            await self._together.told()
        await self._together.copied([blob.digest for blob in described.blobs])
        log.info("%s (%s) was pushed by %s", reference, manifest.digest, principal or "anonymous")
        subject = described.subject.digest if described.subject is not None else None
        return Pushed(manifest.digest, subject, warnings)

    async def delete_tag(self, place: Place, principal: str, tag: str) -> None:
        """As `Publisher.delete_tag`."""
        async with self._changing(place.repository) as turn:
            await self._catalogue.delete_tag(place.repository, tag, moment=turn.moment)

    async def delete_manifest(self, place: Place, principal: str, digest: Digest) -> None:
        """As `Publisher.delete_manifest`."""
        async with self._changing(place.repository) as turn:
            await self._catalogue.delete_manifest(place.repository, digest, moment=turn.moment)

    async def delete_blob(self, place: Place, principal: str, digest: Digest) -> None:
        """As `Publisher.delete_blob`."""
        async with self._changing(place.repository) as turn:
            await self._catalogue.delete_blob(place.repository, digest, moment=turn.moment)

    def refuse(self) -> None:
        """Raise what stands against any change: `NotNow` while Redis is away, `StoreError` for damaged records."""
        if (damage := self._catalogue.damage) is not None:
            raise StoreError(damage)
        self._together.refuse_while_away()

    def _upload(self, place: Place, session: Session) -> HostedUpload:
        return HostedUpload(session, self, place.repository)

    @contextlib.asynccontextmanager
    async def _changing(self, repository: str) -> AsyncIterator[Turn]:
        """Something is taken away: all know it when this ends."""
        self.refuse()
        async with self._together.changing(repository) as turn:
            yield turn
            await self._together.told()

    async def _mounted(self, repository: str, digest: Digest, source: str) -> bool:
        """Mount a blob, whose bytes are got here first. Where that takes too long, its client had better send it."""
        link = await self._link(source, digest)
        if link is None:
            return False
        try:
            async with asyncio.timeout(_BRING_WITHIN):
                await self._together.brought(digest, link.size)
        except (NotFound, UpstreamError, TimeoutError) as error:
            log.info("%s is not mounted, for its bytes cannot be had now: %s", digest, error)
            return False
        turn = await self._together.numbered()
        if not await self._catalogue.mount_blob(repository, digest, source, moment=turn.moment):
            return False
        await self._together.told()
        await self._together.copied([digest])
        return True

    async def _link(self, repository: str, digest: Digest) -> BlobLink | None:
        """The blob of a repository, as far as any replica knows."""
        link = await self._catalogue.blob(repository, digest)
        if link is None:
            await self._together.asked()
            link = await self._catalogue.blob(repository, digest)
        return link

    async def _judged(self, reference: Reference, described: Described) -> tuple[str, ...]:
        """What agents will say. What the repository does not have is not looked at: it may be somebody else's."""
        needed = {blob.digest for blob in described.blobs}
        own: set[Digest] = set()
        for digest in self._admission.layers(described.manifest):
            if (link := await self._link(reference.repository, digest)) is not None:
                await self._bring(link)
                own.add(digest)
            elif digest in needed:
                raise ManifestBlobUnknown(
                    f"the manifest names {digest}, not among the blobs of this repository; push it first",
                    detail=[{"digest": str(digest)}],
                )
        return await self._admission.warnings(
            reference, described.manifest, lambda digest: self._held(digest) if digest in own else None
        )

    async def _bring(self, link: BlobLink) -> None:
        """Have a layer here that is to be looked into. Raises `NotNow` where no replica gives it in time."""
        try:
            async with asyncio.timeout(_BRING_WITHIN):
                await self._together.brought(link.digest, link.size)
        except (NotFound, UpstreamError, TimeoutError) as error:
            log.info("%s does not come from another replica: %s", link.digest, error or type(error).__name__)
            raise NotNow(
                f"{link.digest}, which is to be looked into, has not come from another replica in time; try again",
                retry_after=_RETRY_AFTER,
            ) from error

    def _held(self, digest: Digest) -> Blob | None:
        with contextlib.suppress(OSError):
            return self._store.open(digest)
        return None
