"""Hosted content among replicas: one set of records at all of them, whoever changes it, whoever was away."""

import asyncio
import logging
import time
from pathlib import Path

import pytest

from mirror import replication as module
from mirror.digest import Digest
from mirror.errors import NotNow
from mirror.hosted.entries import OfBlob
from mirror.shared import keys
from tests.cluster.hosting import host, hosts
from tests.cluster.replica import Fake, saying
from tests.hosted.shelf import REPOSITORY, describe
from tests.support.artifacts import image
from tests.support.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.needs("redis-server")]

EXAMPLE = "application/vnd.example"
FIRST, SECOND, THIRD = (image([(EXAMPLE, b"%d" % n * 100)], config=(EXAMPLE, b"{}")) for n in (1, 2, 3))


async def test_a_change_is_known_at_all_others_when_they_have_been_told(tmp_path: Path) -> None:
    async with hosts(tmp_path, 3) as (_, (one, two, three)):
        await one.push(FIRST, "v1")
        for other in (two, three):
            assert await other.named("v1") == FIRST.digest
            assert other.store.holds(FIRST.digest), "the bytes of manifests go with them"
            assert not any(map(other.store.holds, FIRST.blobs))
        await two.push(SECOND, "v1")
        await three.delete_tag("v1")
        assert [await each.named("v1") for each in (one, two, three)] == [None] * 3
        await three.push(THIRD, "v1")
        assert [await each.named("v1") for each in (one, two, three)] == [THIRD.digest] * 3


async def test_changes_of_one_repository_are_made_one_after_the_other_and_numbered_so(tmp_path: Path) -> None:
    async with hosts(tmp_path, 2) as (_, nodes):
        under_way: list[str] = []
        moments: list[int] = []

        async def change(number: int) -> None:
            async with nodes[number % 2].replication.changing(REPOSITORY) as turn:
                under_way.append("in")
                await asyncio.sleep(0)
                assert turn.moment is not None
                moments.append(turn.moment)
                under_way.append("out")

        await asyncio.gather(*map(change, range(8)))
        assert under_way == ["in", "out"] * 8
        assert moments == sorted(set(moments))


async def test_a_replica_that_was_away_catches_up_and_its_older_records_lose(tmp_path: Path) -> None:
    async with hosts(tmp_path, 1) as (redis, (one,)):
        async with host(tmp_path / "other", redis) as other:
            await one.beat.once()
            await other.push(FIRST, "old", "deleted", "kept")
            assert await one.named("old") == FIRST.digest
        await one.beat.once()
        await one.push(SECOND, "old", "new")
        await one.delete_tag("deleted")
        async with host(tmp_path / "other", redis) as other:
            await other.replication.begin()
            await one.beat.once()
            await one.replication.asked()
            for each in (one, other):
                assert await each.named("old") == SECOND.digest
                assert await each.named("new") == SECOND.digest
                assert await each.named("deleted") is None
                assert await each.named("kept") == FIRST.digest


async def test_thousands_of_entries_are_read_in_portions_while_the_loop_goes_on(tmp_path: Path) -> None:
    async with hosts(tmp_path, 1) as (redis, (one,)):
        digest = Digest.of(b"small")
        await one.catalogue.merge([OfBlob(f"r{n}", digest, n + 1, False, 5, 1.0) for n in range(5_000)])
        async with host(tmp_path / "other", redis) as other:
            longest, stop = 0.0, asyncio.Event()

            async def watch() -> None:
                nonlocal longest
                while not stop.is_set():
                    began = time.thread_time()
                    await asyncio.sleep(0.01)
                    longest = max(longest, time.thread_time() - began)

            watching = asyncio.create_task(watch())
            assert await other.replication.following.hear(one.url) is None
            stop.set()
            await watching
            assert await other.catalogue.head() == 5_000
            assert other.asked == []
            assert len(one.asked) > 3, "its name, and three portions"
            assert longest < 0.4, "seconds of work at a stretch"


async def test_while_redis_is_away_nothing_is_changed_and_that_is_said_at_once(tmp_path: Path) -> None:
    async with hosts(tmp_path, 2) as (redis, (one, two)):
        await one.push(FIRST, "v1")
        redis.kill()
        await eventually(lambda: not one.client.up)
        began = time.monotonic()
        with pytest.raises(NotNow) as refused:
            one.replication.refuse_while_away()
        assert refused.value.retry_after
        with pytest.raises(NotNow):
            await one.replication.numbered()
        with pytest.raises(NotNow):
            async with one.replication.changing(REPOSITORY):
                pytest.fail("nobody says that this is the only change")
        assert time.monotonic() - began < 0.3
        await two.replication.current()
        await two.replication.asked()
        assert await two.named("v1") == FIRST.digest


async def test_a_redis_that_hangs_is_found_out_soon(tmp_path: Path) -> None:
    async with hosts(tmp_path, 1) as (redis, (one,)):
        redis.pause()
        began = time.monotonic()
        with pytest.raises(NotNow):
            async with one.replication.changing(REPOSITORY):
                pytest.fail("nobody says that this is the only change")
        assert time.monotonic() - began < 1.4


