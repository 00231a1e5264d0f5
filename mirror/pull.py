"""The pull, top to bottom: from what is held where that may be, from upstream where it must."""

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from mirror import freshness
from mirror.accesses import Accesses
from mirror.answer import (
    Announced,
    Answer,
    Collapsed,
    Filled,
    Flowing,
    Held,
    Hit,
    Outcome,
    Passed,
    Revalidated,
    Stale,
    Whole,
)
from mirror.digest import Digest, Verifier
from mirror.errors import (
    BlobUnknown,
    ManifestUnknown,
    MirrorError,
    NotFound,
    UpstreamDenied,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from mirror.fills import Fills
from mirror.flight import Flights
from mirror.freshness import Freshness
from mirror.links import Links
from mirror.manifests import LAST_WORD, Manifests
from mirror.meanwhile import first_of
from mirror.metadata.base import Link, TagRecord
from mirror.names import not_allowed
from mirror.oci import Manifest, Reference
from mirror.resolve import Resolver, not_kept, unknown
from mirror.store.blobs import Blob, BlobStore
from mirror.tags import Tags
from mirror.upstream.failover import Upstream

log = logging.getLogger(__name__)

OCTETS = "application/octet-stream"


class Pulling(Protocol):
    """Who answers for manifests and blobs: `Pull`, and around it `mirror.repackaging`. Raises only `MirrorError`."""

    async def manifest(self, reference: Reference) -> Answer:
        """The manifest that ``reference`` names."""
        ...

    async def blob(self, reference: Reference, *, read: bool) -> Answer:
        """The blob with ``reference``'s digest; without ``read`` (HEAD) a blob that is not held is not fetched."""
        ...


class Pull:
    """Answers for manifests and blobs. Raises only what `mirror.errors` draws."""

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        store: BlobStore,
        tags: Tags,
        links: Links,
        manifests: Manifests,
        resolver: Resolver,
        fills: Fills,
        accesses: Accesses,
        now: Callable[[], float],
        given: Callable[[Reference, Manifest], None] | None = None,
        covers: Callable[[Reference, Digest], bool] = not_kept,
    ) -> None:
        """``given`` is told of each manifest that a client is given, and by which name. ``covers`` says whether what a
        tag named stands in without a limit of age.
        """
        self._upstreams = upstreams
        self._store = store
        self._tags = tags
        self._links = links
        self._manifests = manifests
        self._resolver = resolver
        self._fills = fills
        self._accesses = accesses
        self._now = now
        self._given = given
        self._covers = covers
        self._obtaining: Flights[Manifest] = Flights()
        self._claims: Flights[int | None] = Flights()

    async def manifest(self, reference: Reference) -> Answer:
        """The manifest that ``reference`` names."""
        upstream = self._open(reference)
        if reference.digest is not None:
            return await self._content(reference, reference.digest)
        known = await self._tags.get(reference)
        if known is None:
            if await self._tags.absent(reference, self._now()):
                raise unknown(reference)
            known = await self._resolver.elsewhere(reference)
        if known is None:
            return await self._first(reference)
        policy = upstream.policy
        match freshness.of(known, policy, self._now()):
            case Freshness.FRESH:
                return await self._version(reference, known, Hit(self._ttl(known)))
            case Freshness.USABLE:
                self._resolver.begin(reference, known)
                return await self._version(reference, known, Hit(self._ttl(known)))
        try:
            current = await self._resolver.ask(reference, known)
        except MirrorError as failure:
            kept = self._covers(reference, known.digest)
            if freshness.may_stand_in(known, failure, policy, self._now(), kept=kept):
                return await self._version(reference, known, Stale(failure))
            if isinstance(failure, UpstreamUnavailable | UpstreamTimeout):
                return await self._first(reference)  # too old to be served: no better than a tag that is not held
            raise
        return await self._version(reference, current, Revalidated(self._ttl(current)))

    async def blob(self, reference: Reference, *, read: bool) -> Answer:
        """The blob with ``reference``'s digest; without ``read`` (HEAD) a blob that is not held is not fetched."""
        self._open(reference)
        digest = reference.digest
        assert digest is not None
        link = await self._links.get(reference.upstream, reference.repository, digest)
        blob = await self._held(digest, link)
        if blob is not None:
            if link is None:
                await self._vouch(reference, digest)
            self._accesses.blob(digest)
            how = Hit() if link is not None else Revalidated()
            return Answer(OCTETS, digest, Held(blob), how, blob.stored_at)
        began = asyncio.get_running_loop().time()
        running, announced = self._fills.running(digest), None
        if link is None or (running is None and not read):
            announced = await self._claim(reference, digest)
        if running is None and not read:
            return Answer(OCTETS, digest, Announced(announced), Passed())
        self._accesses.blob(digest)
        return self._filling(reference, digest, link, began)

    async def renew(self, reference: Reference) -> None:
        """Have the manifest with ``reference``'s digest here, though nobody asks for it: its file was damaged."""
        assert reference.digest is not None
        await self._obtain(reference, reference.digest, named=True)

    async def aclose(self) -> None:
        """Stop what was begun for clients that may be gone."""
        await self._obtaining.aclose()
        await self._claims.aclose()

    def _open(self, reference: Reference) -> Upstream:
        """The upstream, if this repository may be pulled from it."""
        upstream = self._upstreams[reference.upstream]
        if not upstream.allows(reference.repository):
            raise not_allowed(reference.upstream, reference.repository)
        return upstream

    async def _first(self, reference: Reference) -> Answer:
        """A tag of which nothing is known, or nothing that may be served."""
        if self._upstreams[reference.upstream].policy.offline:
            raise ManifestUnknown(f"{reference} is not held, and its upstream is offline in the mirror's settings")
        record, joined = await self._resolver.first(reference)
        ttl = self._ttl(record)
        return await self._version(reference, record, Collapsed(ttl) if joined else Filled(ttl))

    async def _version(self, reference: Reference, record: TagRecord, outcome: Outcome) -> Answer:
        """The version that a tag's record names."""
        return await self._content(reference, record.digest, outcome, record.fetched_at)

    async def _content(
        self, reference: Reference, digest: Digest, outcome: Outcome | None = None, fetched_at: float | None = None
    ) -> Answer:
        """The manifest with this digest. ``outcome`` is how a tag led here, if one did."""
        manifest = await self._manifests.known(reference, digest)
        if manifest is None:
            manifest, joined = await self._obtain(reference, digest, named=outcome is not None)
            if outcome is None or isinstance(outcome, Hit):  # the tag was known, but not its manifest
                outcome = Collapsed() if joined else Filled()
        self._accesses.manifest(manifest)
        self._manifests.prepare(reference, manifest)
        if self._given is not None:
            self._given(reference, manifest)
        return Answer(
            manifest.media_type,
            digest,
            Whole(manifest.body),
            outcome or Hit(),
            self._manifests.stored_at(digest) if fetched_at is None else fetched_at,
        )

    async def _obtain(self, reference: Reference, digest: Digest, *, named: bool) -> tuple[Manifest, bool]:
        """The manifest from elsewhere. What a tag has ``named`` is there, whatever was said before it did."""
        wanted = reference.at(digest)
        if not named and await self._tags.absent(wanted, self._now()):
            raise unknown(wanted)
        task, joined = self._obtaining.join(wanted, lambda: self._manifests.obtain(wanted, digest))
        try:
            async with asyncio.timeout(self._manifests.patience(reference.upstream) + LAST_WORD):
                return await asyncio.shield(task), joined
        except NotFound:
            remembered = self._upstreams[reference.upstream].policy.negative_for
            if remembered and not joined:
                await self._tags.note_absence(wanted, self._now() + remembered)
            raise
        except TimeoutError as error:
            raise UpstreamTimeout(
                f"{reference.upstream} has not sent the manifest {digest} in time; ask again", retry_after=1
            ) from error

    async def _held(self, digest: Digest, link: Link | None) -> Blob | None:
        """The blob, if it is held. A file whose size is not that of its descriptor is looked at before it is served."""
        try:
            blob = self._store.open(digest)
        except OSError as error:
            log.error("the disk fails (%s); %s cannot be read", error.strerror or error, digest)
            return None
        if blob is None or link is None:
            return blob
        link = await self._links.sized(link)
        if link.size in (-1, blob.size):
            return blob
        if await asyncio.to_thread(_intact, blob):
            await self._links.correct(dataclasses.replace(link, size=blob.size))  # the descriptor was wrong, for good
            return blob
        log.error("the file of %s is damaged; it is dropped and fetched again", digest)
        self._store.delete(digest)
        return None

    async def _vouch(self, reference: Reference, digest: Digest) -> None:
        """A blob is held that this repository is not known to hold: upstream's word decides.

        Where links were lost, upstream's silence is no word against it, and is not waited for longer than for a tag's.
        """
        policy = self._upstreams[reference.upstream].policy
        lost = await self._links.lost(reference.upstream, reference.repository, digest)
        if policy.offline and not lost:
            raise _offline(reference, digest)
        if not lost:
            await self._claim(reference, digest)
        elif not policy.offline:
            try:
                async with asyncio.timeout(policy.revalidate_for):
                    await self._claim(reference, digest)
            except UpstreamDenied:
                raise
            except (UpstreamError, TimeoutError) as error:
                log.info("%s is served although its links were lost and nobody confirms them: %s", digest, error)

    async def _claim(self, reference: Reference, digest: Digest) -> int | None:
        """Ask upstream whether this repository has the blob, once for all who wait; the size that upstream announces.

        So nobody joins a fill, or begins one that others may join, for a repository that may not have the blob.
        """
        task, _ = self._claims.join(reference, lambda: self._ask_for_blob(reference, digest))
        return await asyncio.shield(task)

    async def _ask_for_blob(self, reference: Reference, digest: Digest) -> int | None:
        place = reference.upstream, reference.repository
        link = await self._links.ask_elsewhere(*place, digest)
        if link is None:
            asking = self._announced(reference, digest)
            link = await first_of(asking, lambda: self._links.ask_elsewhere(*place, digest))
        return link.size if link.size >= 0 else None

    async def _announced(self, reference: Reference, digest: Digest) -> Link:
        """A link that upstream vouches for, with the size that it announces."""
        upstream, place = self._upstreams[reference.upstream], (reference.upstream, reference.repository)
        deadline = asyncio.get_running_loop().time() + upstream.policy.hold_for
        size = await upstream.head_blob(reference.repository, digest, deadline=deadline)
        if await self._links.get(*place, digest) is None:
            # Without the size: what a header announces binds nobody, as a descriptor does.
            await self._links.add([Link(*place, digest, "", -1)])
        return Link(*place, digest, "", -1 if size is None else size)

    def _filling(self, reference: Reference, digest: Digest, link: Link | None, began: float) -> Answer:
        """A blob on its way here. ``began`` (the loop's clock) is when the client asked."""
        hold_for = self._upstreams[reference.upstream].policy.hold_for
        size = link.size if link is not None and link.size >= 0 else None
        media_type = link.media_type if link is not None else ""
        collapsed = self._fills.running(digest) is not None
        fill = self._fills.start(reference, digest, size, hold_for)
        # What one manifest calls it does not rule out that another calls it an archive: then its first bytes decide.
        whole_first = self._manifests.whole_first(media_type, size) or None
        fill.content.keep_whole |= bool(whole_first)
        return Answer(
            OCTETS,
            digest,
            Flowing(fill.content, whole_first, self._manifests.max_module_size),
            Collapsed() if collapsed else Filled(),
            hold_until=began + hold_for + LAST_WORD,
        )

    def _ttl(self, record: TagRecord) -> float:
        """Seconds for which the record stays fresh."""
        policy = self._upstreams[record.upstream].policy
        return max(0.0, policy.fresh_for - freshness.age(record, self._now()))


def _offline(reference: Reference, digest: Digest) -> BlobUnknown:
    return BlobUnknown(f"{digest} is not held, and {reference.upstream} is offline in the mirror's settings")


def _intact(blob: Blob) -> bool:
    """Whether a blob's bytes have its digest. Reads all of it: for a thread."""
    verifier = Verifier(blob.digest)
    verifier.update(blob.read(0, blob.size))
    return verifier.matches()
