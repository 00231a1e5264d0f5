"""Hosted content in trouble: Redis goes away, a replica loses its disk, another was not there when things changed."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.shared import keys
from tests.support.artifacts import Artifact, image
from tests.support.asking import Reply
from tests.support.load import Load, Want
from tests.support.process import MirrorProcess
from tests.support.pushing import At, Author, whole
from tests.support.redis import RedisServer
from tests.support.replicas import Replicas, replicated
from tests.support.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.needs("redis-server")]

EXAMPLE = "application/vnd.example"
NAME = "hosted/team/plugin"
TAG = f"/v2/{NAME}/manifests/v1"
SLOWEST = 1.0  # seconds
FAR = 4_000_000_000_000_000
"""A number of changes to which no clock comes for centuries."""

TAKEN_AGAIN_WITHIN = 10.0  # seconds after Redis is back; a replica looks for it 4 times a second
RESTORED_WITHIN = 60.0  # seconds: it is looked for every 30


def made(number: int) -> Artifact:
    """Artifacts that differ in all of their bytes."""
    return image([(EXAMPLE, bytes([number]) * 30_000)], config=(EXAMPLE, b"%d" % number))


def authors(replicas: Replicas, name: str = NAME) -> list[Author]:
    """Who pushes to each replica."""
    return [Author(At(url), name) for url in replicas.urls]


async def served(replicas: Sequence[MirrorProcess], name: str, tag: str, artifact: Artifact | None) -> None:
    """Assert what a tag names at each of them, and that it is whole; None: nothing."""
    for mirror in replicas:
        got = await whole(At(mirror.url), name, tag)
        assert got == (artifact.body if artifact else None), f"{mirror.url} {name}:{tag}"


async def tags(mirror: MirrorProcess, name: str) -> list[str]:
    """As a replica lists them."""
    reply = await At(mirror.url).ask("GET", f"/v2/{name}/tags/list")
    return list(reply.json["tags"]) if reply.status == 200 else []


def on_disks(replicas: Replicas, digest: Digest) -> int:
    """How many replicas have a blob's file."""
    return sum((mirror.data_dir / "blobs" / "sha256" / digest.hex[:2] / digest.hex).exists() for mirror in replicas)


async def push_when_taken(author: Author, artifact: Artifact, tag: str) -> None:
    """Push, as soon as pushes are taken again."""

    async def begins() -> bool:
        reply = await author.ask("POST", "blobs/uploads/")
        assert reply.status == 202 or (reply.status, reply.code) == (503, "UNAVAILABLE"), reply
        return reply.status == 202

    taken: Callable[[], bool | Awaitable[bool]] = begins
    await eventually(taken, timeout=TAKEN_AGAIN_WITHIN, what="pushes are taken")
    assert (await author.push(artifact, tag)).status == 201


# What begins the trouble, and what ends it.
AWAY: dict[str, tuple[Callable[[RedisServer], None], Callable[[RedisServer], None]]] = {
    "stopped": (RedisServer.kill, RedisServer.start),
    "hanging": (RedisServer.pause, RedisServer.resume),
}


@pytest.mark.shows("Redis is away while something is pushed to `hosted/`, or deleted")
@pytest.mark.parametrize(("begin", "end"), AWAY.values(), ids=AWAY.keys())
async def test_while_redis_is_away_pushes_are_told_when_to_come_again_and_pulls_go_on(
    tmp_path: Path, begin: Callable[[RedisServer], None], end: Callable[[RedisServer], None]
) -> None:
    first, second, third = made(1), made(2), made(3)
    layer = first.layers[0]
    with replicated(tmp_path) as (_, redis, replicas):
        pushing = authors(replicas)
        assert (await pushing[0].push(first, "v1")).status == 201
        assert (await pushing[1].push(second, "old")).status == 201
        upload = await pushing[2].begin()
        content = b"to be finished later"
        assert (await pushing[2].chunk(upload, 0, content[:9])).status == 202
        pulls = [Want(TAG, first.body), Want(f"/v2/{NAME}/blobs/{layer}", first.blobs[layer])]
        with Load(replicas.urls, pulls, per_second=50) as load:
            load.go_on(15)
            begin(redis)
            for author in pushing:
                await refused(load, author.manifest(second, "v1"))  # and with that it is known that Redis is away
                await refused(load, author.ask("DELETE", f"manifests/{second.digest}"))
                await refused(load, author.ask("DELETE", "manifests/old"))
                await refused(load, author.ask("POST", "blobs/uploads/"))
            await refused(load, pushing[2].finish(upload, Digest.of(content), content[9:]))
            load.go_on(60)
            end(redis)
            load.go_on(30)
        assert load.failures == []
        assert load.slowest < SLOWEST + load.lateness
        for mirror in replicas:
            assert await tags(mirror, NAME) == ["old", "v1"]
        for author, artifact in zip(pushing, (second, third, first), strict=True):
            await push_when_taken(author, artifact, "v1")
            await served(list(replicas), NAME, "v1", artifact)
        await finished(pushing[2], upload, content)


