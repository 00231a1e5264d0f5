"""Refreshing: upstream is asked now what a reference names, however fresh its record is. What it says is in every
replica at once, as when a client had asked; while it does not answer, all stays as it is.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from mirror.digest import Digest
from mirror.errors import MirrorError, NotFound
from mirror.manifests import Manifests
from mirror.names import not_allowed
from mirror.oci import Reference
from mirror.pull import Pull, Pulling
from mirror.resolve import Resolver
from mirror.upstream.failover import Upstream

log = logging.getLogger(__name__)

Result = Literal["unchanged", "moved", "gone", "held", "fetched", "failed"]


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What became of a reference: ``digest`` is what it names now. A digest is ``held``, or ``fetched``, and the latter
    is also a tag of which nothing was known. ``why`` is in words.
    """

    result: Result
    digest: Digest | None = None
    why: str | None = None


class Refreshing:
    """Refreshes references. ``prefix`` is that of hosted repositories, for which ``hosted`` answers. ``original`` gives
    what a reference is made of here, where anything is.
    """

    def __init__(
        self,
        upstreams: Mapping[str, Upstream],
        resolver: Resolver,
        manifests: Manifests,
        pull: Pull,
        hosted: Pulling,
        prefix: str,
        original: Callable[[Reference], Awaitable[Reference | None]] | None,
    ) -> None:
        self._upstreams = upstreams
        self._resolver = resolver
        self._manifests = manifests
        self._pull = pull
        self._hosted = hosted
        self._prefix = prefix
        self._original = original

    async def refresh(self, reference: Reference) -> Refreshed:
        """Ask about it. Never raises `MirrorError`."""
        try:
            if reference.upstream == self._prefix:
                return Refreshed("unchanged", (await self._hosted.manifest(reference)).digest)
            upstream = self._upstreams[reference.upstream]
            if not upstream.allows(reference.repository):
                raise not_allowed(reference.upstream, reference.repository)
            if reference.digest is not None:
                return await self._content(reference, reference.digest)
            if upstream.policy.offline:
                return Refreshed(
                    "failed", why=f"{reference.upstream} is offline in the mirror's settings, and is never asked"
                )
            return await self._tag(reference)
        except NotFound as error:
            return Refreshed("gone", why=self._of_gone(reference, error))
        except MirrorError as error:
            log.info("%s could not be refreshed, and stays as it is: %s", reference, error)
            return Refreshed("failed", why=error.message)

    async def _tag(self, reference: Reference) -> Refreshed:
        try:
            before, now = await self._resolver.renew(reference)
        except NotFound:
            original = await self._original(reference) if self._original is not None else None
            if original is None or original.tag is None:
                raise
            before, now = await self._resolver.renew(original)  # of which this one is made, as long as that is there
        if before is None:
            return Refreshed("fetched", now.digest)
        if before.digest == now.digest:
            return Refreshed("unchanged", now.digest)
        return Refreshed("moved", now.digest, f"it named {before.digest} before")

    async def _content(self, reference: Reference, digest: Digest) -> Refreshed:
        """What a digest names never changes: it is here, or it is fetched."""
        if await self._manifests.known(reference, digest) is not None:
            return Refreshed("held", digest)
        await self._pull.renew(reference)
        return Refreshed("fetched", digest)

    def _of_gone(self, reference: Reference, error: NotFound) -> str:
        upstream = self._upstreams.get(reference.upstream)
        if upstream is not None and upstream.policy.keep_deleted_tags and reference.tag is not None:
            return f"{error.message}; what is held is served all the same, for keep_deleted_tags is set"
        return error.message
