"""A tag moves to a version that can be had whole; until then the old one is served."""

import asyncio
from pathlib import Path

import pytest

from mirror.digest import Digest
from tests.integration.client import Pulled, ask, blob, manifest, pull, serves, settled, until
from tests.integration.mirrored import mirrored
from tests.support.artifacts import compat, index, publish, raw, wasm_module
from tests.support.faults import Fault, Gate
from tests.support.upstream import FaultyUpstream

NAME = "up/team/plugin"
ASK = {"fresh_for": "0s", "hold_for": "2s"}
OLD = raw(wasm_module(200_000, seed=1))
NEW_MODULE = wasm_module(200_000, seed=2)
NEW = raw(NEW_MODULE)
NEW_LAYER = NEW.layers[0]


async def hold_old(up: FaultyUpstream, url: str) -> None:
    """Let the mirror hold the old version."""
    publish(up, "team/plugin", "v1", OLD)
    assert (await pull(url, NAME, "v1")).whole


async def test_the_new_version_is_served_once_upstream_has_it(tmp_path: Path) -> None:
    async with mirrored(tmp_path, defaults=ASK) as (up, url):
        await hold_old(up, url)
        publish(up, "team/plugin", "v1", NEW)
        pulled = await pull(url, NAME, "v1")
        assert pulled.whole
        assert pulled.manifest.body == NEW.body
        assert up.count(method="HEAD", path="/manifests/") == 1
        assert up.count(method="GET", path=f"/manifests/{NEW.digest}") == 1


async def test_all_who_wait_for_the_new_version_share_one_fetch(tmp_path: Path) -> None:
    async with mirrored(tmp_path, defaults={"fresh_for": "0s", "revalidate_for": "20s"}) as (up, url):
        await hold_old(up, url)
        publish(up, "team/plugin", "v1", NEW)
        gate = Gate()
        up.inject(Fault(hold=gate), method="HEAD")
        waiting = [asyncio.create_task(pull(url, NAME, "v1")) for _ in range(40)]
        await gate.reached()
        await settled(url)
        gate.release()
        assert {pulled.manifest.body for pulled in await asyncio.gather(*waiting)} == {NEW.body}
        assert up.count(method="GET", path=f"/manifests/{NEW.digest}") == 1
        assert up.count(method="GET", path=f"/blobs/{NEW_LAYER}") == 1


INCOMPLETE = {
    "manifest missing": (Fault(status=404, code="MANIFEST_UNKNOWN"), f"/manifests/{NEW.digest}"),
    "manifest unavailable": (Fault(status=503), f"/manifests/{NEW.digest}"),
    "manifest with a wrong bit": (Fault(flip_at=30), f"/manifests/{NEW.digest}"),
    "manifest that hangs": (Fault(hang=True), f"/manifests/{NEW.digest}"),
    "layer missing": (Fault(status=404, code="BLOB_UNKNOWN"), f"/blobs/{NEW_LAYER}"),
    "layer unavailable": (Fault(status=502), f"/blobs/{NEW_LAYER}"),
    "layer that hangs": (Fault(hang=True), f"/blobs/{NEW_LAYER}"),
    "layer without a first byte": (Fault(stall_after=0), f"/blobs/{NEW_LAYER}"),
}


PATIENT = {"manifest unavailable", "layer unavailable"}
"""What is tried again for as long as clients wait takes its time."""


