"""An upstream that fails: what is held is served as if nothing had happened, what is not held is waited for."""

import asyncio
from pathlib import Path

import pytest

from mirror.digest import Digest
from tests.integration.client import blob, get, manifest, pull
from tests.integration.mirrored import again, mirrored
from tests.support.artifacts import compat, publish, raw, wasm_module
from tests.support.faults import Fault
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

NAME = "up/team/plugin"
MODULE = wasm_module(300_000)
ARTIFACT = raw(MODULE)
LAYER = Digest.of(MODULE)
BRIEF = {"hold_for": "1s"}

OUTAGES = {
    "503": (Fault(status=503), 503),
    "429": (Fault(status=429, retry_after=60), 503),
    "cut": (Fault(drop=True), 503),
    "hangs": (Fault(hang=True), 504),
}


@pytest.mark.parametrize(("outage", "status"), OUTAGES.values(), ids=OUTAGES.keys())
@pytest.mark.shows("a registry is away and what is asked for is not held")
async def test_what_is_not_held_is_waited_for_and_then_the_endpoint_is_named(
    tmp_path: Path, outage: Fault, status: int
) -> None:
    code = {503: "UPSTREAM_UNAVAILABLE", 504: "UPSTREAM_TIMEOUT"}[status]
    async with mirrored(tmp_path, defaults=BRIEF) as (up, url):
        publish(up, "team/plugin", "v1", ARTIFACT)
        up.inject(outage)
        asked = (manifest(url, NAME, "v1"), manifest(url, NAME, ARTIFACT.digest), blob(url, NAME, LAYER))
        for got in await asyncio.gather(*asked):
            assert (got.status, got.error[0]) == (status, code)
            assert up.host in got.error[1]
            assert int(got.headers["retry-after"]) >= 1
            assert got.seconds < 4
        assert outage.retry_after or outage.hang or up.count() > 3


async def test_a_refused_connection_is_named_too(tmp_path: Path) -> None:
    async with mirrored(tmp_path, defaults=BRIEF) as (up, url):
        up.refuse()
        for got in await asyncio.gather(manifest(url, NAME, "v1"), blob(url, NAME, LAYER)):
            assert (got.status, got.error[0]) == (503, "UPSTREAM_UNAVAILABLE")
            assert f"{up.host} refuses connections" in got.error[1]
            assert "retry-after" in got.headers


async def test_an_upstream_that_hangs_in_the_middle_of_a_withheld_layer_is_named(tmp_path: Path) -> None:
    artifact = compat(MODULE)
    async with mirrored(tmp_path, defaults=BRIEF) as (up, url):
        publish(up, "team/plugin", "v1", artifact)
        up.inject(Fault(stall_after=1000), path="/blobs/")
        assert (await manifest(url, NAME, "v1")).status == 200
        got = await blob(url, NAME, artifact.layers[0])
        assert (got.status, got.error[0]) == (504, "UPSTREAM_TIMEOUT")
        assert "retry-after" in got.headers


@pytest.mark.shows("a registry is away and what is asked for is not held")
async def test_a_pull_is_held_until_upstream_is_back(tmp_path: Path) -> None:
    async with mirrored(tmp_path) as (up, url):
        publish(up, "team/plugin", "v1", ARTIFACT)
        fault = up.inject(Fault(status=503))
        asked = [manifest(url, NAME, "v1"), manifest(url, NAME, ARTIFACT.digest), blob(url, NAME, LAYER)]
        waiting = [asyncio.create_task(one) for one in asked]
        await eventually(lambda: up.count(status=503) > 6, what="several tries")
        assert not any(task.done() for task in waiting)
        fault.remove()
        assert [got.status for got in await asyncio.gather(*waiting)] == [200, 200, 200]
        assert (await pull(url, NAME, "v1")).whole
        assert up.count(method="GET", path="/manifests/v1", status=200) == 1
        assert up.count(method="GET", path=f"/blobs/{LAYER}", status=200) == 1


async def test_retry_after_is_honoured(tmp_path: Path) -> None:
    async with mirrored(tmp_path) as (up, url):
        publish(up, "team/plugin", "v1", ARTIFACT)
        up.inject(Fault(status=429, retry_after=2), path="/manifests/", times=1)
        pulled = await pull(url, NAME, "v1")
        assert pulled.whole
        assert pulled.manifest.seconds >= 2
        assert up.count(path="/manifests/") == 2


