"""Redis may die, hang, forget or refuse: nobody who pulls what is held notices, and afterwards replicas agree again."""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.replicas.agreement import disagreements
from tests.support.artifacts import compat, publish, raw, wasm_module
from tests.support.load import Load, Want, fetch
from tests.support.redis import RedisServer
from tests.support.replicas import Replicas, replicated
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.needs("redis-server")]

HELD = compat(wasm_module(100_000))
LAYER = HELD.layers[0]
PULL = [
    Want("/v2/up/team/plugin/manifests/v1", HELD.body),
    Want(f"/v2/up/team/plugin/blobs/{LAYER}", HELD.blobs[LAYER]),
]
MOVING = Want("/v2/up/team/moving/manifests/v1")
SETTINGS = {"defaults": {"fresh_for": "500ms"}}
SLOWEST = 1.0  # seconds


class Versions:
    """A tag that moves upstream. ``digests`` are all that it has named, in their order."""

    def __init__(self, up: FaultyUpstream) -> None:
        self._up = up
        self.digests: list[str] = []

    @property
    def latest(self) -> str:
        """What it names now."""
        return self.digests[-1]

    def publish(self) -> None:
        """Let it move."""
        count = len(self.digests)
        self.digests.append(str(publish(self._up, "team/moving", "v1", raw(wasm_module(1000 + count, seed=count)))))


Setup = tuple[Versions, RedisServer, Replicas]


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    """Three replicas that all hold the module."""
    with replicated(tmp_path_factory.mktemp("redis-trouble"), settings=SETTINGS) as (up, redis, replicas):
        publish(up, "team/plugin", "v1", HELD)
        for url in replicas.urls:
            for want in PULL:
                assert asyncio.run(fetch(url, want)).right
        yield Versions(up), redis, replicas


# What begins the trouble, and what ends it.
TROUBLES: dict[str, tuple[Callable[[RedisServer], None], Callable[[RedisServer], None]]] = {
    "killed": (RedisServer.kill, RedisServer.start),
    "hanging": (RedisServer.pause, RedisServer.resume),
    "flushed": (RedisServer.flush, lambda _: None),
    "read-only": (lambda redis: redis.read_only(True), lambda redis: redis.read_only(False)),
}


@pytest.mark.shows("Redis is gone, hangs, forgets or refuses writes")
@pytest.mark.parametrize(("begin", "end"), TROUBLES.values(), ids=TROUBLES.keys())
def test_no_pull_of_held_content_fails_or_takes_a_second_and_tags_agree_afterwards(
    setup: Setup, begin: Callable[[RedisServer], None], end: Callable[[RedisServer], None]
) -> None:
    versions, redis, replicas = setup
    versions.publish()
    for url in replicas.urls:
        wait_until(partial(gives, url, versions.latest), what="the tag")
    with Load(replicas.urls, PULL, per_second=50) as load:
        load.go_on(25)
        begin(redis)
        versions.publish()
        load.go_on(75)
        assert asyncio.run(fetch(replicas.urls[0], MOVING)).digest in versions.digests
        load.go_on(50)
        end(redis)
        load.go_on(50)
    assert load.failures == []
    assert load.slowest < SLOWEST + load.lateness
    for url in replicas.urls:
        wait_until(partial(gives, url, versions.latest), what="the tag that moved meanwhile")
    with Load(replicas.urls, [MOVING], per_second=100) as tags:
        for _ in range(2):
            versions.publish()
            wait_until(lambda: tags.results and tags.results[-1].digest == versions.latest, what="another move")
        tags.go_on(10)
    assert disagreements(tags.results, versions.digests) == []


def gives(url: str, digest: str) -> bool:
    """Whether a replica says that the tag names this."""
    return asyncio.run(fetch(url, MOVING)).digest == digest
