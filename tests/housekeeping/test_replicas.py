"""What one replica purges or refreshes is so at all of them."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.housekeeping.support import act, call, held, pull, rows
from tests.replicas.test_hosted import town
from tests.support.artifacts import publish, raw, wasm_module
from tests.support.faults import Fault
from tests.support.rot import rot
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.needs("redis-server")]

NAME = "up/team/plugin"
LATE = {"fresh_for": "1h"}
MANIFEST = "/v2/team/plugin/manifests/1"


async def test_after_a_purge_nobody_serves_it_from_a_disk_and_the_next_pull_is_one_question(tmp_path: Path) -> None:
    artifact, other = raw(wasm_module(50_000, seed=1)), raw(wasm_module(50_000, seed=2))
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        publish(up, "team/plugin", "2", other)
        async with town(tmp_path, 3, up.url, defaults=LATE) as here:
            for mirror in here.replicas:
                await pull(mirror, f"{NAME}:1", artifact)
                await pull(mirror, f"{NAME}:2", other)
            one = here.replicas[0]
            (result,) = await act(one, "purge", f"{NAME}:1")
            own = set(artifact.blobs) - set(other.blobs)
            size = len(artifact.body) + sum(len(artifact.blobs[digest]) for digest in own)
            assert (result["result"], result["bytes"]) == ("purged", 3 * size), result
            for mirror in here.replicas:
                assert held(mirror, artifact, other) == {other.digest, *other.blobs}
            asked = len(up.requests)
            for mirror in reversed(here.replicas):
                await pull(mirror, f"{NAME}:1", artifact)
            gets = [request.path for request in up.requests[asked:]]
            assert sorted(gets) == sorted([MANIFEST, *(f"/v2/team/plugin/blobs/{digest}" for digest in own)])
            assert [len(await rows(mirror)) for mirror in here.replicas] == [2, 2, 2]


async def test_what_is_purged_where_it_does_not_lie_is_gone_where_it_does(tmp_path: Path) -> None:
    artifact = raw(wasm_module(5_000, seed=3))
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        async with town(tmp_path, 2, up.url, defaults=LATE) as here:
            one, other = here.replicas
            await pull(one, f"{NAME}:1", artifact)
            results = await act(other, "purge", f"{NAME}:1", f"{NAME}:2")
            assert [result["result"] for result in results] == ["purged", "absent"]
            assert held(one, artifact) == set()


@pytest.mark.shows("a replica is away while something is purged")
async def test_a_replica_that_does_not_answer_is_named(tmp_path: Path) -> None:
    """What it holds may still be there: whoever purges has to know."""
    artifact = raw(wasm_module(5_000, seed=4))
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        async with town(tmp_path, 2, up.url, defaults=LATE) as here:
            one, other = here.replicas
            for mirror in (one, other):
                await pull(mirror, f"{NAME}:1", artifact)
            await here.pretend(for_seconds=8)
            (result,) = await act(one, "purge", f"{NAME}:1")
            assert result["result"] == "failed"
            assert result["replica"] not in (None, f"http://{one.host}", f"http://{other.host}")
            assert "may still lie on another replica's disk" in result["why"]
            assert held(one, artifact) | held(other, artifact) == set()


async def test_what_is_pinned_at_one_replica_is_refused_at_all(tmp_path: Path) -> None:
    artifact = raw(wasm_module(5_000, seed=9))
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        async with town(tmp_path, 2, up.url, defaults=LATE) as here:
            one, other = here.replicas
            await act(one, "pins", f"{NAME}:1")

            async def is_refused() -> bool:
                return bool((await act(other, "purge", f"{NAME}:1"))[0]["result"] == "pinned")

            async def is_known() -> bool:
                return bool((await call(other, "GET", "pins"))["pins"])

            known: Callable[[], bool | Awaitable[bool]] = is_known
            await eventually(known, what="the other has heard of it")
            assert await is_refused()
            assert (await act(one, "purge", f"{NAME}:1"))[0]["result"] == "pinned"


async def test_a_tag_that_one_replica_refreshes_is_new_at_all_within_a_second(tmp_path: Path) -> None:
    versions = [raw(wasm_module(5_000, seed=seed)) for seed in range(5, 9)]
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", versions[0])
        async with town(tmp_path, 3, up.url, defaults=LATE) as here:
            for mirror in here.replicas:
                await pull(mirror, f"{NAME}:1", versions[0])
            for number, version in enumerate(versions[1:]):
                publish(up, "team/plugin", "1", version)
                (result,) = await act(here.replicas[number], "refresh", f"{NAME}:1")
                assert (result["result"], result["digest"]) == ("moved", str(version.digest))
                bodies = [(await mirror.get(f"/v2/{NAME}/manifests/1")).body for mirror in here.replicas]
                assert bodies == [version.body] * 3, "all of them, at once"


@pytest.mark.shows("one bit of a file on the disk flips, or the disk cannot read it any more")
async def test_of_20_flipped_bits_a_scrub_finds_all_and_each_blob_is_served_rightly_or_not_at_all(
    tmp_path: Path,
) -> None:
    """From a replica, from upstream, or by nobody, for nobody has it."""
    with FaultyUpstream() as up:
        settings = {"defaults": {**LATE, "hold_for": "1s"}, "scrub": {"every": "0", "rate": "1GiB"}}
        async with town(tmp_path, 2, up.url, **settings) as here:
            one, other = here.replicas
            blobs = [wasm_module(20_000 + number, seed=100 + number) for number in range(20)]
            digests = [up.add_blob("team/plugin", blob) for blob in blobs]
            of_peer, of_nobody = digests[:7], digests[14:]
            for digest in digests:
                assert (await one.get(f"/v2/{NAME}/blobs/{digest}")).status == 200
                await one.until_held(digest)
            for digest in of_peer:
                assert (await other.get(f"/v2/{NAME}/blobs/{digest}")).status == 200
                await other.until_held(digest)
                up.inject(Fault(status=503), path=str(digest))
            for digest in of_nobody:
                up.inject(Fault(status=404, code="BLOB_UNKNOWN"), path=str(digest))
            for digest in digests:
                rot(one.directory.blob(digest))
            begun = await call(one, "POST", "scrub", status=202)
            assert begun["state"] == "running"

            async def is_done() -> bool:
                told = await call(one, "GET", "scrub")
                return bool(told["state"] == "idle" and told["restored"] == 14)

            done: Callable[[], bool | Awaitable[bool]] = is_done
            await eventually(done, what="it has read all, and had again what there is", timeout=60)
            told = await call(one, "GET", "scrub")
            assert sorted(told["damaged"]) == sorted(map(str, digests))
            assert (told["read"], told["blobs"]) == (20, 20)
            assert sorted(told["missing"]) == sorted(map(str, of_nobody))
            for digest, blob in zip(digests, blobs, strict=True):
                reply = await one.get(f"/v2/{NAME}/blobs/{digest}")
                if digest in of_nobody:
                    assert reply.status in (404, 502, 503), reply
                else:
                    assert (reply.status, reply.body) == (200, blob)
            assert (await call(other, "GET", "scrub"))["state"] == "idle", "it is about one disk"


async def test_what_replicas_ask_one_another_is_no_clients_question(tmp_path: Path) -> None:
    artifact = raw(wasm_module(5_000, seed=4))
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        async with town(tmp_path, 2, up.url, defaults=LATE) as here:
            one, other = here.replicas
            await pull(one, f"{NAME}:1", artifact)
            gets = up.count(method="GET")
            await pull(other, f"{NAME}:1", artifact)
            assert up.count(method="GET") == gets, "it came from the other replica"
            for mirror in here.replicas:
                told = await call(mirror, "GET", f"askers?reference={NAME}:1")
                assert [(asker["client"], asker["count"]) for asker in told["askers"]] == [("127.0.0.1", 1)]
