"""What has rotted on the disk, had again: out of memory, from another replica, or from upstream.

Hosted content comes from other replicas alone, what is cached through any repository that is known to hold it. What was
made here of what others have (a module out of an archive) is made again for whoever asks for it.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from mirror.digest import Digest
from mirror.errors import BlobUnknown, MirrorError, StoreError
from mirror.fills import Fills
from mirror.hosted.catalogue import Catalogue
from mirror.hosted.together import Together
from mirror.metadata.base import Link
from mirror.oci import MANIFEST_TYPES, Reference
from mirror.store.blobs import BlobStore
from mirror.upstream.failover import Upstream

log = logging.getLogger(__name__)

Memory = Callable[[Digest], bytes | None]
"""Gives the verified bytes of a manifest, where somebody remembers them."""

_MOST_LINKS = 16
"""Repositories that a blob is asked for through at most: usually the first one gives it."""


class Known(Protocol):
    """What this replica knows: `mirror.metadata.sqlite`. May raise `StoreError`."""

    async def links_to(self, digest: Digest, limit: int) -> Sequence[Link]:
        """Links of repositories that hold a digest."""
        ...


class Obtaining(Protocol):
    """Who gets manifests: `mirror.pull.Pull`."""

    async def renew(self, reference: Reference) -> None:
        """Have the manifest with ``reference``'s digest here. Raises `MirrorError`."""
        ...


class Mending:
    """Gets blobs again. ``catalogue`` and ``together`` are of hosted content, where there is any; ``memories`` are
    asked first.
    """

    def __init__(
        self,
        store: BlobStore,
        known: Known,
        upstreams: Mapping[str, Upstream],
        fills: Fills,
        pull: Obtaining,
        catalogue: Catalogue | None,
        together: Together,
        memories: Sequence[Memory],
    ) -> None:
        self._store = store
        self._known = known
        self._upstreams = upstreams
        self._fills = fills
        self._pull = pull
        self._catalogue = catalogue
        self._together = together
        self._memories = memories

    async def mend(self, digest: Digest) -> bool:
        """Have a blob here again; False where no repository has it, so that nobody can ask for it.

        Raises `MirrorError` where it cannot be had now, `OSError` where the disk fails.
        """
        if self._store.holds(digest) or await self._remembered(digest):
            return True
        failures: list[MirrorError] = []
        try:
            if await self._hosted(digest):
                return True
        except MirrorError as failure:
            failures.append(failure)
        for link in await self._known.links_to(digest, _MOST_LINKS):
            try:
                if await self._through(link):
                    return True
            except MirrorError as failure:
                failures.append(failure)
        if failures:
            raise failures[-1]
        return False

    async def _hosted(self, digest: Digest) -> bool:
        """From another replica, if it was pushed to any; whether it was."""
        size = None if self._catalogue is None else await self._catalogue.size_of(digest)
        if size is None:
            return False
        await self._together.brought(digest, size)
        if not self._store.holds(digest):
            raise BlobUnknown(f"{digest} was pushed here and lies on no other disk; push it again, or restore its file")
        return True

    async def _remembered(self, digest: Digest) -> bool:
        for memory in self._memories:
            body = memory(digest)
            if body is not None and Digest.of(body, digest.algorithm) == digest:
                await asyncio.to_thread(self._store.put, digest, body)
                return True
        return False

    async def _through(self, link: Link) -> bool:
        """By way of one repository; whether it may be asked at all."""
        upstream = self._upstreams.get(link.upstream)
        if upstream is None or not upstream.allows(link.repository):
            return False
        reference = Reference(link.upstream, link.repository, digest=link.digest)
        if link.media_type in MANIFEST_TYPES:
            await self._pull.renew(reference)
        else:
            size = link.size if link.size >= 0 else None
            fill = self._fills.start(reference, link.digest, size, upstream.policy.hold_for)
            await fill.content.kept()
        if not self._store.holds(link.digest):
            raise StoreError(f"the mirror's disk does not keep {link.digest}")
        return True
