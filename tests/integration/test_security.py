"""The attacks of the design's list on security, tried through the whole mirror; each test names its line there.

A test here fails when the defence is taken out. Lines that are missing belong to what does not exist yet.
"""

import asyncio
import base64
import gzip
import json
import tarfile
import time
from pathlib import Path
from typing import Literal

import pytest

from mirror.digest import Digest
from mirror.oci import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.support.artifacts import (
    OCI_LAYER,
    compat,
    descriptor,
    docker,
    image,
    index,
    publish,
    raw,
    tar_gz,
    wasm_module,
)
from tests.support.asking import ask
from tests.support.faults import Fault, Gate
from tests.support.process import MirrorProcess
from tests.support.running import Running, running
from tests.support.tokens import TokenService
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

PLUGIN = "/v2/ghcr.io/team/plugin"
MODULE = wasm_module(200_000)
ARTIFACT = raw(MODULE)
LAYER = ARTIFACT.layers[0]
PASSWORD = "correct-horse-battery"
LOGIN = {"username": "robot", "password": PASSWORD}
SHORTLY = {"defaults": {"hold_for": "500ms", "fresh_for": "0s"}}
MIB = 1 << 20


def with_login(up: FaultyUpstream, **endpoint: object) -> dict[str, object]:
    """The settings of an upstream for which the mirror has credentials."""
    return {"endpoints": [{"url": up.url, **endpoint}], "credentials": LOGIN}


def every_address_is_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let servers of this machine pass for servers of the internet, so that other defences than line 2 are seen."""
    monkeypatch.setattr("mirror.upstream.dial.is_public", lambda address: True)


# Credentials.


async def test_a_realm_that_is_not_named_gets_no_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line 1: the attacker's realm is asked, as anyone's, but without the name or the password."""
    every_address_is_public(monkeypatch)
    with FaultyUpstream() as up, FaultyUpstream() as attacker:
        publish(up, "team/plugin", "1", ARTIFACT)
        attacker.tokens = TokenService()
        up.require_bearer(realm=f"{attacker.url}/token")
        async with running(tmp_path, {"ghcr.io": with_login(up)}) as mirror:
            reply = await mirror.get(f"{PLUGIN}/manifests/1")
        assert (reply.status, reply.code) == (403, "DENIED")
        assert "auth_hosts" in reply.message
        assert attacker.requests
        for request in attacker.requests:
            assert "authorization" not in request.headers
            assert "account" not in request.query
            assert request.body == b""
        assert not any("authorization" in request.headers and "Basic" in request.headers["authorization"]
                       for request in up.requests)  # fmt: skip


async def test_a_realm_that_is_named_gets_them(tmp_path: Path) -> None:
    """Line 1: the other side."""
    with FaultyUpstream() as up, FaultyUpstream() as service:
        publish(up, "team/plugin", "1", ARTIFACT)
        service.tokens = up.require_bearer(
            TokenService(users={"robot": PASSWORD}, anonymous=False), realm=f"{service.url}/token"
        )
        up.tokens = None
        async with running(tmp_path, {"ghcr.io": with_login(up, auth_hosts=[service.host])}) as mirror:
            assert (await mirror.get(f"{PLUGIN}/manifests/1")).status == 200
        assert service.requests[0].headers["authorization"].startswith("Basic ")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "127.1", "2130706433"])
async def test_a_host_that_was_learnt_is_never_private(tmp_path: Path, host: str) -> None:
    """Line 2: realms and redirects to this machine, by address or by name, are not even connected to."""
    with FaultyUpstream() as up, FaultyUpstream() as inside:
        publish(up, "team/plugin", "1", ARTIFACT)
        for way in (
            Fault(redirect=f"http://{host}:{inside.port}/latest/meta-data"),
            Fault(status=401, headers={"www-authenticate": f'Bearer realm="http://{host}:{inside.port}/token"'}),
        ):
            up.inject(way, path="/(manifests|blobs)/", times=4)
            async with running(tmp_path, {"ghcr.io": with_login(up)}, SHORTLY) as mirror:
                for tail in ("manifests/1", f"blobs/{LAYER}"):
                    reply = await mirror.get(f"{PLUGIN}/{tail}")
                    assert reply.status in (502, 503), reply
                    assert reply.code.startswith("UPSTREAM_")
                    assert up.host in reply.message
            up.clear()
        assert inside.accepted_connections == 0


