"""What one replica holds all can serve, whatever has become of upstream, and of what Redis knew."""

import asyncio
import random
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.client import get
from tests.support.artifacts import Artifact, compat, docker, publish, raw, wasm_module
from tests.support.faults import Fault, Gate
from tests.support.load import Want, fetch
from tests.support.redis import RedisServer
from tests.support.replicas import Replicas, replicated
from tests.support.upstream import FaultyUpstream

pytestmark = [pytest.mark.integration, pytest.mark.needs("redis-server")]

ARTIFACTS = {
    f"team/plugin-{number}": layout(wasm_module(200_000 + number, seed=number))
    for number, layout in enumerate([raw, compat, docker] * 2)
}
SETTINGS = {"defaults": {"fresh_for": "0s"}}
Setup = tuple[FaultyUpstream, RedisServer, Replicas]


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    """Two replicas, of which the first holds everything."""
    with replicated(tmp_path_factory.mktemp("peers"), n=2, settings=SETTINGS) as (up, redis, replicas):
        for name, artifact in ARTIFACTS.items():
            publish(up, name, "v1", artifact)
        asyncio.run(serves_all(replicas[0].url))
        yield up, redis, replicas


def nothing(_: RedisServer) -> None:
    """All is well."""


def flushed(redis: RedisServer) -> None:
    """Redis has lost everything."""
    redis.flush()


def evicted(redis: RedisServer) -> None:
    """Redis has thrown away one half of its keys."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    with redis.client() as client:
        keys = sorted(client.scan_iter())
        client.delete(*random.Random(seed).sample(keys, len(keys) // 2))


def killed(redis: RedisServer) -> None:
    """Redis is gone."""
    redis.kill()


@pytest.mark.shows("upstream is down and a replica starts with an empty disk")
@pytest.mark.parametrize(
    ("outage", "trouble"),
    [("answers 503", nothing), ("refuses", flushed), ("answers 503", evicted), ("refuses", killed)],
)
async def test_a_replica_with_an_empty_disk_serves_all_that_another_holds_while_upstream_is_down(
    setup: Setup, outage: str, trouble: Callable[[RedisServer], None]
) -> None:
    up, redis, replicas = setup
    empty = replicas[1]
    empty.kill()
    replicas.wipe(empty)
    up.reset()
    try:
        if outage == "refuses":
            up.refuse()
        else:
            up.inject(Fault(status=503))
        replicas.start(empty)
        trouble(redis)
        await serves_all(empty.url)
        if trouble is nothing:  # what Redis has lost may cost requests
            assert up.count(path="/blobs/") == 0, "blobs come from the other"
            assert up.count(path="/manifests/sha256:") == 0, "so do manifests"
    finally:
        up.clear()
        up.accept()
        if trouble is killed:
            redis.start()
            replicas.wait_joined()


@pytest.mark.shows("a replica has another secret")
async def test_a_replica_with_another_secret_is_told_nothing_and_asks_upstream_itself(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text(secrets.token_hex(32))
    name, artifact = "team/plugin", raw(wasm_module(1_000_000))
    layer, gate = artifact.layers[0], Gate()
    wants = of(name, artifact)
    with replicated(tmp_path, own={2: {"cluster": {"secret_file": str(other)}}}) as (up, _, replicas):
        publish(up, name, "v1", artifact)
        up.inject(Fault(gate=gate, gate_at=300_000), method="GET", path=f"/blobs/{layer}", times=1)
        first, second, stranger = replicas.urls
        waiting = asyncio.create_task(fetch(stranger, wants[-1]))
        await gate.reached()
        at_others = [fetch(url, want) for url in (first, second) for want in wants]
        for outcome in await asyncio.gather(*at_others):  # they do not wait for one that tells them nothing
            assert outcome.right, outcome
        gate.release()
        assert (await waiting).right
        assert up.count(method="GET", path=f"/blobs/{layer}") <= len(replicas)
        for want in wants:
            assert (await fetch(stranger, want)).right
        for url in replicas.urls:
            for path in (f"blobs/{layer}", f"tags/up/{name}?tag=v1", f"links/up/{name}?digest={layer}"):
                refused = await get(url, f"/peer/v1/{path}")
                assert refused.status == 401
                assert artifact.blobs[layer][:100] not in refused.body


async def serves_all(url: str) -> None:
    """By tag, by digest, and all that manifests name."""
    wants = [want for name, artifact in ARTIFACTS.items() for want in of(name, artifact)]
    for outcome in await asyncio.gather(*(fetch(url, want) for want in wants)):
        assert outcome.right, outcome


def of(name: str, artifact: Artifact) -> list[Want]:
    """All that a client can ask for of it; the module comes last."""
    layer = artifact.layers[0]
    return [
        Want(f"/v2/up/{name}/manifests/v1", artifact.body),
        Want(f"/v2/up/{name}/manifests/{artifact.digest}", artifact.body),
        *(Want(f"/v2/up/{name}/blobs/{digest}", body) for digest, body in artifact.blobs.items() if digest != layer),
        Want(f"/v2/up/{name}/blobs/{layer}", artifact.blobs[layer]),
    ]