@pytest.mark.parametrize(
    ("fault", "path"),
    [
        pytest.param(*how, id=name, marks=[pytest.mark.integration] if name in PATIENT else [])
        for name, how in INCOMPLETE.items()
    ],
)
@pytest.mark.shows("a tag moves to a version that cannot be had whole")
async def test_a_version_that_cannot_be_had_whole_does_not_take_the_place_of_the_old_one(
    tmp_path: Path, fault: Fault, path: str
) -> None:
    async with mirrored(tmp_path, defaults=ASK) as (up, url):
        await hold_old(up, url)
        publish(up, "team/plugin", "v1", NEW)
        with up.inject(fault, path=path):
            for number in range(3):
                pulled = await pull(url, NAME, "v1")
                assert pulled.whole
                assert pulled.manifest.body == OLD.body
                assert pulled.manifest.cache_status.startswith("fwd=stale; detail=upstream_")
                assert pulled.manifest.seconds < 4
                hangs = fault.hang or fault.stall_after is not None
                assert pulled.manifest.seconds < 1 or number == 0 or not hangs, "it is waited for once"
        up.cut_connections()
        await until(lambda: manifest(url, NAME, "v1"), lambda got: got.body == NEW.body, within=15)
        assert (await pull(url, NAME, "v1")).whole


async def test_an_index_moves_once_its_child_and_the_childs_layers_can_be_had(tmp_path: Path) -> None:
    old, new = index(OLD), index(NEW)
    async with mirrored(tmp_path, defaults=ASK) as (up, url):
        publish(up, "team/plugin", "v1", old)
        assert (await manifest(url, NAME, "v1")).status == 200
        publish(up, "team/plugin", "v1", new)
        for missing in (f"/manifests/{NEW.digest}", f"/blobs/{NEW_LAYER}"):
            with up.inject(Fault(status=404), path=missing):
                got = await manifest(url, NAME, "v1")
                assert (got.status, got.body) == (200, old.body)
        got = await until(lambda: manifest(url, NAME, "v1"), lambda got: got.body == new.body)
        assert got.headers["content-type"] == new.media_type
        assert (await pull(url, NAME, NEW.digest)).whole


async def test_a_tag_moves_while_the_layers_still_flow(tmp_path: Path) -> None:
    gate = Gate()
    async with mirrored(tmp_path, defaults={"fresh_for": "0s"}) as (up, url):
        await hold_old(up, url)
        publish(up, "team/plugin", "v1", NEW)
        up.inject(Fault(gate=gate, gate_at=100_000), path=f"/blobs/{NEW_LAYER}")
        got = await manifest(url, NAME, "v1")
        assert got.body == NEW.body
        assert got.seconds < 5
        async with ask(url, f"/v2/{NAME}/blobs/{NEW_LAYER}") as exchange:
            await exchange.head()
            assert exchange.status == 200
            first = await exchange.read()
            gate.release()
            assert first + (await exchange.rest()).body == NEW_MODULE


async def test_where_there_is_no_old_version_the_new_one_is_served_as_it_is(tmp_path: Path) -> None:
    async with mirrored(tmp_path, defaults={"hold_for": "2s"}) as (up, url):
        publish(up, "team/plugin", "v1", OLD)
        up.inject(Fault(status=404), path=f"/blobs/{OLD.layers[0]}")
        got = await manifest(url, NAME, "v1")
        assert (got.status, got.body) == (200, OLD.body)
        assert (await blob(url, NAME, OLD.layers[0])).status == 404


async def test_no_pull_sees_a_mixture_while_versions_follow_each_other(tmp_path: Path) -> None:
    versions = [compat(wasm_module(50_000 + seed, seed=seed)) for seed in range(12)]
    order = {version.digest: number for number, version in enumerate(versions)}
    done = asyncio.Event()

    async def client(url: str) -> list[Pulled]:
        pulls = []
        while not done.is_set():
            pulls.append(await pull(url, NAME, "v1"))
        return pulls

    async with mirrored(tmp_path, defaults={"fresh_for": "0s"}) as (up, url):
        publish(up, "team/plugin", "v1", versions[0])
        clients = [asyncio.create_task(client(url)) for _ in range(5)]
        for version in versions:
            publish(up, "team/plugin", "v1", version)
            await until(lambda: manifest(url, NAME, "v1"), serves(version))
        done.set()
        for pulls in await asyncio.gather(*clients):
            assert all(pulled.whole for pulled in pulls)
            seen = [order[Digest.parse(pulled.manifest.headers["docker-content-digest"])] for pulled in pulls]
            assert seen == sorted(seen)
