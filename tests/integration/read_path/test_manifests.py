"""Manifests arrive byte for byte, under the exact media type that agents insist on, and say where they come from."""

import asyncio
import re
import time
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.oci import DOCKER_LIST, DOCKER_MANIFEST, MANIFEST_TYPES, OCI_INDEX, OCI_MANIFEST
from tests.support.artifacts import Artifact, cncf, compat, docker, docker_list, index, publish, raw, wasm_module
from tests.support.faults import Fault
from tests.support.running import running
from tests.support.upstream import FaultyUpstream

MODULE = wasm_module(2000)
BASE = "/v2/ghcr.io/team/plugin/manifests"
AGENT_ACCEPT = ",".join(
    [
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        DOCKER_MANIFEST,
        OCI_MANIFEST,
        DOCKER_LIST,
        OCI_INDEX,
    ]
)
KINDS = {
    "docker": (docker(MODULE), DOCKER_MANIFEST),
    "compat": (compat(MODULE), OCI_MANIFEST),
    "raw": (raw(MODULE), OCI_MANIFEST),
    "cncf": (cncf(MODULE), OCI_MANIFEST),
    "index": (index(compat(MODULE), raw(MODULE), platforms=("linux/amd64", "linux/arm64")), OCI_INDEX),
    "docker list": (docker_list(docker(MODULE)), DOCKER_LIST),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_manifest_is_exact_by_tag_and_by_digest_cold_and_warm(tmp_path: Path, kind: str) -> None:
    artifact, media_type = KINDS[kind]
    with FaultyUpstream() as up:
        digest = publish(up, "team/plugin", "1", artifact)
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            for target, status in (
                ("1", r"wasm-mirror; fwd=miss; fwd-status=200; stored; ttl=\d+"),
                ("1", r"wasm-mirror; hit; ttl=\d+"),
                (str(digest), "wasm-mirror; hit"),
            ):
                reply = await mirror.get(f"{BASE}/{target}", {"Accept": AGENT_ACCEPT, "Accept-Encoding": "gzip"})
                assert (reply.status, reply.body, reply.whole) == (200, artifact.body, True)
                assert reply.header("content-type") == media_type
                assert reply.header("content-length") == str(len(artifact.body))
                assert reply.header("docker-content-digest") == str(digest)
                assert reply.header("etag") == f'"{digest}"'
                assert reply.header("content-encoding") is None
                assert int(reply.header("age") or "") in (0, 1)
                assert re.fullmatch(status, reply.header("cache-status") or ""), reply.header("cache-status")
                head = await mirror.head(f"{BASE}/{target}")
                assert (head.status, head.body) == (200, b"")
                for name in ("content-type", "content-length", "docker-content-digest", "etag"):
                    assert head.header(name) == reply.header(name)
        assert up.count(method="GET", path="/manifests/") == 1
        assert up.count(method="HEAD") == 0


async def test_upstream_is_asked_for_all_kinds_and_for_no_encoding(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", KINDS["raw"][0])
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            await mirror.get(f"{BASE}/1", {"Accept": "application/json", "Accept-Encoding": "gzip, br"})
        (request,) = up.matching(path="/manifests/")
        assert {kind.strip() for kind in request.headers["accept"].split(",")} == set(MANIFEST_TYPES)
        assert request.headers["accept-encoding"] == "identity"


async def test_the_clients_own_words_do_not_reach_upstream(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", KINDS["raw"][0])
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            reply = await mirror.get(
                f"{BASE}/1?secret=1",
                {"Authorization": "Basic Y2xpZW50OnNlY3JldA==", "Cookie": "a=b", "X-Forwarded-For": "10.0.0.1"},
            )
            assert reply.status == 200
        assert up.requests
        for request in up.requests:
            assert not {"authorization", "cookie", "x-forwarded-for"} & request.headers.keys()
            assert not request.query


@pytest.mark.parametrize(
    "told",
    ["{}; charset=utf-8", "{} ;charset=UTF-8", "application/json", "application/octet-stream", "text/plain", None],
)
async def test_the_media_type_is_exact_whatever_upstream_makes_of_it(tmp_path: Path, told: str | None) -> None:
    artifact, media_type = KINDS["index"]
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        up.inject(Fault(headers={"content-type": told.format(media_type) if told else None}), path="/manifests/")
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            assert (await mirror.get(f"{BASE}/1")).header("content-type") == media_type


async def test_a_missing_digest_header_is_computed(tmp_path: Path) -> None:
    artifact = KINDS["compat"][0]
    with FaultyUpstream() as up:
        digest = publish(up, "team/plugin", "1", artifact)
        up.inject(Fault(headers={"docker-content-digest": None}), path="/manifests/")
        async with running(tmp_path, {"ghcr.io": up}, {"defaults": {"fresh_for": "0s"}}) as mirror:
            for _ in range(2):
                reply = await mirror.get(f"{BASE}/1")
                assert (reply.status, reply.header("docker-content-digest")) == (200, str(digest))


async def test_sha512_names_manifests_and_blobs_too(tmp_path: Path) -> None:
    module = wasm_module(200_000)
    with FaultyUpstream() as up:
        content = up.add_blob("team/plugin", module, digest=Digest.of(module, "sha512"))
        descriptor = {"mediaType": "application/wasm", "digest": str(content), "size": len(module)}
        config = up.add_blob("team/plugin", b"{}", digest=Digest.of(b"{}", "sha512"))
        manifest = Artifact(
            (
                f'{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}",'
                f'"config":{{"mediaType":"application/vnd.wasm.config.v0+json","digest":"{config}","size":2}},'
                f'"layers":[{{"mediaType":"{descriptor["mediaType"]}","digest":"{content}","size":{len(module)}}}]}}'
            ).encode(),
            OCI_MANIFEST,
        )
        digest = Digest.of(manifest.body, "sha512")
        up.add_manifest("team/plugin", manifest.body, OCI_MANIFEST, digest=digest)
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            for _ in range(2):
                reply = await mirror.get(f"{BASE}/{digest}")
                assert (reply.status, reply.body) == (200, manifest.body)
                assert reply.header("docker-content-digest") == str(digest)
                blob = await mirror.get(f"/v2/ghcr.io/team/plugin/blobs/{content}")
                assert (blob.status, blob.body, blob.header("etag")) == (200, module, f'"{content}"')
            await mirror.until_held(content)
            wrong = Digest("sha512", "0" * 128)
            assert (await mirror.get(f"{BASE}/{wrong}")).code == "MANIFEST_UNKNOWN"


async def test_a_client_that_has_it_gets_304(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        digest = publish(up, "team/plugin", "1", KINDS["raw"][0])
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            for method in ("GET", "HEAD"):
                for target in ("1", str(digest)):
                    for tag in (f'"{digest}"', f'W/"{digest}"', f'"x", "{digest}"', "*"):
                        reply = await mirror.ask(method, f"{BASE}/{target}", {"If-None-Match": tag})
                        assert (reply.status, reply.body) == (304, b"")
                        assert reply.header("etag") == f'"{digest}"'
                        assert (reply.header("cache-status") or "").startswith("wasm-mirror; ")
                    reply = await mirror.ask(method, f"{BASE}/{target}", {"If-None-Match": '"sha256:other"'})
                    assert reply.status == 200


async def test_a_manifest_has_no_ranges(tmp_path: Path) -> None:
    artifact = KINDS["raw"][0]
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            reply = await mirror.get(f"{BASE}/1", {"Range": "bytes=0-1"})
            assert (reply.status, reply.body, reply.header("accept-ranges")) == (200, artifact.body, None)


async def test_the_status_tells_miss_hit_revalidated_and_stale(tmp_path: Path) -> None:
    artifact = KINDS["raw"][0]
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        settings = {"defaults": {"fresh_for": "0s", "revalidate_for": "5s"}}
        async with running(tmp_path, {"ghcr.io": up}, settings) as mirror:
            told = [(await mirror.get(f"{BASE}/1")).header("cache-status") for _ in range(2)]
            assert told == [
                "wasm-mirror; fwd=miss; fwd-status=200; stored; ttl=0",
                "wasm-mirror; fwd=stale; fwd-status=200; ttl=0; detail=revalidated",
            ]
            up.refuse()
            stale = await mirror.get(f"{BASE}/1")
            assert (stale.status, stale.body) == (200, artifact.body)
            assert stale.header("cache-status") == "wasm-mirror; fwd=stale; detail=upstream_unavailable"
            by_digest = await mirror.get(f"{BASE}/{artifact.digest}")
            assert by_digest.header("cache-status") == "wasm-mirror; hit"
        assert (up.count(method="GET", path="/manifests/"), up.count(method="HEAD", path="/manifests/")) == (1, 1)


async def test_those_who_wait_for_one_fetch_are_told_so(tmp_path: Path) -> None:
    artifact = KINDS["raw"][0]
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        up.inject(Fault(delay=0.2), method="GET", path="/manifests/")
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            replies = await asyncio.gather(*(mirror.get(f"{BASE}/1") for _ in range(8)))
            assert {reply.body for reply in replies} == {artifact.body}
            collapsed = [reply for reply in replies if "; collapsed" in (reply.header("cache-status") or "")]
            assert len(collapsed) == 7
        assert up.count(method="GET", path="/manifests/") == 1


async def test_head_of_what_is_not_held_asks_upstream_once_and_holds_it(tmp_path: Path) -> None:
    artifact = KINDS["index"][0]
    with FaultyUpstream() as up:
        digest = publish(up, "team/plugin", "1", artifact)
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            head = await mirror.head(f"{BASE}/1")
            assert (head.status, head.header("docker-content-digest")) == (200, str(digest))
            assert (head.header("content-type"), head.header("content-length")) == (OCI_INDEX, str(len(artifact.body)))
            assert (await mirror.get(f"{BASE}/1")).body == artifact.body
        assert up.count(path="/manifests/1") == 1


async def test_what_upstream_does_not_have_is_remembered_for_a_while(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", KINDS["raw"][0])
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            for _ in range(3):
                reply = await mirror.get(f"{BASE}/none")
                assert (reply.status, reply.code) == (404, "MANIFEST_UNKNOWN")
        assert up.count(path="/manifests/none") == 1


async def test_age_counts_from_when_upstream_confirmed_the_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultyUpstream() as up:
        digest = publish(up, "team/plugin", "1", KINDS["raw"][0])
        up.inject(Fault(status=503), path="/manifests/", skip=1)
        async with running(tmp_path, {"ghcr.io": up}, {"defaults": {"fresh_for": "1000s"}}) as mirror:
            await mirror.get(f"{BASE}/1")
        later = time.time() + 500
        monkeypatch.setattr("time.time", lambda: later)
        async with running(tmp_path, {"ghcr.io": up}, {"defaults": {"fresh_for": "1000s"}}) as mirror:
            reply = await mirror.get(f"{BASE}/1")
            assert reply.status == 200
            assert 499 <= int(reply.header("age") or "") <= 501
            assert re.fullmatch(r"wasm-mirror; hit; ttl=(499|500)", reply.header("cache-status") or "")
            assert 499 <= int((await mirror.get(f"{BASE}/{digest}")).header("age") or "") <= 501