async def test_each_hop_of_a_redirect_is_judged(tmp_path: Path) -> None:
    """Line 2: storage that the settings name may not lead on to what they do not name."""
    with FaultyUpstream() as up, FaultyUpstream() as storage, FaultyUpstream() as inside:
        publish(up, "team/plugin", "1", ARTIFACT)
        up.inject(Fault(redirect=f"{storage.url}{{path}}"), path="/blobs/")
        storage.inject(Fault(redirect=f"{inside.url}{{path}}"))
        settings = {"endpoints": [{"url": up.url, "redirect_hosts": [storage.host]}]}
        async with running(tmp_path, {"ghcr.io": settings}) as mirror:
            reply = await mirror.get(f"{PLUGIN}/blobs/{LAYER}")
        assert (reply.status, reply.code) == (502, "UPSTREAM_INVALID")
        assert "redirect_hosts" in reply.message
        assert len(storage.requests) == 1
        assert inside.accepted_connections == 0


@pytest.mark.parametrize("challenge", ["basic", "bearer"])
async def test_a_redirect_to_another_host_carries_no_credentials(tmp_path: Path, challenge: str) -> None:
    """Line 3: and when the other host asks for some, it is not answered."""
    with FaultyUpstream() as up, FaultyUpstream() as storage:
        publish(up, "team/plugin", "1", ARTIFACT)
        publish(storage, "team/plugin", "1", ARTIFACT)
        if challenge == "basic":
            up.require_basic({"robot": PASSWORD})
        else:
            up.require_bearer(TokenService(users={"robot": PASSWORD}, anonymous=False))
        up.inject(Fault(redirect=f"{storage.url}{{path}}"), path="/blobs/", skip=1)
        async with running(tmp_path, {"ghcr.io": with_login(up, redirect_hosts=[storage.host])}, SHORTLY) as mirror:
            reply = await mirror.get(f"{PLUGIN}/blobs/{LAYER}")
            assert (reply.status, reply.body) == (200, MODULE)
            storage.require_basic({"robot": PASSWORD})
            other = publish(up, "team/plugin", "2", image([("text/plain", b"x" * 100_000)]))
            assert (await mirror.get(f"{PLUGIN}/manifests/{other}")).status == 200
            reply = await mirror.get(f"{PLUGIN}/blobs/{Digest.of(b'x' * 100_000)}")
            assert reply.status == 503
        assert any("authorization" in request.headers for request in up.requests)
        assert storage.requests
        assert not any("authorization" in request.headers for request in storage.requests)


async def test_the_urls_of_foreign_layers_are_never_fetched(tmp_path: Path) -> None:
    """Line 4: neither when the manifest is pulled nor when the layer is asked for."""
    with FaultyUpstream() as up, FaultyUpstream() as attacker:
        attacker.add_blob("x", MODULE)
        place = f"{attacker.url}/v2/x/blobs/{LAYER}"
        foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        for tag, kind in (("1", foreign), ("2", OCI_LAYER)):
            up.add_manifest(
                "team/plugin",
                {
                    "schemaVersion": 2,
                    "mediaType": OCI_MANIFEST,
                    "config": {**descriptor("application/json", b"{}"), "urls": [place]},
                    "layers": [{**descriptor(kind, MODULE), "urls": [place]}],
                },
                tag=tag,
            )
        async with running(tmp_path, {"ghcr.io": with_login(up)}) as mirror:
            for tag in ("1", "2"):
                assert (await mirror.get(f"{PLUGIN}/manifests/{tag}")).status == 200
            reply = await mirror.get(f"{PLUGIN}/blobs/{LAYER}")
            assert (reply.status, reply.code) == (404, "BLOB_UNKNOWN")
        assert attacker.accepted_connections == 0


async def test_ns_is_a_key_and_never_an_address(tmp_path: Path) -> None:
    """Line 5: what it may name is configured; nobody else is connected to."""
    with FaultyUpstream() as up, FaultyUpstream() as inside:
        publish(inside, "team/plugin", "1", ARTIFACT)
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            for ns in (
                "http://169.254.169.254",
                inside.url,
                inside.host,
                f"localhost:{inside.port}",
                f"ghcr.io@{inside.host}",
                f"{inside.host}#ghcr.io",
                f"ghcr.io:{inside.port}",
                "ghcr.io/../../x",
            ):
                for repository in ("team/plugin", "ghcr.io/team/plugin"):
                    for tail in ("manifests/1", f"blobs/{LAYER}", "tags/list", f"referrers/{LAYER}"):
                        reply = await mirror.get(f"/v2/{repository}/{tail}?ns={ns.replace('#', '%23')}")
                        assert (ns, reply.status, reply.code) == (ns, 404, "NAME_UNKNOWN")
        assert (up.accepted_connections, inside.accepted_connections) == (0, 0)


# What content may be.


