"""Repackaging: what agents would refuse is served under a tag with a suffix, in a layout that they take."""

import asyncio
import errno
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.oci import OCI_MANIFEST, Manifest
from mirror.wasm.examine import examine
from tests.store.disk import fail
from tests.support.artifacts import (
    CNCF_LAYER,
    OCI_LAYER,
    RAW_CONFIG,
    RAW_LAYER,
    Artifact,
    cncf,
    compat,
    image,
    index,
    publish,
    raw,
    tar_gz,
    wasm_module,
)
from tests.support.asking import Reply
from tests.support.faults import Fault, Gate
from tests.support.running import Running, running
from tests.support.upstream import FaultyUpstream
from tests.wasm.verdicts import cases

pytestmark = pytest.mark.integration

MODULE = wasm_module(30_000)
MANIFESTS = "/v2/up/team/plugin/manifests"
BLOBS = "/v2/up/team/plugin/blobs"
ON = {"wasm": {"repackage": "agents"}, "defaults": {"fresh_for": "0s", "negative_for": "0s"}}

OTHER_NAME = image([(OCI_LAYER, tar_gz({"filter.wasm": MODULE, "README": b"read me"}))])
REFUSED = {
    "cncf": cncf(MODULE),
    "raw alone": image([(RAW_LAYER, MODULE)]),
    "raw with three": image([(RAW_LAYER, MODULE), (RAW_CONFIG, b"{}"), ("text/plain", b"-")]),
    "another name": OTHER_NAME,
    "not the last": image([(OCI_LAYER, tar_gz({"plugin.wasm": MODULE})), (RAW_CONFIG, b"{}")]),
    "an index of cncf": index(cncf(MODULE)),
    "an index for wasm alone": index(compat(MODULE), platforms=("wasip1/wasm",)),
    "an index in an index": index(index(OTHER_NAME)),
}


@asynccontextmanager
async def repackaging(
    folder: Path, settings: Mapping[str, object] | None = None
) -> AsyncIterator[tuple[FaultyUpstream, Running]]:
    with FaultyUpstream() as up:
        async with running(folder, {"up": up}, settings or ON) as mirror:
            yield up, mirror


async def module_of(mirror: Running, reply: Reply) -> bytes:
    """What agents would give to Envoy: examined as the agents do, and every blob pulled."""
    assert (reply.status, reply.header("content-type")) == (200, OCI_MANIFEST)
    made = Manifest.parse(reply.body, OCI_MANIFEST, Digest.of(reply.body))
    assert reply.header("docker-content-digest") == str(made.digest)
    contents = {}
    for named in made.named:
        blob = await mirror.get(f"{BLOBS}/{named.digest}")
        assert (blob.status, Digest.of(blob.body), len(blob.body)) == (200, named.digest, named.size)
        contents[named.digest] = blob.body
    described = examine(made, contents)
    assert described.agent.accepted, described.agent
    assert described.chosen is not None
    return contents[made.layers[described.chosen.layer].digest]


@pytest.mark.parametrize("artifact", REFUSED.values(), ids=REFUSED.keys())
async def test_the_same_module_is_served_in_a_layout_that_agents_take(tmp_path: Path, artifact: Artifact) -> None:
    async with repackaging(tmp_path) as (up, mirror):
        publish(up, "team/plugin", "v1", artifact)
        made = await mirror.get(f"{MANIFESTS}/v1-istio")
        assert await module_of(mirror, made) == MODULE
        head = await mirror.head(f"{MANIFESTS}/v1-istio")
        assert head.header("docker-content-digest") == made.header("docker-content-digest")
        by_digest = await mirror.get(f"{MANIFESTS}/{made.header('docker-content-digest')}")
        assert by_digest.body == made.body
        original = await mirror.get(f"{MANIFESTS}/v1")
        assert original.body == artifact.body, "under its own name it is what it was"


