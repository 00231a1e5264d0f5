"""/modules gives the plain module of every layout that holds one, verified, and asks upstream for it once."""

import asyncio
import dataclasses
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mirror import modules
from mirror.digest import Digest
from mirror.oci import Manifest
from mirror.wasm.description import Description
from mirror.wasm.examine import examine
from tests.integration.client import ask
from tests.support.artifacts import (
    OCI_LAYER,
    RAW_CONFIG,
    RAW_LAYER,
    Artifact,
    cncf,
    compat,
    descriptor,
    docker,
    docker_list,
    image,
    index,
    publish,
    raw,
    tar_gz,
    wasm_module,
)
from tests.support.faults import Fault, Gate
from tests.support.running import Running, running
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

MODULE = wasm_module(200_000)
SHA256 = hashlib.sha256(MODULE).hexdigest()
OTHER = hashlib.sha256(b"another module").hexdigest()
AT = "/modules/up/team/plugin:v1"


def with_sha512(artifact: Artifact) -> Artifact:
    """The same, with its layers named by their sha512."""
    fields = json.loads(artifact.body)
    contents = {str(digest): content for digest, content in artifact.blobs.items()}
    blobs = dict(artifact.blobs)
    for layer in fields["layers"]:
        content = contents[layer["digest"]]
        digest = Digest.of(content, "sha512")
        layer["digest"] = str(digest)
        blobs[digest] = content
    return dataclasses.replace(artifact, body=json.dumps(fields).encode(), blobs=blobs)


LAYOUTS = {
    "raw": raw(MODULE),
    "compat": compat(MODULE),
    "docker": docker(MODULE),
    "cncf": cncf(MODULE),
    "a raw layer alone": image([(RAW_LAYER, MODULE)]),
    "a raw layer among others": image([(RAW_CONFIG, b"{}"), (RAW_LAYER, MODULE), ("text/plain", b"read me")]),
    "a layer of no type": image([("application/octet-stream", MODULE)]),
    "deep in the archive": image([(OCI_LAYER, tar_gz({"a/b/plugin.wasm": MODULE, "c": b"more"}))]),
    "another file name": image([(OCI_LAYER, tar_gz({"filter.wasm": MODULE}))]),
    "not in the last layer": image([(OCI_LAYER, tar_gz({"plugin.wasm": MODULE})), (OCI_LAYER, tar_gz({"x": b"y"}))]),
    "an archive under another name": image([(RAW_LAYER, tar_gz({"plugin.wasm": MODULE}))]),
    "index": index(compat(MODULE)),
    "index of raw": index(raw(wasm_module(50)), raw(MODULE), platforms=("linux/arm64", "linux/amd64")),
    "docker list": docker_list(docker(MODULE)),
    "raw by sha512": with_sha512(raw(MODULE)),
    "compat by sha512": with_sha512(compat(MODULE)),
}
ONES = {"raw": LAYOUTS["raw"], "compat": LAYOUTS["compat"]}

each_layout = pytest.mark.parametrize("artifact", LAYOUTS.values(), ids=LAYOUTS.keys())
raw_and_compat = pytest.mark.parametrize("artifact", ONES.values(), ids=ONES.keys())


@asynccontextmanager
async def mirrored(
    folder: Path, artifact: Artifact | None = None, **settings: object
) -> AsyncIterator[tuple[FaultyUpstream, Running]]:
    """A registry that has the artifact under ``v1``, and a mirror that calls it ``up``."""
    with FaultyUpstream() as up:
        if artifact is not None:
            publish(up, "team/plugin", "v1", artifact)
        async with running(folder, {"up": up}, settings) as mirror:
            yield up, mirror


def counted(patch: pytest.MonkeyPatch) -> list[object]:
    """What artifacts are looked into for /modules, from now on."""
    looks: list[object] = []

    def look(manifest: Manifest, contents: Mapping[Digest, memoryview], **options: Any) -> Description:
        looks.append(manifest)
        return examine(manifest, contents, **options)

    patch.setattr(modules, "examine", look)
    return looks


@each_layout
async def test_every_layout_gives_its_module(tmp_path: Path, artifact: Artifact) -> None:
    async with mirrored(tmp_path, artifact) as (up, mirror):
        cold = await mirror.get(AT)
        assert (cold.status, cold.whole) == (200, True), cold
        assert cold.body == MODULE
        told = dict(cold.headers)
        assert told["content-type"] == "application/wasm"
        assert told["x-wasm-sha256"] == SHA256
        assert told["etag"] == f'"sha256:{SHA256}"'
        assert told["docker-content-digest"] == f"sha256:{SHA256}"
        assert told["content-length"] == str(len(MODULE))
        assert told["accept-ranges"] == "bytes"
        assert told["cache-status"].startswith("wasm-mirror; fwd=miss")

        for digest in (artifact.children[-1] if artifact.children else artifact).layers:
            await mirror.until_held(digest)
        asked = len(up.requests)
        warm = await mirror.get(f"{AT}.wasm")
        assert warm.body == MODULE
        assert str(warm.header("cache-status")).startswith("wasm-mirror; hit; ttl=")
        assert (await mirror.get(f"/modules/up/team/plugin@{artifact.digest}")).body == MODULE
        assert len(up.requests) == asked


