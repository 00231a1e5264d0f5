"""Whatever the number of clients and replicas, upstream sends each thing once; a holder that dies is not missed."""

import asyncio
import os
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from mirror.digest import Digest
from tests.integration.client import ask, settled
from tests.integration.whose import server_of, writer_of
from tests.support.artifacts import Artifact, compat, publish, raw, wasm_module
from tests.support.faults import Fault, Gate
from tests.support.load import Outcome, Want, fetch
from tests.support.process import MirrorProcess
from tests.support.replicas import Replicas, replicated
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.needs("redis-server")]

NAME = "up/team/plugin"
MODULE = wasm_module(8 << 20)
SO_FAR = 30 * len(MODULE) // 100  # bytes that upstream sends before the holder dies
TAKEN_OVER_WITHIN = 8.0  # seconds: 5 are promised, and this machine may be busy
BUSY = 0.2
"""The part of the machine's time from which on others may be why a replica hears nothing for half a second."""

WENT_ON_ALONE = re.compile("goes on alone|this replica stood still|gives nothing of it for|does not answer within 2 s")
"""What a replica says that hears nothing of Redis or of the others in time. It may then ask upstream by itself."""

LAYOUTS = {"raw": raw, "tar+gzip": compat}
Layout = Callable[[bytes], Artifact]
Task = asyncio.Task[Outcome]


@pytest.mark.parametrize(("layout", "workers"), [(raw, 1), (raw, 2), (compat, 1)], ids=["raw", "workers", "tar+gzip"])
async def test_three_hundred_clients_at_three_replicas_cost_upstream_one_get_of_each(
    tmp_path: Path, layout: Layout, workers: int
) -> None:
    artifact = layout(MODULE)
    tag, layer = Want(f"/v2/{NAME}/manifests/v1", artifact.body), of_layer(artifact)

    async def client(url: str) -> list[Outcome]:
        return [await fetch(url, tag), await fetch(url, layer)]

    with replicated(tmp_path, settings={"workers": workers}) as (up, _, replicas):
        publish(up, "team/plugin", "v1", artifact)
        up.inject(Fault(delay=0.05, bandwidth=20e6))
        before = cpu_time(replicas)
        clients = await asyncio.gather(*(client(url) for url in replicas.urls * 100))
        others = taken_by_others(before, cpu_time(replicas))
        failed = [outcome for outcomes in clients for outcome in outcomes if not outcome.right]
        assert failed == []
        alone = [mirror for mirror in replicas if WENT_ON_ALONE.search(mirror.log_text())]
        assert not alone or others > BUSY, f"{len(alone)} went on alone, with {1 - others:.0%} of the machine for them"
        most = min(1 + len(alone), len(replicas))
        asked = Counter((request.method, request.path) for request in up.requests)
        assert set(asked.values()) <= set(range(1, most + 1)), f"nothing was asked for twice: {asked}"
        assert 1 <= up.count(path="/manifests/") <= most
        assert 1 <= up.count(path=f"/blobs/{artifact.layers[0]}") <= most


@pytest.mark.shows("a replica dies in the middle of a download")
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
async def test_a_holder_that_is_killed_is_taken_over_from_the_bytes_that_others_have(
    tmp_path: Path, layout: Layout
) -> None:
    artifact = layout(MODULE)
    layer = artifact.layers[0]
    with replicated(tmp_path) as (up, _, replicas):
        async with held_up(up, replicas, artifact) as (holder, tasks):
            holder.kill()
            await taken_over(up, layer)
            for mirror in replicas.other_than(holder):
                for outcome in await asyncio.gather(*tasks[mirror.url]):
                    assert outcome.right, outcome
            for outcome in await asyncio.gather(*tasks[holder.url]):
                assert not outcome.wrong, outcome
        replicas.start(holder)
        assert (await fetch(holder.url, of_layer(artifact))).right
        assert up.count(path=f"/blobs/{layer}") == 2, "a replica that comes back has it from the others"


async def test_a_holder_that_hangs_is_taken_over_and_does_no_harm_when_it_goes_on(tmp_path: Path) -> None:
    artifact = raw(MODULE)
    layer = artifact.layers[0]
    with replicated(tmp_path) as (up, _, replicas):
        async with held_up(up, replicas, artifact) as (holder, tasks):
            replicas.pause(holder)
            await taken_over(up, layer)
            for mirror in replicas.other_than(holder):
                for outcome in await asyncio.gather(*tasks[mirror.url]):
                    assert outcome.right, outcome
            replicas.resume(holder)
        for outcome in await asyncio.gather(*tasks[holder.url]):
            assert outcome.right, outcome
        for url in replicas.urls:
            assert (await fetch(url, of_layer(artifact))).right
        assert up.count(path=f"/blobs/{layer}") == 2


