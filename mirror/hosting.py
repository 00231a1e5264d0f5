"""Hosted content: what was pushed here is answered from here, and from nowhere else. Reads like `mirror.pull`.

Where there are replicas, each has all records: what the others have changed is known before tags are read, and before
anything is said not to be there. Bytes that lie on another disk flow through this one.

To who only asks for a blob (HEAD: clients that push, and send what is not there) it is there by its record, unless
every replica that can be asked says that it has not got the bytes. One that is merely busy does not make a blob unknown
that agents could have; and where those that had it are gone, the author is asked for the bytes again.

In front of both stands `Routed`: a reference leads to hosted content, or to the pull through an upstream.
"""

import json
import logging
import time
from collections.abc import Callable
from typing import Protocol

from mirror.answer import Announced, Answer, Body, Held, Hit, Whole
from mirror.config.hosted import LACKING
from mirror.copies import Copies
from mirror.digest import Digest
from mirror.errors import BlobUnknown, ManifestUnknown, NameUnknown, NotFound, StoreError
from mirror.hosted.catalogue import Catalogue
from mirror.hosted.records import BlobLink, ManifestRecord
from mirror.hosted.together import Together
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


def _nobody(digest: Digest) -> None:
    """Nobody wants to know."""


class Hosting:
    """Answers for manifests, blobs and lists of hosted repositories. ``now`` gives seconds since the epoch."""

    def __init__(
        self,
        catalogue: Catalogue,
        store: BlobStore,
        grace: float,
        together: Together,
        copies: Copies | None = None,
        now: Callable[[], float] = time.time,
        asked: Callable[[Digest], None] = _nobody,
    ) -> None:
        """``grace``: seconds for which a blob stays of which somebody was told that it is there.

        ``copies`` are those on the disks of other replicas, None where there are no others. ``asked`` is told of each
        manifest that a client is given.
        """
        self._catalogue = catalogue
        self._store = store
        self._grace = grace
        self._together = together
        self._copies = copies
        self._now = now
        self._asked = asked
        self._bodies: Lru[Digest, bytes] = Lru(2_000)

    async def manifest(self, reference: Reference) -> Answer:
        """The manifest that ``reference`` names."""
        if reference.tag is not None:
            await self._together.current()
        record = await self._record(reference)
        if record is None:
            await self._together.asked()
            record = await self._record(reference)
        if record is None:
            raise await self._absent(reference, ManifestUnknown(f"{reference} is not there"))
        self._asked(record.digest)
        return Answer(record.media_type, record.digest, Whole(await self._body(record)), Hit())

    async def blob(self, reference: Reference, *, read: bool) -> Answer:
        """The blob with ``reference``'s digest, if this repository has it. Who is told (HEAD) may count on it."""
        digest = reference.digest
        assert digest is not None
        link = await self._catalogue.blob(reference.repository, digest)
        if link is None:
            await self._together.asked()
            link = await self._catalogue.blob(reference.repository, digest)
        if link is None:
            raise await self._absent(reference, BlobUnknown(f"{reference} is not there"))
        blob = self._held(digest, link.size)
        there: Body
        if blob is not None:
            there = Held(blob)
        elif read:
            return self._elsewhere(link)
        elif self._copies is not None and await self._copies.may_be_had(digest):
            there = Announced(link.size)
        else:
            raise _push_again(reference)
        counts = (
            self._catalogue.damage is not None  # then nothing goes
            or link.touched_at > self._now() - self._grace / 10
            or await self._catalogue.touch(reference.repository, digest)
        )
        if not counts:
            raise _push_again(reference)
        return Answer(OCTETS, digest, there, Hit())

    async def tags(self, place: Place, *, n: int | None, last: str | None) -> Page:
        """A page of tags."""
        await self._together.current()
        most = MAX_PAGE if n is None else min(n, MAX_PAGE)
        found = await self._catalogue.tags(place.repository, most + 1, last)
        if found is None:
            await self._together.asked()
            found = await self._catalogue.tags(place.repository, most + 1, last)
        if found is None:
            raise _no_repository(place.upstream, place.repository)
        tags = list(found[:most])
        following = {"last": tags[-1], "n": str(most)} if tags and len(found) > most else {}
        return Page(json.dumps(tags).encode(), following, Hit())

    async def referrers(self, place: Place, digest: Digest, *, artifact_type: str | None, page: str | None) -> Page:
        """The index of what refers to ``digest``, which need not be there. ``page`` is a digest to go on after."""
        await self._together.current()
        found, following = await self._catalogue.referrers(
            place.repository, digest, artifact_type, page, _MAX_REFERRERS
        )
        index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [_descriptor(record) for record in found]}
        headers = {"filters": "artifactType" if artifact_type is not None else None, "page": following}
        kept = {key: value for key, value in headers.items() if value}
        return Page(json.dumps(index, ensure_ascii=False).encode(), kept, Hit())

    def remembered(self, digest: Digest) -> bytes | None:
        """The bytes of a manifest that is in memory, whatever the disk has; verified before they came there."""
        return self._bodies.get(digest)

    async def _absent(self, reference: Reference, absence: NotFound) -> NotFound:
        if await self._catalogue.exists(reference.repository):
            return absence
        return _no_repository(reference.upstream, reference.repository)

    async def _record(self, reference: Reference) -> ManifestRecord | None:
        if reference.tag is not None:
            return await self._catalogue.tagged(reference.repository, reference.tag)
        assert reference.digest is not None
        return await self._catalogue.manifest(reference.repository, reference.digest)

    def _elsewhere(self, link: BlobLink) -> Answer:
        """A blob that is to be read, and whose bytes this disk has not got."""
        if self._copies is None:
            raise _damaged(link.digest)
        return self._copies.blob(link.digest, link.size)

    async def _body(self, record: ManifestRecord) -> bytes:
        """The bytes of a manifest, as they were pushed; where this disk has lost them, from another replica."""
        body = self._bodies.get(record.digest) or self._read(record)
        if body is None and self._copies is not None:
            body = await self._copies.manifest(record.digest, record.size)
        if body is None:
            raise _damaged(record.digest)
        if len(body) <= _REMEMBERED:
            self._bodies.put(record.digest, body)
        return body

    def _read(self, record: ManifestRecord) -> bytes | None:
        blob = self._held(record.digest, record.size)
        if blob is None:
            return None
        body = bytes(blob.read(0, blob.size))
        if Digest.of(body, record.digest.algorithm) == record.digest:
            return body
        log.error("the file of the hosted manifest %s is damaged: it has other bytes; restore it", record.digest)
        return None

    def _held(self, digest: Digest, size: int) -> Blob | None:
        """The bytes, if the disk has them and as many as were pushed; what it has lost is said loudly."""
        try:
            blob = self._store.open(digest)
        except OSError as error:
            log.error("the disk fails (%s); the hosted %s cannot be read", error.strerror or error, digest)
            return None
        if blob is not None and blob.size == size:
            return blob
        if blob is not None or self._copies is None:  # else it lies on other disks, as the settings say
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
            raise NameUnknown(f"nothing is hosted under {upstream}/: {LACKING}", detail={"setting": "cluster"})
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


def _push_again(reference: Reference) -> BlobUnknown:
    return BlobUnknown(f"{reference} is not there (any more); push it again")


def _damaged(digest: Digest) -> StoreError:
    return StoreError(f"the mirror's disk has lost the content of {digest}; it must be pushed again, or restored")


def _no_repository(prefix: str, repository: str) -> NameUnknown:
    return NameUnknown(f"there is no repository {prefix}/{repository}; nothing was pushed to it")
