"""What replicas are given to work with: two of them in one process, with a disk each, on one Redis."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import pytest

from mirror.config import Settings
from mirror.shared import keys
from mirror.store.directory import DataDirectory
from mirror.wiring import wired
from tests.integration.client import ask, blob, get, manifest, settled
from tests.store.disk import data_in
from tests.support.artifacts import publish, raw, wasm_module
from tests.support.faults import Fault, Gate
from tests.support.ports import ReservedPort, bound_socket
from tests.support.process import merged
from tests.support.redis import RedisServer
from tests.support.running import running
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

pytestmark = pytest.mark.needs("redis-server")

NAME = "up/team/plugin"
OLD = raw(wasm_module(300_000, seed=1))
NEW = raw(wasm_module(300_000, seed=2))
LAYER = OLD.layers[0]


class Town:
    """An upstream, a Redis, and the replicas that are started."""

    def __init__(self, folder: Path, up: FaultyUpstream, redis: RedisServer) -> None:
        self.up = up
        self.redis = redis
        self._folder = folder
        self._secret = folder / "secret"
        self._secret.write_text("one secret for all of them")
        self._secret.chmod(0o600)

    def settings(self, name: str, port: int, more: Mapping[str, object]) -> dict[str, object]:
        """Those of the replica ``name`` at ``port``."""
        own = {
            "listen": f"127.0.0.1:{port}",
            "metadata": {"url": self.redis.url},
            "cluster": {"advertise": f"http://127.0.0.1:{port}", "secret_file": str(self._secret)},
        }
        return merged(own, more)

    @asynccontextmanager
    async def replica(self, name: str, **more: object) -> AsyncIterator[str]:
        """The URL of a replica that serves and has beaten."""
        with ReservedPort() as port:
            url = f"http://127.0.0.1:{port.number}"
            async with running(self._folder / name, {"up": self.up}, self.settings(name, port.number, more)):
                await eventually(lambda: any(url in beat for beat in self.beats()), what="its beat")
                yield url

    @asynccontextmanager
    async def two(self, **more: object) -> AsyncIterator[tuple[str, str]]:
        """The URLs of two that know of each other."""
        async with AsyncExitStack() as stack:
            first, second = [await stack.enter_async_context(self.replica(name, **more)) for name in "ab"]
            before = self.beats()
            await eventually(lambda: not set(before) & set(self.beats()), what="another beat of both")
            yield first, second

    def beats(self) -> list[str]:
        """The last beats that Redis knows."""
        with self.redis.client() as client:
            return [str(beat) for beat in client.hvals(keys.members())]


@contextmanager
def town(folder: Path) -> Iterator[Town]:
    """All but the replicas; upstream has the old version."""
    with FaultyUpstream() as up, RedisServer(folder / "redis") as redis:
        publish(up, "team/plugin", "v1", OLD)
        yield Town(folder, up, redis)


async def held(url: str) -> None:
    """Have a replica hold the old version."""
    assert (await manifest(url, NAME, "v1")).body == OLD.body
    for digest, body in OLD.blobs.items():
        assert (await blob(url, NAME, digest)).body == body


async def test_what_one_holds_and_knows_the_other_serves_without_upstream_and_without_redis(tmp_path: Path) -> None:
    with town(tmp_path) as here:
        async with here.two() as (first, second):
            await held(first)
            here.redis.kill()
            here.up.refuse()
            await held(second)
            assert (await manifest(second, NAME, OLD.digest)).body == OLD.body


@pytest.mark.parametrize(
    "path", ["manifests/v1", f"manifests/{OLD.digest}", f"blobs/{LAYER}"], ids=["tag", "manifest", "blob"]
)
async def test_both_together_ask_upstream_once(tmp_path: Path, path: str) -> None:
    with town(tmp_path) as here:
        async with here.two() as (first, second):
            gate = Gate()
            here.up.inject(Fault(hold=gate), method="GET", path=path)
            asked = [asyncio.create_task(get(url, f"/v2/{NAME}/{path}")) for url in (first, second)]
            await gate.reached()
            await settled(first)
            await settled(second)
            gate.release()
            assert {got.status for got in await asyncio.gather(*asked)} == {200}
            assert here.up.count(method="GET", path=path) == 1


async def test_bytes_that_one_gets_flow_through_the_other_at_once(tmp_path: Path) -> None:
    gate, path = Gate(), f"/v2/{NAME}/blobs/{LAYER}"
    with town(tmp_path) as here:
        before = sockets()
        async with here.two() as (first, second):
            here.up.inject(Fault(gate=gate, gate_at=200_000), method="GET", path="/blobs/")
            async with ask(first, path) as one:
                await one.head()
                async with ask(second, path) as other:
                    await other.head()
                    came = await other.read()
                    assert OLD.blobs[LAYER].startswith(came)
                    gate.release()
                    assert came + (await other.rest()).body == OLD.blobs[LAYER]
            assert here.up.count(method="GET", path="/blobs/") == 1
            with here.redis.client() as client:
                await eventually(lambda: set(client.zrange(keys.holders(LAYER), 0, -1)) == {first, second})
        await eventually(lambda: sockets() <= before, what="all are closed: to Redis, upstream and each other")


def sockets() -> int:
    """How many are open in this process."""
    found = 0
    for file in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the folder itself is closed again
            found += str(file.readlink()).startswith("socket:")
    return found


async def test_a_move_that_one_has_seen_the_other_serves_from_that_moment_on(tmp_path: Path) -> None:
    with town(tmp_path) as here:
        async with (
            here.replica("a", defaults={"fresh_for": "0s"}) as asks,
            here.replica("b", defaults={"fresh_for": "1h"}) as believes,
        ):
            assert (await manifest(asks, NAME, "v1")).body == OLD.body
            assert (await manifest(believes, NAME, "v1")).body == OLD.body
            publish(here.up, "team/plugin", "v1", NEW)
            assert (await manifest(asks, NAME, "v1")).body == NEW.body
            assert (await manifest(believes, NAME, "v1")).body == NEW.body


async def test_what_redis_has_forgotten_is_put_back(tmp_path: Path) -> None:
    tag, link = keys.tag("up", "team/plugin", "v1"), keys.link("up", "team/plugin", LAYER)
    with town(tmp_path) as here, here.redis.client() as client:
        async with here.replica("a") as url:
            await held(url)
            assert client.exists(tag, link) == 2
            here.redis.flush()
            await eventually(lambda: client.exists(tag, link) == 2)


async def test_a_replica_is_known_before_it_serves_and_forgotten_when_it_stops(tmp_path: Path) -> None:
    directory = data_in(tmp_path / "data")
    with town(tmp_path) as here:
        given = {"data_dir": str(tmp_path / "data"), "upstreams": {"up": {"endpoints": [here.up.url]}}}
        settings = Settings.model_validate(merged(here.settings("a", 8080, {}), given))
        threads = own_threads()
        async with wired(settings, directory, lambda: False):
            assert len(here.beats()) == 1
        assert here.beats() == []
        assert own_threads() <= threads


def own_threads() -> set[threading.Thread]:
    """The threads that somebody has begun and has to end: not those of the loop."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}


