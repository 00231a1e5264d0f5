"""Whichever worker answers the admin API: what it lists is what all of them do."""

from pathlib import Path

import pytest

from tests.integration.client import ask, get
from tests.support.artifacts import publish, raw, wasm_module
from tests.support.faults import Fault, Gate
from tests.support.process import MirrorProcess
from tests.support.pushing import At
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

ARTIFACT = raw(wasm_module(1_000_000))
LAYER = ARTIFACT.layers[0]
TIMES = 12
"""Connections, of which each worker very likely gets one."""


async def test_every_worker_sees_the_downloads_and_the_questions_of_all(tmp_path: Path) -> None:
    gate = Gate()
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}, {"workers": 2}) as mirror:
        publish(up, "team/plugin", "v1", ARTIFACT)
        up.inject(Fault(gate=gate, gate_at=600_000), method="GET", path="/blobs/")
        assert (await get(mirror.url, "/v2/up/team/plugin/manifests/v1")).status == 200
        async with ask(mirror.url, f"/v2/up/team/plugin/blobs/{LAYER}") as pulling:
            await gate.reached()

            async def all_see_it() -> bool:
                told = [(await At(mirror.url).ask("GET", "/api/v1/fills")).json["fills"] for _ in range(TIMES)]
                return all(
                    [(one["digest"], one["bytes"]) for one in fills] == [(str(LAYER), 600_000)] for fills in told
                )

            seen: bool = await eventually(all_see_it, what="every worker sees the download")
            assert seen
            gate.release()
            await pulling.head()
            assert (await pulling.rest()).whole

        async def all_count_it() -> bool:
            told = [(await At(mirror.url).ask("GET", "/api/v1/upstreams")).json["upstreams"][0] for _ in range(TIMES)]
            return all(one["requests"] == len(up.requests) and one["bytes"] > 1_000_000 for one in told)

        counted: bool = await eventually(all_count_it, what="every worker counts what all have asked")
        assert counted
