"""Where the bytes of a blob come from among replicas: one of them asks upstream, the others read from that one.

The replica that has the lease of a digest takes the blob from a replica that holds it whole, else from upstream. The
others read from the holder of the lease as its bytes arrive. When it dies, its lease ends, and whoever gets it goes on
from the bytes that it has: for a `mirror.download.Download` all of this is one more source that may be cut.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from mirror.digest import Digest
from mirror.download import BlobStream, Source
from mirror.errors import BlobUnknown, MirrorError, StoreError, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from mirror.meanwhile import first_of

log = logging.getLogger(__name__)

_PAUSE = 0.05
"""Seconds between two tries to read from the holder of a lease, or to get the lease."""

_PATIENCE = 5.0
"""Seconds for which a holder that gives nothing is put up with, longer than the lease of a dead one lasts. One that
lives, and that only this replica cannot reach, or that alone cannot reach upstream, may not make the others' clients
wait: then upstream is asked twice.
"""

_BACK_EVERY = 0.5
"""Seconds between two looks at whether a replica that has given bytes is back, where upstream gives none."""


class Turn(Protocol):
    """A fill's turn to download: where it may take the bytes from."""

    def through(self, upstream: Source) -> Source:
        """What to read from in place of ``upstream``."""
        ...


class Sharing(Protocol):
    """How the replicas share what they download and hold."""

    @property
    def more_sources(self) -> int:
        """How many sources there may be beside upstream."""
        ...

    def turn(self, digest: Digest, tried: set[str]) -> AbstractAsyncContextManager[Turn]:
        """For as long as this replica's one writer of ``digest`` is at work.

        ``tried`` are the replicas that said that they hold it whole and were believed once; it grows.
        """
        ...

    async def holders_of(self, digest: Digest) -> Sequence[str]:
        """The addresses of replicas that are said to hold something whole."""
        ...

    async def announce(self, digest: Digest) -> None:
        """Tell the others that this replica holds something whole: before a lease goes, so that none asks upstream."""
        ...

    async def withdraw(self, digests: Sequence[Digest]) -> None:
        """Tell the others that this replica does not hold these any more."""
        ...


class Unshared:
    """A mirror without others: upstream is all there is."""

    more_sources = 0

    @asynccontextmanager
    async def turn(self, digest: Digest, tried: set[str]) -> AsyncIterator["Unshared"]:
        """Nothing is to be settled."""
        yield self

    def through(self, upstream: Source) -> Source:
        """Upstream itself."""
        return upstream

    async def holders_of(self, digest: Digest) -> Sequence[str]:
        """There is nobody."""
        return ()

    async def announce(self, digest: Digest) -> None:
        """There is nobody."""

    async def withdraw(self, digests: Sequence[Digest]) -> None:
        """There is nobody."""


class Lease(Protocol):
    """The right to download a blob: `mirror.cluster.leases.Lease`."""

    async def take(self) -> str | None:
        """Take it; the address of the replica that has it, None when nobody else has."""
        ...


class Leases(Protocol):
    """The leases of a replica: `mirror.cluster.leases.SharedLeases`."""

    def fill(self, digest: Digest) -> AbstractAsyncContextManager[Lease]: ...


class Replicas(Protocol):
    """The other replicas: `mirror.peers.Peers`."""

    async def open_blob(
        self, address: str, digest: Digest, *, offset: int, held: bool, deadline: float
    ) -> BlobStream: ...

    async def find(self, digest: Digest, hinted: Sequence[str], without: Collection[str]) -> str | None: ...

    def cool_down(self, endpoint: str, digest: Digest) -> None: ...


class Holders(Protocol):
    """Who holds which blob, as far as Redis knows: `mirror.metadata.redis.RedisMetadata`."""

    async def holders(self, digest: Digest) -> Sequence[str]: ...

    async def add_holder(self, digest: Digest, address: str) -> None: ...

    async def remove_holders(self, digests: Sequence[Digest], address: str) -> None: ...


class Shared:
    """Downloads that replicas share. ``address`` is where the others reach this one."""

    more_sources = 1

    def __init__(self, leases: Leases, replicas: Replicas, holders: Holders, address: str) -> None:
        self.leases = leases
        self.replicas = replicas
        self._holders = holders
        self.address = address

    @asynccontextmanager
    async def turn(self, digest: Digest, tried: set[str]) -> AsyncIterator["SharedTurn"]:
        """The lease is taken when there is something to download, and let go of at the end."""
        async with self.leases.fill(digest) as lease:
            yield SharedTurn(self, digest, lease, tried)

    async def holders_of(self, digest: Digest) -> Sequence[str]:
        """As Redis knows; nobody where it does not answer."""
        try:
            return await self._holders.holders(digest)
        except StoreError as error:
            log.debug("who holds %s is not known: %s", digest, error)
            return ()

    async def announce(self, digest: Digest) -> None:
        """Through Redis, where it answers."""
        try:
            await self._holders.add_holder(digest, self.address)
        except StoreError as error:
            log.debug("that %s is held here could not be told: %s", digest, error)

    async def withdraw(self, digests: Sequence[Digest]) -> None:
        """Through Redis, where it answers; who is not told finds out by asking."""
        try:
            await self._holders.remove_holders(digests, self.address)
        except StoreError as error:
            log.debug("that %d blobs are not held here any more could not be told: %s", len(digests), error)


