"""The bytes of hosted content that lie on the disks of other replicas: read from there, or brought here.

Every replica has the records of all, and the bytes of some. What is missing here comes as in any fill (`mirror.fill`),
but that nobody stands behind the replicas: what none of them has cannot be had.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from mirror.answer import Answer, Collapsed, Filled, Flowing
from mirror.digest import Digest
from mirror.download import BlobStream
from mirror.errors import StoreError, UpstreamUnavailable
from mirror.fill import Fill
from mirror.fills import Fills
from mirror.flight import Flights
from mirror.manifests import LAST_WORD
from mirror.oci import Reference
from mirror.pull import OCTETS
from mirror.store.blobs import BlobStore

log = logging.getLogger(__name__)

_HOLD_FOR = 10.0
"""Seconds for which a client waits for bytes that no replica gives: one that is started anew is back by then."""

_BRING_FOR = 2.0
"""The same where nobody waits for them but this replica."""

_LAST_MOMENT = 0.05
_BACK_IN = 5.0


class Replicas(Protocol):
    """The other replicas: `mirror.peers.Peers`."""

    async def content(self, digest: Digest, limit: int, hinted: Sequence[str] = ()) -> bytes | None: ...

    async def holds(self, digest: Digest) -> bool | None: ...


class NothingBehind:
    """A `mirror.download.Source` for what has no upstream. While it is asked, the replicas are looked at again."""

    hosts = ("replicas",)  # so that after wrong bytes from one of them another one is asked

    def cool_down(self, endpoint: str) -> None:
        """It sends nothing itself."""

    async def open_blob(self, repository: str, digest: Digest, *, offset: int = 0, deadline: float) -> BlobStream:
        """Wait for a replica that has it until shortly before the ``deadline``; raises `UpstreamUnavailable`."""
        await asyncio.sleep(deadline - _LAST_MOMENT - asyncio.get_running_loop().time())
        raise UpstreamUnavailable(
            f"no replica that is there gives the bytes of {digest}; those that have them may be back soon, else it "
            "must be pushed again",
            retry_after=_BACK_IN,
        )


class Copies:
    """Gets what lies on other disks. ``prefix`` is what `Place.upstream` says of hosted content.

    ``hold_for``: seconds for which a client waits for the first byte.
    """

    def __init__(
        self,
        prefix: str,
        store: BlobStore,
        fills: Fills,
        replicas: Replicas,
        max_module_size: int,
        hold_for: float = _HOLD_FOR,
    ) -> None:
        self._prefix = prefix
        self._store = store
        self._fills = fills
        self._replicas = replicas
        self._max_module_size = max_module_size
        self._hold_for = hold_for
        self._bodies: Flights[bytes | None] = Flights()

    async def manifest(self, digest: Digest, size: int) -> bytes | None:
        """The bytes of a manifest, which are kept; None when no replica gives them."""
        task, _ = self._bodies.join(digest, lambda: self._body(digest, size))
        return await asyncio.shield(task)

    def blob(self, digest: Digest, size: int) -> Answer:
        """A blob on its way here, from whichever replica has it. Nothing says what it is, so its first bytes decide."""
        until = asyncio.get_running_loop().time() + self._hold_for + LAST_WORD
        collapsed = self._fills.running(digest) is not None
        flowing = Flowing(self._fill(digest, size, self._hold_for).content, None, self._max_module_size)
        return Answer(OCTETS, digest, flowing, Collapsed() if collapsed else Filled(), hold_until=until)

    async def may_be_had(self, digest: Digest) -> bool:
        """Whether the bytes are on another disk, or may be: False only if every replica that is there says no."""
        return self._fills.running(digest) is not None or await self._replicas.holds(digest) is not False

    async def bring(self, digest: Digest, size: int) -> None:
        """Have the bytes on this disk. Raises `UpstreamUnavailable` when no replica gives them, `StoreError`."""
        if self._has(digest, size):
            return
        content = self._fill(digest, size, _BRING_FOR).content
        if await content.kept() is None:
            raise StoreError(f"the mirror's disk does not keep {digest}")

    async def aclose(self) -> None:
        """Stop what was begun for clients that may be gone."""
        await self._bodies.aclose()

    def _fill(self, digest: Digest, size: int, patience: float) -> Fill:
        """Whoever asks, and through whichever repository: it comes from the same replicas."""
        return self._fills.start(Reference(self._prefix, "", digest=digest), digest, size, patience)

    async def _body(self, digest: Digest, size: int) -> bytes | None:
        body = await self._replicas.content(digest, size, await self._fills.sharing.holders_of(digest))
        if body is not None:
            log.info("the manifest %s came from another replica", digest)
            try:
                await asyncio.to_thread(self._store.put, digest, body)
            except OSError as error:
                log.error("the disk fails (%s); the manifest %s is not kept", error.strerror or error, digest)
        return body

    def _has(self, digest: Digest, size: int) -> bool:
        try:
            blob = self._store.open(digest)
        except OSError as error:
            raise StoreError(f"the mirror's disk fails; {digest} cannot be kept") from error
        return blob is not None and blob.size == size