async def test_a_manifest_cannot_be_two_things(tmp_path: Path) -> None:
    """Line 7: of a manifest that is an image to one reader and an index to another, nobody gets to see either."""
    both = {**json.loads(ARTIFACT.body), **json.loads(index(compat(MODULE)).body)}
    with FaultyUpstream() as up:
        async with running(tmp_path, {"ghcr.io": up}, SHORTLY) as mirror:
            for number, (own, told) in enumerate(
                [(own, told) for own in (OCI_MANIFEST, OCI_INDEX, None) for told in (OCI_MANIFEST, OCI_INDEX)]
            ):
                content = {key: value for key, value in {**both, "mediaType": own}.items() if value is not None}
                digest = up.add_manifest("team/plugin", content, told, f"v{number}")
                for target in (f"v{number}", str(digest)):
                    reply = await mirror.get(f"{PLUGIN}/manifests/{target}")
                    assert (reply.status, reply.code) == (502, "UPSTREAM_INVALID")
            for artifact, told in ((ARTIFACT, OCI_INDEX), (ARTIFACT, DOCKER_MANIFEST), (docker(MODULE), OCI_MANIFEST)):
                up.add_manifest("team/plugin", artifact.body, told, "other")
                assert (await mirror.get(f"{PLUGIN}/manifests/other")).status == 502
            assert mirror.files() == []


async def test_a_page_of_tags_is_capped_and_there_is_no_catalogue(tmp_path: Path) -> None:
    """Line 8: neither the answer nor the question to upstream is as large as the client likes."""
    with FaultyUpstream() as up:
        digest = publish(up, "team/plugin", "1", ARTIFACT)
        for number in range(1500):
            up.tag("team/plugin", f"v{number}", digest)
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            for n in ("1000000000", "9" * 400, "2147483648"):
                reply = await mirror.get(f"{PLUGIN}/tags/list?n={n}")
                assert (reply.status, len(reply.json["tags"])) == (200, 1000)
            assert {request.query["n"] for request in up.requests} == {"1000"}
            asked = len(up.requests)
            for path in ("/v2/_catalog?n=1000000000", "/v2/ghcr.io/_catalog"):
                assert (await mirror.get(path)).status == 404
            assert len(up.requests) == asked


TRAVERSALS = [
    "/v2/ghcr.io/team/plugin/blobs/sha256:{up}canary",
    "/v2/ghcr.io/team/plugin/blobs/{up}canary",
    "/v2/ghcr.io/team/plugin/manifests/{up}canary",
    "/v2/ghcr.io/team/plugin/manifests/sha256:{up}canary",
    "/v2/ghcr.io/{up}canary/manifests/1",
    "/v2/{up}canary/tags/list",
    "/v2/{up}canary",
    "/v2/ghcr.io/team/plugin/referrers/sha256:{up}canary",
    "/v2/team/plugin/manifests/1?ns={up}canary",
    "/v2/ghcr.io/team/plugin/tags/list?last={up}canary%00",
    "/v2/ghcr.io/team/plugin/blobs/sha256:" + "0" * 64 + "/{up}canary",
    "/v2/ghcr.io/team/plugin/blobs/sha256:" + "g" * 64,
    "/v2/ghcr.io/team/plugin/blobs/sha256:" + "%00" * 64,
    "/{up}canary",
]


async def test_no_name_or_digest_becomes_a_path(tmp_path: Path) -> None:
    """Line 9: what is outside the grammar opens no file, makes none, and reaches no upstream."""
    (tmp_path / "canary").write_text("the canary sings")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "canary").write_text("the canary sings")
    with FaultyUpstream() as up:
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            await mirror.get("/v2/")
            before = contents_of(tmp_path)
            for pattern in TRAVERSALS:
                for step in ("../", "%2e%2e/", "..%2f", "%2e%2e%2f", "..%5c", "....//", "%252e%252e%252f"):
                    reply = await mirror.get(pattern.replace("{up}", step * 4))
                    assert reply.status in (400, 404), pattern
                    assert b"sings" not in reply.body
            assert contents_of(tmp_path) == before
        assert not up.requests


def contents_of(folder: Path) -> set[Path]:
    """All that lies in a folder, but for the databases, which make files of their own."""
    return {path for path in folder.rglob("*") if ".sqlite" not in path.name}


# Who may see what.