class SharedTurn:
    """The turn of one writer."""

    def __init__(self, shared: Shared, digest: Digest, lease: Lease, tried: set[str]) -> None:
        self.digest = digest
        self.lease = lease
        self.address = shared.address
        self.replicas = shared.replicas
        self.tried = tried
        self._shared = shared

    def through(self, upstream: Source) -> Source:
        """Other replicas first, then ``upstream``."""
        return _Through(self, upstream)

    async def whole(self) -> str | None:
        """A replica that says that it holds the blob, and was not tried yet."""
        hinted = await self._shared.holders_of(self.digest)
        return await self.replicas.find(self.digest, hinted, self.tried)


class _Through:
    """A `Source`: the replica that has the blob or is getting it, else upstream."""

    def __init__(self, turn: SharedTurn, upstream: Source) -> None:
        self._turn = turn
        self._upstream = upstream
        self._peers: set[str] = set()
        self._awaited: tuple[str, int] | None = None
        self._since = 0.0
        self._begun: tuple[str, int] | None = None
        self._barren: set[str] = set()

    @property
    def hosts(self) -> tuple[str, ...]:
        """Upstream's endpoints."""
        return self._upstream.hosts

    def cool_down(self, endpoint: str) -> None:
        """It sent wrong bytes."""
        if endpoint in self._peers:
            self._turn.replicas.cool_down(endpoint, self._turn.digest)
        else:
            self._upstream.cool_down(endpoint)

    async def open_blob(self, repository: str, digest: Digest, *, offset: int = 0, deadline: float) -> BlobStream:
        """The blob from ``offset`` on, from wherever it can be had now; raises what upstream raises."""
        clock = asyncio.get_running_loop().time
        if self._begun is not None and self._begun[1] == offset:
            self._barren.add(self._begun[0])
        while True:
            holder = await self._turn.lease.take()
            if holder is None:
                stream = await self._from_whole(offset, deadline)
                return stream or await self._from_upstream(repository, offset, deadline)
            if holder == self._turn.address:
                log.error("another replica says that it is at %s, as this one; see cluster.advertise", holder)
                return await self._upstream.open_blob(repository, digest, offset=offset, deadline=deadline)
            if self._is_slow(holder, offset):
                log.warning("%s fetches %s, and gives nothing of it for %g s", holder, digest, _PATIENCE)
                return await self._upstream.open_blob(repository, digest, offset=offset, deadline=deadline)
            try:
                return self._noted(
                    await self._turn.replicas.open_blob(holder, digest, offset=offset, held=False, deadline=deadline)
                )
            except (UpstreamError, BlobUnknown) as failure:
                log.debug("%s, which fetches %s: %s", holder, digest, failure)
                if clock() + _PAUSE >= deadline:
                    raise _as_upstreams(failure) from failure
            await asyncio.sleep(_PAUSE)

    def _is_slow(self, holder: str, offset: int) -> bool:
        """Whether this replica has waited for too long for the byte at ``offset`` from who fetches it."""
        now = asyncio.get_running_loop().time()
        if self._awaited != (holder, offset):
            self._awaited, self._since = (holder, offset), now
        return now - self._since >= _PATIENCE

    async def _from_upstream(self, repository: str, offset: int, deadline: float) -> BlobStream:
        """From upstream; while it keeps silent, from a replica that holds the blob by now, or is back.

        Not from one that has begun to answer, and given nothing: it could keep us from hearing upstream for ever.
        """
        turn, clock = self._turn, asyncio.get_running_loop().time
        opened: list[BlobStream] = []
        found: BlobStream | None = None

        async def elsewhere() -> BlobStream | None:
            turn.tried.intersection_update(self._barren)
            stream = await self._from_whole(offset, deadline)
            opened.extend([stream] if stream is not None else [])
            return stream

        try:
            while True:
                asking = self._upstream.open_blob(repository, turn.digest, offset=offset, deadline=deadline)
                try:
                    found = await first_of(asking, elsewhere)
                    return found
                except (UpstreamUnavailable, UpstreamTimeout):
                    if not self._peers or clock() + _BACK_EVERY >= deadline:
                        raise
                await asyncio.sleep(_BACK_EVERY)
        finally:
            for stream in opened:
                if stream is not found:
                    await stream.aclose()

    async def _from_whole(self, offset: int, deadline: float) -> BlobStream | None:
        turn = self._turn
        while (address := await turn.whole()) is not None:
            turn.tried.add(address)
            try:
                stream = await turn.replicas.open_blob(
                    address, turn.digest, offset=offset, held=True, deadline=deadline
                )
                self._begun = address, offset
                return self._noted(stream)
            except (UpstreamError, BlobUnknown) as failure:
                log.info("%s was to have %s: %s", address, turn.digest, failure)
        return None

    def _noted(self, stream: BlobStream) -> BlobStream:
        self._peers.add(stream.endpoint)
        return stream


def _as_upstreams(failure: MirrorError) -> UpstreamError:
    """A replica that lost its fill says nothing about what upstream has."""
    if isinstance(failure, UpstreamError):
        return failure
    return UpstreamUnavailable(f"the replica that fetches it has stopped: {failure}", retry_after=1)
