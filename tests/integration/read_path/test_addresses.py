"""Which addresses answer, to which methods; and what a malformed request gets."""

from pathlib import Path

import pytest

from mirror.digest import Digest
from tests.support.artifacts import publish, raw, wasm_module
from tests.support.running import running
from tests.support.upstream import FaultyUpstream

SHA256 = "sha256:" + "0" * 64
SHA512 = "sha512:" + "0" * 128


async def test_the_base_says_that_this_is_a_registry(tmp_path: Path) -> None:
    async with running(tmp_path, {"ghcr.io": "http://127.0.0.1:9"}) as mirror:
        for path in ("/v2/", "/v2"):
            reply = await mirror.get(path)
            assert (reply.status, reply.json) == (200, {})
            assert reply.header("docker-distribution-api-version") == "registry/2.0"
            assert reply.header("content-type") == "application/json"
            assert reply.header("www-authenticate") is None
            head = await mirror.head(path)
            assert (head.status, head.body, head.header("content-length")) == (200, b"", "2")


async def test_the_addresses_for_machines(tmp_path: Path) -> None:
    async with running(tmp_path, {"ghcr.io": "http://127.0.0.1:9"}) as mirror:
        for path in ("/healthz", "/readyz"):
            assert (await mirror.get(path)).status == 200
            head = await mirror.head(path)
            assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_nothing_can_be_written(tmp_path: Path, method: str) -> None:
    with FaultyUpstream() as up:
        digest = publish(up, "team/plugin", "1", raw(wasm_module()))
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            for path in (
                "/v2/",
                "/v2/ghcr.io/team/plugin/manifests/1",
                f"/v2/ghcr.io/team/plugin/manifests/{digest}",
                f"/v2/ghcr.io/team/plugin/blobs/{digest}",
                "/v2/ghcr.io/team/plugin/blobs/uploads/",
                f"/v2/ghcr.io/team/plugin/blobs/uploads/?mount={digest}&from=other/repository",
                "/v2/ghcr.io/team/plugin/blobs/uploads/7f0d3b1c",
                "/v2/ghcr.io/team/plugin/tags/list",
                f"/v2/ghcr.io/team/plugin/referrers/{digest}",
            ):
                reply = await mirror.ask(method, path, body=b"" if method == "OPTIONS" else b"x" * 1000)
                assert (reply.status, reply.code) == (405, "UNSUPPORTED"), path
                assert reply.header("allow") == ("" if "/uploads/" in path else "GET, HEAD")
                assert path == "/v2/" or "upstreams.ghcr.io.push" in reply.message
        assert not up.requests


async def test_an_upload_cannot_be_read_either(tmp_path: Path) -> None:
    async with running(tmp_path, {"ghcr.io": "http://127.0.0.1:9"}) as mirror:
        for path in ("/v2/ghcr.io/x/blobs/uploads/", "/v2/ghcr.io/x/blobs/uploads/7f0d3b1c"):
            reply = await mirror.get(path)
            assert (reply.status, reply.code) == (405, "UNSUPPORTED")


