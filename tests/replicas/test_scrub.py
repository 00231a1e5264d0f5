"""What rots on one replica's disk comes from another's, while no registry is there."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.replicas.test_hosted import town
from tests.support.artifacts import publish, raw, wasm_module
from tests.support.pushing import Author
from tests.support.rot import rot
from tests.support.running import Running
from tests.support.scrape import Scrape
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

pytestmark = pytest.mark.needs("redis-server")

PUSHED = raw(wasm_module(200_000, seed=11))
CACHED = raw(wasm_module(200_000, seed=12))


async def found(mirror: Running) -> dict[str, float]:
    """What its scrubber has counted, but for what is sound."""
    numbers = Scrape.of((await mirror.get("/metrics")).body).by("result", "scrubbed_blobs_total")
    return {result: number for result, number in numbers.items() if result != "sound"}


@pytest.mark.shows("one bit of a file on the disk flips, or the disk cannot read it any more")
async def test_what_rots_on_one_disk_comes_from_another_replica(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", CACHED)
        async with town(tmp_path, 2, up.url, scrub={"every": "100ms", "rate": "1GiB"}) as here:
            one, other = here.replicas
            await Author(one).push(PUSHED, "v1")
            wanted = {f"/v2/up/team/plugin/blobs/{digest}": content for digest, content in CACHED.blobs.items()}
            wanted |= {f"/v2/hosted/team/plugin/blobs/{digest}": content for digest, content in PUSHED.blobs.items()}
            wanted[f"/v2/hosted/team/plugin/manifests/{PUSHED.digest}"] = PUSHED.body
            for mirror in (one, other):
                assert (await mirror.get("/v2/up/team/plugin/manifests/v1")).body == CACHED.body
                for digest in CACHED.blobs:
                    assert (await mirror.get(f"/v2/up/team/plugin/blobs/{digest}")).status == 200
                for digest in (*CACHED.blobs, *PUSHED.blobs, PUSHED.digest):
                    await mirror.until_held(digest)
            up.refuse()
            for digest in (CACHED.layers[0], PUSHED.layers[0], PUSHED.digest):
                rot(one.directory.blob(digest))
            rot(other.directory.blob(PUSHED.layers[1]))

            async def is_mended() -> bool:
                return [await found(mirror) for mirror in (one, other)] == [
                    {"damaged": 3, "restored": 3},
                    {"damaged": 1, "restored": 1},
                ]

            mended: Callable[[], bool | Awaitable[bool]] = is_mended
            await eventually(mended, what="all is mended")
            for mirror in (one, other):
                for target, content in wanted.items():
                    reply = await mirror.get(target)
                    assert (reply.status, reply.body) == (200, content), target
