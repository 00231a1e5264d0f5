"""A job survives whoever does it: the whole mirror killed in the middle, or one of its workers."""

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.integration.whose import workers
from tests.support.artifacts import publish, raw, wasm_module
from tests.support.faults import Fault, Gate
from tests.support.jobs import begin, followed, following, shown
from tests.support.process import MirrorProcess
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

COUNT = 12
NAMED = [f"up/team/plugin-{n}:v1" for n in range(COUNT)]
SETTINGS = {"defaults": {"fresh_for": "1h"}}


def published(up: FaultyUpstream) -> None:
    for n in range(COUNT):
        publish(up, f"team/plugin-{n}", "v1", raw(wasm_module(5_000, seed=n)))


def asked(up: FaultyUpstream) -> Counter[str]:
    """How often each thing was sent for, the manifest that is held up at the gate aside."""
    return Counter(request.path for request in up.matching(method="GET") if f"plugin-{COUNT - 1}/" not in request.path)


async def until_results(url: str, job: str, count: int) -> list[str]:
    """Follow a job until it has so many results; which references these are of."""
    found = []
    async for event in following(url, job):
        if event.kind == "result":
            found.append(event.data["reference"])
        if len(found) == count:
            break
    return found


@pytest.mark.shows("the mirror, or the worker that does it, is killed in the middle of pre-warming")
async def test_a_job_goes_on_after_a_kill_and_fetches_nothing_twice(tmp_path: Path) -> None:
    gate = Gate()
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}, SETTINGS) as mirror:
        published(up)
        up.inject(Fault(hold=gate), path=f"plugin-{COUNT - 1}/manifests")
        job = await begin(mirror.url, NAMED, parallel=4)
        done = await until_results(mirror.url, job, COUNT - 1)
        mirror.kill()
        gate.release()
        before = asked(up)
        assert set(before.values()) == {1}
        mirror.start()
        events = await followed(mirror.url, job)
        results = [event.data["reference"] for event in events if event.kind == "result"]
        assert results == [*done, NAMED[-1]]
        assert {event.data["result"] for event in events if event.kind == "result"} == {"fetched"}
        assert asked(up) == before
        assert "going on with the job" in mirror.log_text()
        assert (await shown(mirror.url, job))["state"] == "done"


@pytest.mark.shows("the mirror, or the worker that does it, is killed in the middle of pre-warming")
async def test_another_worker_goes_on_where_one_was_killed(tmp_path: Path) -> None:
    gate = Gate()
    settings = {**SETTINGS, "workers": 3}
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}, settings) as mirror:
        published(up)
        up.inject(Fault(hold=gate), path=f"plugin-{COUNT - 1}/manifests")
        job = await begin(mirror.url, NAMED, parallel=4)
        await until_results(mirror.url, job, COUNT - 1)
        found: list[int] = []

        def holders() -> bool:
            log = mirror.data_dir / "jobs" / f"{job}.jsonl"
            found[:] = [pid for pid in workers(mirror) if _has_open(pid, log)]
            return len(found) == 1

        await eventually(holders, what="one worker has the log open")
        before = asked(up)
        os.kill(found[0], signal.SIGKILL)
        gate.release()
        events = await followed(mirror.url, job)
        assert (events[-1].kind, events[-1].data["done"]) == ("end", COUNT)
        assert asked(up) == before


def _has_open(pid: int, file: Path) -> bool:
    try:
        return any(os.readlink(f"/proc/{pid}/fd/{fd}") == str(file) for fd in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return False