async def test_whatever_agents_refuse_they_take_afterwards_or_are_told_why_not(tmp_path: Path) -> None:
    refused = [case for case in cases() if case.module is None and not case.large]
    made = 0
    async with repackaging(tmp_path, {"wasm": {"repackage": "agents"}}) as (up, mirror):
        for number, case in enumerate(refused):
            publish(up, "team/plugin", f"v{number}", case.artifact)
            reply = await mirror.get(f"{MANIFESTS}/v{number}-istio")
            if reply.status == 200:
                await module_of(mirror, reply)
                made += 1
            else:
                assert reply.status in (404, 502), (case.name, reply)
                assert len(reply.message) > 40, case.name
    assert made >= 10


@pytest.mark.parametrize("layout", [raw, compat])
async def test_what_agents_take_as_it_is_is_not_made_again(tmp_path: Path, layout: Callable[[bytes], Artifact]) -> None:
    async with repackaging(tmp_path) as (up, mirror):
        publish(up, "team/plugin", "v1", layout(MODULE))
        reply = await mirror.get(f"{MANIFESTS}/v1-istio")
        assert (reply.status, reply.code) == (404, "MANIFEST_UNKNOWN")
        assert "agents take that one as it is" in reply.message


async def test_an_artifact_without_one_good_module_is_a_404_that_says_why(tmp_path: Path) -> None:
    two = image([(OCI_LAYER, tar_gz({"a.wasm": MODULE, "b.wasm": wasm_module(99)}))])
    async with repackaging(tmp_path) as (up, mirror):
        publish(up, "team/plugin", "v1", two)
        for _ in range(2):
            reply = await mirror.get(f"{MANIFESTS}/v1-istio")
            assert (reply.status, reply.code) == (404, "MANIFEST_UNKNOWN")
            assert "2 modules" in reply.message


async def test_a_tag_that_is_not_there_without_its_suffix_either_is_a_404(tmp_path: Path) -> None:
    async with repackaging(tmp_path) as (up, mirror):
        publish(up, "team/plugin", "v1", cncf(MODULE))
        reply = await mirror.get(f"{MANIFESTS}/v2-istio")
        assert (reply.status, reply.code) == (404, "MANIFEST_UNKNOWN")


async def test_off_by_default_a_tag_with_the_suffix_is_a_tag_like_any(tmp_path: Path) -> None:
    async with repackaging(tmp_path, {"defaults": {}}) as (up, mirror):
        publish(up, "team/plugin", "v1", cncf(MODULE))
        assert (await mirror.get(f"{MANIFESTS}/v1-istio")).status == 404
        assert up.count(path="/manifests/v1-istio") == 1
        assert up.count(path="/manifests/v1") == up.count(path="/manifests/v1-istio"), "nobody asked for the other one"


async def test_a_tag_that_upstream_has_wins_whether_it_came_before_or_after(tmp_path: Path) -> None:
    theirs = raw(wasm_module(400, seed=9))
    async with repackaging(tmp_path) as (up, mirror):
        publish(up, "team/plugin", "v1", cncf(MODULE))
        assert await module_of(mirror, await mirror.get(f"{MANIFESTS}/v1-istio")) == MODULE
        publish(up, "team/plugin", "v1-istio", theirs)
        for _ in range(2):
            assert (await mirror.get(f"{MANIFESTS}/v1-istio")).body == theirs.body
        up.delete_tag("team/plugin", "v1-istio")
        assert await module_of(mirror, await mirror.get(f"{MANIFESTS}/v1-istio")) == MODULE