async def test_a_blob_is_read_through_its_own_repository_only(tmp_path: Path) -> None:
    """Line 10: that another repository's pull put it on this disk opens it to nobody; upstream's word does."""
    with FaultyUpstream() as up, FaultyUpstream() as other:
        digest = publish(up, "secret/plugin", "1", ARTIFACT)
        up.add_blob("open/plugin", b"something else")
        other.add_blob("secret/plugin", b"something else")
        async with running(tmp_path, {"ghcr.io": up, "quay.io": other}, SHORTLY) as mirror:
            await pull(mirror, "/v2/ghcr.io/secret/plugin")
            for repository in ("ghcr.io/open/plugin", "quay.io/secret/plugin", "ghcr.io/no/such"):
                for tail in (f"blobs/{LAYER}", f"manifests/{digest}"):
                    for method, headers in (
                        ("GET", {}),
                        ("HEAD", {}),
                        ("GET", {"Range": "bytes=0-0"}),
                        ("GET", {"If-None-Match": "*"}),
                        ("GET", {"If-None-Match": f'"{LAYER}"'}),
                    ):
                        reply = await mirror.ask(method, f"/v2/{repository}/{tail}", headers)
                        assert (repository, tail, reply.status) == (repository, tail, 404)
            up.add_blob("open/plugin", MODULE)
            fetched = up.count(method="GET", path=str(LAYER))
            reply = await mirror.get(f"/v2/ghcr.io/open/plugin/blobs/{LAYER}")
            assert (reply.status, reply.body) == (200, MODULE)
            assert up.count(method="GET", path=str(LAYER)) == fetched


async def test_a_blob_that_is_just_coming_is_not_open_to_other_repositories(tmp_path: Path) -> None:
    """Line 10: joining a download needs the same right as reading what it leaves."""
    with FaultyUpstream() as up:
        publish(up, "secret/plugin", "1", ARTIFACT)
        up.add_blob("open/plugin", b"something else")
        gate = Gate()
        up.inject(Fault(gate=gate, gate_at=150_000), path=f"secret/plugin/blobs/{LAYER}")
        async with running(tmp_path, {"ghcr.io": up}, SHORTLY) as mirror:
            first = asyncio.create_task(mirror.get(f"/v2/ghcr.io/secret/plugin/blobs/{LAYER}"))
            await gate.reached()
            for method in ("GET", "HEAD"):
                reply = await mirror.ask(method, f"/v2/ghcr.io/open/plugin/blobs/{LAYER}")
                assert reply.status == 404
            gate.release()
            assert (await first).body == MODULE


async def test_a_pull_through_a_repository_without_the_blob_does_not_spoil_that_of_another(tmp_path: Path) -> None:
    """Line 10, turned round: who asks in the wrong place first must not decide what the others get."""
    with FaultyUpstream() as up, FaultyUpstream() as other:
        publish(up, "team/plugin", "1", ARTIFACT)
        other.add_blob("team/plugin", b"something else")
        gate = Gate()
        other.inject(Fault(hold=gate), path=str(LAYER))
        async with running(tmp_path, {"ghcr.io": up, "quay.io": other}) as mirror:
            wrong = asyncio.create_task(mirror.get(f"/v2/quay.io/team/plugin/blobs/{LAYER}"))
            await gate.reached()
            assert (await mirror.get(f"{PLUGIN}/manifests/1")).status == 200
            right = asyncio.create_task(mirror.get(f"{PLUGIN}/blobs/{LAYER}"))
            assert (await mirror.get("/v2/")).status == 200  # so the one before it has come, too
            gate.release()
            assert (await wrong).status == 404
            reply = await right
            assert (reply.status, reply.body) == (200, MODULE)


async def test_upstream_is_part_of_every_key(tmp_path: Path) -> None:
    """Line 14: the same names at two upstreams are two things, by whatever way they are named."""
    with FaultyUpstream() as one, FaultyUpstream() as two:
        artifacts = {}
        for seed, (name, up) in enumerate({"ghcr.io": one, "quay.io": two}.items()):
            artifacts[name] = raw(wasm_module(1000, seed))
            publish(up, "team/plugin", "1", artifacts[name])
            up.tag("team/plugin", f"only-{seed}", artifacts[name].digest)
        settings = {"default_upstream": "quay.io", "defaults": {"hold_for": "300ms"}}
        async with running(tmp_path, {"ghcr.io": one, "quay.io": two}, settings) as mirror:
            for _ in range(2):
                for name, artifact in artifacts.items():
                    for target, headers in (
                        (f"/v2/{name}/team/plugin/{{}}", {}),
                        (f"/v2/team/plugin/{{}}?ns={name}", {}),
                        ("/v2/team/plugin/{}", {"Host": name}),
                    ):
                        reply = await mirror.get(target.format("manifests/1"), headers)
                        assert (name, reply.body) == (name, artifact.body)
                        tags = (await mirror.get(target.format("tags/list"), headers)).json["tags"]
                        assert tags == ["1", "only-0" if name == "ghcr.io" else "only-1"]
                        mine = await mirror.get(target.format(f"blobs/{artifact.layers[0]}"), headers)
                        assert mine.status == 200
                        (other,) = [layers.layers[0] for key, layers in artifacts.items() if key != name]
                        assert (await mirror.get(target.format(f"blobs/{other}"), headers)).status == 404
                assert (await mirror.get("/v2/team/plugin/manifests/1")).body == artifacts["quay.io"].body
            for up in (one, two):
                up.refuse()
            for name, artifact in artifacts.items():
                tags = (await mirror.get(f"/v2/{name}/team/plugin/tags/list")).json["tags"]
                assert tags == ["1", "only-0" if name == "ghcr.io" else "only-1"]
                assert (await mirror.get(f"/v2/{name}/team/plugin/manifests/1")).body == artifact.body


