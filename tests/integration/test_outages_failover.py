"""What is not held comes through cuts, dying endpoints, lies and limits, and clients see none of it."""

import asyncio
from pathlib import Path

import pytest

from mirror.digest import Digest
from tests.integration.client import ask, blob, manifest, pull
from tests.integration.mirrored import again, mirrored
from tests.support.artifacts import compat, publish, raw, wasm_module
from tests.support.faults import Fault, Gate
from tests.support.upstream import FaultyUpstream

pytestmark = pytest.mark.integration

NAME = "up/team/plugin"
MIB = 1 << 20
MODULE = wasm_module(8 * MIB)
ARTIFACT = raw(MODULE)
LAYER = Digest.of(MODULE)


@pytest.mark.shows("a registry cuts downloads")
async def test_eight_mebibytes_that_are_cut_after_each_one_come_whole(tmp_path: Path) -> None:
    async with mirrored(tmp_path) as (up, url):
        publish(up, "team/plugin", "v1", ARTIFACT)
        up.inject(Fault(cut_after=MIB), path=f"/blobs/{LAYER}")
        whole, part = await asyncio.gather(
            pull(url, NAME, "v1"), blob(url, NAME, LAYER, headers={"range": f"bytes={5 * MIB}-{6 * MIB - 1}"})
        )
        assert whole.whole
        assert (part.status, part.whole) == (206, True)
        assert part.body == MODULE[5 * MIB : 6 * MIB]
        requests = up.matching(method="GET", path=f"/blobs/{LAYER}")
        asked = [int(request.headers["range"].removeprefix("bytes=").removesuffix("-")) for request in requests[1:]]
        assert asked == sorted(set(asked)), "each goes on where the one before was cut"
        assert 8 <= len(requests) <= 12
        assert sum(request.sent for request in requests) < 8 * MIB + 2 * MIB


@pytest.mark.shows("an endpoint sends wrong bytes")
async def test_after_a_lie_the_next_endpoint_is_asked_unseen_and_the_liar_is_left_alone(tmp_path: Path) -> None:
    first, second = compat(wasm_module(200_000, seed=1)), compat(wasm_module(200_000, seed=2))
    with FaultyUpstream() as near, FaultyUpstream() as origin:
        for up in (near, origin):
            publish(up, "team/plugin", "v1", first)
            publish(up, "team/plugin", "v2", second)
        near.inject(Fault(tamper_from=1000), path="/blobs/")
        async with again(tmp_path, {"endpoints": [near.url, origin.url]}) as url:
            assert (await pull(url, NAME, "v1")).whole
            assert near.count(method="GET", path=f"/blobs/{first.layers[0]}") == 1
            assert origin.count(method="GET", path=f"/blobs/{first.layers[0]}") == 1
            asked = near.count()
            assert (await pull(url, NAME, "v2")).whole
            assert near.count() == asked, "it cools down"


@pytest.mark.shows("an endpoint sends wrong bytes")
async def test_a_manifest_that_is_a_lie_comes_from_the_next_endpoint(tmp_path: Path) -> None:
    with FaultyUpstream() as near, FaultyUpstream() as origin:
        for up in (near, origin):
            publish(up, "team/plugin", "v1", ARTIFACT)
        near.inject(Fault(flip_at=100), path="/manifests/")
        async with again(tmp_path, {"endpoints": [near.url, origin.url]}) as url:
            for target in ("v1", ARTIFACT.digest):
                got = await manifest(url, NAME, target)
                assert (got.status, got.body) == (200, ARTIFACT.body)
            assert near.count(path="/manifests/") == 1, "it cools down"


@pytest.mark.shows("an endpoint dies in the middle of a download")
async def test_when_an_endpoint_dies_at_half_a_blob_the_next_sends_the_other_half(tmp_path: Path) -> None:
    half = len(MODULE) // 2
    with FaultyUpstream() as near, FaultyUpstream() as origin:
        for up in (near, origin):
            publish(up, "team/plugin", "v1", ARTIFACT)
        gate = Gate()
        near.inject(Fault(gate=gate, gate_at=half), path=f"/blobs/{LAYER}")
        async with again(tmp_path, {"endpoints": [near.url, origin.url]}) as url:
            assert (await manifest(url, NAME, "v1")).status == 200
            async with ask(url, f"/v2/{NAME}/blobs/{LAYER}") as exchange:
                await exchange.head()
                body = bytearray()
                while len(body) < half:
                    body += await exchange.read(half - len(body))
                near.refuse()
                rest = await exchange.rest()
            assert rest.whole
            assert Digest.of(bytes(body) + rest.body) == LAYER
            (request,) = origin.matching(path=f"/blobs/{LAYER}")
            assert request.headers["range"] == f"bytes={half}-"
            assert (request.status, request.sent) == (206, len(MODULE) - half)


@pytest.mark.shows("a registry limits requests (429)")
async def test_what_is_not_held_waits_until_the_registry_counts_anew(tmp_path: Path) -> None:
    small = raw(wasm_module(50_000))
    async with mirrored(tmp_path) as (up, url):
        publish(up, "team/plugin", "v1", small)
        limits = [
            up.inject(Fault(status=429, retry_after=2), path=path, times=1) for path in ("/manifests/", "/blobs/")
        ]
        pulled = await pull(url, NAME, "v1")
        assert pulled.whole
        assert [limit.hits for limit in limits] == [1, 1]
        assert up.count(status=429) == 2, "nobody asks while it says not to"


@pytest.mark.shows("a registry limits requests (429)")
async def test_what_is_not_held_is_said_to_be_unavailable_when_the_registry_wants_to_be_left_alone_for_longer(
    tmp_path: Path,
) -> None:
    async with mirrored(tmp_path, defaults={"hold_for": "2s"}) as (up, url):
        publish(up, "team/plugin", "v1", ARTIFACT)
        up.inject(Fault(status=429, retry_after=60))
        for got in await asyncio.gather(manifest(url, NAME, "v1"), blob(url, NAME, LAYER)):
            assert (got.status, got.error[0]) == (503, "UPSTREAM_UNAVAILABLE")
            assert int(got.headers["retry-after"]) >= 1
            assert got.seconds < 4
        assert up.count() <= 4


@pytest.mark.shows("a registry's limit is nearly used up")
async def test_what_is_left_of_a_limit_is_kept_for_what_is_not_held(tmp_path: Path) -> None:
    first, second = raw(wasm_module(5000, seed=1)), raw(wasm_module(5000, seed=2))
    almost_none = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "9;w=21600"}
    async with mirrored(tmp_path, defaults={"fresh_for": "0s"}) as (up, url):
        for tag, artifact in {"v1": first, "v2": second}.items():
            publish(up, "team/plugin", tag, artifact)
        assert (await pull(url, NAME, "v1")).whole
        up.inject(Fault(headers=almost_none))
        assert (await manifest(url, NAME, "v1")).cache_status.endswith("detail=revalidated")
        heads = up.count(method="HEAD")
        for _ in range(5):
            got = await manifest(url, NAME, "v1")
            assert (got.status, got.body) == (200, first.body)
            assert got.cache_status == "fwd=stale; detail=upstream_unavailable"
        assert up.count(method="HEAD") == heads, "what is held can wait"
        assert (await pull(url, NAME, "v2")).whole