MALFORMED = [
    # Names.
    ("/v2/ghcr.io/Team/x/manifests/1", "NAME_INVALID"),
    ("/v2/ghcr.io/a..b/manifests/1", "NAME_INVALID"),
    ("/v2/ghcr.io/../manifests/1", "NAME_INVALID"),
    ("/v2/ghcr.io/a/%2e%2e/b/manifests/1", "NAME_INVALID"),
    ("/v2/ghcr.io//a/manifests/1", "NAME_INVALID"),
    ("/v2/ghcr.io/a%00/manifests/1", "NAME_INVALID"),
    ("/v2/ghcr.io/a%0d%0ax/manifests/1", "NAME_INVALID"),
    ("/v2/ghcr.io/-a/tags/list", "NAME_INVALID"),
    (f"/v2/ghcr.io/{'a' * 300}/tags/list", "NAME_INVALID"),
    ("/v2/ghcr.io:443/a/manifests/1", "NAME_INVALID"),
    ("/v2/http://ghcr.io/a/manifests/1", "NAME_INVALID"),
    ("/v2/ghcr.io/manifests/1", "NAME_INVALID"),
    ("/v2/ghcr.io/A/blobs/uploads/", "NAME_INVALID"),
    # Tags.
    ("/v2/ghcr.io/a/manifests/-x", "TAG_INVALID"),
    ("/v2/ghcr.io/a/manifests/.x", "TAG_INVALID"),
    ("/v2/ghcr.io/a/manifests/..", "TAG_INVALID"),
    ("/v2/ghcr.io/a/manifests/x%20y", "TAG_INVALID"),
    ("/v2/ghcr.io/a/manifests/", "TAG_INVALID"),
    (f"/v2/ghcr.io/a/manifests/{'x' * 129}", "TAG_INVALID"),
    ("/v2/ghcr.io/a/manifests/x%3Fy", "TAG_INVALID"),
    ("/v2/ghcr.io/a/manifests/%C3%A9", "TAG_INVALID"),
    ("/v2/ghcr.io/a/manifests/%ff", "TAG_INVALID"),
    # Digests.
    ("/v2/ghcr.io/a/manifests/sha256:", "DIGEST_INVALID"),
    ("/v2/ghcr.io/a/manifests/sha256:00", "DIGEST_INVALID"),
    (f"/v2/ghcr.io/a/manifests/{SHA256.upper()}", "DIGEST_INVALID"),
    (f"/v2/ghcr.io/a/manifests/{SHA256}0", "DIGEST_INVALID"),
    ("/v2/ghcr.io/a/manifests/1:2", "DIGEST_INVALID"),
    (f"/v2/ghcr.io/a/blobs/sha256:{'A' * 64}", "DIGEST_INVALID"),
    ("/v2/ghcr.io/a/blobs/sha256:" + "%2e" * 64, "DIGEST_INVALID"),
    ("/v2/ghcr.io/a/blobs/md5:" + "0" * 32, "DIGEST_INVALID"),
    ("/v2/ghcr.io/a/blobs/latest", "DIGEST_INVALID"),
    ("/v2/ghcr.io/a/blobs/", "DIGEST_INVALID"),
    (f"/v2/ghcr.io/a/blobs/{SHA512[:-1]}", "DIGEST_INVALID"),
    (f"/v2/ghcr.io/a/blobs/{SHA512}x", "DIGEST_INVALID"),
    ("/v2/ghcr.io/a/referrers/latest", "DIGEST_INVALID"),
    # The query.
    ("/v2/ghcr.io/a/tags/list?n=x", "PAGINATION_NUMBER_INVALID"),
    ("/v2/ghcr.io/a/tags/list?n=", "PAGINATION_NUMBER_INVALID"),
    ("/v2/ghcr.io/a/tags/list?n=-1", "PAGINATION_NUMBER_INVALID"),
    ("/v2/ghcr.io/a/tags/list?n=1.5", "PAGINATION_NUMBER_INVALID"),
    ("/v2/ghcr.io/a/tags/list?n=%2B1", "PAGINATION_NUMBER_INVALID"),
    ("/v2/ghcr.io/a/tags/list?n=1e3", "PAGINATION_NUMBER_INVALID"),
    ("/v2/ghcr.io/a/tags/list?n=%D9%A1", "PAGINATION_NUMBER_INVALID"),
    ("/v2/ghcr.io/a/tags/list?last=a%20b", "PAGINATION_NUMBER_INVALID"),
    ("/v2/ghcr.io/a/tags/list?last=a%0d%0ab", "PAGINATION_NUMBER_INVALID"),
    (f"/v2/ghcr.io/a/tags/list?last={'x' * 5000}", "PAGINATION_NUMBER_INVALID"),
    ("/v2/ghcr.io/a/tags/list?" + "&".join(f"x{i}=1" for i in range(30)), "NAME_INVALID"),
]

NOWHERE = [
    "/v2/x",
    "/v2//",
    "/v2/ghcr.io/a",
    "/v2/manifests/1",
    "/v2/ghcr.io/a/manifests",
    "/v2/ghcr.io/a/manifests/a/b",
    "/v2/ghcr.io/a/tags/x",
    "/v2/ghcr.io/a/tags/list/",
    "/v2/ghcr.io/a/blobs/sha256:..%2f..%2f..%2fetc%2fpasswd",
    "/v2/_catalog",
    "/v2/_catalog?n=1000000000",
    "/v1/_ping",
    "/dashboard/",
    "/dashboard/../app.py",
    "/%2e%2e/%2e%2e/etc/passwd",
    "//v2/",
    "/V2/",
]


async def test_what_is_malformed_gets_400_and_upstream_never_sees_it(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            for target, code in MALFORMED:
                reply = await mirror.get(target)
                assert (target, reply.status, reply.code) == (target, 400, code)
                head = await mirror.head(target)
                assert (head.status, head.body) == (400, b"")
        assert not up.requests


async def test_what_is_no_address_gets_404(tmp_path: Path) -> None:
    async with running(tmp_path, {"ghcr.io": "http://127.0.0.1:9"}) as mirror:
        for target in NOWHERE:
            reply = await mirror.get(target)
            assert (target, reply.status) == (target, 404)
            assert reply.code
            assert str(tmp_path) not in reply.message


async def test_errors_carry_the_body_of_the_specification_and_no_more_than_that(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        up.add_blob("team/plugin", b"other")
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            for target, status, code in (
                ("/v2/ghcr.io/team/plugin/manifests/none", 404, "MANIFEST_UNKNOWN"),
                (f"/v2/ghcr.io/team/plugin/manifests/{SHA256}", 404, "MANIFEST_UNKNOWN"),
                (f"/v2/ghcr.io/team/plugin/blobs/{SHA256}", 404, "BLOB_UNKNOWN"),
                (f"/v2/ghcr.io/team/plugin/blobs/{SHA512}", 404, "BLOB_UNKNOWN"),
                ("/v2/ghcr.io/nobody/nothing/manifests/1", 404, "NAME_UNKNOWN"),
                ("/v2/ghcr.io/nobody/nothing/tags/list", 404, "NAME_UNKNOWN"),
                (f"/v2/ghcr.io/nobody/nothing/blobs/{Digest.of(b'x')}", 404, "NAME_UNKNOWN"),
                ("/v2/quay.io/x/manifests/1", 404, "NAME_UNKNOWN"),
            ):
                reply = await mirror.get(target)
                assert (target, reply.status, reply.code) == (target, status, code)
                assert reply.header("content-length") == str(len(reply.body))
                assert str(tmp_path) not in reply.body.decode()
                assert "Traceback" not in reply.body.decode()
                head = await mirror.head(target)
                assert (target, head.status, head.body) == (target, status, b"")