async def test_the_holder_of_a_lease_is_told_apart_by_its_disk_too(tmp_path: Path) -> None:
    gate = Gate()
    with town(tmp_path) as here, here.redis.client() as client:
        async with here.replica("a") as url:
            here.up.inject(Fault(hold=gate), method="GET", path="/blobs/")
            asked = asyncio.create_task(blob(url, NAME, LAYER))
            await gate.reached()
            value = str(await eventually(lambda: client.get(keys.fill_lease(LAYER))))
            identity = DataDirectory.attach(tmp_path / "a" / "data").identity()
            assert value.split(" ", 1)[1].startswith(f"{url} ")
            assert value.endswith(f"/{identity}")
            gate.release()
            assert (await asked).status == 200


async def test_without_a_secret_nothing_is_told_to_anyone(tmp_path: Path) -> None:
    with town(tmp_path) as here:
        alone: Mapping[str, object] = {"cluster": {"advertise": None, "secret_file": None}}
        async with here.replica("a") as url, running(tmp_path / "b", {"up": here.up}, alone) as without:
            assert (await get(url, f"/peer/v1/blobs/{LAYER}")).status == 401
            assert (await get(f"http://{without.host}", f"/peer/v1/blobs/{LAYER}")).status == 404


async def test_a_replica_that_hangs_in_the_midst_of_a_blob_is_not_waited_for(tmp_path: Path) -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {len(module)}\r\n\r\n"
        writer.write(head.encode() + module[:100_000])
        await reader.read()  # nothing more, until the other side has left
        writer.close()

    module = OLD.blobs[LAYER]
    hanging = await asyncio.start_server(half, "127.0.0.1", 0)
    async with hanging:
        address = f"http://127.0.0.1:{hanging.sockets[0].getsockname()[1]}"
        with town(tmp_path) as here, here.redis.client() as client:
            async with here.replica("a") as url:
                client.set(keys.fill_lease(LAYER), f"token {address} host/1", px=500)
                began = asyncio.get_running_loop().time()
                got = await blob(url, NAME, LAYER)
                assert (got.status, got.body == module) == (200, True)
                assert asyncio.get_running_loop().time() - began < 5
                [asked] = here.up.matching(method="GET", path="/blobs/")
                assert asked.headers.get("range", "").startswith("bytes=")


async def test_a_replica_that_takes_no_connection_is_not_waited_for(tmp_path: Path) -> None:
    with town(tmp_path) as here, here.redis.client() as client, deaf() as address:
        async with here.replica("a") as url:
            client.set(keys.fill_lease(LAYER), f"token {address} host/1", px=300)
            began = asyncio.get_running_loop().time()
            assert (await blob(url, NAME, LAYER)).body == OLD.blobs[LAYER]
            assert asyncio.get_running_loop().time() - began < 3


@contextmanager
def deaf() -> Iterator[str]:
    """The URL of a server whose queue of connections is full: whoever comes now hears nothing."""
    with ExitStack() as stack:
        listener = stack.enter_context(bound_socket("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


async def test_a_disk_without_its_database_is_known_to_hold_what_it_holds(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", OLD)
        async with running(tmp_path, {"up": up}) as mirror:
            await held(f"http://{mirror.host}")
            await mirror.until_held(LAYER)
        for file in (tmp_path / "data").glob("metadata.sqlite*"):
            file.unlink()
        up.refuse()
        async with running(tmp_path, {"up": up}) as mirror:
            assert (await blob(f"http://{mirror.host}", NAME, LAYER)).body == OLD.blobs[LAYER]
