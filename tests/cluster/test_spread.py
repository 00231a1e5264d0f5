"""On how many disks pushed blobs lie: when the push is answered, soon after, and when a replica was replaced."""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from mirror import spread as module
from mirror.digest import Digest
from mirror.errors import BlobUnknown, NotNow
from mirror.spread import in_order
from tests.cluster.hosting import Host, host, hosts
from tests.cluster.replica import Fake, saying
from tests.hosted.shelf import REPOSITORY
from tests.support.artifacts import image
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

needs_redis = pytest.mark.needs("redis-server")

CONTENT = b"bytes of a blob"
DIGEST = Digest.of(CONTENT)


def held(nodes: Sequence[Host], digest: Digest = DIGEST) -> int:
    """On how many disks it lies."""
    return sum(node.store.holds(digest) for node in nodes)


def first_asked(nodes: Sequence[Host]) -> list[Host]:
    """The others than the first, in the order in which they are asked to keep the blob."""
    by_url = {node.url: node for node in nodes[1:]}
    return [by_url[url] for url in in_order(DIGEST, list(by_url))]


def test_a_replica_that_goes_moves_only_its_own_share() -> None:
    addresses = [f"http://10.0.0.{number}:8080" for number in range(5)]
    digests = [Digest.of(b"%d" % number) for number in range(200)]
    shares = dict.fromkeys(addresses, 0)
    for digest in digests:
        before = in_order(digest, addresses)
        assert before == in_order(digest, random.Random(1).sample(addresses, 5))
        shares[before[0]] += 1
        without = [one for one in addresses if one != addresses[0]]
        assert in_order(digest, without) == [one for one in before if one != addresses[0]]
    assert min(shares.values()) > 20


@needs_redis
async def test_with_ack_all_so_many_disks_hold_a_blob_when_the_push_is_answered(tmp_path: Path) -> None:
    async with hosts(tmp_path, 4, replicas=3, ack="all") as (_, nodes):
        await nodes[0].push_blob(CONTENT)
        await nodes[0].replication.copied([DIGEST])
        assert held(nodes) == 3
        assert [node.store.holds(DIGEST) for node in first_asked(nodes)] == [True, True, False]
        brings = sum(node.brings for node in nodes)
        await nodes[0].replication.copied([DIGEST, DIGEST])
        assert sum(node.brings for node in nodes) == brings == 2, "what is held is not fetched again"


@needs_redis
async def test_with_ack_one_the_copies_come_behind_the_push(tmp_path: Path) -> None:
    async with hosts(tmp_path, 2) as (_, nodes):
        gate = asyncio.Event()
        bringing = nodes[1].bring

        async def slow(digest: Digest, size: int) -> None:
            await gate.wait()
            await bringing(digest, size)

        nodes[1].replication.spread._bring = slow
        await nodes[0].push_blob(CONTENT)
        await nodes[0].replication.copied([DIGEST])
        assert held(nodes) == 1
        gate.set()
        await eventually(lambda: held(nodes) == 2)


@needs_redis
async def test_with_fewer_replicas_than_wanted_all_there_are_hold_it(tmp_path: Path) -> None:
    async with hosts(tmp_path, 2, replicas=5, ack="all") as (_, nodes):
        await nodes[0].push_blob(CONTENT)
        await nodes[0].replication.copied([DIGEST])
        assert held(nodes) == 2
    async with hosts(tmp_path / "alone", 1, replicas=2, ack="all") as (_, (alone,)):
        await alone.push_blob(CONTENT)
        await alone.replication.copied([DIGEST])


