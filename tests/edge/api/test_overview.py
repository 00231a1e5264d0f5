"""What a page shows first: how this replica stands, and what it did in the last hour."""

import time
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel

from mirror import __version__
from mirror.edge.api.overview import operations
from mirror.history import History
from mirror.steps import Counts, Past
from tests.support.admin import operated
from tests.support.artifacts import compat, publish, wasm_module
from tests.support.pushing import Author
from tests.support.running import Running, running
from tests.support.upstream import FaultyUpstream


async def overview(mirror: Running) -> dict[str, Any]:
    reply = await operated(mirror, "GET", "overview")
    assert reply.status == 200, reply
    found: dict[str, Any] = reply.json
    return found


async def test_it_says_how_the_replica_stands(tmp_path: Path) -> None:
    settings = {"names": ["wasm.mesh"], "cache": {"max_size": "1GiB"}}
    with FaultyUpstream() as up:
        artifact = compat(wasm_module(10_000))
        publish(up, "team/plugin", "1", artifact)
        async with running(tmp_path, {"ghcr.io": up.url}, settings) as mirror:
            before = await overview(mirror)
            assert (before["version"], before["own"], before["workers"]) == (__version__, None, 1)
            assert (before["names"], before["admin_listen"], before["draining"]) == (["wasm.mesh"], None, False)
            assert before["began_at"] <= before["now"] <= time.time()
            assert before["metadata"] == {"store": "sqlite", "up": True}
            assert before["last_hour"] == {
                "hits": 0,
                "lookups": 0,
                "ratio": None,
                "sent_bytes": 0,
                "upstream_bytes": 0,
            }
            disk = before["disk"]
            assert (disk["bytes"], disk["blobs"], disk["pinned"], disk["hosted"]) == (0, 0, 0, 0)
            assert disk["limit"] <= 1 << 30
            assert (disk["free"] > 0, disk["problem"]) == (True, None)
            for _ in range(2):
                assert (await mirror.get("/modules/ghcr.io/team/plugin:1")).status == 200
            after = await overview(mirror)
            assert after["began_at"] == before["began_at"]
            assert (after["lookups"]["hit"], after["lookups"]["miss"]) == (1, 1)
            last = after["last_hour"]
            assert (last["hits"], last["lookups"], last["ratio"]) == (1, 2, 0.5)
            assert last["sent_bytes"] == 2 * 10_000
            assert last["upstream_bytes"] > 10_000
            history = (await operated(mirror, "GET", "history")).json
            assert history["step"] == 30


async def test_what_is_pinned_and_hosted_is_told_and_nothing_twice(tmp_path: Path) -> None:
    hosted, cached = compat(wasm_module(20_000)), compat(wasm_module(10_000))
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", cached)
        async with running(tmp_path, {"ghcr.io": up.url}) as mirror:
            assert (await mirror.get("/modules/ghcr.io/team/plugin:1")).status == 200
            assert (await Author(mirror).push(hosted, "1")).status == 201
            pins = {"references": ["ghcr.io/team/plugin:1", "hosted/team/plugin:1"]}
            assert (await operated(mirror, "POST", "pins", pins)).status == 200
            disk = (await overview(mirror))["disk"]
            of_hosted, of_cached = ({one.digest: one.body, **one.blobs} for one in (hosted, cached))
            assert disk["hosted"] == sum(map(len, of_hosted.values()))
            assert disk["pinned"] == sum(map(len, (of_hosted | of_cached).values())) - disk["hosted"]
            assert disk["bytes"] >= disk["pinned"] + disk["hosted"]


async def test_a_step_is_told_with_all_that_came_in_it() -> None:
    class Kept:
        async def past(self) -> Past:
            counts = Counts(hit=1, stale=2, collapsed=3, miss=4, negative=5, requests=6, failures=7)
            return Past(5.0, 0.0).after({"0": counts._replace(sent_bytes=8, upstream_bytes=9)}, 30.0, 1_000.0)

    told = await answered("history", history=cast(History, Kept()))
    assert told == {
        "step": 30.0,
        "points": [
            {"at": 1000.0, "hit": 1, "stale": 2, "collapsed": 3, "miss": 4, "negative": 5, "requests": 6}
            | {"failures": 7, "sent_bytes": 8, "upstream_bytes": 9}
        ],
    }


async def answered(path: str, *, history: History) -> dict[str, Any]:
    """What an operation answers, without a mirror."""
    nothing = cast(Any, None)
    (operation,) = (one for one in operations(nothing, nothing, nothing, history, lambda: False) if one.path == path)
    answer = await operation.handler(nothing)
    assert isinstance(answer, BaseModel)
    return answer.model_dump()
