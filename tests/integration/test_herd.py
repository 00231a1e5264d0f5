"""However many ask at once, upstream is asked once; and what it sends wrong reaches nobody."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from mirror.digest import Digest
from tests.integration.client import ask, blob, manifest, pull
from tests.integration.mirrored import again, mirrored
from tests.support.artifacts import DOCKER_LAYER, OCI_LAYER, Artifact, compat, docker, image, publish, raw, wasm_module
from tests.support.faults import Fault, Gate
from tests.support.process import WORKERS, MirrorProcess
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

NAME = "up/team/plugin"
MODULE = wasm_module(300_000)
LAYOUTS = {"raw": raw(MODULE), "docker": docker(MODULE), "compat": compat(MODULE)}


@pytest.mark.integration
@pytest.mark.parametrize("layout", [raw, compat], ids=["raw", "compat"])
@pytest.mark.parametrize("workers", WORKERS)
async def test_two_hundred_cold_clients_cost_upstream_one_get_of_each(
    tmp_path: Path, workers: int, layout: Callable[[bytes], Artifact]
) -> None:
    artifact = layout(wasm_module(2 * 1024 * 1024))
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}, {"workers": workers}) as mirror:
        publish(up, "team/plugin", "v1", artifact)
        up.inject(Fault(delay=0.05, bandwidth=20e6))
        pulls = await asyncio.gather(*(pull(mirror.url, NAME, "v1") for _ in range(200)))
        assert sum(pulled.whole for pulled in pulls) == 200
        assert up.count(method="GET", path="/manifests/") == 1
        assert up.count(method="HEAD") == 0
        for digest in artifact.layers:
            assert up.count(method="GET", path=f"/blobs/{digest}") == 1


async def test_those_who_ask_by_digest_share_one_get_too(tmp_path: Path) -> None:
    artifact = LAYOUTS["raw"]
    async with mirrored(tmp_path) as (up, url):
        publish(up, "team/plugin", None, artifact)
        up.inject(Fault(delay=0.05))
        pulls = await asyncio.gather(*(pull(url, NAME, artifact.digest) for _ in range(40)))
        assert all(pulled.whole for pulled in pulls)
        assert up.count(path="/manifests/") == 1
        assert up.count(path=f"/blobs/{artifact.layers[0]}") == 1


@pytest.mark.parametrize("artifact", LAYOUTS.values(), ids=LAYOUTS.keys())
async def test_the_layers_of_a_module_are_filled_before_anyone_asks(tmp_path: Path, artifact: Artifact) -> None:
    async with mirrored(tmp_path) as (up, url):
        publish(up, "team/plugin", "v1", artifact)
        assert (await manifest(url, NAME, "v1")).status == 200
        await eventually(lambda: all(held(tmp_path, digest) for digest in artifact.layers), what="the layers")
        up.refuse()
        assert (await pull(url, NAME, artifact.digest)).whole


async def test_the_layers_of_a_large_container_image_are_left_until_asked_for(tmp_path: Path) -> None:
    layers = [(OCI_LAYER, bytes([number]) * 1000) for number in range(8)]
    async with mirrored(tmp_path) as (up, url):
        publish(up, "team/app", "v1", image(layers))
        assert (await manifest(url, "up/team/app", "v1")).status == 200
        assert (await blob(url, "up/team/app", Digest.of(layers[0][1]))).status == 200
        assert up.count(path="/blobs/") == 1


async def test_a_disconnect_does_not_stop_the_fill(tmp_path: Path) -> None:
    gate = Gate()
    artifact = LAYOUTS["raw"]
    layer = artifact.layers[0]
    async with mirrored(tmp_path) as (up, url):
        publish(up, "team/plugin", None, artifact)
        up.inject(Fault(gate=gate, gate_at=150_000), path=f"/blobs/{layer}")
        async with ask(url, f"/v2/{NAME}/blobs/{layer}") as exchange:
            await exchange.head()
            assert await exchange.read()
        gate.release()
        await eventually(lambda: held(tmp_path, layer), what="the layer")
        assert up.count(method="GET", path=f"/blobs/{layer}") == 1


async def test_a_disconnect_before_the_first_byte_does_not_stop_the_fill(tmp_path: Path) -> None:
    gate = Gate()
    artifact = LAYOUTS["compat"]
    async with mirrored(tmp_path) as (up, url):
        publish(up, "team/plugin", "v1", artifact)
        up.inject(Fault(hold=gate), path="/manifests/")
        async with ask(url, f"/v2/{NAME}/manifests/v1"):
            await gate.reached()
        gate.release()
        await eventually(lambda: held(tmp_path, artifact.digest), what="the manifest")
        assert (await pull(url, NAME, "v1")).whole
        assert up.count(path="/manifests/") == 1


TAMPERED = {
    "the first byte": Fault(flip_at=0),
    "the middle": Fault(tamper_from=100_000),
    "the last byte": Fault(flip_at=-1),
    "another length": Fault(truncate_to=200_000),
}


@pytest.mark.parametrize("tampered", TAMPERED.values(), ids=TAMPERED.keys())
@pytest.mark.parametrize("media_type", [OCI_LAYER, DOCKER_LAYER], ids=["tar+gzip", "tar.gzip"])
@pytest.mark.shows("an endpoint sends wrong bytes")
async def test_a_tampered_archive_does_not_give_one_byte(tmp_path: Path, tampered: Fault, media_type: str) -> None:
    artifact = LAYOUTS["compat" if media_type == OCI_LAYER else "docker"]
    layer = artifact.layers[0]
    async with mirrored(tmp_path) as (up, url):
        publish(up, "team/plugin", "v1", artifact)
        with up.inject(tampered, path=f"/blobs/{layer}"):
            pulls = await asyncio.gather(*(pull(url, NAME, "v1") for _ in range(5)))
        wrong = artifact.blobs[layer][:1000]
        for pulled in pulls:
            (got,) = pulled.layers
            assert (got.status, got.error[0]) == (502, "UPSTREAM_INVALID")
            assert wrong not in got.body
            assert len(got.body) < 1000
        assert not held(tmp_path, layer)
        assert (await pull(url, NAME, "v1")).whole, "the repaired upstream"


@pytest.mark.parametrize("tampered", TAMPERED.values(), ids=TAMPERED.keys())
@pytest.mark.shows("an endpoint sends wrong bytes")
async def test_a_tampered_raw_module_is_never_whole(tmp_path: Path, tampered: Fault) -> None:
    artifact = LAYOUTS["raw"]
    layer = artifact.layers[0]
    async with mirrored(tmp_path) as (up, url):
        publish(up, "team/plugin", None, artifact)
        gate = Gate()
        with up.inject(tampered, path=f"/blobs/{layer}"), up.inject(Fault(gate=gate, gate_at=150_000)):
            asking = [asyncio.create_task(blob(url, NAME, layer)) for _ in range(5)]
            await gate.reached()
            gate.release()
            for got in await asyncio.gather(*asking):
                assert got.status == 502 or (got.status == 200 and not got.whole)
                assert len(got.body) <= len(MODULE) - 64 * 1024
        assert not held(tmp_path, layer)
        assert Digest.of((await blob(url, NAME, layer)).body) == layer, "the repaired upstream"


async def test_a_mirror_that_sends_wrong_bytes_is_passed_over_for_the_origin(tmp_path: Path) -> None:
    artifact = LAYOUTS["compat"]
    with FaultyUpstream() as near, FaultyUpstream() as origin:
        publish(near, "team/plugin", "v1", artifact)
        publish(origin, "team/plugin", "v1", artifact)
        near.inject(Fault(tamper_from=100_000), path="/blobs/")
        async with again(tmp_path, {"endpoints": [near.url, origin.url]}) as url:
            pulled = await pull(url, NAME, "v1")
            assert pulled.whole, "a mismatch that nobody has seen is mended unseen"


def held(folder: Path, digest: Digest) -> bool:
    """Whether the disk holds it."""
    return (folder / "data" / "blobs" / digest.algorithm / digest.hex[:2] / digest.hex).exists()