async def test_nothing_is_kept_that_was_not_verified(tmp_path: Path) -> None:
    """Line 15: while bytes come, and after they turned out wrong, nothing lies under their digest."""
    with FaultyUpstream() as up:
        digest = publish(up, "team/plugin", "1", ARTIFACT)
        gate = Gate()
        up.inject(Fault(flip_at=-1, gate=gate, gate_at=199_000), path=str(LAYER))
        async with running(tmp_path, {"ghcr.io": up}, SHORTLY) as mirror:
            assert (await mirror.get(f"{PLUGIN}/manifests/1")).status == 200
            await gate.reached()
            assert not mirror.holds(LAYER)
            asking = asyncio.create_task(mirror.get(f"{PLUGIN}/blobs/{LAYER}"))
            gate.release()
            reply = await asking
            assert reply.status == 502 or not reply.whole
            await eventually(lambda: LAYER.hex not in str(mirror.files()), what="the wrong bytes are gone")
            for file in mirror.directory.blobs.rglob("*"):
                if file.is_file():
                    assert Digest.of(file.read_bytes()).hex == file.name
            assert mirror.holds(digest)
        up.clear()
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            assert (await mirror.get(f"{PLUGIN}/blobs/{LAYER}")).body == MODULE


@pytest.mark.parametrize("disguise", ["application/octet-stream", "application/wasm"])
async def test_a_second_manifest_does_not_change_how_a_layer_is_guarded(tmp_path: Path, disguise: str) -> None:
    """Line 15: a tar+gzip layer of a pinned manifest stays withheld, whatever another manifest calls the same digest.

    Agents stop reading an archive at ``plugin.wasm``, so its first bytes must not be sent before its last are verified.
    """
    good = compat(MODULE)
    layer = good.layers[0]
    called = descriptor(disguise, good.blobs[layer])
    with FaultyUpstream() as up:
        pinned = publish(up, "team/plugin", None, good)
        up.add_manifest(
            "team/plugin",
            {"schemaVersion": 2, "config": descriptor("text/plain", b"{}"), "layers": [called] * 5},
            tag="disguise",
        )
        up.inject(Fault(flip_at=-1), path=str(layer))
        async with running(tmp_path, {"ghcr.io": up}, SHORTLY) as mirror:
            assert (await mirror.get(f"{PLUGIN}/manifests/{pinned}")).status == 200
            assert (await mirror.get(f"{PLUGIN}/manifests/disguise")).status == 200
            reply = await mirror.get(f"{PLUGIN}/blobs/{layer}")
            assert (reply.status, reply.code) == (502, "UPSTREAM_INVALID")


# Requests.


async def test_the_request_line_decides_and_no_header_does(tmp_path: Path) -> None:
    """Line 16: a ``Host`` that looks like a path, and headers that proxies use, change no address."""
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", ARTIFACT)
        publish(up, "secret/plugin", "1", compat(MODULE))
        settings = {"endpoints": [up.url], "allow": ["team/*"]}
        async with running(tmp_path, {"ghcr.io": settings}) as mirror:
            host = mirror.host
            for headers in (
                {"Host": f"{host}/v2/ghcr.io/secret/plugin/manifests/1?x="},
                {"Host": f"{host}/v2/ghcr.io/secret/plugin/manifests/1#"},
                {"Host": "ghcr.io/v2/secret/plugin/manifests/1?"},
                {"Host": f"user:password@{host}"},
                {"Host": ""},
                {"X-Original-URL": "/v2/ghcr.io/secret/plugin/manifests/1"},
                {"X-Rewrite-URL": "/v2/ghcr.io/secret/plugin/manifests/1"},
                {"X-Forwarded-Host": "ghcr.io", "X-Forwarded-Prefix": "/v2/ghcr.io/secret"},
                {"Forwarded": "host=ghcr.io"},
            ):
                reply = await mirror.get(f"{PLUGIN}/manifests/1", headers)
                assert (headers, reply.status, reply.body) == (headers, 200, ARTIFACT.body)
                refused = await mirror.get("/v2/ghcr.io/secret/plugin/manifests/1", headers)
                assert (headers, refused.status) == (headers, 404)
            absolute = await mirror.get(f"http://evil.example{PLUGIN}/manifests/1")
            assert (absolute.status, absolute.body) == (200, ARTIFACT.body)


