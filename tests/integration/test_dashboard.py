"""An open dashboard and a mirror of several processes: it holds up no stop, and each worker tells it the same."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.integration.client import get
from tests.support.artifacts import publish, raw, wasm_module
from tests.support.listening import heard, listening
from tests.support.process import MirrorProcess
from tests.support.pushing import At
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

TIMES = 12
"""Connections, of which each worker very likely gets one."""


def address_of(mirror: MirrorProcess) -> tuple[str, int]:
    host, _, port = mirror.host.rpartition(":")
    return host, int(port)


async def told(mirror: MirrorProcess, path: str) -> list[Any]:
    """What the workers answer."""
    return [(await At(mirror.url).ask("GET", f"/api/v1/{path}")).json for _ in range(TIMES)]


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_mirror_stops_while_dashboards_are_open_as_if_there_were_none(tmp_path: Path, workers: int) -> None:
    settings = {"workers": workers, "drain_for": "1s", "stop_within": "10m"}
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}, settings) as mirror:
        async with (
            listening(address_of(mirror)) as one,
            listening(address_of(mirror)) as two,
            listening(address_of(mirror)) as three,
        ):
            for said in (one, two, three):
                await heard(said, "overview")
            stopping = asyncio.create_task(asyncio.to_thread(mirror.stop, 50.0))
            for said in (one, two, three):
                async for _ in said:  # to the end of the answer, which is not cut
                    pass
            assert await stopping == 0


@pytest.mark.timeout(180)
async def test_every_worker_tells_the_same_hour_and_one_that_died_knows_it_again(tmp_path: Path) -> None:
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}, {"workers": 2}) as mirror:
        publish(up, "team/plugin", "v1", raw(wasm_module(10_000)))
        for _ in range(TIMES):
            assert (await get(mirror.url, "/v2/up/team/plugin/manifests/v1")).status == 200

        async with listening(address_of(mirror)) as said:
            await heard(said, "overview", lambda told: bool(told["last_hour"]["lookups"] == TIMES))

        async def all_count_them() -> bool:
            return all(one["last_hour"]["lookups"] == TIMES for one in await told(mirror, "overview"))

        counted: bool = await eventually(all_count_them, what="every worker counts what all have done")
        assert counted

        async def step_ended() -> bool:
            return all(one["points"] for one in await told(mirror, "history"))

        ended: bool = await eventually(step_ended, timeout=100.0, what="the first step has ended")
        assert ended

        async def alike() -> list[Any]:
            first, *others = await told(mirror, "history")
            return [first] if all(one == first for one in others) else []

        same: list[Any] = await eventually(alike)
        (history,) = same
        assert sum(sum(point[kind] for kind in ("hit", "miss")) for point in history["points"]) == TIMES
        began = {one["began_at"] for one in await told(mirror, "overview")}
        assert len(began) == 1
        (*_, last) = mirror.pids
        os.kill(last, signal.SIGKILL)
        await eventually(lambda: last not in mirror.pids and len(mirror.pids) == 3)

        async def again() -> bool:
            histories, overviews = await told(mirror, "history"), await told(mirror, "overview")
            return (
                all(one["points"][: len(history["points"])] == history["points"] for one in histories)
                and {one["began_at"] for one in overviews} == began
                and all(one["last_hour"]["lookups"] == TIMES for one in overviews)
            )

        knows: bool = await eventually(again, what="the worker that was started anew tells the same")
        assert knows