REFUSED = {
    "no Wasm": (image([(RAW_LAYER, b"not a module"), (RAW_CONFIG, b"{}")]), "does not begin with \\0asm"),
    "less than four bytes": (image([(RAW_LAYER, b"\0as"), (RAW_CONFIG, b"{}")]), "is no module"),
    "no Wasm in the archive": (compat(b"not a module"), "does not begin with \\0asm"),
    "another file": (image([(OCI_LAYER, tar_gz({"readme.md": b"hello"}))]), "plugin.wasm"),
    "no archive": (image([(OCI_LAYER, b"\x1f\x8bnonsense")]), "cannot be read"),
    "no layers": (image([]), "no layers"),
    "two modules": (
        image([(OCI_LAYER, tar_gz({"a.wasm": MODULE, "b.wasm": MODULE}))]),
        "it holds 2 modules (a.wasm, b.wasm)",
    ),
    "another platform": (index(raw(MODULE), platforms=("linux/arm64",)), "linux/amd64"),
    "text": (image([("text/plain", MODULE)]), "text/plain"),
}


@pytest.mark.parametrize(("artifact", "words"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_holds_no_module_is_told_why_and_what_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, artifact: Artifact, words: str
) -> None:
    looks = counted(monkeypatch)
    async with mirrored(tmp_path, artifact) as (up, mirror):
        for method in ("GET", "HEAD", "GET"):
            refused = await mirror.ask(method, AT)
            assert refused.status == 404
            assert refused.header("content-type") == "application/json"
        assert refused.code == "MODULE_UNKNOWN"
        assert words in refused.message
        assert "; " in refused.message, "what to do about it"
        assert up.count(method="GET", path="/manifests/v1") == 1
        assert len(looks) == 1


@pytest.mark.parametrize(
    "artifact", [LAYOUTS["raw"], compat(MODULE[:8] + bytes(200_000))], ids=["raw", "in a small archive"]
)
async def test_a_module_that_is_too_large_is_not_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, artifact: Artifact
) -> None:
    looks = counted(monkeypatch)
    async with mirrored(tmp_path, artifact, wasm={"max_module_size": "100KB"}) as (_, mirror):
        for _ in range(2):
            large = await mirror.get(AT)
            assert (large.status, large.code) == (404, "MODULE_UNKNOWN")
        assert len(looks) == 1


@raw_and_compat
async def test_a_module_with_another_sha256_than_asked_for_is_not_given(tmp_path: Path, artifact: Artifact) -> None:
    async with mirrored(tmp_path, artifact) as (_, mirror):
        for sha256 in (SHA256, SHA256.upper()):
            assert (await mirror.get(f"{AT}?sha256={sha256}")).body == MODULE
        for method in ("GET", "HEAD"):
            wrong = await mirror.ask(method, f"{AT}?sha256={OTHER}")
            assert wrong.status == 409
        wrong = await mirror.get(f"{AT}?sha256={OTHER}")
        assert wrong.code == "MODULE_MISMATCH"
        assert SHA256 in wrong.message
        assert OTHER in wrong.message
        assert wrong.detail == {"sha256": SHA256, "asked_for": OTHER}


async def test_by_its_layers_sha512_a_module_is_held_against_the_right_sha256(tmp_path: Path) -> None:
    async with mirrored(tmp_path, LAYOUTS["raw by sha512"]) as (_, mirror):
        assert (await mirror.get(f"{AT}?sha256={OTHER}")).status == 409
        assert (await mirror.get(f"{AT}?sha256={SHA256}")).body == MODULE


async def test_that_a_raw_module_is_another_one_is_said_before_it_has_come(tmp_path: Path) -> None:
    async with mirrored(tmp_path, LAYOUTS["raw"]) as (up, mirror):
        gate = Gate()
        up.inject(Fault(hold=gate), path="/blobs/")
        assert (await mirror.get(f"{AT}?sha256={OTHER}")).status == 409
        gate.release()