async def test_more_ranges_than_one_cost_no_more_than_the_whole(tmp_path: Path) -> None:
    """Line 17: the whole is sent once, however many ranges there are and however they overlap."""
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", ARTIFACT)
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            await pull(mirror, PLUGIN)
            for asked in ("0-,0-,0-", "0-0,1-1", ",".join(f"{n}-{n}" for n in range(5000)), ",".join(["0-"] * 5000)):
                began = time.monotonic()
                reply = await mirror.get(f"{PLUGIN}/blobs/{LAYER}", {"Range": f"bytes={asked}"})
                assert (reply.status, reply.body) == (200, MODULE)
                assert time.monotonic() - began < 5


async def test_nothing_is_unpacked_on_its_way(tmp_path: Path) -> None:
    """Line 18: identity is asked for, raw bytes are passed on, and what comes encoded all the same is refused."""
    bomb = tar_gz({"plugin.wasm": b"\0" * (64 * MIB)})
    with FaultyUpstream() as up:
        up.require_bearer()
        publish(up, "team/plugin", "1", ARTIFACT)
        artifact = image([(OCI_LAYER, bomb)])
        publish(up, "team/plugin", "bomb", artifact)
        async with running(tmp_path, {"ghcr.io": up}, SHORTLY) as mirror:
            with up.inject(Fault(gzip=True), path="/token"):
                assert (await mirror.get(f"{PLUGIN}/manifests/1")).status == 502
            for tail in ("manifests/1", f"blobs/{LAYER}", "tags/list", f"referrers/{LAYER}"):
                with up.inject(Fault(gzip=True), path="/(manifests|blobs|tags|referrers)/"):
                    reply = await mirror.get(f"{PLUGIN}/{tail}", {"Accept-Encoding": "gzip"})
                    assert (tail, reply.status) == (tail, 502)
                    assert "Content-Encoding" in reply.message
            assert (await mirror.get(f"{PLUGIN}/manifests/bomb")).status == 200
            reply = await mirror.get(f"{PLUGIN}/blobs/{artifact.layers[0]}", {"Accept-Encoding": "gzip"})
            assert (reply.status, reply.body, reply.header("content-encoding")) == (200, bomb, None)
        assert {request.headers["accept-encoding"] for request in up.requests} == {"identity"}


async def test_an_archive_is_bytes_and_nothing_more(tmp_path: Path) -> None:
    """Line 19: an archive with links, parents and a lie about sizes is passed on as it is, and makes no file."""
    huge = tarfile.TarInfo("plugin.wasm")
    huge.size = 1 << 60
    link = tarfile.TarInfo("plugin.wasm")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    archives = [
        tar_gz({"../../../../escaped": b"x", "/tmp/escaped": b"x", "a/../../b": b"y", "plugin.wasm": b"\0asm"}),
        gzip.compress(huge.tobuf(format=tarfile.GNU_FORMAT) + b"\0asm"),
        gzip.compress(link.tobuf() + b"\0" * 1024),
    ]
    layers = [(OCI_LAYER, content) for content in archives]
    artifact = image(layers)
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        async with running(tmp_path, {"ghcr.io": up}, SHORTLY) as mirror:
            assert (await mirror.get(f"{PLUGIN}/manifests/1")).status == 200
            for content in archives:
                reply = await mirror.get(f"{PLUGIN}/blobs/{Digest.of(content)}")
                assert (reply.status, reply.body) == (200, content)
                await mirror.until_held(Digest.of(content))
            held = {Path(file).name for file in mirror.files()}
            assert held == {digest.hex for digest in (artifact.digest, *artifact.layers)}
            assert not [path for path in contents_of(tmp_path) if path.name in ("escaped", "b", "plugin.wasm")]


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_no_answer_of_upstream_is_read_without_end(
    tmp_path: Path, framing: Literal["length", "chunked", "close"]
) -> None:
    """Line 20: manifests, lists and tokens have caps, a blob has the size that its descriptor says."""
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", ARTIFACT)
        endless = Fault(pad_to=1024 * MIB, framing=framing)
        async with running(tmp_path, {"ghcr.io": up}, SHORTLY) as mirror:
            for tail in ("manifests/1", f"manifests/{ARTIFACT.digest}", "tags/list", f"referrers/{LAYER}"):
                with up.inject(endless, path="/(manifests|tags|referrers)/"):
                    reply = await mirror.get(f"{PLUGIN}/{tail}")
                    assert (tail, reply.status, reply.code) == (tail, 502, "UPSTREAM_INVALID")
            with up.inject(endless, path="/blobs/"):
                assert (await mirror.get(f"{PLUGIN}/manifests/1")).status == 200
                reply = await mirror.get(f"{PLUGIN}/blobs/{LAYER}")
                assert reply.status == 502 or not reply.whole
            up.require_bearer()
            with up.inject(endless, path="/token"):
                reply = await mirror.get(f"{PLUGIN}/manifests/2")
                assert (reply.status, reply.code) == (502, "UPSTREAM_INVALID")
        assert max(request.sent for request in up.requests) < 32 * MIB