async def test_numbers_go_on_where_they_were_when_redis_comes_back_empty(tmp_path: Path) -> None:
    async with hosts(tmp_path, 2) as (redis, (one, two)):
        far = 5_000_000_000_000_000
        with redis.client() as client:
            client.set(keys.generation(), far)
        await one.push(FIRST, "v1")
        redis.flush()
        await two.push(SECOND, "v1")
        assert await one.catalogue.latest() == await two.catalogue.latest() > far
        assert [await each.named("v1") for each in (one, two)] == [SECOND.digest] * 2
        with redis.client() as client:
            client.delete(keys.generation())
            client.hset(keys.generation(), "of another", "kind")
        await one.push(THIRD, "v1")
        assert [await each.named("v1") for each in (one, two)] == [THIRD.digest] * 2


async def test_who_has_lost_the_lease_before_the_change_does_not_make_it(tmp_path: Path) -> None:
    async with hosts(tmp_path, 1) as (redis, (one,)):
        reading = one.replication.following.everything

        async def meanwhile() -> None:
            await reading()
            with redis.client() as client:
                client.set(keys.tag_lease(f"hosted {REPOSITORY}"), "of another one", px=10_000)

        one.replication.following.everything = meanwhile  # type: ignore[method-assign]  # what takes time there
        with pytest.raises(NotNow):
            await one.push(FIRST, "v1")
        assert await one.named("v1") is None


async def test_a_change_that_took_longer_than_its_lease_is_not_vouched_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_VOUCHED_FOR", 0.0)
    async with hosts(tmp_path, 1) as (redis, (one,)):
        async with one.replication.changing(REPOSITORY):
            pass
        with pytest.raises(NotNow):
            async with one.replication.changing(REPOSITORY):
                redis.flush()


async def test_a_change_that_is_cancelled_stands_in_nobodys_way(tmp_path: Path) -> None:
    async with hosts(tmp_path, 2) as (_, (one, two)):
        entered = asyncio.Event()

        async def change() -> None:
            async with one.replication.changing(REPOSITORY):
                entered.set()
                await asyncio.Event().wait()

        changing = asyncio.create_task(change())
        await entered.wait()
        waiting = asyncio.create_task(two.push(FIRST, "v1"))
        changing.cancel()
        await asyncio.gather(changing, return_exceptions=True)
        began = time.monotonic()
        await waiting
        assert time.monotonic() - began < 1.0, "the lease did not have to end by itself"


async def test_who_could_not_be_told_asks_before_it_answers(tmp_path: Path) -> None:
    async with hosts(tmp_path, 2) as (_, (one, two)):
        await one.push(FIRST, "v1")
        await two.replication.current()
        one.store.put(SECOND.digest, SECOND.body)
        for content in SECOND.blobs.values():
            await one.push_blob(content)
        async with one.replication.changing(REPOSITORY) as turn:
            await two.beat.once()
            await two.replication.current()  # all that is to be seen before the change
            two.front = saying(503)
            await one.catalogue.put_manifest(REPOSITORY, describe(SECOND), ["v1"], moment=turn.moment)
            await one.replication.told()
        assert await two.named("v1") == FIRST.digest
        await two.replication.current()
        assert await two.named("v1") == SECOND.digest
        asked = len(one.asked)
        await two.replication.current()
        assert len(one.asked) == asked, "what has not changed is not asked about"


async def test_with_ack_all_a_change_that_too_few_have_taken_in_is_not_vouched_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirror.telling.COPIED_WITHIN", 0.1)
    monkeypatch.setattr("mirror.telling._SHUNNED_FOR", 0.0)
    async with hosts(tmp_path, 3, replicas=2, ack="all") as (_, (one, two, three)):
        await one.replication.asked()
        two.front = saying(503)
        await one.replication.told()
        three.front = saying(503)
        with pytest.raises(NotNow, match=r"hosted\.ack"):
            await one.replication.told()
        two.front = three.front = saying(404)
        await one.replication.told()


async def test_a_replica_that_does_not_answer_is_not_waited_for_twice(tmp_path: Path) -> None:
    async with hosts(tmp_path, 3) as (redis, (one, two, three)):
        await one.push(FIRST, "v1")
        three.front = Fake()
        waited = []
        for _ in range(3):
            with redis.client() as client:
                client.incr(keys.generation())
            await one.beat.once()
            began = time.monotonic()
            await one.replication.current()
            await one.replication.asked()
            waited.append(time.monotonic() - began)
        assert waited[0] < 0.8
        assert max(waited[1:]) < 0.2
        await two.push_blob(b"known all the same")
        assert await one.catalogue.blob(REPOSITORY, Digest.of(b"known all the same")) is not None


async def test_nothing_is_changed_while_a_replica_that_is_there_does_not_say_what_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirror.following._WAITED_FOR", 0.3)
    async with hosts(tmp_path, 2) as (_, (one, two)):
        two.front = saying(503)
        with pytest.raises(NotNow, match=two.url.removeprefix("http://")):
            await one.push(FIRST, "v1")
        assert await one.named("v1") is None
        await two.beat.leave()
        two.beat._address = ""  # it is there no more
        await one.beat.once()
        await one.push(FIRST, "v1")
        assert await one.named("v1") == FIRST.digest


async def test_a_replica_of_an_earlier_release_stands_in_nobodys_way_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with hosts(tmp_path, 2, ack="all") as (_, (one, two)):
        two.front = saying(404)
        await one.push(FIRST, "v1")
        await one.push(SECOND, "v1")
        await one.replication.copied([*SECOND.blobs])
        assert sum("earlier release" in line for line in caplog.messages) == 1
        two.front = None
        await one.push(THIRD, "v1")
        assert await two.named("v1") == THIRD.digest