async def refused(load: Load, asking: Awaitable[Reply]) -> None:
    """Assert that this is answered within a second, with 503 and when to come again; ``load`` knows how busy it is."""
    began = time.monotonic()
    reply = await asking
    assert (reply.status, reply.code) == (503, "UNAVAILABLE"), reply
    assert int(reply.header("retry-after") or 0) > 0
    assert time.monotonic() - began < SLOWEST + load.lateness


async def finished(author: Author, upload: str, content: bytes) -> None:
    """Go on with an upload from where it stands."""
    told = await author.ask("GET", upload)
    assert told.status == 204, told
    size = int((told.header("range") or "").partition("-")[2]) + 1
    assert (await author.finish(upload, Digest.of(content), content[size:])).status == 201


def restarted(redis: RedisServer) -> None:
    """It comes back empty."""
    redis.kill()
    redis.start()


FORGETS: dict[str, Callable[[RedisServer], None]] = {"flushed": RedisServer.flush, "restarted": restarted}


@pytest.mark.parametrize("forget", FORGETS.values(), ids=FORGETS.keys())
async def test_when_redis_has_forgotten_everything_the_latest_push_stands_everywhere(
    tmp_path: Path, forget: Callable[[RedisServer], None]
) -> None:
    versions = [made(number) for number in range(7)]
    with replicated(tmp_path) as (_, redis, replicas):
        with redis.client() as client:  # changes are numbered from far in the future, where no clock leads
            client.set(keys.generation(), FAR)
        pushing = authors(replicas)
        for number in range(3):
            assert (await pushing[number].push(versions[number], "v1")).status == 201
        assert (await pushing[0].push(versions[0], "deleted")).status == 201
        assert (await pushing[1].ask("DELETE", "manifests/deleted")).status == 202
        moments = [moment_of(mirror) for mirror in replicas]
        assert min(moments) == max(moments) > FAR
        forget(redis)
        for number in range(3, 7):
            await push_when_taken(pushing[number % 3], versions[number], "v1")
            await served(list(replicas), NAME, "v1", versions[number])
            later = [moment_of(mirror) for mirror in replicas]
            assert min(later) == max(later) > max(moments), "numbers never go back"
            moments = later
        for mirror in replicas:
            assert await tags(mirror, NAME) == ["v1"]


def moment_of(mirror: MirrorProcess) -> int:
    """The number of the last change of the tag, as the replica's database has it."""
    with closing(sqlite3.connect(f"file:{mirror.data_dir / 'hosted.sqlite'}?mode=ro", uri=True)) as database:
        [(moment,)] = database.execute(
            "SELECT moment FROM entry WHERE kind = 'tag' AND repository = ? AND key = 'v1'",
            (NAME.removeprefix("hosted/"),),
        )
    return int(moment)


@pytest.mark.timeout(180)
@pytest.mark.shows("a replica is replaced by one with an empty disk")
async def test_a_replica_with_an_empty_disk_serves_everything_and_copies_are_restored(tmp_path: Path) -> None:
    artifacts = [made(number) for number in range(8)]
    with replicated(tmp_path, settings={"hosted": {"replicas": 2, "ack": "all"}}) as (_, _, replicas):
        pushing = authors(replicas)
        for number, artifact in enumerate(artifacts):
            assert (await pushing[number % 3].push(artifact, f"v{number}")).status == 201
        blobs = [digest for artifact in artifacts for digest in artifact.blobs]
        assert min(on_disks(replicas, digest) for digest in blobs) >= 2
        replaced = replicas[0]
        replaced.kill()
        replicas.wipe(replaced)
        replicas.start(replaced)
        assert await tags(replaced, NAME) == [f"v{number}" for number in range(8)]
        for number, artifact in enumerate(artifacts[:4]):  # the others are not asked for, and come all the same
            await served([replaced], NAME, f"v{number}", artifact)
        for number, artifact in enumerate(artifacts[4:], 4):
            got = await At(replaced.url).ask("GET", f"/v2/{NAME}/manifests/v{number}")
            assert got.body == artifact.body
        await eventually(
            lambda: all(on_disks(replicas, digest) >= 2 for digest in blobs),
            timeout=RESTORED_WITHIN,
            what="two copies of each blob",
        )
        replicas[1].kill()
        for number, artifact in enumerate(artifacts):
            await served([replaced, replicas[2]], NAME, f"v{number}", artifact)


