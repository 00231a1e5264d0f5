"""What one endpoint is asked, and what is made of its answers; on a real socket."""

import asyncio
import json

import pytest

from mirror.config import EndpointSettings
from mirror.digest import Digest
from mirror.errors import (
    BlobUnknown,
    DigestMismatch,
    ManifestUnknown,
    MirrorError,
    NameUnknown,
    UpstreamDenied,
    UpstreamInvalid,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from mirror.oci import MAX_MANIFEST_SIZE, OCI_INDEX, OCI_MANIFEST
from mirror.upstream.answers import TagPage
from mirror.upstream.failover import Upstream
from mirror.upstream.transport import Transport
from tests.support.faults import Fault
from tests.support.upstream import FaultyUpstream
from tests.upstream.support import (
    BLOB,
    MANIFEST,
    MANIFEST_DIGEST,
    REPOSITORY,
    content,
    holding,
    manifest,
    pulling_from,
    within,
)

# Manifests.


async def test_a_manifest_is_got_by_tag_and_by_digest_with_its_exact_bytes_and_type() -> None:
    with FaultyUpstream() as up:
        holding(up)
        async with pulling_from(up) as upstream:
            for target in ("v1", str(MANIFEST_DIGEST)):
                found = await upstream.get_manifest(REPOSITORY, target, deadline=within())
                assert (found.body, found.media_type, found.digest) == (MANIFEST, OCI_MANIFEST, MANIFEST_DIGEST)
        assert up.requests[0].headers["accept"].split(", ")[:2] == [OCI_MANIFEST, OCI_INDEX]
        assert up.accepted_connections == 1


async def test_a_head_tells_digest_type_and_size() -> None:
    with FaultyUpstream() as up:
        holding(up)
        async with pulling_from(up) as upstream:
            head = await upstream.head_manifest(REPOSITORY, "v1")
            assert (head.digest, head.media_type, head.size) == (MANIFEST_DIGEST, OCI_MANIFEST, len(MANIFEST))
        assert up.count(method="GET") == 0


@pytest.mark.parametrize("status", [400, 404, 405, 501])
async def test_a_head_that_is_refused_falls_back_to_get(status: int) -> None:
    with FaultyUpstream() as up:
        holding(up).inject(Fault(status=status), method="HEAD")
        async with pulling_from(up) as upstream:
            head = await upstream.head_manifest(REPOSITORY, "v1")
            assert (head.digest, head.media_type, head.size) == (MANIFEST_DIGEST, OCI_MANIFEST, len(MANIFEST))
            assert await upstream.head_blob(REPOSITORY, Digest.of(BLOB), deadline=within()) == len(BLOB)


async def test_a_digest_that_is_not_told_is_computed() -> None:
    with FaultyUpstream() as up:
        holding(up).inject(Fault(headers={"docker-content-digest": None}))
        async with pulling_from(up) as upstream:
            assert (await upstream.head_manifest(REPOSITORY, "v1")).digest == MANIFEST_DIGEST
            assert (await upstream.get_manifest(REPOSITORY, "v1", deadline=within())).digest == MANIFEST_DIGEST


async def test_a_sha512_manifest_is_held_against_sha512() -> None:
    with FaultyUpstream() as up:
        digest = Digest.of(MANIFEST, "sha512")
        up.add_manifest(REPOSITORY, MANIFEST, tag="v1", digest=digest)
        async with pulling_from(up) as upstream:
            for target in ("v1", str(digest)):
                assert (await upstream.get_manifest(REPOSITORY, target, deadline=within())).digest == digest
            up.inject(Fault(flip_at=5))
            for target in ("v1", str(digest)):
                with pytest.raises(DigestMismatch):
                    await upstream.get_manifest(REPOSITORY, target, deadline=within())


async def test_a_manifest_with_other_bytes_than_its_digest_is_refused() -> None:
    with FaultyUpstream() as up:
        holding(up).inject(Fault(flip_at=-3))
        async with pulling_from(up) as upstream:
            for target in ("v1", str(MANIFEST_DIGEST)):
                with pytest.raises(DigestMismatch, match=up.host) as refused:
                    await upstream.get_manifest(REPOSITORY, target, deadline=within())
                assert isinstance(refused.value.detail, dict)
                assert refused.value.detail["expected"] == str(MANIFEST_DIGEST)


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_a_manifest_without_a_bound_is_read_to_the_limit_and_no_further(framing: str) -> None:
    with FaultyUpstream() as up:
        holding(up).inject(Fault(pad_to=100 * 1024 * 1024, framing=framing))  # type: ignore[arg-type]  # of the three
        async with pulling_from(up) as upstream:
            with pytest.raises(UpstreamInvalid, match=str(MAX_MANIFEST_SIZE)):
                await upstream.get_manifest(REPOSITORY, "v1", deadline=within())
        assert up.requests[0].sent < 20 * 1024 * 1024  # what the kernel's buffers took


async def test_a_manifest_that_announces_too_much_is_not_read_at_all() -> None:
    with FaultyUpstream() as up:
        holding(up).inject(Fault(pad_to=MAX_MANIFEST_SIZE + 1, stall_after=0))
        async with pulling_from(up) as upstream:
            with pytest.raises(UpstreamInvalid, match=str(MAX_MANIFEST_SIZE)):
                await upstream.get_manifest(REPOSITORY, "v1", deadline=within())


@pytest.mark.parametrize(
    "body",
    [
        b"not json",
        b'{"schemaVersion": 2, "schemaVersion": 2}',
        b'{"schemaVersion": NaN}',
        b"[" * 10_000,
        json.dumps({**manifest(), "manifests": []}).encode(),
        json.dumps({**manifest(), "mediaType": OCI_INDEX}).encode(),
    ],
)
async def test_a_manifest_that_breaks_the_rules_is_refused_and_its_sender_named(body: bytes) -> None:
    with FaultyUpstream() as up:
        up.add_manifest(REPOSITORY, body, tag="v1")
        async with pulling_from(up) as upstream:
            with pytest.raises(UpstreamInvalid, match=f"^{up.host} sends a manifest for {REPOSITORY}:v1") as failed:
                await upstream.get_manifest(REPOSITORY, "v1", deadline=within())
            assert failed.value.detail == {"endpoint": up.host}
        assert up.count() == 1


async def test_encoded_content_is_refused_whatever_it_is() -> None:
    with FaultyUpstream() as up:
        holding(up).inject(Fault(gzip=True))
        async with pulling_from(up) as upstream:
            for question in questions(upstream):
                with pytest.raises(UpstreamInvalid, match="identity was asked for"):
                    await question
        assert {request.headers["accept-encoding"] for request in up.requests} == {"identity"}


async def test_a_page_of_html_with_a_good_status_is_refused() -> None:
    with FaultyUpstream() as up:
        holding(up).inject(Fault(html=True))
        async with pulling_from(up) as upstream:
            for question in questions(upstream):
                with pytest.raises(UpstreamInvalid, match="HTML"):
                    await question


async def test_a_blob_that_is_a_page_of_html_is_a_blob() -> None:
    with FaultyUpstream() as up:
        digest = up.add_blob(REPOSITORY, b"<html></html>", "text/html")
        async with pulling_from(up) as upstream:
            assert await content(await upstream.open_blob(REPOSITORY, digest, deadline=within())) == b"<html></html>"


def questions(upstream: Upstream) -> "list[asyncio.Future[object]]":
    """One of each kind."""
    blob = Digest.of(BLOB)
    return [
        asyncio.ensure_future(question)
        for question in (
            upstream.head_manifest(REPOSITORY, "v1"),
            upstream.get_manifest(REPOSITORY, "v1", deadline=within()),
            upstream.head_blob(REPOSITORY, blob, deadline=within()),
            upstream.open_blob(REPOSITORY, blob, deadline=within()),
            upstream.list_tags(REPOSITORY, n=None, last=None, deadline=within()),
            upstream.referrers(REPOSITORY, blob, artifact_type=None, page=None, deadline=within()),
        )
    ]


# What a status means.


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (403, UpstreamDenied),
        (401, UpstreamDenied),
        (400, UpstreamInvalid),
        (409, UpstreamInvalid),
        (204, UpstreamInvalid),
        (408, UpstreamUnavailable),
        (429, UpstreamUnavailable),
        (500, UpstreamUnavailable),
        (503, UpstreamUnavailable),
    ],
)
async def test_each_status_is_one_error_for_every_question(status: int, expected: type[MirrorError]) -> None:
    with FaultyUpstream() as up:
        holding(up).inject(Fault(status=status, retry_after=3600))
        async with pulling_from(up) as upstream:
            for question in questions(upstream):
                with pytest.raises(expected, match=f"{up.host}.*{status}") as failed:
                    await question
                assert type(failed.value) is expected
                if expected is UpstreamUnavailable:
                    assert failed.value.retry_after == 3600


