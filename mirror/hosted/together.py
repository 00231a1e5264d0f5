"""What a change of hosted content has to do with other replicas: the Protocol, and a mirror without any.

Every replica has all records, each in a database of its own; the bytes of a blob lie on `hosted.replicas` disks. Redis
says who may change a repository now, and numbers the changes; what it loses is nobody's content.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from mirror.digest import Digest


@dataclass(frozen=True, slots=True)
class Turn:
    """The right to change something. ``moment`` numbers the change: of two records the one with the later number
    stands, at every replica. None: the records number it themselves, for nobody else writes.
    """

    moment: int | None = None


class Together(Protocol):
    """How replicas agree on hosted content. All calls may raise `MirrorError`, unless it is said that they do not."""

    def refuse_while_away(self) -> None:
        """Raise `NotNow` while Redis is away: then nothing may be changed."""
        ...

    def changing(self, repository: str) -> AbstractAsyncContextManager[Turn]:
        """While nobody else changes manifests or tags of ``repository``, or takes blobs from it; with all their changes
        known here. Raises `NotNow`. Whoever has made a change calls `told` before it ends.
        """
        ...

    async def numbered(self) -> Turn:
        """The number of a change that stands in nobody's way: a blob that a repository has from now on."""
        ...

    async def told(self) -> None:
        """All replicas that are there know what is known here; those that cannot be told know that they do not."""
        ...

    async def copied(self, digests: Sequence[Digest]) -> None:
        """Blobs that were taken in here get their other copies: before this returns with `hosted.ack: all`, else soon.

        Raises `NotNow` when they cannot be had in time.
        """
        ...

    async def brought(self, digest: Digest, size: int) -> None:
        """Have the bytes of a blob of the records on this disk. Raises `BlobUnknown` when no replica that is there has
        them, `UpstreamError`.
        """
        ...

    async def current(self) -> None:
        """Know what the others have changed lately, if they say it within half a second. Never raises."""
        ...

    async def asked(self) -> None:
        """Know all that any replica that is there knows: what is not here then is not there. Never raises."""
        ...


class ByItself:
    """A mirror without replicas: what it knows is all there is."""

    def refuse_while_away(self) -> None:
        """Nothing can be away."""

    @contextlib.asynccontextmanager
    async def changing(self, repository: str) -> AsyncIterator[Turn]:
        """The database sees to it."""
        yield Turn()

    async def numbered(self) -> Turn:
        """By the database."""
        return Turn()

    async def told(self) -> None:
        """There is nobody."""

    async def copied(self, digests: Sequence[Digest]) -> None:
        """There is one disk."""

    async def brought(self, digest: Digest, size: int) -> None:
        """They are here, or lost."""

    async def current(self) -> None:
        """Nobody else changes anything."""

    async def asked(self) -> None:
        """Nobody else knows anything."""
