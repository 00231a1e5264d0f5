"""A mirror without others: what `mirror.cluster.beat` and `mirror.peers` are for replicas."""

from collections.abc import Sequence

from mirror.digest import Digest
from mirror.metadata.base import LinkEntry, TagEntry


class Alone:
    """There is nobody to move a tag, to know more, or to hold anything."""

    moves = 0
    in_sight = True

    async def seen_by_all(self) -> None:
        """Nobody has to."""

    async def tag(self, upstream: str, repository: str, tag: str) -> TagEntry | None:
        """None."""
        return None

    async def link(self, upstream: str, repository: str, digest: Digest) -> LinkEntry | None:
        """None."""
        return None

    async def content(self, digest: Digest, limit: int, hinted: Sequence[str] = ()) -> bytes | None:
        """None."""
        return None