async def test_a_worker_of_the_holder_that_is_killed_is_taken_over_too(tmp_path: Path) -> None:
    artifact = raw(MODULE)
    layer = artifact.layers[0]
    with replicated(tmp_path, n=2, settings={"workers": 2}) as (up, _, replicas):
        async with held_up(up, replicas, artifact) as (holder, _), AsyncExitStack() as stack:
            [other] = replicas.other_than(holder)
            exchanges = [
                (mirror, await stack.enter_async_context(ask(mirror.url, of_layer(artifact).path)))
                for mirror in (holder, other) * 10
            ]
            for _, exchange in exchanges:
                await exchange.head()
            writer = writer_of(holder, spool(holder, layer))
            assert writer is not None
            spared = [one for mirror, one in exchanges if mirror is other or server_of(mirror, one.port) != writer]
            assert len(spared) < len(exchanges)
            os.kill(writer, signal.SIGKILL)
            await taken_over(up, layer)
            for got in await asyncio.gather(*(exchange.rest() for exchange in spared)):
                assert got.whole
                assert Digest.of(got.body) == layer


@dataclass(frozen=True)
class CpuTime:
    """Seconds since the machine began: of all processors, what of it was not idle, and what of that was ours."""

    total: float
    busy: float
    ours: float


def cpu_time(replicas: Replicas) -> CpuTime:
    """As it stands; ours is that of the replicas and of this process, with the clients and upstream in it."""
    first, *_ = Path("/proc/stat").read_text().splitlines()
    ticks = [int(field) for field in first.split()[1:9]]
    idle, second = ticks[3] + ticks[4], os.sysconf("SC_CLK_TCK")
    pids = [os.getpid(), *(pid for mirror in replicas for pid in mirror.pids)]
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    ours = sum(int(each[11]) + int(each[12]) for each in fields)
    return CpuTime(sum(ticks) / second, (sum(ticks) - idle) / second, ours / second)


def taken_by_others(before: CpuTime, after: CpuTime) -> float:
    """The part of the machine's time that went to others in between, from 0 to 1."""
    total, busy, ours = after.total - before.total, after.busy - before.busy, after.ours - before.ours
    return max(0.0, busy - ours) / total


@asynccontextmanager
async def held_up(
    up: FaultyUpstream, replicas: Replicas, artifact: Artifact
) -> AsyncIterator[tuple[MirrorProcess, Mapping[str, Sequence[Task]]]]:
    """A download that upstream holds up when it has sent `SO_FAR` bytes, and every replica has these.

    Gives the replica that downloads, and the clients that wait at each URL; at the end upstream goes on.
    """
    layer, gate = artifact.layers[0], Gate()
    publish(up, "team/plugin", "v1", artifact)
    up.inject(Fault(delay=0.05, bandwidth=20e6))
    up.inject(Fault(gate=gate, gate_at=SO_FAR), method="GET", path=f"/blobs/{layer}", times=1)
    assert (await fetch(replicas.urls[0], Want(f"/v2/{NAME}/manifests/v1", artifact.body))).right
    tasks = {url: [asyncio.create_task(fetch(url, of_layer(artifact))) for _ in range(5)] for url in replicas.urls}
    try:
        for mirror in replicas:
            await eventually(partial(has_so_far, spool(mirror, layer)), what=f"the bytes so far at {mirror.url}")
            await settled(mirror.url)
        holder = replicas.holder_of(layer)
        assert holder is not None
        yield holder, tasks
    finally:
        gate.release()
        await asyncio.gather(*(task for those in tasks.values() for task in those))


async def taken_over(up: FaultyUpstream, layer: Digest) -> None:
    """Wait until upstream is asked for the rest of a blob, and for no more than that."""
    blob = f"/blobs/{layer}"
    await eventually(lambda: up.count(path=blob) == 2, timeout=TAKEN_OVER_WITHIN, what="another replica asks upstream")
    second = up.matching(path=blob)[1]
    assert second.headers["range"] == f"bytes={SO_FAR}-"


def of_layer(artifact: Artifact) -> Want:
    """The first layer, as it must come."""
    return Want(f"/v2/{NAME}/blobs/{artifact.layers[0]}", artifact.blobs[artifact.layers[0]])


def spool(mirror: MirrorProcess, digest: Digest) -> Path:
    """Where a replica keeps the bytes that have come so far."""
    return mirror.data_dir / "spool" / f"sha256-{digest.hex}"


def has_so_far(file: Path) -> bool:
    """Whether all that upstream has sent is there."""
    return file.exists() and file.stat().st_size == SO_FAR
