"""Replicas that cannot reach one another, or their Redis, go on by themselves."""

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.integration.client import blob, manifest, pull, serves, until
from tests.support.artifacts import compat, publish, raw, wasm_module
from tests.support.ports import bound_socket
from tests.support.process import MirrorProcess
from tests.support.redis import RedisServer
from tests.support.upstream import FaultyUpstream

pytestmark = [pytest.mark.integration, pytest.mark.needs("redis-server")]

NAME = "up/team/plugin"
FIRST, SECOND, THIRD = (layout(wasm_module(300_000, seed=seed)) for seed, layout in enumerate((raw, compat, raw)))


def replica(folder: Path, up: FaultyUpstream, redis_url: str, advertise: str | None = None) -> MirrorProcess:
    """One replica of a cluster. It says that it is at ``advertise``, and by default where it is."""
    secret = folder.parent / "secret"
    if not secret.exists():
        secret.write_text(secrets.token_hex(32))
    settings = {"metadata": {"url": redis_url}, "defaults": {"fresh_for": "300ms", "hold_for": "5s"}}
    mirror = MirrorProcess(folder, {"up": up.url}, settings)
    mirror.settings["cluster"] = {"advertise": advertise or mirror.url, "secret_file": str(secret)}
    mirror.write_config()
    return mirror


@contextmanager
def nobody_there(*, accepts: bool) -> Iterator[str]:
    """A URL where connections are refused, or accepted by a kernel behind which nobody listens any more."""
    with bound_socket("127.0.0.1", 0) as bound:
        if accepts:
            bound.listen(1000)
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.shows("replicas cannot reach one another")
@pytest.mark.parametrize("accepts", [False, True], ids=["refuses", "silent"])
async def test_replicas_that_cannot_reach_one_another_download_for_themselves(tmp_path: Path, accepts: bool) -> None:
    with (
        FaultyUpstream() as up,
        RedisServer(tmp_path / "redis") as redis,
        nobody_there(accepts=accepts) as nowhere,
        replica(tmp_path / "one", up, redis.url, nowhere) as one,
        replica(tmp_path / "two", up, redis.url, nowhere) as two,
    ):
        publish(up, "team/plugin", "v1", FIRST)
        assert (await pull(one.url, NAME, "v1")).whole
        pulled = await pull(two.url, NAME, "v1")
        assert pulled.whole
        assert pulled.manifest.seconds < 4
        assert up.count(method="GET", path=f"/blobs/{FIRST.layers[0]}") == 2

        publish(up, "team/plugin", "v2", SECOND)
        both = await asyncio.gather(*(pull(mirror.url, NAME, "v2") for mirror in (one, two)))
        assert [pulled.whole for pulled in both] == [True, True]
        assert max(layer.seconds for pulled in both for layer in pulled.layers) < 10

        publish(up, "team/plugin", "v3", THIRD)
        assert (await pull(one.url, NAME, "v3")).whole
        up.refuse()
        got = await blob(two.url, NAME, THIRD.layers[0])
        assert (got.status, got.error[0]) == (503, "UPSTREAM_UNAVAILABLE")
        assert (await pull(two.url, NAME, "v1")).whole, "what it holds it serves"


@pytest.mark.shows("a replica cannot reach Redis and the others can")
async def test_a_replica_that_cannot_reach_redis_goes_on_with_what_it_knows_itself(tmp_path: Path) -> None:
    with (
        FaultyUpstream() as up,
        RedisServer(tmp_path / "redis") as redis,
        nobody_there(accepts=False) as nowhere,
        replica(tmp_path / "one", up, redis.url) as one,
        replica(tmp_path / "two", up, nowhere.replace("http:", "redis:")) as two,
    ):
        for version in (FIRST, SECOND):
            publish(up, "team/plugin", "latest", version)
            for mirror in (one, two):
                await until(partial(manifest, mirror.url, NAME, "latest"), serves(version))
                assert (await pull(mirror.url, NAME, "latest")).whole
        up.refuse()
        for mirror in (one, two):
            pulled = await pull(mirror.url, NAME, "latest")
            assert pulled.whole
            assert pulled.manifest.body == SECOND.body