async def test_what_is_not_there_is_told_by_its_kind() -> None:
    other = Digest.of(b"other")
    with FaultyUpstream() as up:
        holding(up)
        async with pulling_from(up) as upstream:
            with pytest.raises(ManifestUnknown):
                await upstream.get_manifest(REPOSITORY, "v2", deadline=within())
            with pytest.raises(ManifestUnknown):
                await upstream.head_manifest(REPOSITORY, "v2")
            with pytest.raises(BlobUnknown):
                await upstream.open_blob(REPOSITORY, other, deadline=within())
            with pytest.raises(BlobUnknown):
                await upstream.head_blob(REPOSITORY, other, deadline=within())
            with pytest.raises(NameUnknown):
                await upstream.get_manifest("no/such", "v1", deadline=within())
            with pytest.raises(NameUnknown):
                await upstream.list_tags("no/such", n=None, last=None, deadline=within())
            up.referrers_api = False
            with pytest.raises(ManifestUnknown):
                await upstream.referrers(REPOSITORY, other, artifact_type=None, page=None, deadline=within())


async def test_an_endpoint_that_does_not_resolve_is_named() -> None:
    with FaultyUpstream() as up:
        endpoint = up.url.replace("127.0.0.1", "no-such-host.invalid")
        async with pulling_from(EndpointSettings(url=endpoint)) as upstream:
            with pytest.raises(UpstreamUnavailable, match=r"^no-such-host\.invalid:\d+ does not resolve"):
                await upstream.head_manifest(REPOSITORY, "v1")