async def test_an_original_with_the_suffix_is_served_in_an_outage_like_any_tag(tmp_path: Path) -> None:
    theirs = raw(wasm_module(400, seed=9))
    async with repackaging(tmp_path) as (up, mirror):
        publish(up, "team/plugin", "v1", cncf(MODULE))
        publish(up, "team/plugin", "v1-istio", theirs)
        assert (await mirror.get(f"{MANIFESTS}/v1")).status == 200
        assert (await mirror.get(f"{MANIFESTS}/v1-istio")).body == theirs.body
        up.refuse()
        reply = await mirror.get(f"{MANIFESTS}/v1-istio")
        assert reply.body == theirs.body
        assert "fwd=stale" in (reply.header("cache-status") or "")


@pytest.mark.parametrize("artifact", [cncf(MODULE), OTHER_NAME], ids=["cncf", "another name"])
async def test_an_outage_is_not_noticed_not_even_by_the_first_who_asks_for_it(
    tmp_path: Path, artifact: Artifact
) -> None:
    settings = {**ON, "defaults": {"fresh_for": "0s", "negative_for": "0s", "revalidate_for": "2s"}}
    async with repackaging(tmp_path, settings) as (up, mirror):
        publish(up, "team/plugin", "v1", artifact)
        assert (await mirror.get(f"{MANIFESTS}/v1")).status == 200
        for layer in artifact.layers:
            await mirror.until_held(layer)
        with up.inject(Fault(hang=True)):
            began = asyncio.get_running_loop().time()
            replies = [await mirror.get(f"{MANIFESTS}/v1-istio") for _ in range(5)]
            took = asyncio.get_running_loop().time() - began
            modules = [await module_of(mirror, reply) for reply in replies]
        assert modules == [MODULE] * 5
        assert took < 3.8, "silence is waited for once"
        assert all("fwd=stale" in (reply.header("cache-status") or "") for reply in replies)


async def test_without_the_original_either_an_outage_is_told_as_one(tmp_path: Path) -> None:
    settings = {**ON, "defaults": {"hold_for": "300ms"}}
    async with repackaging(tmp_path, settings) as (up, mirror):
        up.refuse()
        reply = await mirror.get(f"{MANIFESTS}/v1-istio")
        assert (reply.status, reply.code) == (503, "UPSTREAM_UNAVAILABLE")


async def test_a_refusal_of_the_mirrors_credentials_is_not_passed_by(tmp_path: Path) -> None:
    async with repackaging(tmp_path) as (up, mirror):
        publish(up, "team/plugin", "v1", cncf(MODULE))
        assert (await mirror.get(f"{MANIFESTS}/v1-istio")).status == 200
        up.inject(Fault(status=403))
        assert (await mirror.get(f"{MANIFESTS}/v1-istio")).code == "DENIED"


async def test_what_was_made_follows_the_original(tmp_path: Path) -> None:
    newer = wasm_module(20_000, seed=3)
    async with repackaging(tmp_path) as (up, mirror):
        publish(up, "team/plugin", "v1", cncf(MODULE))
        first = await mirror.get(f"{MANIFESTS}/v1-istio")
        assert "fwd=miss" in (first.header("cache-status") or "")
        second = await mirror.get(f"{MANIFESTS}/v1-istio")
        assert (second.header("cache-status") or "").endswith("detail=revalidated")
        publish(up, "team/plugin", "v1", cncf(newer))
        assert await module_of(mirror, await mirror.get(f"{MANIFESTS}/v1-istio")) == newer
        pinned = await mirror.get(f"{MANIFESTS}/{first.header('docker-content-digest')}")
        assert pinned.body == first.body, "who has pinned the version before goes on having it"
        assert await module_of(mirror, pinned) == MODULE


async def test_it_is_made_once_for_all_who_wait(tmp_path: Path) -> None:
    async with repackaging(tmp_path) as (up, mirror):
        publish(up, "team/plugin", "v1", OTHER_NAME)
        gate = Gate()
        (layer,) = OTHER_NAME.layers
        up.inject(Fault(hold=gate), path=f"/blobs/{layer}")
        waiting = [asyncio.create_task(mirror.get(f"{MANIFESTS}/v1-istio")) for _ in range(30)]
        await gate.reached()
        gate.release()
        replies = await asyncio.gather(*waiting)
        assert len({(reply.status, reply.body) for reply in replies}) == 1
        assert await module_of(mirror, replies[0]) == MODULE
        assert up.count(method="GET", path=f"/blobs/{layer}") == 1
        assert up.count(method="GET", path="/blobs/") == 1, "what is made here is never asked for there"


