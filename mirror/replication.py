"""Hosted content among replicas: a `mirror.hosted.together.Together` by which all of them have the same records."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Literal

from mirror.cluster.beat import Beat
from mirror.cluster.leases import SharedLeases
from mirror.cluster.moments import Moments
from mirror.digest import Digest
from mirror.hosted.catalogue import Catalogue
from mirror.hosted.together import Turn
from mirror.peers import Peers
from mirror.store.blobs import BlobStore
from mirror.store.leases import Leases

Bring = Callable[[Digest, int], Awaitable[None]]
"""Has the bytes of a blob on this disk, from another replica. Raises `BlobUnknown`, `UpstreamError`."""


class Replication:
    """A `Together`. Call `begin` once the others can reach this replica, have `run` run, and `aclose` it at the end.

    ``address`` is where the others reach this replica, ``replicas`` on how many disks a blob lies (`hosted.replicas`),
    ``ack`` is `hosted.ack`; ``bring`` gets the bytes of a blob here. ``clock`` gives seconds that never go back.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        store: BlobStore,
        peers: Peers,
        beat: Beat,
        moments: Moments,
        leases: SharedLeases,
        local: Leases,
        address: str,
        replicas: int,
        ack: Literal["one", "all"],
        bring: Bring,
        clock: Callable[[], float],
    ) -> None:
        raise NotImplementedError

    def refuse_while_away(self) -> None:
        """As `Together.refuse_while_away`."""
        raise NotImplementedError

    @contextlib.asynccontextmanager
    async def changing(self, repository: str) -> AsyncIterator[Turn]:
        """As `Together.changing`."""
        raise NotImplementedError
        yield Turn()

    async def numbered(self) -> Turn:
        """As `Together.numbered`."""
        raise NotImplementedError

    async def told(self) -> None:
        """As `Together.told`."""
        raise NotImplementedError

    async def copied(self, digests: Sequence[Digest]) -> None:
        """As `Together.copied`."""
        raise NotImplementedError

    async def brought(self, digest: Digest, size: int) -> None:
        """As `Together.brought`."""
        raise NotImplementedError

    async def current(self) -> None:
        """As `Together.current`."""
        raise NotImplementedError

    async def asked(self) -> None:
        """As `Together.asked`."""
        raise NotImplementedError

    async def begin(self) -> None:
        """Know what the others know, before anything is answered from here: for 10 s at most. Never raises."""
        raise NotImplementedError

    async def run(self) -> None:
        """Follow the others, and keep the number of copies, until cancelled."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Stop what is under way."""
        raise NotImplementedError