async def test_a_manifest_under_another_ones_digest_is_refused(tmp_path: Path) -> None:
    """Line 21: what is asked for by digest has that digest, whatever upstream's header says."""
    other = raw(wasm_module(seed=7))
    with FaultyUpstream() as up:
        digest = publish(up, "team/plugin", "1", ARTIFACT)
        up.add_manifest("team/plugin", other.body, digest=digest)
        async with running(tmp_path, {"ghcr.io": up}, SHORTLY) as mirror:
            for target, told in (("1", str(digest)), (str(digest), str(digest)), (str(digest), str(other.digest))):
                with up.inject(Fault(headers={"docker-content-digest": told})):
                    reply = await mirror.get(f"{PLUGIN}/manifests/{target}")
                    assert (reply.status, reply.code) == (502, "UPSTREAM_INVALID")
                    assert reply.detail["expected"] == str(digest)
                    assert reply.detail["actual"] == str(other.digest)
            with up.inject(Fault(headers={"docker-content-digest": None})):
                assert (await mirror.get(f"{PLUGIN}/manifests/{digest}")).status == 502
            assert mirror.files() == []


@pytest.mark.parametrize("status", [401, 403])
async def test_nothing_stale_is_served_after_a_refusal(tmp_path: Path, status: int) -> None:
    """Line 22: a refusal is an answer, not an outage; when access returns, so does the record."""
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", ARTIFACT)
        async with running(tmp_path, {"ghcr.io": with_login(up)}, SHORTLY) as mirror:
            assert (await mirror.get(f"{PLUGIN}/manifests/1")).status == 200
            challenge = 'Bearer realm="http://evil.example/token"' if status == 403 else 'Basic realm="x"'
            with up.inject(Fault(status=status, headers={"www-authenticate": challenge})):
                for _ in range(2):
                    reply = await mirror.get(f"{PLUGIN}/manifests/1")
                    assert (reply.status, reply.code) == (403, "DENIED")
                    assert "upstreams.ghcr.io.credentials" in reply.message
                    assert reply.header("www-authenticate") is None
            with up.inject(Fault(status=503)):
                assert (await mirror.get(f"{PLUGIN}/manifests/1")).status == 200
            fetched = up.count(method="GET", path="/manifests/")
            assert (await mirror.get(f"{PLUGIN}/manifests/1")).body == ARTIFACT.body
            assert up.count(method="GET", path="/manifests/") == fetched


async def test_stale_after_a_refusal_only_where_the_settings_say_so(tmp_path: Path) -> None:
    """Line 22: the other side."""
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", ARTIFACT)
        settings = {"defaults": {"fresh_for": "0s", "stale_if_denied": "60s"}}
        async with running(tmp_path, {"ghcr.io": up}, settings) as mirror:
            assert (await mirror.get(f"{PLUGIN}/manifests/1")).status == 200
            up.inject(Fault(status=403))
            reply = await mirror.get(f"{PLUGIN}/manifests/1")
            assert (reply.status, reply.header("cache-status")) == (200, "wasm-mirror; fwd=stale; detail=denied")


