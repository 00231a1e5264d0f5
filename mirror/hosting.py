"""Hosted content: what was pushed here is answered from here, and from nowhere else. Reads like `mirror.pull`.

In front of both stands `Routed`: a reference leads to hosted content, or to the pull through an upstream.
"""

import json
import logging
import time
from collections.abc import Callable
from typing import Protocol

from mirror.answer import Answer, Held, Hit, Whole
from mirror.digest import Digest
from mirror.errors import BlobUnknown, ManifestUnknown, NameUnknown, NotFound, StoreError
from mirror.hosted.catalogue import Catalogue
from mirror.hosted.records import ManifestRecord
from mirror.listing import MAX_PAGE, Page
from mirror.names import Place
from mirror.oci import OCI_INDEX, Reference
from mirror.pull import OCTETS, Pulling
from mirror.store.blobs import Blob, BlobStore
from mirror.tags import Lru

log = logging.getLogger(__name__)

_REMEMBERED = 64 * 1024
"""Bytes of a manifest up to which it is kept in memory, once it was read and held against its digest."""

_MAX_REFERRERS = 2 * 1024 * 1024
"""Bytes of annotations, about, that one answer about referrers holds at most."""


class Listings(Protocol):
    """Who lists tags and referrers: `mirror.listing`, `Hosting`, and `Routed` in front of them."""

    async def tags(self, place: Place, *, n: int | None, last: str | None) -> Page:
        """A page of tags; the body is the list of their names."""
        ...

    async def referrers(self, place: Place, digest: Digest, *, artifact_type: str | None, page: str | None) -> Page:
        """The index of what refers to ``digest``."""
        ...


class Hosting:
    """Answers for manifests, blobs and lists of hosted repositories. ``now`` gives seconds since the epoch."""

    def __init__(
        self, catalogue: Catalogue, store: BlobStore, grace: float, now: Callable[[], float] = time.time
    ) -> None:
        """``grace``: seconds for which a blob stays of which somebody was told that it is there."""
        self._catalogue = catalogue
        self._store = store
        self._grace = grace
        self._now = now
        self._bodies: Lru[Digest, bytes] = Lru(2_000)

    async def manifest(self, reference: Reference) -> Answer:
        """The manifest that ``reference`` names."""
        if reference.tag is not None:
            record = await self._catalogue.tagged(reference.repository, reference.tag)
        else:
            assert reference.digest is not None
            record = await self._catalogue.manifest(reference.repository, reference.digest)
        if record is None:
            raise await self._absent(reference, ManifestUnknown(f"{reference} is not there"))
        return Answer(record.media_type, record.digest, Whole(self._body(record)), Hit())

    async def blob(self, reference: Reference, *, read: bool) -> Answer:
        """The blob with ``reference``'s digest, if this repository has it. Who is told (HEAD) may count on it.

        One that the disk lost is not there for who only asks, so that a client that pushes sends it again.
        """
        digest = reference.digest
        assert digest is not None
        link = await self._catalogue.blob(reference.repository, digest)
        if link is None:
            raise await self._absent(reference, BlobUnknown(f"{reference} is not there"))
        blob = self._held(digest, link.size)
        if blob is None and read:
            raise _damaged(digest)
        counts = blob is not None and (
            self._catalogue.damage is not None  # then nothing goes
            or link.touched_at > self._now() - self._grace / 10
            or await self._catalogue.touch(reference.repository, digest)
        )
        if blob is None or not counts:
            raise BlobUnknown(f"{reference} is not there (any more); push it again")
        return Answer(OCTETS, digest, Held(blob), Hit())

    async def tags(self, place: Place, *, n: int | None, last: str | None) -> Page:
        """A page of tags."""
        most = MAX_PAGE if n is None else min(n, MAX_PAGE)
        found = await self._catalogue.tags(place.repository, most + 1, last)
        if found is None:
            raise _no_repository(place.upstream, place.repository)
        tags = list(found[:most])
        following = {"last": tags[-1], "n": str(most)} if tags and len(found) > most else {}
        return Page(json.dumps(tags).encode(), following, Hit())

    async def referrers(self, place: Place, digest: Digest, *, artifact_type: str | None, page: str | None) -> Page:
        """The index of what refers to ``digest``, which need not be there. ``page`` is a digest to go on after."""
        found, following = await self._catalogue.referrers(
            place.repository, digest, artifact_type, page, _MAX_REFERRERS
        )
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [_descriptor(record) for record in found]}
        headers = {"filters": "artifactType" if artifact_type is not None else None, "page": following}
        kept = {key: value for key, value in headers.items() if value}
        return Page(json.dumps(index, ensure_ascii=False).encode(), kept, Hit())

    async def _absent(self, reference: Reference, absence: NotFound) -> NotFound:
        if await self._catalogue.exists(reference.repository):
            return absence
        return _no_repository(reference.upstream, reference.repository)

    def _body(self, record: ManifestRecord) -> bytes:
        """The bytes of a manifest, as they were pushed."""
        body = self._bodies.get(record.digest)
        if body is None:
            blob = self._held(record.digest, record.size)
            if blob is None:
                raise _damaged(record.digest)
            body = bytes(blob.read(0, blob.size))
            if Digest.of(body, record.digest.algorithm) != record.digest:
                log.error(
                    "the file of the hosted manifest %s is damaged: it has other bytes; restore it", record.digest
                )
                raise _damaged(record.digest)
            if len(body) <= _REMEMBERED:
                self._bodies.put(record.digest, body)
        return body

    def _held(self, digest: Digest, size: int) -> Blob | None:
        """The bytes, if the disk has them and as many as were pushed; what it has lost is said loudly."""
        try:
            blob = self._store.open(digest)
        except OSError as error:
            log.error("the disk fails (%s); the hosted %s cannot be read", error.strerror or error, digest)
            return None
        if blob is not None and blob.size == size:
            return blob
        found = "is missing" if blob is None else f"has {blob.size} bytes instead of {size}"
        log.error("the file of the hosted %s %s; push it again, or restore it from a backup", digest, found)
        return None


