"""Replicas give one answer for a tag: a version that one of them has served is what all serve from then on."""

import asyncio
from functools import partial
from pathlib import Path

import pytest

from mirror.shared import keys
from tests.integration.client import ask, manifest, serves, until
from tests.replicas.agreement import ABSENT, disagreements, given
from tests.support.artifacts import publish, raw, wasm_module
from tests.support.faults import Fault, Gate
from tests.support.load import Load, Want, fetch
from tests.support.redis import RedisServer
from tests.support.replicas import replicated
from tests.support.waiting import eventually, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.needs("redis-server")]

NAME = "up/team/plugin"
TAG = Want(f"/v2/{NAME}/manifests/v1")
VERSIONS = [raw(wasm_module(2000 + number, seed=number)) for number in range(22)]
LONG = {"defaults": {"fresh_for": "1h"}}
DIGESTS = [str(version.digest) for version in VERSIONS]


def test_no_replica_gives_an_older_version_than_any_has_given_before(tmp_path: Path) -> None:
    """Twenty moves, a deletion, and a return, under a load on all replicas.

    One of them has two workers, and one believes tags for so long that it learns of moves from the others alone.
    """
    settings = {"defaults": {"fresh_for": "300ms", "negative_for": "300ms"}}
    story = [*DIGESTS[:-1], ABSENT, DIGESTS[-1]]
    with replicated(tmp_path, settings=settings, own={0: {"workers": 2}, 1: LONG}) as (up, _, replicas):
        publish(up, "team/plugin", "v1", VERSIONS[0])
        with Load(replicas.urls, [TAG], per_second=150) as load:
            wait_until(partial(was_given, load, DIGESTS[0]), what="the first version")
            for version in VERSIONS[1:-1]:
                publish(up, "team/plugin", "v1", version)
                wait_until(partial(was_given, load, str(version.digest)), what="the next version")
            up.delete_tag("team/plugin", "v1")
            wait_until(partial(was_given, load, ABSENT), what="the deletion")
            load.go_on(30)
            publish(up, "team/plugin", "v1", VERSIONS[-1])
            wait_until(partial(was_given, load, DIGESTS[-1]), what="the return")
            load.go_on(30)
        assert {given(outcome) for outcome in load.results} == set(story)
        assert disagreements(load.results, story) == []


ANSWERS = {"that nothing has changed": 0, "an older version": 1}


@pytest.mark.shows("a replica stands still for seconds")
@pytest.mark.parametrize("answered", ANSWERS.values(), ids=ANSWERS.keys())
async def test_what_a_replica_was_told_before_it_slept_does_not_undo_what_others_have_learnt(
    tmp_path: Path, answered: int
) -> None:
    """A sleeper asks upstream, which gives the older answer; another learns the newer one; the sleeper wakes up.

    A third one sleeps too, with the older version in memory, which it would believe for long.
    """
    settings = {"defaults": {"fresh_for": "200ms", "revalidate_for": "5s"}}
    with replicated(tmp_path, settings=settings, own={2: LONG}) as (up, redis, replicas):
        sleeper, awake, dreamer = replicas
        publish(up, "team/plugin", "v1", VERSIONS[0])
        for url in replicas.urls:
            assert serves(VERSIONS[0])(await manifest(url, NAME, "v1"))
        publish(up, "team/plugin", "v1", VERSIONS[answered])
        gate = Gate()
        up.inject(Fault(hold=gate), method="HEAD", times=1)
        asking = []
        while not gate.arrived:  # until the record is old enough
            asking.append(asyncio.create_task(fetch(sleeper.url, TAG)))
            await asyncio.wait(asking, timeout=0.05)
        assert serves(VERSIONS[0])(await manifest(dreamer.url, NAME, "v1"))
        replicas.pause(sleeper)
        replicas.pause(dreamer)
        told = up.matching(method="HEAD")[-1]
        gate.release()
        await eventually(lambda: told.status, what="upstream's older answer")
        publish(up, "team/plugin", "v1", VERSIONS[2])
        await until(partial(manifest, awake.url, NAME, "v1"), serves(VERSIONS[2]), within=15)
        for mirror in (sleeper, dreamer):
            async with ask(mirror.url, TAG.path) as queued:
                replicas.resume(mirror)
                await queued.head()
                assert serves(VERSIONS[2])(await queued.rest()), (
                    "it has slept, so it believes nothing that it remembers"
                )
        await asyncio.gather(*asking)
        for _ in range(20):
            for url in replicas.urls:
                assert (await fetch(url, TAG)).digest == DIGESTS[2]
        assert digests(redis) == {DIGESTS[2]}


def was_given(load: Load, version: str) -> bool:
    """Whether the load has got this version lately."""
    return any(given(outcome) == version for outcome in load.results[-100:])


def digests(redis: RedisServer) -> set[str]:
    """What the tags of which Redis knows name."""
    with redis.client() as client:
        return {client.hget(key, "digest") for key in client.scan_iter(keys.ALL_TAGS)}