async def test_layers_that_do_not_come_in_time_are_a_504_and_the_next_who_asks_gets_it(tmp_path: Path) -> None:
    settings = {**ON, "defaults": {"hold_for": "300ms", "negative_for": "0s"}}
    async with repackaging(tmp_path, settings) as (up, mirror):
        publish(up, "team/plugin", "v1", OTHER_NAME)
        gate = Gate()
        (layer,) = OTHER_NAME.layers
        up.inject(Fault(gate=gate, gate_at=100), path=f"/blobs/{layer}")
        late = await mirror.get(f"{MANIFESTS}/v1-istio")
        assert (late.status, late.code) == (504, "UPSTREAM_TIMEOUT")
        assert "the layers of up/team/plugin:v1" in late.message, "a manifest is waited for no longer than any"
        gate.release()
        await mirror.until_held(layer)
        assert await module_of(mirror, await mirror.get(f"{MANIFESTS}/v1-istio")) == MODULE


@pytest.mark.parametrize("artifact", [cncf(MODULE), OTHER_NAME], ids=["cncf", "another name"])
async def test_after_a_restart_a_pinned_digest_is_served_without_upstream(tmp_path: Path, artifact: Artifact) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", artifact)
        async with running(tmp_path, {"up": up}, ON) as mirror:
            made = await mirror.get(f"{MANIFESTS}/v1-istio")
        up.refuse()
        async with running(tmp_path, {"up": up}, ON) as mirror:
            assert (await mirror.get(f"{BLOBS}/{Digest.of(b'{}')}")).body == b"{}"
            assert (await mirror.get(f"{BLOBS}/{Digest.of(MODULE)}")).body == MODULE
            pinned = await mirror.get(f"{MANIFESTS}/{made.header('docker-content-digest')}")
            assert await module_of(mirror, pinned) == MODULE
            assert (await mirror.get(f"{MANIFESTS}/v1-istio")).body == made.body


async def test_a_module_whose_blob_is_gone_is_unpacked_again_by_tag_and_by_digest(tmp_path: Path) -> None:
    module = Digest.of(MODULE)
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", OTHER_NAME)
        async with running(tmp_path, {"up": up}, ON) as mirror:
            made = await mirror.get(f"{MANIFESTS}/v1-istio")
            mirror.directory.blob(module).unlink()
            assert (await mirror.get(f"{MANIFESTS}/v1-istio")).body == made.body
            assert mirror.holds(module)
            mirror.directory.blob(module).unlink()
            assert (await mirror.get(f"{BLOBS}/{module}")).body == MODULE
            mirror.directory.blob(module).unlink()
        async with running(tmp_path, {"up": up}, ON) as mirror:
            pinned = await mirror.get(f"{MANIFESTS}/{made.header('docker-content-digest')}")
            assert await module_of(mirror, pinned) == MODULE