@asynccontextmanager
async def without(replicas: Replicas, mirror: MirrorProcess) -> AsyncIterator[list[MirrorProcess]]:
    """Meanwhile a replica is stopped; gives the others."""
    await asyncio.to_thread(mirror.stop)
    yield replicas.other_than(mirror)
    await asyncio.to_thread(replicas.start, mirror)


async def test_a_replica_that_was_away_does_not_bring_back_what_was_deleted_or_overwritten(tmp_path: Path) -> None:
    old, new, other = made(1), made(2), made(3)
    with replicated(tmp_path) as (_, _, replicas):
        author = authors(replicas)[0]
        for tag, artifact in (("deleted", old), ("overwritten", old), ("gone", other), ("again", old)):
            assert (await author.push(artifact, tag)).status == 201
        loose = b"a blob that no manifest names"
        assert (await author.blob(loose)).status == 201
        async with without(replicas, replicas[2]):
            assert (await author.ask("DELETE", "manifests/deleted")).status == 202
            assert (await author.push(new, "overwritten")).status == 201
            assert (await author.ask("DELETE", f"manifests/{other.digest}")).status == 202
            assert (await author.ask("DELETE", f"blobs/{Digest.of(loose)}")).status == 202
            assert (await author.ask("DELETE", "manifests/again")).status == 202
            assert (await author.push(new, "again")).status == 201
        for _ in range(2):
            for mirror in (replicas[2], replicas[0], replicas[1]):
                await served([mirror], NAME, "deleted", None)
                await served([mirror], NAME, "gone", None)
                await served([mirror], NAME, str(other.digest), None)
                await served([mirror], NAME, "overwritten", new)
                await served([mirror], NAME, "again", new)
                assert await tags(mirror, NAME) == ["again", "overwritten"]
                reply = await At(mirror.url).ask("GET", f"/v2/{NAME}/blobs/{Digest.of(loose)}")
                assert reply.status == 404
            await asyncio.to_thread(restart_all, replicas)


async def test_a_replica_that_slept_serves_nothing_old_when_it_goes_on(tmp_path: Path) -> None:
    versions = [made(number) for number in range(4)]
    with replicated(tmp_path) as (_, _, replicas):
        pushing = authors(replicas)
        assert (await pushing[0].push(versions[0], "v1")).status == 201
        for number, version in enumerate(versions[1:], 1):
            sleeper = replicas[number % 3]
            replicas.pause(sleeper)
            try:
                assert (await pushing[(number + 1) % 3].push(version, "v1")).status == 201
            finally:
                replicas.resume(sleeper)
            await served([sleeper, *replicas], NAME, "v1", version)


def restart_all(replicas: Replicas) -> None:
    """One after the other, as in a rollout."""
    for mirror in replicas:
        mirror.stop()
        replicas.start(mirror)


async def test_a_deleted_blob_of_one_replica_is_deleted_at_all_disks(tmp_path: Path) -> None:
    artifact = made(1)
    with replicated(tmp_path, settings={"hosted": {"replicas": 3, "ack": "all", "grace": "1s"}}) as (_, _, replicas):
        author = authors(replicas)[0]
        assert (await author.push(artifact, "v1")).status == 201
        blobs = list(artifact.blobs)
        assert [on_disks(replicas, digest) for digest in blobs] == [3] * len(blobs)
        assert (await author.ask("DELETE", f"manifests/{artifact.digest}")).status == 202
        await served(list(replicas), NAME, "v1", None)
        for digest in blobs:
            await eventually(partial(is_nowhere, replicas, digest), timeout=20, what="the files go")


def is_nowhere(replicas: Replicas, digest: Digest) -> bool:
    """Whether no replica has a blob's file."""
    return on_disks(replicas, digest) == 0
