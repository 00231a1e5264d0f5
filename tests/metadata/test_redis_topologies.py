"""The metadata behind Sentinels and in a Cluster: the same promises, and what a failover costs."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from redis.crc import key_slot

from mirror.config.models import MetadataSettings
from mirror.errors import StoreError
from mirror.metadata.base import Metadata
from mirror.metadata.redis import RedisMetadata
from mirror.shared import keys
from mirror.shared.client import RedisClient
from tests.metadata.conformance import LINK, TAG, A, MetadataConformance
from tests.metadata.redis_stores import PATIENCE, connected, opened, probe, until_up
from tests.support.redis import RedisCluster, RedisServer, WatchedRedis, role
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.integration,
    pytest.mark.needs("redis-server", "redis-sentinel", "redis-cli"),
    pytest.mark.timeout(150),
]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedRedis]:
    """For all tests that leave it as it is."""
    with WatchedRedis(tmp_path_factory.mktemp("sentinel")) as running:
        yield running


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """For all tests that leave it whole."""
    with RedisCluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


class TestBehindSentinels(MetadataConformance):
    """The master that Sentinels name."""

    @pytest.fixture(autouse=True)
    def _empty(self, watched: WatchedRedis) -> None:
        watched.flush()
        self.url = watched.url

    def opened(self, place: Path) -> AbstractAsyncContextManager[Metadata]:
        """Another place is another database."""
        return opened(f"{self.url}/{int(place.name == 'other')}")


class TestInACluster(MetadataConformance):
    """Keys on three masters. There is one database, so two places are one store."""

    @pytest.fixture(autouse=True)
    def _empty(self, cluster: RedisCluster) -> None:
        cluster.flush()
        self.cluster = cluster

    def opened(self, place: Path) -> AbstractAsyncContextManager[Metadata]:
        """Found by two of its servers."""
        return opened(self.cluster.url)

    async def test_links_lie_on_all_servers(self, tmp_path: Path) -> None:
        """And those of one repository on one."""
        links = [replace(LINK, repository=f"team/{number}") for number in range(50)]
        async with self.opened(tmp_path) as store:
            await store.put_links(links)
            found = [link async for portion in store.all_links() for link in portion]
        assert sorted(found, key=str) == sorted(links, key=str)
        for server in self.cluster.masters():
            with server.client() as raw:
                assert 0 < int(str(raw.dbsize())) < 50

    async def test_a_slot_that_moves_to_another_server_is_followed(self, tmp_path: Path) -> None:
        """While it is on its way, and afterwards."""
        source, target = self._owner("{tags}"), self._not_owner("{tags}")
        slot = key_slot(b"tags")
        async with self.opened(tmp_path) as store:
            await store.put_tag(TAG)
            with source.client() as here, target.client() as there:
                ids = str(here.execute_command("CLUSTER", "MYID")), str(there.execute_command("CLUSTER", "MYID"))
                there.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
                here.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
                assert await store.tag("ghcr.io", "team/filter", "v1") == TAG
                assert await store.tag("ghcr.io", "team/filter", "v2") is None  # perhaps it is there already: asked
                names = here.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100)
                here.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *names)
                assert await store.tag("ghcr.io", "team/filter", "v1") == TAG
                for server in self.cluster.masters():
                    with server.client() as raw:
                        raw.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
            assert await store.tag("ghcr.io", "team/filter", "v1") == TAG
            assert (await store.put_tag(replace(TAG, fetched_at=1001.0))).serial == 0
        async with self.opened(tmp_path) as store:
            assert await store.tag("ghcr.io", "team/filter", "v1") == replace(TAG, fetched_at=1001.0)

    def _owner(self, key: str) -> RedisServer:
        (owner,) = [server for server in self.cluster.masters() if _has(server, key_slot(key.encode()))]
        return owner

    def _not_owner(self, key: str) -> RedisServer:
        return next(server for server in self.cluster.masters() if not _has(server, key_slot(key.encode())))


def _has(server: RedisServer, slot: int) -> bool:
    """Whether a server of a Cluster has a slot, as it says itself."""
    with server.client() as client:
        own = str(client.execute_command("CLUSTER", "MYID"))
        rows: list[Any] = client.execute_command("CLUSTER", "SLOTS")
    return any(first <= slot <= last and node[2] == own for first, last, node, *_ in rows)


@contextlib.asynccontextmanager
async def beating(client: RedisClient) -> AsyncIterator[None]:
    """Probe ten times a second, as a mirror does."""

    async def beat() -> None:
        while True:
            await probe(client)
            await asyncio.sleep(0.1)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Writer:
    """Puts one tag after another, and counts; everything but a `StoreError` ends it."""

    def __init__(self, store: RedisMetadata) -> None:
        self._store = store
        self.written = 0
        self.slowest = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            began = time.monotonic()
            with contextlib.suppress(StoreError):
                record = replace(TAG, tag=f"v{self.written % 10}", fetched_at=float(self.written))
                assert (await self._store.put_tag(record)).fetched_at == record.fetched_at
                await self._store.put_links([replace(LINK, repository=f"team/{self.written % 50}")])
                await self._store.touch({A: float(self.written)})
                self.written += 1
            self.slowest = max(self.slowest, time.monotonic() - began)
            await asyncio.sleep(0.005)

    async def goes_on(self) -> None:
        """Wait for ten more."""
        wanted = self.written + 10
        await eventually(lambda: self.written >= wanted, timeout=60, what="writing goes on")


@contextlib.asynccontextmanager
async def writing(client: RedisClient) -> AsyncIterator[Writer]:
    """A writer at work; at the end, whatever has stopped it is raised."""
    writer = Writer(RedisMetadata(client, time.time))
    async with beating(client):
        task = asyncio.create_task(writer.run())
        try:
            await writer.goes_on()
            yield writer
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.mark.parametrize("how", ["kill", "pause"])
@pytest.mark.shows("Redis loses what it was told: it evicts keys, or a failover loses the last writes")
async def test_a_failover_of_sentinel_costs_nothing_but_store_errors(tmp_path: Path, how: str) -> None:
    """The master dies, or hangs, in the middle of writes; they go on at the one that takes its place."""
    with WatchedRedis(tmp_path) as watched:
        (first,) = watched.masters()
        async with connected(MetadataSettings(url=watched.url)) as client, writing(client) as writer:
            getattr(first, how)()
            await eventually(lambda: not client.up, timeout=30, what="the outage is noticed")
            await writer.goes_on()
            (second,) = [server for server in watched.servers if server is not first and role(server) == "master"]
            with second.client() as raw:
                assert raw.exists(keys.tag("ghcr.io", "team/filter", "v1"))
            if how == "pause":
                first.resume()
            else:
                first.start()
            await eventually(lambda: role(first) == "slave", timeout=30, what="the first master is a replica")
            await writer.goes_on()
            assert await RedisMetadata(client, time.time, PATIENCE).tag("ghcr.io", "team/filter", "v1") is not None


async def test_a_hanging_sentinel_holds_nobody_up(tmp_path: Path) -> None:
    with WatchedRedis(tmp_path) as watched:
        watched.sentinels[0].pause()
        async with connected(MetadataSettings(url=watched.url)) as client:
            assert await client.call("GET", "key", within=PATIENCE) is None
        watched.sentinels[1].kill()
        watched.sentinels[2].kill()
        client = RedisClient.of(MetadataSettings(url=watched.url))
        assert not await probe(client)
        await client.aclose()


@pytest.mark.parametrize("how", ["kill", "pause"])
@pytest.mark.shows("Redis loses what it was told: it evicts keys, or a failover loses the last writes")
async def test_a_failover_in_a_cluster_costs_nothing_but_store_errors(tmp_path: Path, how: str) -> None:
    """The server that has all tags dies, or hangs."""
    with RedisCluster(tmp_path) as cluster:
        slot = key_slot(b"tags")
        (first,) = [server for server in cluster.masters() if _has(server, slot)]
        async with connected(MetadataSettings(url=cluster.url)) as client, writing(client) as writer:
            getattr(first, how)()
            await eventually(lambda: not client.up, timeout=30, what="the outage is noticed")
            await writer.goes_on()
            if how == "pause":
                first.resume()
            else:
                first.start()
            await eventually(lambda: role(first) == "slave", timeout=30, what="the first master is a replica")
            await writer.goes_on()


async def test_a_cluster_is_there_only_when_all_its_masters_are(tmp_path: Path) -> None:
    """Though the one that has the tags answers: otherwise every other command would be the one that finds out."""
    with RedisCluster(tmp_path) as cluster:
        slot = key_slot(b"tags")
        other = next(server for server in cluster.masters() if not _has(server, slot))
        async with connected(MetadataSettings(url=cluster.url)) as client:
            other.pause()
            with pytest.raises(StoreError):
                await client.pipeline([("GET", f"key {number}") for number in range(50)])
            assert not client.up
            assert not await probe(client)
            other.resume()
            await until_up(client)


@pytest.mark.parametrize("sentinel_has_one", [False, True])
async def test_a_sentinel_may_want_the_login_of_redis_or_none(tmp_path: Path, sentinel_has_one: bool) -> None:
    password = tmp_path / "password"
    password.write_text("hunter2")
    with RedisServer(tmp_path / "redis", ["--requirepass", "hunter2"]) as server:
        folder = tmp_path / "sentinel"
        folder.mkdir()
        file = folder / "sentinel.conf"
        lines = [f"sentinel monitor mymaster 127.0.0.1 {server.port} 1", "sentinel auth-pass mymaster hunter2"]
        file.write_text("\n".join([*lines, "requirepass hunter2" if sentinel_has_one else ""]))
        with RedisServer(folder, [str(file)], program="redis-sentinel") as sentinel:
            settings = MetadataSettings(url=f"redis+sentinel://{sentinel.host}/mymaster", password_file=password)
            async with connected(settings) as client:
                assert await client.call("GET", "key", within=PATIENCE) is None
            unknown = MetadataSettings(url=f"redis+sentinel://{sentinel.host}/another", password_file=password)
            client = RedisClient.of(unknown)
            with pytest.raises(StoreError, match="no Sentinel knows a master of the name another"):
                await client.script("return 1")(["key"], [], within=PATIENCE, probe=True)
            await client.aclose()
