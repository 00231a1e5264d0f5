"""Several workers on one disk: one download for all, and none of them is missed when it dies."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from mirror.digest import Digest
from tests.integration.client import Exchange, Got, ask, blob, get, manifest, pull, serves, settled, until
from tests.integration.whose import server_of, workers, writer_of
from tests.support.artifacts import compat, publish, raw, wasm_module
from tests.support.faults import Fault, Gate
from tests.support.process import MirrorProcess, process_group
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

NAME = "up/team/plugin"
MODULE = wasm_module(1_000_000)
ARTIFACT = raw(MODULE)
LAYER = ARTIFACT.layers[0]
TWO = {"workers": 2}


@pytest.mark.shows("a worker dies")
async def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}, TWO) as mirror:
        publish(up, "team/plugin", "v1", ARTIFACT)
        assert (await pull(mirror.url, NAME, "v1")).whole
        before = workers(mirror)
        assert len(before) == 2
        os.kill(before[0], signal.SIGKILL)
        await eventually(lambda: len(set(workers(mirror)) - {before[0]}) == 2, what="another worker")
        assert before[1] in workers(mirror)
        up.refuse()
        for _ in range(10):
            assert (await pull(mirror.url, NAME, "v1")).whole
        assert mirror.stop() == 0
        assert mirror.log_text().count("a worker has ended with status -9; starting another") == 1


@pytest.mark.shows("a worker dies")
async def test_a_fill_whose_holder_is_killed_is_taken_over_unseen(tmp_path: Path) -> None:
    gate = Gate()
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}, TWO) as mirror:
        publish(up, "team/plugin", None, ARTIFACT)
        up.inject(Fault(gate=gate, gate_at=600_000), method="GET", path=f"/blobs/{LAYER}", times=1)
        async with AsyncExitStack() as stack:
            clients = [await client(stack, mirror) for _ in range(16)]
            spool = mirror.data_dir / "spool" / f"sha256-{LAYER.hex}"
            await eventually(lambda: spool.exists() and spool.stat().st_size == 600_000, what="the bytes so far")
            holder = writer_of(mirror, spool)
            others = [exchange for exchange in clients if server_of(mirror, exchange.port) != holder]
            assert holder is not None
            assert others, "the other worker has clients too"
            assert len(others) < len(clients)
            os.kill(holder, signal.SIGKILL)
            for got in await asyncio.gather(*(exchange.rest() for exchange in others)):
                assert got.whole
                assert Digest.of(got.body) == LAYER
        first, second = up.matching(method="GET", path=f"/blobs/{LAYER}")
        assert (first.status, second.status) == (200, 206)
        assert second.headers["range"] == "bytes=600000-"
        gate.release()
        up.refuse()
        assert Digest.of((await blob(mirror.url, NAME, LAYER)).body) == LAYER


async def test_a_withheld_layer_whose_holder_is_killed_is_taken_over_too(tmp_path: Path) -> None:
    artifact = compat(MODULE)
    layer = artifact.layers[0]
    gate = Gate()
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}, TWO) as mirror:
        publish(up, "team/plugin", "v1", artifact)
        up.inject(Fault(gate=gate, gate_at=600_000), path=f"/blobs/{layer}", times=1)
        assert (await manifest(mirror.url, NAME, "v1")).status == 200
        async with AsyncExitStack() as stack:
            clients = [await client(stack, mirror, layer, head=False) for _ in range(16)]
            spool = mirror.data_dir / "spool" / f"sha256-{layer.hex}"
            await eventually(lambda: spool.exists() and spool.stat().st_size == 600_000, what="the bytes so far")
            holder = writer_of(mirror, spool)
            assert holder is not None
            others = [exchange for exchange in clients if server_of(mirror, exchange.port) != holder]
            os.kill(holder, signal.SIGKILL)
            for exchange in others:
                await exchange.head()
                got = await exchange.rest()
                assert (got.status, Digest.of(got.body)) == (200, layer)
        assert up.count(method="GET", path=f"/blobs/{layer}") == 2
        gate.release()


@pytest.mark.parametrize("drain_for", ["0s", "500ms"])
@pytest.mark.shows("the supervisor of the workers is killed")
async def test_workers_end_when_their_supervisor_is_killed_and_finish_what_runs(tmp_path: Path, drain_for: str) -> None:
    gate = Gate()
    settings = {**TWO, "drain_for": drain_for}
    with FaultyUpstream() as up:
        publish(up, "team/plugin", None, ARTIFACT)
        up.inject(Fault(gate=gate, gate_at=600_000), method="GET", path=f"/blobs/{LAYER}", times=1)
        mirror = MirrorProcess(tmp_path, {"up": up.url}, settings)
        mirror.start()
        async with AsyncExitStack() as stack:
            clients = [await client(stack, mirror) for _ in range(8)]
            group = mirror.pid
            os.kill(group, signal.SIGKILL)
            await eventually(lambda: mirror.log_text().count("stopping: ") == 2, what="both workers have noticed")
            gate.release()
            for got in await asyncio.gather(*(exchange.rest() for exchange in clients)):
                assert got.whole
                assert Digest.of(got.body) == LAYER
        await eventually(lambda: not process_group(group), what="the end of the workers")
        mirror.kill()
        with mirror:
            assert (await get(mirror.url, "/readyz")).status == 200


async def test_one_head_is_asked_for_all_who_wait_at_any_worker(tmp_path: Path) -> None:
    settings = {**TWO, "defaults": {"fresh_for": "1s", "revalidate_for": "20s"}}
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}, settings) as mirror:
        publish(up, "team/plugin", "v1", ARTIFACT)
        await manifest(mirror.url, NAME, "v1")
        gate = Gate()
        up.inject(Fault(hold=gate), method="HEAD")

        tasks: list[asyncio.Task[Got]] = []
        while not gate.arrived:  # until the record is old enough
            tasks.append(asyncio.create_task(manifest(mirror.url, NAME, "v1")))
            await asyncio.wait(tasks, timeout=0.05)
        tasks += [asyncio.create_task(manifest(mirror.url, NAME, "v1")) for _ in range(50)]
        await settled(mirror.url)
        gate.release()
        await asyncio.gather(*tasks)
        assert up.count(method="HEAD") == 1
        assert up.count(method="GET", path="/manifests/") == 1


async def test_what_upstream_lacks_is_asked_for_once_by_all_workers(tmp_path: Path) -> None:
    settings = {**TWO, "defaults": {"negative_for": "1h"}}
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}, settings) as mirror:
        missing = Digest.of(b"nowhere")
        for target in ("v2", missing):
            for _ in range(10):
                assert (await manifest(mirror.url, NAME, target)).status == 404
        assert up.count(path="/manifests/v2") == 1
        assert up.count(path="/manifests/sha256:") == 1


async def test_a_tag_never_goes_back_whichever_worker_answers(tmp_path: Path) -> None:
    versions = [raw(wasm_module(2000 + number, seed=number)) for number in range(5)]
    order = {str(version.digest): number for number, version in enumerate(versions)}
    settings = {**TWO, "defaults": {"fresh_for": "200ms"}}
    done = asyncio.Event()

    async def look(url: str) -> list[int]:
        seen = []
        while not done.is_set():
            seen.append(order[(await manifest(url, NAME, "v1")).headers["docker-content-digest"]])
        return seen

    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}, settings) as mirror:
        publish(up, "team/plugin", "v1", versions[0])
        lookers = [asyncio.create_task(look(mirror.url)) for _ in range(4)]
        for version in versions:
            publish(up, "team/plugin", "v1", version)
            await until(lambda: manifest(mirror.url, NAME, "v1"), serves(version))
        done.set()
        for seen in await asyncio.gather(*lookers):
            assert seen == sorted(seen)


async def client(stack: AsyncExitStack, mirror: MirrorProcess, layer: Digest = LAYER, *, head: bool = True) -> Exchange:
    """A client that asks for a layer, and waits for the status line; without ``head``, until a worker accepts it."""
    exchange = await stack.enter_async_context(ask(mirror.url, f"/v2/{NAME}/blobs/{layer}"))
    if head:
        await exchange.head()
        assert exchange.status == 200
    else:
        await eventually(lambda: server_of(mirror, exchange.port), what="a worker that accepts")
    return exchange
