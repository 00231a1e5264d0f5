"""What a dashboard shows of a running mirror: its upstreams, what is on its way, who else is there."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any, cast

import pytest

from mirror.digest import Digest
from mirror.edge.api import fills, replicas
from mirror.edge.api.fills import AllFills
from mirror.edge.api.operation import Operation
from mirror.fill import Fill
from mirror.fills import Fills
from mirror.store.directory import DataDirectory
from tests.support.admin import operated
from tests.support.artifacts import compat, publish, wasm_module
from tests.support.faults import Fault, Gate
from tests.support.running import running
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually


async def test_an_upstream_says_how_it_stands(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", compat(wasm_module()))
        upstreams: dict[str, dict[str, object]] = {
            "ghcr.io": {"endpoints": [up.url], "allow": ["team/**"]},
            "quay.io": {"offline": True},
        }
        async with running(tmp_path, upstreams) as mirror:
            before, asleep = (await operated(mirror, "GET", "upstreams")).json["upstreams"]
            assert (before["name"], before["allow"], before["push"]) == ("ghcr.io", ["team/**"], "deny")
            assert (before["reachable"], before["mean_seconds"], before["requests"]) == (True, None, 0)
            assert (asleep["name"], asleep["offline"], asleep["reachable"]) == ("quay.io", True, False)
            assert (await mirror.get("/modules/ghcr.io/team/plugin:1")).status == 200
            after = (await operated(mirror, "GET", "upstreams")).json["upstreams"][0]
            (endpoint,) = after["endpoints"]
            assert (endpoint["host"], endpoint["breaker"], endpoint["healthy"]) == (up.host, "closed", True)
            assert (after["failures"], endpoint["last_error"], endpoint["last_error_at"]) == (0, None, None)
            assert after["requests"] == endpoint["requests"] == len(up.requests)
            assert after["bytes"] > 0
            assert 0 < after["mean_seconds"] < 30


async def test_an_upstream_that_fails_says_what_failed_and_for_how_long_it_is_left_alone(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        gone = up.url
    async with running(tmp_path, {"ghcr.io": {"endpoints": [gone], "hold_for": "50ms"}}) as mirror:

        async def left_alone() -> dict[str, Any]:
            assert (await mirror.get("/v2/ghcr.io/team/plugin/manifests/1")).status in (503, 504)
            (told,) = (await operated(mirror, "GET", "upstreams")).json["upstreams"]
            found: dict[str, Any] = told
            return found if found["endpoints"][0]["breaker"] == "open" else {}

        told: dict[str, Any] = await eventually(left_alone)
        (endpoint,) = told["endpoints"]
        assert (endpoint["breaker"], endpoint["healthy"], told["reachable"]) == ("open", False, False)
        assert endpoint["opens_for"] > 0
        assert endpoint["failures"] == endpoint["requests"] >= 5
        assert endpoint["last_error"]
        assert time.time() - 120 < endpoint["last_error_at"] <= time.time()


async def test_a_download_that_is_under_way_says_how_far_it_is_and_who_waits(tmp_path: Path) -> None:
    gate = Gate()
    with FaultyUpstream() as up:
        artifact = compat(wasm_module(1_000_000))
        publish(up, "team/plugin", "1", artifact)
        (layer,) = artifact.layers
        up.inject(Fault(gate=gate, gate_at=300_000), path="/blobs/")
        async with running(tmp_path, {"ghcr.io": up.url}) as mirror:
            assert (await operated(mirror, "GET", "fills")).json == {"fills": [], "total": 0}
            begun = time.time()
            await mirror.get("/v2/ghcr.io/team/plugin/manifests/1")
            pulling = asyncio.create_task(mirror.get(f"/v2/ghcr.io/team/plugin/blobs/{layer}"))
            await gate.reached()

            async def told() -> dict[str, Any]:
                found = {one["digest"]: one for one in (await operated(mirror, "GET", "fills")).json["fills"]}
                one: dict[str, Any] = found.get(str(layer), {})
                return one if one.get("bytes") == 300_000 and one["waiters"] == 1 else {}

            one: dict[str, Any] = await eventually(told)
            assert one["repository"] == "ghcr.io/team/plugin"
            assert one["total"] == len(artifact.blobs[layer])
            assert begun - 60 <= one["since"] <= time.time()
            gate.release()
            assert (await pulling).status == 200

            async def over() -> bool:
                return bool((await operated(mirror, "GET", "fills")).json["total"] == 0)

            gone: bool = await eventually(over)
            assert gone


def listed(area: Operation) -> AllFills:
    """What is answered, without a mirror."""
    answer = asyncio.run(cast(Any, area.handler)(None))
    assert isinstance(answer, AllFills)
    return answer


class _Nothing:
    """Fills of a worker that has none."""

    def __init__(self, directory: DataDirectory) -> None:
        self.directory = directory

    def under_way(self) -> list[Fill]:
        return []


def test_downloads_of_other_workers_are_seen_by_their_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fills, "MOST", few := 5)
    directory = DataDirectory.open(tmp_path / "data")
    try:
        digests = [Digest.of(str(number).encode()) for number in range(few + 2)]
        for digest in digests:
            (directory.spool / f"sha256-{digest.hex}").write_bytes(b"abc")
        left = directory.spool / f"sha256-{digests[-1].hex}"
        os.utime(left, (time.time() - 3600, time.time() - 3600))
        (directory.spool / "something-else").write_bytes(b"")
        (area,) = fills.operations(cast(Fills, _Nothing(directory)))
        answer = listed(area)
        assert (answer.total, len(answer.fills)) == (few + 1, few)
        assert {one.bytes for one in answer.fills} == {3}
        assert all((one.repository, one.waiters, one.since) == (None, None, None) for one in answer.fills)
        assert str(digests[-1]) not in {one.digest for one in answer.fills}
    finally:
        directory.close()


async def test_a_mirror_that_is_alone_says_so(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        async with running(tmp_path, {"ghcr.io": up.url}) as mirror:
            assert (await operated(mirror, "GET", "replicas")).json == {"own": None, "others": []}


async def test_replicas_are_told_with_whether_they_answer() -> None:
    (area,) = replicas.operations("http://a:1", lambda: {"http://c:1": True, "http://b:1": False})
    answer = await cast(Any, area.handler)(None)
    assert answer.model_dump() == {
        "own": "http://a:1",
        "others": [{"address": "http://b:1", "answers": False}, {"address": "http://c:1", "answers": True}],
    }