@pytest.mark.shows("a registry is away and the mirror restarts")
async def test_what_is_held_by_digest_needs_no_upstream(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", ARTIFACT)
        async with again(tmp_path, up) as url:
            assert (await pull(url, NAME, "v1")).whole
            up.refuse()
            connections = up.accepted_connections
            assert (await pull(url, NAME, ARTIFACT.digest)).whole
            assert (await get(url, "/readyz")).status == 200
        async with again(tmp_path, up) as url:
            pulled = await pull(url, NAME, ARTIFACT.digest)
            assert pulled.whole
            assert all(got.cache_status == "hit" for got in (pulled.manifest, *pulled.layers))
        assert up.accepted_connections == connections


@pytest.mark.shows("a registry is away and the mirror restarts")
async def test_a_restart_in_an_outage_forgets_no_tag(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", ARTIFACT)
        async with again(tmp_path, up) as url:
            assert (await pull(url, NAME, "v1")).whole
        up.refuse()
        async with again(tmp_path, up, defaults={"fresh_for": "0s"}) as url:
            pulled = await pull(url, NAME, "v1")
            assert pulled.whole
            assert pulled.manifest.cache_status == "fwd=stale; detail=upstream_unavailable"


@pytest.mark.shows("the first of several endpoints is down")
async def test_a_first_endpoint_that_is_down_is_passed_over(tmp_path: Path) -> None:
    with FaultyUpstream() as near, FaultyUpstream() as origin:
        publish(origin, "team/plugin", "v1", ARTIFACT)
        near.refuse()
        async with again(tmp_path, {"endpoints": [near.url, origin.url]}, defaults=BRIEF) as url:
            assert (await pull(url, NAME, "v1")).whole
            origin.refuse()
            got = await manifest(url, NAME, "v2")
            assert origin.host in got.error[1]


@pytest.mark.parametrize("reset", [False, True], ids=["FIN", "RST"])
@pytest.mark.shows("a registry cuts downloads")
async def test_a_cut_in_the_middle_of_a_layer_is_mended_unseen(tmp_path: Path, reset: bool) -> None:
    async with mirrored(tmp_path) as (up, url):
        publish(up, "team/plugin", "v1", ARTIFACT)
        up.inject(Fault(cut_after=100_000, reset=reset), path=f"/blobs/{LAYER}", times=2)
        assert (await pull(url, NAME, "v1")).whole
        requests = up.matching(path=f"/blobs/{LAYER}")
        assert [request.status for request in requests[1:]] == [206] * (len(requests) - 1)
        assert len(requests) == 3
        assert sum(request.sent for request in requests) <= len(MODULE) + 50_000


@pytest.mark.parametrize("damage", ["overwritten", "cut short"])
@pytest.mark.shows("the database is damaged or lost")
async def test_a_database_that_was_destroyed_costs_no_held_content(tmp_path: Path, damage: str) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", ARTIFACT)
        up.add_blob("team/other", b"something else")
        async with again(tmp_path, up) as url:
            assert (await pull(url, NAME, "v1")).whole
        destroy(tmp_path / "data", damage)
        up.refuse()
        async with again(tmp_path, up, defaults=BRIEF) as url:
            assert (await pull(url, NAME, ARTIFACT.digest)).whole, "held digests are served while links are unknown"
            up.accept()
            pulled = await pull(url, NAME, "v1")
            assert pulled.whole
            assert up.count(method="GET", path=f"/blobs/{LAYER}") == 1
            elsewhere = await blob(url, "up/team/other", LAYER)
            assert (elsewhere.status, elsewhere.error[0]) == (404, "BLOB_UNKNOWN"), "upstream's word counts again"


@pytest.mark.parametrize("silence", [Fault(status=503), Fault(hang=True)], ids=["503", "hangs"])
@pytest.mark.shows("links between repositories and blobs are lost, and the registry is away")
async def test_lost_links_are_not_waited_for_long(tmp_path: Path, silence: Fault) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", ARTIFACT)
        async with again(tmp_path, up) as url:
            assert (await pull(url, NAME, "v1")).whole
        destroy(tmp_path / "data", "overwritten")
        up.inject(silence)
        async with again(tmp_path, up, defaults={"revalidate_for": "300ms"}) as url:
            pulled = await pull(url, NAME, ARTIFACT.digest)
            assert pulled.whole
            assert all(got.seconds < 3 for got in (pulled.manifest, *pulled.layers))


async def test_lost_links_are_no_way_round_a_refusal(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", ARTIFACT)
        async with again(tmp_path, up) as url:
            assert (await pull(url, NAME, "v1")).whole
        destroy(tmp_path / "data", "overwritten")
        up.inject(Fault(status=403))
        async with again(tmp_path, up) as url:
            for got in (await manifest(url, NAME, ARTIFACT.digest), await blob(url, NAME, LAYER)):
                assert (got.status, got.error[0]) == (403, "DENIED")


async def test_an_offline_upstream_is_not_asked_for_lost_links(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", ARTIFACT)
        async with again(tmp_path, up) as url:
            assert (await pull(url, NAME, "v1")).whole
        up.reset()
        offline = {"endpoints": [up.url], "offline": True}
        async with again(tmp_path, offline) as url:
            for got in (
                await manifest(url, "up/team/other", ARTIFACT.digest),
                await blob(url, "up/team/other", LAYER),
            ):
                assert got.status == 404
        destroy(tmp_path / "data", "overwritten")
        async with again(tmp_path, offline) as url:
            assert (await pull(url, NAME, ARTIFACT.digest)).whole
        assert up.requests == []


async def test_a_manifest_held_through_another_repository_is_waited_for_like_any_other(tmp_path: Path) -> None:
    async with mirrored(tmp_path) as (up, url):
        publish(up, "team/plugin", "v1", ARTIFACT)
        publish(up, "team/copy", "v1", ARTIFACT)
        assert (await pull(url, NAME, "v1")).whole
        up.inject(Fault(status=503), path="/team/copy/", times=3)
        assert (await manifest(url, "up/team/copy", ARTIFACT.digest)).status == 200


def destroy(data: Path, damage: str) -> None:
    """Damage the database and all that it could be restored from."""
    for file in data.glob("metadata.sqlite*"):
        file.write_bytes(
            b"\xff" * max(8192, file.stat().st_size) if damage == "overwritten" else file.read_bytes()[:100]
        )
