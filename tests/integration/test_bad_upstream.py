"""Whatever an upstream sends that is wrong: it is never kept, never delivered whole, and the client is told why.

A body that has begun to flow is cut; everything else is 502 ``UPSTREAM_INVALID`` with a detail.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from mirror.digest import Digest
from mirror.oci import DOCKER_LIST, DOCKER_MANIFEST, MAX_MANIFEST_SIZE, OCI_INDEX, OCI_MANIFEST
from tests.support.artifacts import Artifact, compat, docker, image, index, publish, raw, wasm_module
from tests.support.asking import Reply
from tests.support.faults import Fault
from tests.support.running import running
from tests.support.upstream import FaultyUpstream

PLUGIN = "/v2/ghcr.io/team/plugin"
SHORTLY = {"defaults": {"hold_for": "500ms", "fresh_for": "0s"}}
MIB = 1 << 20
SOCKETS = 16 * MIB
"""What may lie in the buffers between two programs."""
GOOD = compat(wasm_module(2000))


def refused(reply: Reply) -> None:
    """The client got an error that says what was wrong, and nothing else."""
    assert (reply.status, reply.code) == (502, "UPSTREAM_INVALID"), reply
    assert reply.detail, reply
    assert reply.whole


# Manifests.

FAULTS = {
    "another digest than its bytes have": Fault(flip_at=100),
    "another digest in its header": Fault(headers={"docker-content-digest": f"sha256:{'0' * 64}"}),
    "truncated": Fault(truncate_to=200),
    "empty": Fault(truncate_to=0),
    "a Content-Length that is too short": Fault(length_off_by=-10),
    "100 MiB": Fault(pad_to=100 * MIB),
    "100 MiB without a Content-Length": Fault(pad_to=100 * MIB, framing="chunked"),
    "100 MiB until the connection closes": Fault(pad_to=100 * MIB, framing="close"),
    "compressed": Fault(gzip=True),
    "said to be compressed": Fault(headers={"content-encoding": "br"}),
    "a page of HTML": Fault(html=True),
    "a media type that is none of a manifest": Fault(headers={"content-type": "image/png"}),
    "an index's media type for an image": Fault(headers={"content-type": OCI_INDEX}),
}


@pytest.mark.parametrize("what", FAULTS)
@pytest.mark.shows("a registry sends a wrong manifest, or what is none")
async def test_a_wrong_manifest_is_refused_by_tag_and_by_digest(tmp_path: Path, what: str) -> None:
    with FaultyUpstream() as up:
        digest = publish(up, "team/plugin", "1", GOOD)
        rule = up.inject(FAULTS[what], path="/manifests/")
        async with running(tmp_path, {"ghcr.io": up}, SHORTLY) as mirror:
            for target in ("1", str(digest)):
                for method in ("GET", "HEAD"):
                    reply = await mirror.ask(method, f"{PLUGIN}/manifests/{target}")
                    assert reply.status == 502
                    if method == "GET":
                        refused(reply)
            assert mirror.files() == []
            rule.remove()
            assert (await mirror.get(f"{PLUGIN}/manifests/1")).body == GOOD.body
        assert all(request.sent <= MAX_MANIFEST_SIZE + SOCKETS for request in up.requests)


@pytest.mark.parametrize(
    "fault", [Fault(cut_after=100), Fault(length_off_by=10)], ids=["cut", "Content-Length too long"]
)
async def test_a_manifest_that_ends_early_is_tried_again_and_never_taken(tmp_path: Path, fault: Fault) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", GOOD)
        with up.inject(fault, path="/manifests/"):
            async with running(tmp_path, {"ghcr.io": up}, SHORTLY) as mirror:
                reply = await mirror.get(f"{PLUGIN}/manifests/1")
                assert reply.status in (502, 503)
                assert up.host in reply.message
                assert reply.detail
                assert mirror.files() == []
        up.reset()
        up.inject(fault, path="/manifests/", times=2)
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            assert (await mirror.get(f"{PLUGIN}/manifests/1")).body == GOOD.body
        assert up.count(path="/manifests/1") == 3


def fields(**changes: Any) -> dict[str, Any]:
    return {**json.loads(GOOD.body), **changes}


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in fields().items() if key != name}


LAYER = fields()["layers"][0]
TEXT = GOOD.body.decode()
CONTENTS: dict[str, tuple[bytes | dict[str, Any], str]] = {
    "no JSON": (b"\x00asm\x01\x00\x00\x00", OCI_MANIFEST),
    "JSON with more behind it": (GOOD.body + b"{}", OCI_MANIFEST),
    "no object": (b"[]", OCI_MANIFEST),
    "null": (b"null", OCI_MANIFEST),
    "UTF-16": (TEXT.encode("utf-16"), OCI_MANIFEST),
    "no UTF-8": (TEXT.replace("2000", "\xff").replace("tar+gzip", "tar\xff").encode("latin-1"), OCI_MANIFEST),
    "a key twice": ((TEXT[:-1] + ', "layers": []}').encode(), OCI_MANIFEST),
    "a key twice, inside": (TEXT.replace('"size":', '"size": 1, "size":').encode(), OCI_MANIFEST),
    "NaN": ((TEXT[:-1] + ', "x": NaN}').encode(), OCI_MANIFEST),
    "Infinity": ((TEXT[:-1] + ', "x": -Infinity}').encode(), OCI_MANIFEST),
    "depth 10,000": ((TEXT[:-1] + ', "x": ' + "[" * 10_000 + "]" * 10_000 + "}").encode(), OCI_MANIFEST),
    "depth 10,000 of objects": ((TEXT[:-1] + ', "x": ' + '{"a":' * 10_000 + "1" + "}" * 10_001).encode(), OCI_MANIFEST),
    "depth 10,000, not closed": (b"[" * 10_000, OCI_MANIFEST),
    "an index that says it is a manifest": ({**json.loads(index(GOOD).body), "mediaType": OCI_MANIFEST}, OCI_MANIFEST),
    "an index sent as a manifest": (index(GOOD).body, OCI_MANIFEST),
    "an index without a word, sent as a manifest": ({"schemaVersion": 2, "manifests": []}, OCI_MANIFEST),
    "a manifest sent as an index": (GOOD.body, OCI_INDEX),
    "a manifest that says it is an index": (fields(mediaType=OCI_INDEX), OCI_INDEX),
    "Docker's manifest sent as OCI's": (docker(wasm_module(100)).body, OCI_MANIFEST),
    "both at once": (fields(manifests=[]), OCI_MANIFEST),
    "both at once, sent as an index": (fields(manifests=[], mediaType=OCI_INDEX), OCI_INDEX),
    "both at once, sent as Docker's list": (fields(manifests=[], mediaType=DOCKER_LIST), DOCKER_LIST),
    "both at once, by other letters": (fields(Manifests=[]), OCI_MANIFEST),
    "layers twice, by other letters": (fields(Layers=[]), OCI_MANIFEST),
    "schema 1": ({"schemaVersion": 1, "name": "x", "fsLayers": []}, DOCKER_MANIFEST),
    "schema 1, signed": (
        {"schemaVersion": 1, "fsLayers": []},
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    ),
    "schema 3": (fields(schemaVersion=3), OCI_MANIFEST),
    "no schema": (without("schemaVersion"), OCI_MANIFEST),
    "no config": (without("config"), OCI_MANIFEST),
    "no layers": (without("layers"), OCI_MANIFEST),
    "layers that are no list": (fields(layers={}), OCI_MANIFEST),
    "a layer that is no descriptor": (fields(layers=["x"]), OCI_MANIFEST),
    "a layer with a path for a digest": (fields(layers=[{**LAYER, "digest": "sha256:../../../../etc"}]), OCI_MANIFEST),
    "a layer of a negative size": (fields(layers=[{**LAYER, "size": -1}]), OCI_MANIFEST),
    "a layer of half a byte": (fields(layers=[{**LAYER, "size": 0.5}]), OCI_MANIFEST),
    "a layer larger than any disk": (fields(layers=[{**LAYER, "size": 1 << 70}]), OCI_MANIFEST),
    "a layer of type number": (fields(layers=[{**LAYER, "mediaType": 7}]), OCI_MANIFEST),
}


async def test_a_manifest_that_says_two_things_or_nothing_is_refused(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        async with running(tmp_path, {"ghcr.io": up}, SHORTLY) as mirror:
            for number, (what, (content, media_type)) in enumerate(CONTENTS.items()):
                digest = up.add_manifest("team/plugin", content, media_type, f"v{number}")
                for target in (f"v{number}", str(digest)):
                    reply = await mirror.get(f"{PLUGIN}/manifests/{target}")
                    assert (what, reply.status) == (what, 502)
                    refused(reply)
                    assert len(reply.body) < 2000, what
            assert mirror.files() == []


@pytest.mark.shows("a registry sends a wrong manifest, or what is none")
async def test_a_tag_that_moves_to_what_is_wrong_stays_where_it_was(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", GOOD)
        async with running(tmp_path, {"ghcr.io": up}, SHORTLY) as mirror:
            assert (await mirror.get(f"{PLUGIN}/manifests/1")).body == GOOD.body
            for content, media_type in (CONTENTS["a key twice"], CONTENTS["both at once"]):
                up.add_manifest("team/plugin", content, media_type, "1")
                reply = await mirror.get(f"{PLUGIN}/manifests/1")
                assert (reply.status, reply.body) == (200, GOOD.body)
                assert reply.header("cache-status") == "wasm-mirror; fwd=stale; detail=upstream_invalid"


# Blobs.

LARGE = wasm_module(400_000)
SMALL = wasm_module(1000)

BLOB_FAULTS = {
    "wrong at the first byte": Fault(flip_at=0),
    "wrong in the middle": Fault(flip_at=500),
    "wrong at the last byte": Fault(flip_at=-1),
    "truncated": Fault(truncate_to=900),
    "too long": Fault(pad_to=400_100),
    "too long without a Content-Length": Fault(pad_to=400_100, framing="chunked"),
    "truncated without a Content-Length": Fault(truncate_to=900, framing="chunked"),
    "truncated until the connection closes": Fault(truncate_to=900, framing="close"),
    "wrong without a Content-Length": Fault(flip_at=-1, framing="chunked"),
    "a Content-Length that is too short": Fault(length_off_by=-10),
    "a Content-Length that is too long": Fault(length_off_by=10),
    "compressed": Fault(gzip=True),
    "a page of HTML": Fault(html=True, headers={"docker-content-digest": None}),
    "a page of HTML that names the digest": Fault(html=True),
}
ENDS_EARLY = {
    "truncated without a Content-Length",
    "truncated until the connection closes",
    "a Content-Length that is too long",
}
"""Right bytes as far as they go: kept in a spool, for whoever goes on."""


@pytest.mark.parametrize("known", [True, False], ids=["named by a manifest", "not known"])
@pytest.mark.parametrize("what", BLOB_FAULTS)
async def test_a_wrong_raw_blob_never_arrives_whole(tmp_path: Path, what: str, known: bool) -> None:
    with FaultyUpstream() as up:
        async with running(tmp_path, {"ghcr.io": up}, SHORTLY) as mirror:
            for tag, content in (("small", SMALL), ("large", LARGE)):
                publish(up, "team/plugin", tag, image([("text/plain", content)]))
                if known:
                    assert (await mirror.get(f"{PLUGIN}/manifests/{tag}")).status == 200
                digest = Digest.of(content)
                rule = up.inject(BLOB_FAULTS[what], path=str(digest))
                for headers in ({}, {"Range": "bytes=1-"}):
                    reply = await mirror.get(f"{PLUGIN}/blobs/{digest}", headers)
                    if what in ENDS_EARLY:
                        not_to_be_had(reply, content)
                    else:
                        withheld(reply, content, known)
                        assert digest.hex not in str(mirror.files())
                rule.remove()
                right = await mirror.get(f"{PLUGIN}/blobs/{digest}")
                assert (right.status, right.whole, right.body) == (200, True, content)


def not_to_be_had(reply: Reply, content: bytes) -> None:
    """The client got an error or a cut; or all the right bytes, where only their end was told wrongly."""
    if reply.status in (200, 206):
        assert not reply.whole or content.endswith(reply.body)
    else:  # it might have been a bad line: it was tried again
        assert (reply.status, reply.code) == (502, "UPSTREAM_INVALID")
        assert reply.detail


def withheld(reply: Reply, content: bytes, known: bool) -> None:
    """The client did not get ``content``, and knows it; without one byte where all of it is short."""
    if reply.status in (200, 206):
        assert not reply.whole
        if known:
            assert len(reply.body) <= len(content) - 65_536
    else:
        refused(reply)


async def test_a_size_that_is_told_wrongly_does_not_make_a_range_impossible(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", image([("text/plain", LARGE)]))
        up.inject(Fault(truncate_to=900), method="GET", path="/blobs/", times=1)
        async with running(tmp_path, {"ghcr.io": up}, SHORTLY) as mirror:
            reply = await mirror.get(f"{PLUGIN}/blobs/{Digest.of(LARGE)}", {"Range": "bytes=2000-2999"})
            refused(reply)


@pytest.mark.parametrize("layout", ["compat", "docker"])
@pytest.mark.parametrize("linked", [True, False], ids=["named by a manifest", "not known"])
async def test_not_one_byte_of_a_wrong_archive_is_sent(tmp_path: Path, layout: str, linked: bool) -> None:
    make = {"compat": compat, "docker": docker}[layout]
    artifact: Artifact = make(LARGE)
    layer = artifact.layers[0]
    url = f"{PLUGIN}/blobs/{layer}"
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        async with running(tmp_path, {"ghcr.io": up}, SHORTLY) as mirror:
            for fault in (Fault(flip_at=-1), Fault(tamper_from=200_000), Fault(flip_at=-1, framing="chunked")):
                rule = up.inject(fault, path=f"/blobs/{layer}")
                if linked:
                    await mirror.get(f"{PLUGIN}/manifests/1")
                for headers in ({}, {"Range": "bytes=0-"}, {"Range": "bytes=0-99"}, {"Range": "bytes=100000-"}):
                    refused(await mirror.get(url, headers))
                assert layer.hex not in str(mirror.files())
                rule.remove()
            right = await mirror.get(url)
            assert (right.status, right.body) == (200, artifact.blobs[layer])


@pytest.mark.parametrize("wanted", ["bytes=800-1099", "bytes=0-99", "bytes=1000-1099", "bytes=-10"])
async def test_a_range_is_told_by_the_size_that_the_blob_turns_out_to_have(tmp_path: Path, wanted: str) -> None:
    content = LARGE[:2000]
    digest = Digest.of(content)
    with FaultyUpstream() as bad, FaultyUpstream() as origin:
        for up in (bad, origin):
            publish(up, "team/plugin", "1", image([("text/plain", content)]))
        bad.inject(Fault(truncate_to=900), path="/blobs/")
        async with running(tmp_path, {"ghcr.io": {"endpoints": [bad.url, origin.url]}}, SHORTLY) as mirror:
            reply = await mirror.get(f"{PLUGIN}/blobs/{digest}", {"Range": wanted})
            assert reply.status in (206, 502)
            if reply.status == 206:
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                begin, end = (int(first), int(last) + 1) if first else (2000 - int(last), 2000)
                assert reply.body == content[begin:end]
                assert reply.header("content-range") == f"bytes {begin}-{end - 1}/2000"
            again = await mirror.get(f"{PLUGIN}/blobs/{digest}", {"Range": wanted})
            assert again.status == 206, "the wrong one is asked after the right one"


async def test_the_next_endpoint_is_asked_when_one_sends_wrong_bytes(tmp_path: Path) -> None:
    artifact = raw(LARGE)
    with FaultyUpstream() as bad, FaultyUpstream() as origin:
        for up in (bad, origin):
            publish(up, "team/plugin", "1", artifact)
        bad.inject(Fault(flip_at=100), method="GET")
        settings = {"endpoints": [bad.url, origin.url]}
        async with running(tmp_path, {"ghcr.io": settings}, SHORTLY) as mirror:
            reply = await mirror.get(f"{PLUGIN}/manifests/1")
            assert (reply.status, reply.body) == (200, artifact.body)
            layer = artifact.layers[0]
            replies = [await mirror.get(f"{PLUGIN}/blobs/{layer}") for _ in range(2)]
            assert replies[-1].body == LARGE
            assert all(reply.body == LARGE or not reply.whole for reply in replies)
