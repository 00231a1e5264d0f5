"""What is warm is whole on the disk, was asked for once, and is judged as agents will judge it."""

import asyncio
import errno
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from mirror.digest import Digest
from tests.store.disk import fail
from tests.support.artifacts import (
    OCI_LAYER,
    Artifact,
    cncf,
    compat,
    docker,
    image,
    index,
    publish,
    raw,
    tar_gz,
    wasm_module,
)
from tests.support.faults import Fault, Gate
from tests.support.jobs import warm, warmed
from tests.support.pushing import Author
from tests.support.running import Running, running
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

MODULE = wasm_module(20_000)
TAG = "up/team/plugin:v1"
ASK_ALWAYS = {"defaults": {"fresh_for": "0s", "negative_for": "0s"}}

LAYOUTS = {
    "raw": raw(MODULE),
    "compat": compat(MODULE),
    "docker": docker(MODULE),
    "index": index(raw(MODULE), compat(MODULE), platforms=("linux/amd64", "linux/arm64")),
}


def url(mirror: Running) -> str:
    return f"http://{mirror.host}"


def all_of(artifact: Artifact) -> list[Digest]:
    """An image, its config and its layers."""
    return [artifact.digest, *artifact.blobs]


async def test_what_is_warm_is_served_without_upstream(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        for layout, artifact in LAYOUTS.items():
            publish(up, f"team/{layout}", "v1", artifact)
        async with running(tmp_path, {"up": up}) as mirror:
            for layout, artifact in LAYOUTS.items():
                image = artifact.children[0] if artifact.children else artifact
                needed = {artifact.digest, *all_of(image)}
                missing = {digest for digest in needed if not mirror.holds(digest)}
                result = await warm(url(mirror), f"up/team/{layout}:v1")
                assert (result["result"], result["digest"]) == ("fetched", str(artifact.digest))
                assert all(map(mirror.holds, needed))
                came = sum(mirror.directory.blob(digest).stat().st_size for digest in missing)
                assert result["bytes"] == came
            up.refuse()
            for layout, artifact in LAYOUTS.items():
                image = artifact.children[0] if artifact.children else artifact
                assert (await mirror.get(f"/v2/up/team/{layout}/manifests/v1")).body == artifact.body
                for digest, content in image.blobs.items():
                    assert (await mirror.get(f"/v2/up/team/{layout}/blobs/{digest}")).body == content


async def test_upstream_is_asked_once_for_each_thing_however_often_and_parallel_it_is_warmed(tmp_path: Path) -> None:
    artifacts = [compat(wasm_module(5_000, seed=n)) for n in range(6)]
    references = [f"up/team/plugin:v{n}" for n in range(6)]
    with FaultyUpstream() as up:
        for n, artifact in enumerate(artifacts):
            publish(up, "team/plugin", f"v{n}", artifact)
        async with running(tmp_path, {"up": up}, {"defaults": {"fresh_for": "1m"}}) as mirror:
            await asyncio.gather(
                warmed(url(mirror), references * 3, parallel=64),
                warmed(url(mirror), [f"oci://{one}" for one in references], parallel=1),
                *(mirror.get(f"/v2/up/team/plugin/manifests/v{n}") for n in range(6)),
            )
            asked = Counter(request.path for request in up.matching(method="GET"))
            assert set(asked.values()) == {1}
            assert len(asked) == 6 + len({digest for artifact in artifacts for digest in artifact.blobs})
            assert {one["result"] for one in await warmed(url(mirror), references)} == {"held"}
            assert up.count() == sum(asked.values())


async def test_a_tag_that_is_not_fresh_is_asked_about_and_followed(tmp_path: Path) -> None:
    before, after = raw(MODULE), raw(wasm_module(1_000, seed=1))
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", before)
        async with running(tmp_path, {"up": up}, ASK_ALWAYS) as mirror:
            assert (await warm(url(mirror), TAG))["result"] == "fetched"
            assert (await warm(url(mirror), TAG))["result"] == "held"
            assert up.count(method="GET", path="manifests") == 1
            publish(up, "team/plugin", "v1", after)
            moved = await warm(url(mirror), TAG)
            assert (moved["result"], moved["digest"]) == ("fetched", str(after.digest))
            assert all(map(mirror.holds, all_of(after)))
            up.refuse()
            stale = await warm(url(mirror), TAG)
            assert (stale["result"], stale["digest"]) == ("held", str(after.digest))
            assert "it is what it was" in stale["why"]


async def test_of_an_index_the_platforms_are_warmed_that_are_asked_for(tmp_path: Path) -> None:
    children = [raw(wasm_module(1_000, seed=n)) for n in range(3)]
    many = index(*children, platforms=("linux/arm64", "linux/amd64", "linux/s390x"))
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", many)
        async with running(tmp_path, {"up": up}) as mirror:

            def held() -> list[bool]:
                return [mirror.holds(child.layers[0]) for child in children]

            await warm(url(mirror), TAG)
            assert held() == [False, True, False]
            only = await warm(url(mirror), TAG, platforms=["linux/arm64"])
            assert (only["result"], held()) == ("fetched", [True, True, False])
            lacking = await warm(url(mirror), TAG, platforms=["linux/arm64", "linux/riscv64"])
            assert lacking["result"] == "failed"
            assert "no child for linux/riscv64; it has linux/amd64, linux/arm64, linux/s390x" in lacking["why"]
            await warm(url(mirror), TAG, platforms=["all"])
            assert held() == [True, True, True]


async def test_what_agents_refuse_is_held_and_it_is_said_why(tmp_path: Path) -> None:
    refused = {
        "cncf": cncf(MODULE),
        "three": image([(OCI_LAYER, tar_gz({"other.wasm": MODULE}))]),
        "arm": index(raw(MODULE), platforms=("linux/arm64",)),
    }
    with FaultyUpstream() as up:
        for tag, artifact in refused.items():
            publish(up, "team/plugin", tag, artifact)
        pinned = publish(up, "team/plugin", "index", index(raw(MODULE)))
        async with running(tmp_path, {"up": up}) as mirror:
            results = await warmed(
                url(mirror), [*(f"up/team/plugin:{tag}" for tag in refused), f"up/team/plugin@{pinned}"]
            )
            why = {result["reference"].rpartition("plugin")[2]: result["why"] for result in results}
            assert {result["result"] for result in results} == {"refused"}
            assert "application/wasm" in why[":cncf"]
            assert "plugin.wasm" in why[":three"]
            assert "no child for linux/amd64" in why[":arm"]
            assert "pin the child instead" in why[f"@{pinned}"]
            assert all(map(mirror.holds, [*all_of(refused["cncf"]), *all_of(refused["three"]), refused["arm"].digest]))


async def test_what_agents_take_and_envoy_will_not_run_is_warm_and_that_is_said(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", raw(MODULE))
        async with running(tmp_path, {"up": up}) as mirror:
            result = await warm(url(mirror), TAG)
            assert result["result"] == "fetched"
            assert "agents take it, and Envoy will not run it" in result["why"]


async def test_a_broken_reference_fails_by_itself(tmp_path: Path) -> None:
    lacking, lying = raw(wasm_module(1_000, seed=1)), raw(wasm_module(200_000, seed=2))
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", raw(MODULE))
        publish(up, "team/lacking", "v1", lacking)
        publish(up, "team/lying", "v1", lying)
        up.inject(Fault(status=404), path=f"blobs/{lacking.layers[0]}")
        up.inject(Fault(flip_at=1_000), path=f"blobs/{lying.layers[0]}")
        expected = {
            TAG: "",
            "up/team/absent:v1": "does not have team/absent:v1",
            "up/team/lacking:v1": str(lacking.layers[0]),
            "up/team/lying:v1": "digest",
            "quay.io/team/plugin:v1": "no upstream 'quay.io' is configured",
            "up/Team:v1": "is not a repository name",
            "up/team/plugin@sha256:0": "is not a digest",
            "": "is not a repository name",
        }
        async with running(tmp_path, {"up": up}, {"defaults": {"hold_for": "2s"}}) as mirror:
            results = {one["reference"]: one for one in await warmed(url(mirror), list(expected))}
            assert results.keys() == expected.keys()
            assert {text for text, one in results.items() if one["result"] != "failed"} == {TAG}
            assert {text: words in (results[text]["why"] or "") for text, words in expected.items()} == dict.fromkeys(
                expected, True
            )


async def test_a_full_disk_is_told_of_and_what_it_holds_is_warm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", raw(MODULE))
        publish(up, "team/plugin", "v2", raw(wasm_module(1_000, seed=1)))
        async with running(tmp_path, {"up": up}) as mirror:
            assert (await warm(url(mirror), "up/team/plugin:v2"))["result"] == "fetched"
            with monkeypatch.context() as patch:
                fail(patch, "replace", errno.ENOSPC)  # which is how spools and drafts become blobs
                result = await warm(url(mirror), TAG)
                assert (result["result"], result["why"]) == (
                    "failed",
                    "the mirror's disk fails: No space left on device",
                )
                assert (await warm(url(mirror), "up/team/plugin:v2"))["result"] == "held"
            assert (await warm(url(mirror), TAG))["result"] == "fetched"


async def test_a_layer_that_passes_through_is_not_warm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact, replace = raw(MODULE), os.replace

    def replaced(source: Path, target: Path) -> None:
        if target.name == artifact.layers[0].hex:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", artifact)
        async with running(tmp_path, {"up": up}) as mirror:
            monkeypatch.setattr(os, "replace", replaced)
            result = await warm(url(mirror), TAG)
            assert result["result"] == "failed"
            assert f"does not keep {artifact.layers[0]}" in result["why"]
            monkeypatch.undo()
            assert (await warm(url(mirror), TAG))["result"] == "fetched"


async def test_what_has_gone_from_the_disk_is_brought_again_a_manifest_too(tmp_path: Path) -> None:
    artifact = raw(MODULE)
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", artifact)
        async with running(tmp_path, {"up": up}, {"defaults": {"fresh_for": "1h"}}) as mirror:
            await warm(url(mirror), TAG)
            for gone in (artifact.digest, artifact.layers[0]):
                mirror.directory.blob(gone).unlink()
                result = await warm(url(mirror), TAG)
                assert (result["result"], result["bytes"]) == ("fetched", len(artifact.blobs.get(gone, artifact.body)))
                assert mirror.holds(gone)


async def test_what_is_gone_before_all_of_it_is_here_is_not_warm(tmp_path: Path) -> None:
    gate, artifact = Gate(), raw(MODULE)
    module, runtime = artifact.layers
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", artifact)
        up.inject(Fault(hold=gate), path=f"blobs/{runtime}")
        async with running(tmp_path, {"up": up}) as mirror:
            warming = asyncio.create_task(warm(url(mirror), TAG))
            await gate.reached()
            await mirror.until_held(module)
            mirror.directory.blob(module).unlink()
            gate.release()
            result = await warming
            assert result["result"] == "failed"
            assert "cache.max_size" in result["why"]


async def test_what_is_hosted_is_warm(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        async with running(tmp_path, {"up": up}) as mirror:
            await Author(mirror).push(raw(MODULE), "v1")

            async def held() -> bool:
                """What has come a moment ago counts as fetched: files have no finer times."""
                result = await warm(url(mirror), "hosted/team/plugin:v1")
                return (result["result"], result["bytes"]) == ("held", 0)

            is_held: Callable[[], bool | Awaitable[bool]] = held
            await eventually(is_held, what="it is warm")
            absent = await warm(url(mirror), "hosted/team/absent:v1")
            assert absent["result"] == "failed"
            assert "nothing was pushed to it" in absent["why"]


async def test_what_is_warm_counts_as_used_and_not_as_asked_for(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", index(raw(MODULE)))
        async with running(tmp_path, {"up": up}) as mirror:
            for _ in range(3):
                await warm(url(mirror), TAG)
            (module,) = [one for one in (await mirror.get("/api/v1/modules")).json["modules"] if one["tag"] == "v1"]
            assert (module["hits"], module["used_at"] is not None) == (0, True)
            await mirror.get("/v2/up/team/plugin/manifests/v1")
            (module,) = [one for one in (await mirror.get("/api/v1/modules")).json["modules"] if one["tag"] == "v1"]
            assert module["hits"] == 1


async def test_every_warming_is_counted_by_its_result(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", raw(MODULE))
        publish(up, "team/plugin", "v2", cncf(MODULE))
        async with running(tmp_path, {"up": up}) as mirror:
            await warmed(url(mirror), [TAG, "up/team/plugin:v2", "up/team/plugin:v3"])
            await warm(url(mirror), TAG)
            lines = (await mirror.get("/metrics")).body.decode().splitlines()
            for result in ("held", "fetched", "refused", "failed"):
                assert f'wasm_mirror_prewarm_total{{result="{result}"}} 1.0' in lines
