"""The pair with a real Redis, which is killed, stopped, flushed and made read-only while it is used."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pytest

from mirror.config.models import MetadataSettings
from mirror.digest import Digest
from mirror.errors import LeaseLost
from mirror.metadata.base import Fence, Metadata, TagEntry, TagRecord
from mirror.metadata.redis import RedisMetadata
from mirror.metadata.resilient import ResilientMetadata
from mirror.shared import keys
from mirror.shared.client import RedisClient
from tests.metadata.conformance import GONE, LINK, TAG, MetadataConformance
from tests.metadata.databases import opened
from tests.metadata.redis_stores import probe, until_up
from tests.metadata.test_resilient import KEY, MOVED
from tests.support.redis import RedisServer
from tests.support.waiting import eventually

T = TypeVar("T")

pytestmark = pytest.mark.needs("redis-server")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One for all tests of this file."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(autouse=True)
def _well(server: RedisServer) -> Iterator[None]:
    """Every test begins with an empty one, and leaves it running."""
    server.flush()
    yield
    server.resume()
    server.read_only(False)


@dataclass
class Replica:
    """A pair, and the client by which it knows whether Redis is there."""

    client: RedisClient
    metadata: ResilientMetadata
    database: Metadata


@asynccontextmanager
async def replica(place: Path, url: str) -> AsyncIterator[Replica]:
    """A pair with its database in ``place``, which looks for Redis as the beat does."""
    os.makedirs(place, exist_ok=True)
    async with AsyncExitStack() as stack:
        client = RedisClient.of(MetadataSettings(url=url))
        stack.push_async_callback(client.aclose)
        await until_up(client)
        database = await stack.enter_async_context(opened(place))
        metadata = ResilientMetadata(database, RedisMetadata(client, time.time), lambda: client.up)
        stack.push_async_callback(metadata.aclose)
        looking = asyncio.create_task(look(client, metadata.returned))
        stack.push_async_callback(lambda: asyncio.gather(looking, return_exceptions=True))
        stack.callback(looking.cancel)
        yield Replica(client, metadata, database)


async def look(client: RedisClient, returned: Callable[[], None]) -> None:
    """Probe ten times a second."""
    while True:
        was_up = client.up
        if await probe(client) and not was_up:
            returned()
        await asyncio.sleep(0.1)


class TestPairOnRedis(MetadataConformance):
    """A database, and a Redis that works."""

    @pytest.fixture(autouse=True)
    def _server(self, server: RedisServer) -> None:
        self.server = server

    def opened(self, place: Path) -> AbstractAsyncContextManager[Metadata]:
        """Another place is another database of the server, too."""
        return self._opened(place, f"{self.server.url}/{int(place.name == 'other')}")

    @asynccontextmanager
    async def _opened(self, place: Path, url: str) -> AsyncIterator[Metadata]:
        async with replica(place, url) as found:
            yield found.metadata


@contextlib.contextmanager
def killed(server: RedisServer) -> Iterator[None]:
    """It dies, and comes back with nothing."""
    server.kill()
    try:
        yield
    finally:
        server.start()


@contextlib.contextmanager
def stopped(server: RedisServer) -> Iterator[None]:
    """It takes connections and answers nothing."""
    server.pause()
    try:
        yield
    finally:
        server.resume()


@contextlib.contextmanager
def read_only(server: RedisServer) -> Iterator[None]:
    """It answers reads and refuses writes."""
    server.read_only(True)
    try:
        yield
    finally:
        server.read_only(False)


@contextlib.contextmanager
def flushed(server: RedisServer) -> Iterator[None]:
    """It has forgotten everything, and says nothing of it."""
    server.flush()
    yield


async def in_time(answer: Awaitable[T]) -> T:
    """The answer, which comes within half a second; more than that is granted to a machine that has more to do."""
    async with asyncio.timeout(2.0):
        return await answer


async def tells(store: Metadata, key: tuple[str, str, str], expected: TagEntry) -> None:
    """Wait until a store has this entry."""

    async def found() -> bool:
        return await store.tag(*key) == expected

    asked: Callable[[], bool | Awaitable[bool]] = found
    await eventually(asked, what=f"{key} is {expected}")


@pytest.mark.parametrize("harm", [killed, stopped, read_only, flushed])
async def test_no_call_fails_or_is_slow_whatever_becomes_of_redis(
    tmp_path: Path, server: RedisServer, harm: Callable[[RedisServer], contextlib.AbstractContextManager[None]]
) -> None:
    """What was known is told, what is new is taken, in time; and all of it is in Redis again afterwards."""
    digests = [Digest.of(bytes([number])) for number in range(40)]

    async with replica(tmp_path, server.url) as one:
        store = one.metadata
        for number, digest in enumerate(digests[:20]):
            await store.put_tag(replace(TAG, tag=f"v{number}", digest=digest))
            await store.put_links([replace(LINK, digest=digest)])
        with harm(server):
            for number, digest in enumerate(digests[:20]):
                key = ("ghcr.io", "team/filter", f"v{number}")
                assert await in_time(store.tag(*key)) == replace(TAG, tag=key[2], digest=digest)
                assert await in_time(store.link("ghcr.io", "team/filter", digest)) == replace(LINK, digest=digest)
            for number, digest in enumerate(digests[20:], 20):
                record = replace(TAG, tag=f"v{number}", digest=digest)
                assert await in_time(store.put_tag(record)) == record
                await in_time(store.put_links([replace(LINK, digest=digest)]))
            gone = await in_time(store.delete_tag("ghcr.io", "team/filter", "v0", 2000.0))
            assert gone == replace(GONE, tag="v0")
        await until_up(one.client)
        store.returned()
        shared = RedisMetadata(one.client, time.time)
        for number, digest in enumerate(digests):
            key = ("ghcr.io", "team/filter", f"v{number}")
            await tells(shared, key, gone if number == 0 else replace(TAG, tag=key[2], digest=digest))
        with server.client() as client:
            await eventually(lambda: len(client.keys("*:link:*")) == len(digests))


async def test_replicas_agree_again_after_redis_came_back_empty(tmp_path: Path, server: RedisServer) -> None:
    """A tag that moved at one of them in between is what all serve."""
    async with (
        replica(tmp_path / "one", server.url) as one,
        replica(tmp_path / "other", server.url) as other,
        replica(tmp_path / "new", server.url) as new,
    ):
        await one.metadata.put_tag(TAG)
        await other.metadata.put_tag(replace(TAG, tag="v2"))
        assert await other.metadata.tag(*KEY) == TAG
        with killed(server):
            moved = await one.metadata.put_tag(MOVED)
            assert moved == replace(MOVED, serial=1)
            gone = await other.metadata.delete_tag("ghcr.io", "team/filter", "v2", 2000.0)
        for each in (one, other, new):
            await tells(each.metadata, KEY, moved)
            await tells(each.metadata, ("ghcr.io", "team/filter", "v2"), gone)


async def test_a_lease_that_redis_gave_to_somebody_else_is_lost(tmp_path: Path, server: RedisServer) -> None:
    """And what they wrote under it is known here from then on."""
    fence = Fence("tag v1", "mine")
    async with replica(tmp_path / "one", server.url) as one, replica(tmp_path / "other", server.url) as other:
        with server.client() as client:
            client.set(keys.tag_lease(fence.name), fence.token)
            await one.metadata.put_tag(TAG, fence)
            client.set(keys.tag_lease(fence.name), "theirs")
        moved = await other.metadata.put_tag(MOVED, replace(fence, token="theirs"))
        with pytest.raises(LeaseLost):
            await one.metadata.put_tag(replace(TAG, fetched_at=9000.0), fence)
        assert await one.database.tag(*KEY) == moved


async def test_thousands_of_tags_are_written_back_while_pulls_go_on(tmp_path: Path, server: RedisServer) -> None:
    """No read waits for it."""
    async with replica(tmp_path, server.url) as one:
        await one.database.merge_tags([replace(TAG, tag=f"v{number}") for number in range(1500)])
        await one.database.put_links(replace(LINK, digest=Digest.of(str(number).encode())) for number in range(1500))
        one.metadata.returned()
        slowest = 0.0
        with server.client() as client:
            while int(str(client.dbsize())) < 3000:
                began = time.monotonic()
                assert isinstance(await one.metadata.tag("ghcr.io", "team/filter", "v1499"), TagRecord)
                slowest = max(slowest, time.monotonic() - began)
        assert slowest < 0.5
