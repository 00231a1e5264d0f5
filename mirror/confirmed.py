"""The pull of upstreams that are pushed through to: whether a blob is there is upstream's to say."""

import asyncio
import contextlib
from collections.abc import Mapping

from mirror.answer import Answer
from mirror.digest import Digest
from mirror.errors import UpstreamTimeout, UpstreamUnavailable
from mirror.oci import Reference
from mirror.pull import Pulling
from mirror.store.blobs import BlobStore
from mirror.upstream.failover import Upstream


class Confirmed:
    """The pull, but that who asks by HEAD for a blob hears whether upstream has it: clients do not push what is there.

    What is held here may be gone there. While upstream does not answer, what is held counts.
    """

    def __init__(self, pull: Pulling, upstreams: Mapping[str, Upstream], store: BlobStore) -> None:
        """``upstreams`` are those that are pushed through to."""
        self._pull = pull
        self._upstreams = upstreams
        self._store = store

    async def manifest(self, reference: Reference) -> Answer:
        """As the pull answers."""
        return await self._pull.manifest(reference)

    async def blob(self, reference: Reference, *, read: bool) -> Answer:
        """As the pull answers, once upstream has not denied having it."""
        upstream = self._upstreams.get(reference.upstream)
        if upstream is not None and not read and not upstream.policy.offline:
            digest = reference.digest
            assert digest is not None
            if upstream.allows(reference.repository) and self._holds(digest):  # else the pull asks
                deadline = asyncio.get_running_loop().time() + upstream.policy.revalidate_for
                with contextlib.suppress(UpstreamUnavailable, UpstreamTimeout):
                    await upstream.head_blob(reference.repository, digest, deadline=deadline)
        return await self._pull.blob(reference, read=read)

    def _holds(self, digest: Digest) -> bool:
        try:
            return self._store.holds(digest)
        except OSError:
            return False