@needs_redis
@pytest.mark.parametrize("failing", ["refuses", "hangs"])
async def test_the_next_one_keeps_what_a_replica_that_fails_does_not(
    tmp_path: Path, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ASKED_WITHIN", 0.3)
    async with hosts(tmp_path, 3, ack="all") as (_, nodes):
        await nodes[0].push_blob(CONTENT)
        first, second = first_asked(nodes)
        first.front = saying(503) if failing == "refuses" else Fake()
        await nodes[0].replication.copied([DIGEST])
        assert (first.store.holds(DIGEST), second.store.holds(DIGEST)) == (False, True)


@needs_redis
async def test_a_replica_whose_disk_fails_is_not_taken_to_hold_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COPIED_WITHIN", 0.3)
    async with hosts(tmp_path, 2, ack="all") as (_, (one, two)):

        async def failing(digest: Digest, size: int) -> None:
            raise BlobUnknown("it cannot be had")

        two.replication.spread._bring = failing
        await one.push_blob(CONTENT)
        with pytest.raises(NotNow, match=r"hosted\.ack") as refused:
            await one.replication.copied([DIGEST])
        assert refused.value.retry_after
        two.replication.spread._bring = two.bring
        await one.replication.copied([DIGEST])
        assert held([one, two]) == 2


@needs_redis
async def test_a_large_blob_is_waited_for_while_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ANSWER_WITHIN", 0.02)
    async with hosts(tmp_path, 2, ack="all") as (_, (one, two)):
        bringing, gate = two.bring, asyncio.Event()

        async def slow(digest: Digest, size: int) -> None:
            await gate.wait()
            await bringing(digest, size)

        two.replication.spread._bring = slow
        await one.push_blob(CONTENT)
        copying = asyncio.create_task(one.replication.copied([DIGEST]))
        await eventually(lambda: two.asked.count("/peer/v1/hosted/keep") > 3)
        assert not copying.done()
        gate.set()
        await copying
        assert held([one, two]) == 2
        assert two.brings == 1


@needs_redis
async def test_a_replica_that_does_not_know_the_blob_yet_asks_who_has_it(tmp_path: Path) -> None:
    async with hosts(tmp_path, 2, ack="all") as (_, (one, two)):
        one.store.put(DIGEST, CONTENT)
        await one.catalogue.link_blob(REPOSITORY, DIGEST, len(CONTENT))
        await one.replication.copied([DIGEST])
        assert two.store.holds(DIGEST)


@needs_redis
async def test_copies_are_restored_when_a_replica_is_replaced_by_an_empty_one(tmp_path: Path) -> None:
    artifact = image([("application/vnd.example", b"%d" % number * 50) for number in range(6)])
    digests = list(artifact.blobs)
    async with hosts(tmp_path, 2, ack="all") as (redis, (one, two)):
        async with host(tmp_path / "old", redis, ack="all") as old:
            for node in (one, two):
                await node.beat.once()
            await old.push(artifact, "v1")
            await old.replication.copied(digests)
            assert all(held([one, two, old], digest) >= 2 for digest in digests)
        async with host(tmp_path / "new", redis, ack="all") as new:
            nodes = [one, two, new]

            async def of_one_mind() -> bool:  # who has left is taken to be there for a moment
                for node in nodes:
                    await node.beat.once()
                return all(len(node.beat.addresses()) == 2 for node in nodes)

            known: bool = await eventually(of_one_mind, what="each knows of the two others")
            assert known
            await new.replication.begin()
            assert await new.named("v1") == artifact.digest
            assert not any(map(new.store.holds, digests))
            for node in nodes:
                assert await node.replication.spread.mend() == 0, "a replica that is started anew takes a moment"
            for node in nodes:
                await node.replication.spread.mend()
            places = [node.url for node in nodes]
            for digest in digests:
                assert held(nodes, digest) >= 2
                for node in nodes:
                    if node.url in in_order(digest, places)[:2]:
                        assert node.store.holds(digest)
            for node in nodes:
                assert await node.replication.spread.mend() == 0


@needs_redis
async def test_the_bytes_of_a_manifest_that_a_disk_has_lost_come_back(tmp_path: Path) -> None:
    artifact = image([("application/vnd.example", CONTENT)])
    async with hosts(tmp_path, 2) as (_, (one, two)):
        await one.push(artifact, "v1")
        two.lose(artifact.digest)
        for _ in range(2):
            await two.replication.spread.mend()
        assert two.store.holds(artifact.digest)


@needs_redis
async def test_a_manifest_that_its_replica_has_lost_is_read_from_another(tmp_path: Path) -> None:
    artifact = image([("application/vnd.example", CONTENT)])
    async with hosts(tmp_path, 2) as (redis, (one, two)):
        await one.push(artifact, "v1")
        one.lose(artifact.digest)
        async with host(tmp_path / "third", redis) as third:
            await third.replication.begin()
            assert await third.named("v1") == artifact.digest
            assert third.store.holds(artifact.digest)
            assert await third.catalogue.manifest(REPOSITORY, artifact.digest) is not None
        assert two.store.holds(artifact.digest)


@needs_redis
async def test_what_nobody_has_is_said_and_not_looked_for_all_the_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with hosts(tmp_path, 2, replicas=2) as (_, (one, two)):
        await one.push_blob(CONTENT)
        one.lose(DIGEST)
        for _ in range(4):
            assert await two.replication.spread.mend() == 0
        assert two.brings == 1
        assert [str(DIGEST) in line for line in caplog.messages].count(True) == 1
