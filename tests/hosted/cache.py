"""What the cache links, as the test says."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from mirror.digest import Digest
from mirror.metadata.base import Link


class Cached:
    """See `mirror.hosted.gc.Cache`. A question waits for ``may_answer``; ``asked`` counts them."""

    def __init__(self, *digests: Digest, incomplete: bool = False) -> None:
        self.digests = set(digests)
        self.links_incomplete = incomplete
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def all_links(self) -> AsyncIterator[Sequence[Link]]:
        """All links."""
        self.asked += 1
        await self.may_answer.wait()
        yield [Link("ghcr.io", "team/plugin", digest, "", -1) for digest in self.digests]
