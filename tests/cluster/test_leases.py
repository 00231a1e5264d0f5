"""Leases among replicas: one holder, who loses them by dying or by sleeping."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from mirror.cluster import leases as module
from mirror.cluster.leases import SharedLeases
from mirror.config.models import MetadataSettings
from mirror.digest import Digest
from mirror.errors import LeaseLost, StoreError
from mirror.metadata.base import TagRecord
from mirror.metadata.redis import RedisMetadata
from mirror.shared import keys
from mirror.shared.client import RedisClient
from mirror.store.leases import Leases
from tests.support.redis import RedisServer
from tests.support.waiting import eventually

pytestmark = pytest.mark.needs("redis-server")

DIGEST = Digest.of(b"a")
RECORD = TagRecord("up", "team/plugin", "v1", DIGEST, "application/vnd.oci.image.manifest.v1+json", 2, 1000.0)


@asynccontextmanager
async def replica(
    server: RedisServer, folder: Path, name: str, address: str = ""
) -> AsyncIterator[tuple[SharedLeases, RedisClient]]:
    """The leases of the replica ``name``, whose Redis answers."""
    client = RedisClient.of(MetadataSettings(url=server.url))
    (folder / name).mkdir(exist_ok=True)
    try:
        await client.script("return 1")(["wm1:{tags}:probe"], [], probe=True)
        yield SharedLeases(client, Leases(folder / name), address or name, name), client
    finally:
        await client.aclose()


async def test_one_replica_holds_a_lease_and_the_next_gets_it_when_it_is_done(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        async with replica(server, tmp_path, "a") as (a, _), replica(server, tmp_path, "b") as (b, _):
            order = []

            async def work(leases: SharedLeases) -> None:
                async with leases.hold("tag x") as fence:
                    assert fence is not None
                    order.append(f"{leases.holder[0]} in")
                    await asyncio.sleep(0)
                    order.append(f"{leases.holder[0]} out")

            await asyncio.gather(*(work(leases) for leases in (a, b)))
            assert order in (["a in", "a out", "b in", "b out"], ["b in", "b out", "a in", "a out"])
            with server.client() as client:
                assert client.keys("*lease*") == []


async def test_a_lease_is_renewed_for_as_long_as_the_work_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LASTS", 0.4)
    monkeypatch.setattr(module, "RENEWED_EVERY", 0.05)
    with RedisServer(tmp_path / "redis") as server, server.client() as probe:
        async with replica(server, tmp_path, "a") as (a, _), a.fill(DIGEST) as lease:
            assert await lease.take() is None
            renewals = _calls(probe, "pexpire")
            await eventually(lambda: _calls(probe, "pexpire") > renewals + 10)
            assert lease.held
            assert probe.get(keys.fill_lease(DIGEST)) == lease.value


async def test_the_lease_of_a_holder_that_died_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LASTS", 0.3)
    monkeypatch.setattr(module, "RENEWED_EVERY", 1000.0)
    with RedisServer(tmp_path / "redis") as server:
        async with (
            replica(server, tmp_path, "a") as (a, _),
            replica(server, tmp_path, "b") as (b, _),
            a.fill(DIGEST) as dead,
            b.fill(DIGEST) as lease,
        ):
            assert await dead.take() is None
            assert await lease.take() == "a"
            async with asyncio.timeout(10):
                await _until_taken(lease)
            assert lease.held


async def test_another_worker_of_the_same_replica_goes_on_at_once(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        async with replica(server, tmp_path, "a") as (a, _), a.fill(DIGEST) as dead, a.fill(DIGEST) as lease:
            assert await dead.take() is None
            assert await lease.take() is None
            assert lease.held


async def test_replicas_that_say_that_they_are_at_one_address_are_two_all_the_same(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        async with (
            replica(server, tmp_path, "a", "http://service") as (a, _),
            replica(server, tmp_path, "b", "http://service") as (b, _),
            a.fill(DIGEST) as first,
            b.fill(DIGEST) as second,
        ):
            assert await first.take() is None
            assert await second.take() == "http://service"


async def test_who_slept_past_its_lease_cannot_publish_a_tag(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server, server.client() as probe:
        async with replica(server, tmp_path, "a") as (a, client), replica(server, tmp_path, "b") as (b, other):
            async with a.hold("tag x") as fence:
                await RedisMetadata(client, time.time).put_tag(RECORD, fence)
                probe.delete(keys.tag_lease("tag x"))  # it has slept, and its lease has ended
                async with b.hold("tag x") as theirs:
                    newer = TagRecord("up", "team/plugin", "v1", Digest.of(b"b"), "m", 3, 2000.0)
                    await RedisMetadata(other, time.time).put_tag(newer, theirs)
                    with pytest.raises(LeaseLost):
                        await RedisMetadata(client, time.time).put_tag(RECORD, fence)
                with pytest.raises(LeaseLost):
                    await RedisMetadata(client, time.time).put_tag(RECORD, fence)
            found = await RedisMetadata(client, time.time).tag("up", "team/plugin", "v1")
            assert isinstance(found, TagRecord)
            assert found.digest == Digest.of(b"b")


async def test_work_goes_on_where_redis_does_not_answer(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        async with replica(server, tmp_path, "a") as (a, _):
            server.kill()
            async with a.hold("tag x"):
                pass
            async with a.fill(DIGEST) as lease:
                assert await lease.take() is None
                assert not lease.held


async def test_what_was_begun_without_a_lease_is_not_published_when_redis_is_back(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        async with replica(server, tmp_path, "a") as (a, client), replica(server, tmp_path, "b") as (b, other):
            client.up = False
            async with a.hold("tag x") as fence:
                client.up = True
                async with b.hold("tag x") as theirs:
                    newer = TagRecord("up", "team/plugin", "v1", Digest.of(b"b"), "m", 3, 2000.0)
                    await RedisMetadata(other, time.time).put_tag(newer, theirs)
                with pytest.raises(LeaseLost):
                    await RedisMetadata(client, time.time).put_tag(RECORD, fence)


async def test_who_is_stopped_while_it_takes_a_lease_leaves_none_behind(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server, server.client() as probe:
        async with replica(server, tmp_path, "a") as (a, _):
            taken = asyncio.Event()
            take = a.take

            async def unheard(key: str, token: str) -> str | None:
                await take(key, token)
                taken.set()
                await asyncio.Event().wait()  # the answer is on its way
                return None

            a.take = unheard  # type: ignore[method-assign]  # a Redis that is asked, and answers late

            async def work() -> None:
                async with a.hold("tag x"):
                    raise AssertionError("it was stopped before")

            working = asyncio.create_task(work())
            await taken.wait()
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            assert probe.keys("*lease*") == []


@pytest.mark.parametrize("rubbish", ["a b c", "nobody", None], ids=["a lease for ever", "no holder", "a list"])
async def test_what_others_wrote_in_the_place_of_a_lease_stops_nobody(tmp_path: Path, rubbish: str | None) -> None:
    with RedisServer(tmp_path / "redis") as server, server.client() as probe:
        if rubbish is None:
            probe.rpush(keys.fill_lease(DIGEST), "x")
        else:
            probe.set(keys.fill_lease(DIGEST), rubbish)
        async with replica(server, tmp_path, "a") as (a, _), a.fill(DIGEST) as lease:
            assert await lease.take() is None
            assert lease.held


async def test_two_workers_of_a_replica_take_turns(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        async with replica(server, tmp_path, "a") as (a, _), replica(server, tmp_path, "a") as (other, _):
            order = []

            async def work(leases: SharedLeases) -> None:
                async with leases.hold("tag x"):
                    order.append("in")
                    await asyncio.sleep(0.05)  # as long as the other one would need to get in
                    order.append("out")

            await asyncio.gather(work(a), work(other))
            assert order == ["in", "out"] * 2


async def test_who_has_lost_its_lease_learns_it_and_leaves_that_of_the_next_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RENEWED_EVERY", 0.05)
    key = keys.fill_lease(DIGEST)
    with RedisServer(tmp_path / "redis") as server, server.client() as probe:
        async with replica(server, tmp_path, "a") as (a, _):
            async with a.fill(DIGEST) as lease:
                assert await lease.take() is None
                probe.set(key, "another one's", px=60_000)
                await eventually(lambda: not lease.held)
            async with a.fill(DIGEST) as lease:
                probe.delete(key)
                assert await lease.take() is None
                monkeypatch.setattr(module, "RENEWED_EVERY", 1000.0)
                await asyncio.sleep(0)
                probe.set(key, "another one's", px=60_000)
            assert probe.get(key) == "another one's"
            assert int(str(probe.pttl(key))) > 10_000


async def test_a_renewal_that_fails_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEWED_EVERY", 0.01)
    with RedisServer(tmp_path / "redis") as server, server.client() as probe:
        async with replica(server, tmp_path, "a") as (a, _), a.fill(DIGEST) as lease:
            renew = a.renew
            failed: list[str] = []

            async def failing(key: str, value: str) -> bool:
                if len(failed) < 2:
                    failed.append(key)
                    raise StoreError("Redis does not answer")
                return await renew(key, value)

            monkeypatch.setattr(a, "renew", failing)
            assert await lease.take() is None
            await eventually(lambda: _calls(probe, "pexpire") > 0)
            assert lease.held
            assert len(failed) == 2


async def test_a_lease_leaves_nothing_behind_however_often_it_was_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RedisServer(tmp_path / "redis") as server:
        async with replica(server, tmp_path, "a") as (a, _):
            before = len(asyncio.all_tasks())
            async with a.fill(DIGEST) as lease:
                assert await lease.take() is None
                assert await lease.take() is None
                assert len(asyncio.all_tasks()) == before + 1
            assert len(asyncio.all_tasks()) == before
            async with a.fill(DIGEST) as lease:
                assert await lease.take() is None
                server.kill()
            assert not lease.held
    assert "was lost" not in caplog.text


def _calls(client: redis.Redis, command: str) -> int:
    """How often Redis has run a command."""
    found: Any = client.info("commandstats")
    return int(found.get(f"cmdstat_{command}", {}).get("calls", 0))


async def _until_taken(lease: module.Lease) -> None:
    """As `hold` does: a lease tells nobody that it has ended."""
    while await lease.take() is not None:  # noqa: ASYNC110 - it is Redis that ends it, which gives no event
        await asyncio.sleep(0.01)
