"""The push of hosted content: uploads become blobs of the store, and the catalogue says whose they are.

What was answered with 201 is on the disk, bytes first and then the record that names them; what is pulled is read by
that record, so nothing half is ever seen.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence

from mirror.admission import Admission
from mirror.digest import Digest
from mirror.errors import ManifestBlobUnknown, SizeInvalid, StoreError
from mirror.hosted.catalogue import Catalogue
from mirror.hosted.records import Described
from mirror.metadata.base import BlobRecord, Metadata
from mirror.names import Place
from mirror.oci import Manifest, Reference
from mirror.publish import Chunk, Pushed
from mirror.store.blobs import Blob, BlobStore
from mirror.store.session import Session, told
from mirror.store.uploads import Uploads

log = logging.getLogger(__name__)

_LARGE = 64 * 1024
"""Bytes of a manifest from which on it is parsed in a thread."""


class HostedUpload:
    """A blob on its way into a repository. An `Upload`."""

    min_chunk = 0

    def __init__(
        self,
        session: Session,
        store: BlobStore,
        catalogue: Catalogue,
        metadata: Metadata,
        repository: str,
        max_blob_size: int,
    ) -> None:
        self._session = session
        self._store = store
        self._catalogue = catalogue
        self._metadata = metadata
        self._repository = repository
        self._max_blob_size = max_blob_size

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
        return await self._append(chunk, last=False)

    async def finish(self, digest: Digest, last: Chunk | None) -> None:
        """As `Upload.finish`."""
        if last is not None:
            await self._append(last, last=True)
        blob = await self._session.finish(digest, self._store)
        try:
            await self._metadata.put_blob(BlobRecord(blob.digest, blob.size, blob.blake3, time.time()))
        except StoreError as error:  # only a check of the disk will miss it
            log.error("%s was pushed, but could not be noted: %s", blob.digest, error)
        await self._catalogue.link_blob(self._repository, blob.digest, blob.size)

    async def cancel(self) -> None:
        """Forget it."""
        await self._session.cancel()

    async def _append(self, chunk: Chunk, *, last: bool) -> int:
        limit = self._max_blob_size
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
    ) -> None:
        """``max_blob_size`` in bytes; ``metadata`` is told of blobs, as of those that are filled."""
        self._uploads = uploads
        self._store = store
        self._catalogue = catalogue
        self._metadata = metadata
        self._admission = admission
        self._max_blob_size = max_blob_size

    async def begin(self, place: Place, principal: str, *, algorithm: str) -> HostedUpload:
        """As `Publisher.begin`. Damaged records are told here, and not when all bytes have come."""
        self._refuse_damaged()
        return self._upload(place, await self._uploads.begin(place.repository, principal, algorithm=algorithm))

    async def find(self, place: Place, principal: str, upload: str) -> HostedUpload:
        """As `Publisher.find`."""
        return self._upload(place, await self._uploads.find(place.repository, principal, upload))

    async def mount(
        self, place: Place, digest: Digest, source: Place | None, readable: Callable[[Place], bool]
    ) -> bool:
        """As `Publisher.mount`."""
        if source is not None:
            return await self._catalogue.mount_blob(place.repository, digest, source.repository)
        for repository in await self._catalogue.repositories_with(digest):
            if readable(Place(place.upstream, repository)):
                return await self._catalogue.mount_blob(place.repository, digest, repository)
        return False

    async def put_manifest(
        self, place: Place, principal: str, manifest: Manifest, tags: Sequence[str], *, overwrite: bool
    ) -> Pushed:
        """As `Publisher.put_manifest`."""
        self._refuse_damaged()
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
        await self._catalogue.put_manifest(place.repository, described, tags, overwrite=overwrite)
        log.info("%s (%s) was pushed by %s", reference, manifest.digest, principal or "anonymous")
        subject = described.subject.digest if described.subject is not None else None
        return Pushed(manifest.digest, subject, warnings)

    async def delete_tag(self, place: Place, tag: str) -> None:
        """As `Publisher.delete_tag`."""
        await self._catalogue.delete_tag(place.repository, tag)

    async def delete_manifest(self, place: Place, digest: Digest) -> None:
        """As `Publisher.delete_manifest`."""
        await self._catalogue.delete_manifest(place.repository, digest)

    async def delete_blob(self, place: Place, digest: Digest) -> None:
        """As `Publisher.delete_blob`."""
        await self._catalogue.delete_blob(place.repository, digest)

    def _upload(self, place: Place, session: Session) -> HostedUpload:
        return HostedUpload(
            session, self._store, self._catalogue, self._metadata, place.repository, self._max_blob_size
        )

    async def _judged(self, reference: Reference, described: Described) -> tuple[str, ...]:
        """What agents will say. What the repository does not have is not looked at: it may be somebody else's."""
        needed = {blob.digest for blob in described.blobs}
        own: set[Digest] = set()
        for digest in self._admission.layers(described.manifest):
            if await self._catalogue.blob(reference.repository, digest) is not None:
                own.add(digest)
            elif digest in needed:
                raise ManifestBlobUnknown(
                    f"the manifest names {digest}, not among the blobs of this repository; push it first",
                    detail=[{"digest": str(digest)}],
                )
        return await self._admission.warnings(
            reference, described.manifest, lambda digest: self._held(digest) if digest in own else None
        )

    def _held(self, digest: Digest) -> Blob | None:
        with contextlib.suppress(OSError):
            return self._store.open(digest)
        return None

    def _refuse_damaged(self) -> None:
        if (damage := self._catalogue.damage) is not None:
            raise StoreError(damage)
