"""Tags that are changed through this mirror: at their upstream, and at once in the records of all replicas.

Both happen under the lease of the tag, under which it is asked about too. So of two pushes one wins, there and here,
and no answer to an older question takes the place of what was pushed.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from mirror.digest import Digest
from mirror.errors import Denied, LeaseLost, StoreError
from mirror.manifests import Manifests
from mirror.metadata.base import Fence, Metadata, TagRecord
from mirror.names import Place
from mirror.oci import Manifest, Reference
from mirror.resolve import Leases
from mirror.tags import Tags
from mirror.upstream.pushing import Accepted, Pushing

log = logging.getLogger(__name__)

_TURNS = 3
"""Times that a record is renewed whose lease somebody else got meanwhile."""

T = TypeVar("T")


class Tagging:
    """Changes the tags of one upstream. ``now`` gives seconds since the epoch. All calls may raise `MirrorError`.

    ``origin`` is the upstream's, as the author of the change may use it.
    """

    def __init__(
        self,
        tags: Tags,
        manifests: Manifests,
        metadata: Metadata,
        leases: Leases,
        now: Callable[[], float],
    ) -> None:
        self._tags = tags
        self._manifests = manifests
        self._metadata = metadata
        self._leases = leases
        self._now = now

    async def put(self, origin: Pushing, place: Place, tag: str, manifest: Manifest, *, overwrite: bool) -> Accepted:
        """Have upstream take in ``manifest`` as ``tag``, whose record is renewed before anybody may ask about it."""
        reference = Reference(place.upstream, place.repository, tag=tag)
        accepted: Accepted | None = None

        async def put(fence: Fence | None) -> Accepted:
            nonlocal accepted
            if accepted is None:
                if not overwrite:
                    await self._refuse_to_overwrite(origin, place, tag, manifest.digest)
                accepted = await origin.put_manifest(place.repository, tag, manifest)
                await self._manifests.keep(reference, manifest)
            elif await origin.named(place.repository, tag) != manifest.digest:
                return accepted  # somebody else has pushed it since
            await self._renew(reference, tag, manifest, fence)
            return accepted

        return await self._in_turn(reference, put)

    async def note(self, place: Place, tag: str, manifest: Manifest) -> None:
        """Have ``tag`` name ``manifest``, which is held, without a word to its upstream: it came by import."""
        reference = Reference(place.upstream, place.repository, tag=tag)

        async def note(fence: Fence | None) -> None:
            await self._renew(reference, tag, manifest, fence)

        await self._in_turn(reference, note)

    async def delete(self, origin: Pushing, place: Place, tag: str) -> None:
        """Have upstream delete ``tag``, which is forgotten before anybody may ask about it."""
        reference = Reference(place.upstream, place.repository, tag=tag)
        deleted = False

        async def delete(fence: Fence | None) -> None:
            nonlocal deleted
            if not deleted:
                await origin.delete(place.repository, "manifests", tag)
                deleted = True
            elif await origin.named(place.repository, tag) is not None:
                return  # somebody else has pushed it since
            await self._tags.forget(reference, self._now(), fence)

        await self._in_turn(reference, delete)

    async def forget(self, place: Place, digest: Digest) -> None:
        """Upstream has deleted what ``digest`` names, and so all tags that name it."""
        for tag in await self._naming(place, digest):
            reference = Reference(place.upstream, place.repository, tag=tag)

            async def forget(fence: Fence | None, reference: Reference = reference) -> None:
                known = await self._tags.load(reference)
                if known is not None and known.digest == digest:
                    await self._tags.forget(reference, self._now(), fence)

            await self._in_turn(reference, forget)

    async def _refuse_to_overwrite(self, origin: Pushing, place: Place, tag: str, digest: Digest) -> None:
        named = await origin.named(place.repository, tag)
        if named is not None and named != digest:
            raise Denied(
                f"{place.upstream}/{place.repository}:{tag} exists and names {named}; to replace it takes the right to "
                "overwrite (auth.rules)",
                detail={"digest": str(named)},
            )

    async def _renew(self, reference: Reference, tag: str, manifest: Manifest, fence: Fence | None) -> None:
        record = TagRecord(
            reference.upstream,
            reference.repository,
            tag,
            manifest.digest,
            manifest.media_type,
            len(manifest.body),
            self._now(),
        )
        known = await self._tags.load(reference)
        if known is not None and known.digest != record.digest:
            await self._tags.move(known, record, fence)
        else:
            await self._tags.learn(record, fence)

    async def _in_turn(self, reference: Reference, work: Callable[[Fence | None], Awaitable[T]]) -> T:
        """Do ``work`` while nobody else asks about this tag, or pushes it; anew when the lease was lost."""
        for _ in range(_TURNS):
            try:
                async with self._leases.hold(f"tag {reference}") as fence:
                    return await work(fence)
            except LeaseLost as error:
                log.warning("what %s names now is not taken down: %s", reference, error)
        raise StoreError(f"{reference} has changed, and this replica was too slow to take it down; try again")

    async def _naming(self, place: Place, digest: Digest) -> list[str]:
        """The tags whose records here name ``digest``."""
        found: list[str] = []
        try:
            async for portion in self._metadata.all_tags():
                found += [
                    entry.tag
                    for entry in portion
                    if isinstance(entry, TagRecord)
                    and (entry.upstream, entry.repository, entry.digest) == (place.upstream, place.repository, digest)
                ]
        except StoreError as error:
            log.error("the tags of %s/%s could not be read: %s", place.upstream, place.repository, error)
        return found