@raw_and_compat
async def test_ranges_conditions_and_head(tmp_path: Path, artifact: Artifact) -> None:
    async with mirrored(tmp_path, artifact) as (_, mirror):
        for _ in ("cold", "warm"):
            head = await mirror.head(AT)
            assert (head.status, head.header("content-length")) == (200, str(len(MODULE)))
            assert head.header("x-wasm-sha256") == SHA256
        etag = f'"sha256:{SHA256}"'
        part = await mirror.get(AT, {"Range": "bytes=100-199"})
        assert (part.status, part.body) == (206, MODULE[100:200])
        assert part.header("content-range") == f"bytes 100-199/{len(MODULE)}"
        assert (await mirror.get(AT, {"Range": "bytes=-7"})).body == MODULE[-7:]
        assert (await mirror.get(AT, {"Range": "bytes=999999-"})).status == 416
        assert (await mirror.get(AT, {"Range": "bytes=1-2", "If-Range": etag})).status == 206
        assert (await mirror.get(AT, {"Range": "bytes=1-2", "If-Range": '"sha256:0"'})).body == MODULE
        same = await mirror.get(AT, {"If-None-Match": etag})
        assert (same.status, same.body, same.header("etag")) == (304, b"", etag)
        assert same.header("x-wasm-sha256") == SHA256
        assert (await mirror.get(AT, {"If-None-Match": '"sha256:0"'})).status == 200


async def test_a_raw_module_streams_while_it_comes_but_for_its_end(tmp_path: Path) -> None:
    gate = Gate()
    artifact = LAYOUTS["raw"]
    async with mirrored(tmp_path, artifact) as (up, mirror):
        up.inject(Fault(gate=gate, gate_at=150_000), path=f"/blobs/{artifact.layers[0]}")
        ranged = {"Range": "bytes=10-140009"}
        url = f"http://{mirror.host}"
        async with ask(url, AT) as exchange, ask(url, AT, headers=ranged) as part:
            for one, status in ((exchange, 200), (part, 206)):
                await one.head()
                assert one.status == status
            first, middle = await exchange.read(), await part.read()
            assert first
            assert middle
            gate.release()
            assert first + (await exchange.rest()).body == MODULE
            assert middle + (await part.rest()).body == MODULE[10:140_010]
        assert up.count(method="GET", path=f"/blobs/{artifact.layers[0]}") == 1


@pytest.mark.parametrize("name", ["raw", "compat", "index", "raw by sha512"])
async def test_a_herd_costs_one_get_of_each_and_one_unpacking(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    caplog.set_level(logging.INFO, "mirror.unpack")
    looks = counted(monkeypatch)
    artifact = LAYOUTS[name]
    async with mirrored(tmp_path, artifact) as (up, mirror):
        up.inject(Fault(delay=0.05))
        got = await asyncio.gather(*(mirror.get(AT) for _ in range(50)))
        assert all(one.body == MODULE for one in got)
        layer = (artifact.children[0] if artifact.children else artifact).layers[0]
        assert up.count(method="GET", path=f"/blobs/{layer}") == 1
        assert up.count(method="GET", path="/manifests/") == 1 + len(artifact.children)
        unpacked = sum(record.message.startswith("unpacked") for record in caplog.records)
        assert unpacked == len(looks) == (name in ("compat", "index"))


async def test_a_disconnect_does_not_stop_the_unpacking(tmp_path: Path) -> None:
    gate = Gate()
    artifact = LAYOUTS["compat"]
    async with mirrored(tmp_path, artifact) as (up, mirror):
        up.inject(Fault(gate=gate, gate_at=100_000), path="/blobs/")
        async with ask(f"http://{mirror.host}", AT):
            await gate.reached()
        gate.release()
        await mirror.until_held(Digest("sha256", SHA256))
        assert up.count(method="GET", path=f"/blobs/{artifact.layers[0]}") == 1


@pytest.mark.parametrize("fault", [Fault(flip_at=-1), Fault(tamper_from=100_000)], ids=["the last byte", "the middle"])
@pytest.mark.shows("an endpoint sends wrong bytes")
async def test_of_a_tampered_archive_no_module_is_given(tmp_path: Path, fault: Fault) -> None:
    artifact = image([(OCI_LAYER, tar_gz({"plugin.wasm": MODULE, "behind it": MODULE[::-1]}))])
    async with mirrored(tmp_path, artifact) as (up, mirror):
        with up.inject(fault, path=f"/blobs/{artifact.layers[0]}"):
            refused = await mirror.get(AT)
        assert (refused.status, refused.code) == (502, "UPSTREAM_INVALID")
        assert not mirror.holds(Digest("sha256", SHA256))
        assert (await mirror.get(AT)).body == MODULE, "the repaired upstream"


@pytest.mark.shows("an endpoint sends wrong bytes")
async def test_a_tampered_raw_module_is_never_whole(tmp_path: Path) -> None:
    artifact = LAYOUTS["raw"]
    async with mirrored(tmp_path, artifact) as (up, mirror):
        with up.inject(Fault(tamper_from=100_000), path=f"/blobs/{artifact.layers[0]}"):
            got = await mirror.get(AT)
        assert got.status == 502 or not got.whole


@raw_and_compat
async def test_who_waits_too_long_is_told_to_ask_again_and_then_finds_it(
    tmp_path: Path, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modules, "MAX_HOLD", 0.1)
    gate = Gate()
    async with mirrored(tmp_path, artifact) as (up, mirror):
        up.inject(Fault(hold=gate), path="/blobs/")
        late = await mirror.get(AT)
        assert (late.status, late.code, late.header("retry-after")) == (504, "UPSTREAM_TIMEOUT", "1")
        gate.release()
        await mirror.until_held(Digest("sha256", SHA256))
        assert (await mirror.get(AT)).body == MODULE


async def test_a_small_module_that_stalls_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modules, "MAX_HOLD", 0.1)
    gate, small = Gate(), wasm_module(5000)
    async with mirrored(tmp_path, raw(small)) as (up, mirror):
        up.inject(Fault(gate=gate, gate_at=1000), path="/blobs/")
        assert (await mirror.get(AT)).code == "UPSTREAM_TIMEOUT"
        gate.release()
        await mirror.until_held(Digest.of(small))
        assert (await mirror.get(AT)).body == small


