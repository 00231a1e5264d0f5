"""A kept list stands in for an upstream that hangs, and for nothing else."""

import asyncio
from pathlib import Path
from typing import cast

import pytest

from mirror.answer import Stale
from mirror.errors import UpstreamDenied
from mirror.freshness import Policy
from mirror.listing import Listing
from mirror.metadata.sqlite import SqliteMetadata
from mirror.names import Place
from mirror.suspicion import Suspicion
from mirror.upstream.answers import TagPage
from mirror.upstream.failover import Upstream
from tests.support.waiting import eventually

_PLACE = Place("up", "team/plugin")


class Refusing:
    """An upstream that answers once, and refuses from then on."""

    def __init__(self) -> None:
        self.policy = Policy()
        self.asked = 0

    def allows(self, repository: str) -> bool:
        return True

    async def list_tags(self, repository: str, *, n: int | None, last: str | None, deadline: float) -> TagPage:
        self.asked += 1
        if self.asked == 1:
            return TagPage(("1.0",), None)
        raise UpstreamDenied("it refuses")


async def test_a_refusal_ends_the_suspicion_that_lets_an_old_list_stand_in(tmp_path: Path) -> None:
    metadata = SqliteMetadata.open(tmp_path / "metadata.sqlite")
    suspicion = Suspicion(asyncio.get_running_loop().time)
    upstream = Refusing()
    listing = Listing({"up": cast(Upstream, upstream)}, metadata, suspicion)
    await listing.tags(_PLACE, n=None, last=None)
    suspicion.failed("up")
    assert isinstance((await listing.tags(_PLACE, n=None, last=None)).outcome, Stale)
    await eventually(lambda: not suspicion.rests_on("up"), what="upstream's refusal")
    with pytest.raises(UpstreamDenied):
        await listing.tags(_PLACE, n=None, last=None)
    await listing.aclose()
    await metadata.aclose()
