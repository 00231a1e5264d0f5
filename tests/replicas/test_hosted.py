"""What is pushed at one replica is there at all of them: three mirrors in one process, a disk each, on one Redis."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.shared import keys
from tests.support.artifacts import raw, wasm_module
from tests.support.ports import ReservedPort
from tests.support.process import merged
from tests.support.pushing import Author
from tests.support.redis import RedisServer
from tests.support.running import Running, running
from tests.support.waiting import eventually

pytestmark = pytest.mark.needs("redis-server")

NAME = "hosted/team/plugin"
PLUGIN = raw(wasm_module(200_000, seed=1))
OTHER = raw(wasm_module(200_000, seed=2))
MODULE = PLUGIN.layers[0]


@dataclass(frozen=True, slots=True)
class Town:
    """Replicas that know of one another, and their Redis."""

    redis: RedisServer
    replicas: list[Running]

    def authors(self, repository: str = NAME) -> list[Author]:
        """Who pushes to each."""
        return [Author(mirror, repository) for mirror in self.replicas]

    def holding(self, digest: Digest) -> list[Running]:
        """Those that have the bytes on their disks."""
        return [mirror for mirror in self.replicas if mirror.holds(digest)]

    def lacking(self, digest: Digest) -> list[Running]:
        """Those that have not."""
        return [mirror for mirror in self.replicas if not mirror.holds(digest)]


@asynccontextmanager
async def town(folder: Path, n: int = 3, **settings: object) -> AsyncIterator[Town]:
    """``n`` replicas, each ready."""
    secret = folder / "secret"
    secret.write_text("one secret for all of them")
    secret.chmod(0o600)
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(RedisServer(folder / "redis"))
        replicas = []
        for number in range(n):
            port = stack.enter_context(ReservedPort())
            own: Mapping[str, object] = {
                "listen": f"127.0.0.1:{port.number}",
                "metadata": {"url": redis.url},
                "cluster": {"advertise": f"http://127.0.0.1:{port.number}", "secret_file": str(secret)},
            }
            up = {"up": "http://127.0.0.1:9"}
            replicas.append(
                await stack.enter_async_context(running(folder / str(number), up, merged(own, settings)))
            )
        await eventually(lambda: _all_know_all(redis, n), what="all know of one another")
        yield Town(redis, replicas)


def _all_know_all(redis: RedisServer, n: int) -> bool:
    with redis.client() as client:
        return int(client.hlen(keys.members())) == n


async def test_what_is_pushed_at_one_is_pulled_from_every_other_at_once(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        author = here.authors()[0]
        assert (await author.push(PLUGIN, "v1")).status == 201
        for mirror in here.replicas:
            for target in ("v1", str(PLUGIN.digest)):
                reply = await mirror.get(f"/v2/{NAME}/manifests/{target}")
                assert (reply.status, reply.body) == (200, PLUGIN.body)
            assert (await mirror.get(f"/v2/{NAME}/tags/list")).json["tags"] == ["v1"]
            module = await mirror.get(f"/modules/{NAME}:v1")
            assert (module.status, module.body) == (200, PLUGIN.blobs[MODULE])
            for digest, content in PLUGIN.blobs.items():
                reply = await mirror.get(f"/v2/{NAME}/blobs/{digest}")
                assert (reply.status, reply.body) == (200, content)