JSON_ATTACKS = [
    b'{"token": "x", "tags": [], "manifests": [], "x": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    b'{"token": "x", "tags": [], "manifests": [], "x": ' + b'{"a":' * 100_000,
    b'{"token": "x", "tags": [], "manifests": [], "x": ' + b"[" * 100 + b"]" * 100 + b"}",
    b"[" * 100_000,
    b'{"token": "x", "tags": [], "manifests": [], "tags": [], "token": "y", "manifests": []}',
    b'{"token": "x", "tags": [], "manifests": [], "x": NaN}',
    b'{"token": "x", "tags": [], "manifests": [], "x": -Infinity}',
    b'{"token": "x", "tags": [], "manifests": [], "x": ' + b"9" * 5000 + b"}",
    b'{"token": "x", "tags": [], "manifests": [], "x": "\\ud800"}',
]


async def test_json_is_parsed_strictly_wherever_it_comes_from(tmp_path: Path) -> None:
    """Line 24: of manifests, lists, referrers and tokens alike."""
    with FaultyUpstream() as up, FaultyUpstream() as service:
        async with running(tmp_path, {"ghcr.io": with_login(up, auth_hosts=[service.host])}, SHORTLY) as mirror:
            for number, attack in enumerate(JSON_ATTACKS):
                up.add_manifest("team/plugin", attack, OCI_INDEX, f"v{number}")
                blob = up.add_blob("team/plugin", attack, "application/json")
                instead = Fault(redirect=f"/v2/team/plugin/blobs/{blob}")
                for tail, fault, path in (
                    (f"manifests/v{number}", Fault(), "/none"),
                    ("tags/list", instead, "/tags/list"),
                    (f"referrers/{LAYER}", instead, "/referrers/"),
                ):
                    with up.inject(fault, path=path):
                        reply = await mirror.get(f"{PLUGIN}/{tail}")
                        assert (number, tail, reply.status, reply.code) == (number, tail, 502, "UPSTREAM_INVALID")
                        assert len(reply.body) < 2000
            for number, attack in enumerate(JSON_ATTACKS):
                up.require_bearer(realm=f"{service.url}/v2/x/blobs/{service.add_blob('x', attack)}")
                for _ in range(2):  # the first question may still go to the realm before
                    reply = await mirror.get(f"{PLUGIN}/manifests/v0")
                    assert (number, reply.status, reply.code) == (number, 502, "UPSTREAM_INVALID")
                    assert "token" in reply.message
            assert len(service.requests) >= len(JSON_ATTACKS)


async def test_no_secret_is_told_to_anyone(tmp_path: Path) -> None:
    """Line 25: not in answers, not in the log at its most talkative, whatever goes wrong."""
    client = base64.b64encode(b"agent:clients-own-password").decode()
    signature = "X-Amz-Signature=0123456789abcdef"
    with FaultyUpstream() as up, FaultyUpstream() as storage:
        publish(up, "team/plugin", "1", ARTIFACT)
        publish(storage, "team/plugin", "1", ARTIFACT)
        publish(up, "team/plugin", "wrong", compat(MODULE))
        tokens = up.require_bearer(TokenService(users={"robot": PASSWORD}, anonymous=False))
        settings = {"log": {"level": "debug", "access": "all"}, **SHORTLY}
        upstream = with_login(up, redirect_hosts=[storage.host])
        replies = []
        with MirrorProcess(tmp_path, {"ghcr.io": upstream}, settings) as process:
            address = ("127.0.0.1", int(process.host.rpartition(":")[2]))
            leave = Fault(redirect=f"{storage.url}{{path}}?{signature}")
            for fault, tail in (
                (leave, f"blobs/{LAYER}"),
                (Fault(), "manifests/1"),
                (Fault(), "manifests/none"),
                (Fault(status=500, code=PASSWORD), "manifests/2"),
                (Fault(status=403), "manifests/3"),
                (Fault(status=401), "manifests/3"),
                (Fault(flip_at=3), "manifests/wrong"),
                (Fault(redirect=f"http://127.0.0.1:1/x?{signature}"), "manifests/4"),
                (Fault(redirect=f"http://user:{PASSWORD}@127.0.0.1:1/x?{signature}"), "manifests/5"),
                (Fault(drop=True), "tags/list"),
            ):
                with up.inject(fault, path=f"/v2/team/plugin/{tail}"):
                    target = f"{PLUGIN}/{tail}?q=clients-own-query"
                    replies.append(await ask(address, target, headers={"Authorization": f"Basic {client}"}))
            tokens.revoke()
            tokens.users.clear()
            replies.append(await ask(address, f"{PLUGIN}/manifests/6"))
        assert {reply.status for reply in replies} >= {200, 403, 404, 502}
        assert storage.requests
        assert up.count(path="/token")
        told = process.log_text() + "".join(f"{reply.headers}{reply.body!r}" for reply in replies)
        secrets = [
            PASSWORD,
            base64.b64encode(f"robot:{PASSWORD}".encode()).decode(),
            "clients-own-password",
            client,
            "clients-own-query",
            "0123456789abcdef",
            *tokens_used(up),
        ]
        assert len(secrets) > 6
        for secret in secrets:
            assert secret not in told
        assert "Traceback" not in told


def tokens_used(up: FaultyUpstream) -> list[str]:
    """The Bearer tokens that the mirror has used."""
    sent = {request.headers.get("authorization", "") for request in up.requests}
    return [value.removeprefix("Bearer ") for value in sent if value.startswith("Bearer ")]


async def pull(mirror: Running, repository: str, tag: str = "1") -> None:
    """Pull `ARTIFACT`, until all of it is held."""
    assert (await mirror.get(f"{repository}/manifests/{tag}")).status == 200
    for layer in ARTIFACT.layers:
        assert (await mirror.get(f"{repository}/blobs/{layer}")).status == 200
        await mirror.until_held(layer)