class Routed:
    """Hosted content from here, all else from upstreams. Without ``hosting`` there is none, and the reason is told."""

    def __init__(self, prefix: str, hosting: Hosting | None, pull: Pulling, listing: Listings) -> None:
        """``prefix`` is what `Place.upstream` says of hosted content."""
        self._prefix = prefix
        self._hosting = hosting
        self._pull = pull
        self._listing = listing

    async def manifest(self, reference: Reference) -> Answer:
        """The manifest that ``reference`` names."""
        return await (self._hosted(reference.upstream) or self._pull).manifest(reference)

    async def blob(self, reference: Reference, *, read: bool) -> Answer:
        """The blob with ``reference``'s digest."""
        return await (self._hosted(reference.upstream) or self._pull).blob(reference, read=read)

    async def tags(self, place: Place, *, n: int | None, last: str | None) -> Page:
        """A page of tags."""
        return await (self._hosted(place.upstream) or self._listing).tags(place, n=n, last=last)

    async def referrers(self, place: Place, digest: Digest, *, artifact_type: str | None, page: str | None) -> Page:
        """The index of what refers to ``digest``."""
        listing = self._hosted(place.upstream) or self._listing
        return await listing.referrers(place, digest, artifact_type=artifact_type, page=page)

    def _hosted(self, upstream: str) -> Hosting | None:
        """Who answers for hosted content, if ``upstream`` names that."""
        if upstream == self._prefix and self._hosting is None:
            raise NameUnknown(
                f"nothing is hosted under {upstream}/ by a mirror that has replicas (metadata.url names a Redis)",
                detail={"setting": "metadata.url"},
            )
        return self._hosting if upstream == self._prefix else None


def _descriptor(record: ManifestRecord) -> dict[str, object]:
    described: dict[str, object] = {
        "mediaType": record.media_type,
        "digest": str(record.digest),
        "size": record.size,
    }
    if record.artifact_type:
        described["artifactType"] = record.artifact_type
    if record.annotations:
        described["annotations"] = dict(record.annotations)
    return described


def _damaged(digest: Digest) -> StoreError:
    return StoreError(f"the mirror's disk has lost the content of {digest}; it must be pushed again, or restored")


def _no_repository(prefix: str, repository: str) -> NameUnknown:
    return NameUnknown(f"there is no repository {prefix}/{repository}; nothing was pushed to it")