@pytest.mark.shows("a registry is away and what is asked for is not held")
async def test_what_is_not_held_while_upstream_is_away_is_unavailable(tmp_path: Path) -> None:
    async with mirrored(tmp_path, LAYOUTS["raw"], defaults={"hold_for": "200ms"}) as (up, mirror):
        up.refuse()
        for path in (AT, f"{AT}?info"):
            away = await mirror.get(path)
            assert (away.status, away.code) == (503, "UPSTREAM_UNAVAILABLE")
            assert away.header("retry-after") is not None


async def test_what_upstream_does_not_have_is_unknown(tmp_path: Path) -> None:
    async with mirrored(tmp_path, LAYOUTS["raw"]) as (_, mirror):
        for absent in ("/modules/up/team/plugin:v2", "/modules/up/team/plugin"):
            assert (await mirror.get(absent)).code == "MANIFEST_UNKNOWN"
        assert (await mirror.get("/modules/up/team/other:v1")).code == "NAME_UNKNOWN"


async def test_a_layer_that_upstream_has_lost_is_unknown(tmp_path: Path) -> None:
    artifact = LAYOUTS["compat"]
    async with mirrored(tmp_path) as (up, mirror):
        up.add_manifest("team/plugin", artifact.body, artifact.media_type, "v1")
        lost = await mirror.get(AT)
        assert (lost.status, lost.code) == (404, "BLOB_UNKNOWN")


async def test_an_address_may_be_escaped(tmp_path: Path) -> None:
    async with mirrored(tmp_path, LAYOUTS["raw"]) as (_, mirror):
        for path in ("up/team%2Fplugin%3Av1.wasm", f"up/team/plugin%40{LAYOUTS['raw'].digest}", "%75p/team/plugin:v1"):
            assert (await mirror.get(f"/modules/{path}")).body == MODULE
        assert (await mirror.get("/modules/up/team%252Fplugin:v1")).code == "NAME_INVALID"


async def test_a_tag_that_moves_gives_the_new_module(tmp_path: Path) -> None:
    other = wasm_module(1000, seed=7)
    async with mirrored(tmp_path, LAYOUTS["compat"], defaults={"fresh_for": "0s"}) as (up, mirror):
        assert (await mirror.get(AT)).body == MODULE
        publish(up, "team/plugin", "v1", raw(other))
        moved = await mirror.get(AT)
        assert moved.body == other
        await eventually(lambda: mirror.holds(Digest.of(other)))
        again = await mirror.get(AT)
        assert str(again.header("cache-status")).startswith("wasm-mirror; fwd=stale; fwd-status=200")


async def test_a_module_is_no_blob_of_its_repository(tmp_path: Path) -> None:
    async with mirrored(tmp_path, LAYOUTS["compat"]) as (_, mirror):
        assert (await mirror.get(AT)).body == MODULE
        unnamed = await mirror.get(f"/v2/up/team/plugin/blobs/sha256:{SHA256}")
        assert (unnamed.status, unnamed.code) == (404, "BLOB_UNKNOWN")


def test_a_descriptor_by_sha512_is_one() -> None:
    layer = json.loads(LAYOUTS["raw by sha512"].body)["layers"][0]
    assert layer == {**descriptor(RAW_LAYER, MODULE), "digest": f"sha512:{hashlib.sha512(MODULE).hexdigest()}"}