@pytest.mark.parametrize("artifact", [cncf(MODULE), OTHER_NAME], ids=["cncf", "another name"])
@pytest.mark.shows("the disk is full, or fails")
async def test_without_a_disk_what_is_made_comes_through_memory(
    tmp_path: Path, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with repackaging(tmp_path) as (up, mirror):
        publish(up, "team/plugin", "v1", artifact)
        assert (await mirror.get("/readyz")).status == 200
        with monkeypatch.context() as patch:
            for call in ("pwrite", "write", "fsync"):
                fail(patch, call, errno.ENOSPC)
            made = await mirror.get(f"{MANIFESTS}/v1-istio")
            assert await module_of(mirror, made) == MODULE
            pinned = await mirror.get(f"{MANIFESTS}/{made.header('docker-content-digest')}")
            assert await module_of(mirror, pinned) == MODULE
            assert not mirror.holds(Digest.of(MODULE))
        assert await module_of(mirror, await mirror.get(f"{MANIFESTS}/v1-istio")) == MODULE
        await mirror.until_held(Digest.of(MODULE))


async def test_two_mirrors_make_the_same_digest_each_by_itself(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", OTHER_NAME)
        bodies = []
        for name in ("one", "two"):
            async with running(tmp_path / name, {"up": up}, ON) as mirror:
                bodies.append((await mirror.get(f"{MANIFESTS}/v1-istio")).body)
        assert bodies[0] == bodies[1]


async def test_what_is_made_has_a_module_and_a_description_like_any(tmp_path: Path) -> None:
    async with repackaging(tmp_path) as (up, mirror):
        publish(up, "team/plugin", "v1", cncf(MODULE))
        module = await mirror.get("/modules/up/team/plugin:v1-istio")
        assert (module.status, module.body) == (200, MODULE)
        assert module.header("x-wasm-sha256") == hashlib.sha256(MODULE).hexdigest()
        told = await mirror.get("/modules/up/team/plugin:v1-istio?info")
        assert told.json["accepted_by"]["agents"]["accepted"]
        assert not (await mirror.get("/modules/up/team/plugin:v1?info")).json["accepted_by"]["agents"]["accepted"]


async def test_the_suffix_is_what_the_setting_says(tmp_path: Path) -> None:
    settings = {"wasm": {"repackage": "agents", "repackage_suffix": "_for.agents"}}
    async with repackaging(tmp_path, settings) as (up, mirror):
        publish(up, "team/plugin", "v1", cncf(MODULE))
        assert await module_of(mirror, await mirror.get(f"{MANIFESTS}/v1_for.agents")) == MODULE
        assert (await mirror.get(f"{MANIFESTS}/v1-istio")).status == 404


async def test_offline_it_is_made_of_what_is_held(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", cncf(MODULE))
        async with running(tmp_path, {"up": up}, ON) as mirror:
            assert (await mirror.get(f"{MANIFESTS}/v1")).status == 200
            await mirror.until_held(Digest.of(MODULE))
            await mirror.get(f"{BLOBS}/{cncf(MODULE).layers[0]}")
        before = up.count()
        async with running(tmp_path, {"up": {"endpoints": [up.url], "offline": True}}, ON) as mirror:
            assert await module_of(mirror, await mirror.get(f"{MANIFESTS}/v1-istio")) == MODULE
        assert up.count() == before


async def test_upstreams_own_index_is_not_made_into_anything_when_it_leads_nowhere(tmp_path: Path) -> None:
    none = index(compat(MODULE), raw(MODULE), platforms=("linux/arm64", "wasip1/wasm"))
    async with repackaging(tmp_path) as (up, mirror):
        publish(up, "team/plugin", "v1", none)
        reply = await mirror.get(f"{MANIFESTS}/v1-istio")
        assert (reply.status, reply.code) == (404, "MANIFEST_UNKNOWN")
        assert "linux/amd64" in reply.message


async def test_a_layer_that_is_both_the_module_and_the_config_of_others_stays_one_blob(tmp_path: Path) -> None:
    """The empty configuration is a well-known blob: upstream's own of that digest is the same."""
    artifact = image([(CNCF_LAYER, MODULE)], config=("application/vnd.wasm.config.v0+json", b"{}"))
    async with repackaging(tmp_path) as (up, mirror):
        publish(up, "team/plugin", "v1", artifact)
        assert await module_of(mirror, await mirror.get(f"{MANIFESTS}/v1-istio")) == MODULE
        assert (await mirror.get(f"{BLOBS}/{Digest.of(b'{}')}")).body == b"{}"