async def test_an_endpoint_that_refuses_connections_is_named() -> None:
    with FaultyUpstream() as up:
        up.refuse()
        async with pulling_from(up) as upstream:
            with pytest.raises(UpstreamUnavailable, match=f"^{up.host} refuses connections$"):
                await upstream.head_manifest(REPOSITORY, "v1")


async def test_an_endpoint_that_never_answers_is_a_timeout() -> None:
    with FaultyUpstream() as up:
        up.inject(Fault(hang=True))
        async with pulling_from(up, transport=Transport(idle_for=0.1)) as upstream:
            with pytest.raises(UpstreamTimeout, match=r"sends nothing for 0\.1 s"):
                await upstream.head_manifest(REPOSITORY, "v1")
        async with pulling_from(up) as upstream:
            with pytest.raises(UpstreamTimeout, match=r"did not answer within 0\.2\d* s|did not answer within 0\.1"):
                await upstream.head_manifest(REPOSITORY, "v1", deadline=within(0.2))


async def test_what_is_not_http_is_an_outage() -> None:
    async def gibberish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"220 mail.example ESMTP\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(gibberish, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with pulling_from(EndpointSettings(url=f"http://127.0.0.1:{port}")) as upstream:
            with pytest.raises(UpstreamUnavailable, match="not HTTP"):
                await upstream.head_manifest(REPOSITORY, "v1")


# Lists.


async def test_tags_are_listed_page_by_page() -> None:
    with FaultyUpstream() as up:
        for tag in ("a", "b", "c"):
            up.add_manifest(REPOSITORY, MANIFEST, tag=tag)
        up.page_size = 2
        async with pulling_from(up) as upstream:
            page = await upstream.list_tags(REPOSITORY, n=None, last=None, deadline=within())
            assert page == TagPage(("a", "b"), (2, "b"))
            assert page.next is not None
            page = await upstream.list_tags(REPOSITORY, n=page.next[0], last=page.next[1], deadline=within())
            assert page == TagPage(("c",), None)
        assert [request.query for request in up.requests] == [{}, {"n": "2", "last": "b"}]


async def test_referrers_are_passed_on_page_by_page_with_their_filter() -> None:
    subject = Digest.of(BLOB)
    with FaultyUpstream() as up:
        for number in range(3):
            up.add_manifest(
                REPOSITORY,
                manifest(subject={"digest": str(subject)}, artifactType="t/x", annotations={"n": str(number)}),
            )
        up.page_size = 2
        async with pulling_from(up) as upstream:
            first = await upstream.referrers(REPOSITORY, subject, artifact_type="t/x", page=None, deadline=within())
            assert first.filters_applied == "artifactType"
            second = await upstream.referrers(
                REPOSITORY, subject, artifact_type="t/x", page=first.next, deadline=within()
            )
            assert second.next is None
        assert [len(json.loads(page.body)["manifests"]) for page in (first, second)] == [2, 1]
        assert up.requests[1].query == {"artifactType": "t/x", "page": "2"}
