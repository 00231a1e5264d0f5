"""An origin that is pushed to: who proves what to whom, where an upload goes on, and what refusals say."""

import asyncio
import base64
import functools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mirror.config import Defaults, EndpointSettings, UpstreamSettings
from mirror.digest import Digest
from mirror.errors import (
    MirrorError,
    UpstreamDenied,
    UpstreamInvalid,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from mirror.oci import OCI_MANIFEST, Manifest
from mirror.upstream.endpoints import origin_to_push_to
from mirror.upstream.pushing import Pushing
from mirror.upstream.transport import Transport
from tests.support.contents import Answer, error
from tests.support.faults import Fault, Gate
from tests.support.tokens import TokenService
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually
from tests.upstream.support import BLOB, BLOB_DIGEST, LOGIN, MANIFEST, PASSWORD, REPOSITORY, SECRETS, manifest


@asynccontextmanager
async def pushing_to(up: FaultyUpstream, transport: Transport | None = None, **endpoint: Any) -> AsyncIterator[Pushing]:
    """The origin ``up`` of ``corp``; ``endpoint`` are settings of the endpoint."""
    written = UpstreamSettings(endpoints=(EndpointSettings(url=up.url, **endpoint),), credentials=LOGIN)
    clock = asyncio.get_running_loop().time
    origin = origin_to_push_to("corp", written.effective("corp", Defaults()), clock=clock, transport=transport)
    try:
        yield origin
    finally:
        await origin.aclose()
        if transport is not None:
            await transport.aclose()


def taking() -> FaultyUpstream:
    up = FaultyUpstream()
    up.take_pushes()
    return up


async def pieces(content: bytes = BLOB, size: int = 65536) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def has_received(up: FaultyUpstream, size: int) -> bool:
    return [len(request.body) for request in up.matching(method="PATCH")] == [size]


async def push(origin: Pushing) -> None:
    begun = await origin.begin(REPOSITORY)
    sent = await origin.append(REPOSITORY, begun.location, pieces())
    assert sent.size == len(BLOB)
    await origin.finish(REPOSITORY, sent.location, BLOB_DIGEST)


def held(up: FaultyUpstream) -> bytes:
    return up.answer(f"/v2/{REPOSITORY}/blobs/{BLOB_DIGEST}", {}).content


async def test_a_token_is_asked_for_that_allows_pushing_and_nothing_else_is_pushed_with() -> None:
    with taking() as up:
        tokens = up.require_bearer(TokenService({"robot": PASSWORD}, anonymous=False))
        async with pushing_to(up) as origin:
            await push(origin)
        assert held(up) == BLOB
        (issued,) = tokens.issued
        assert issued.scopes == (f"repository:{REPOSITORY}:pull,push",)


async def test_another_repositorys_first_stream_has_its_token_beforehand() -> None:
    with taking() as up:
        tokens = up.require_bearer(TokenService({"robot": PASSWORD}, anonymous=False))
        async with pushing_to(up) as origin:
            await origin.begin(REPOSITORY)
            await origin.begin("team/other")
        assert up.count(status=401) == 1
        assert [one.scopes for one in tokens.issued] == [
            (f"repository:{REPOSITORY}:pull,push",),
            ("repository:team/other:pull,push",),
        ]


@pytest.mark.parametrize("scheme", ["bearer", "basic"])
async def test_a_stream_that_somebody_else_began_is_not_sent_into_a_challenge(scheme: str) -> None:
    with taking() as up:
        if scheme == "bearer":
            up.require_bearer(TokenService({"robot": PASSWORD}, anonymous=False))
        else:
            up.require_basic({"robot": PASSWORD})
        async with pushing_to(up) as one:
            begun = await one.begin(REPOSITORY)
        async with pushing_to(up) as other:
            sent = await other.append(REPOSITORY, begun.location, pieces())
            assert sent.size == len(BLOB)
            assert up.count(method="PATCH") == 1


async def test_a_stream_that_is_challenged_fails_and_the_next_one_is_not() -> None:
    with taking() as up:
        tokens = up.require_bearer(TokenService({"robot": PASSWORD}, anonymous=False))
        async with pushing_to(up) as origin:
            begun = await origin.begin(REPOSITORY)
            tokens.revoke()
            with pytest.raises(UpstreamUnavailable, match="begin it again"):
                await origin.append(REPOSITORY, begun.location, pieces())
            await push(origin)


async def test_a_right_to_delete_is_asked_for_where_it_is_needed() -> None:
    with taking() as up:
        tokens = up.require_bearer(TokenService({"robot": PASSWORD}, anonymous=False))
        up.add_manifest(REPOSITORY, MANIFEST, tag="v1")
        async with pushing_to(up) as origin:
            await origin.begin(REPOSITORY)
            await origin.delete(REPOSITORY, "manifests", "v1")
            await origin.begin(REPOSITORY)
        assert "delete" in tokens.issued[-1].scopes[0]
        assert len(tokens.issued) == 2


@pytest.mark.parametrize("absolute", [False, True])
async def test_an_upload_goes_on_where_it_is_told(absolute: bool) -> None:
    with taking() as up:
        assert up.uploads is not None
        up.uploads.base = up.url if absolute else ""
        async with pushing_to(up, repository_prefix=None) as origin:
            await push(origin)
        assert held(up) == BLOB


async def test_another_host_that_an_upload_goes_on_at_sees_no_credential() -> None:
    with taking() as up, FaultyUpstream() as storage:
        up.require_basic({"robot": PASSWORD})
        assert up.uploads is not None
        up.uploads.base = storage.url
        storage.uploads = up.uploads
        async with pushing_to(up, redirect_hosts=[storage.host]) as origin:
            begun = await origin.begin(REPOSITORY)
            sent = await origin.append(REPOSITORY, begun.location, pieces())
            assert (await origin.status(REPOSITORY, sent.location)).size == len(BLOB)
            await origin.finish(REPOSITORY, sent.location, BLOB_DIGEST)
        assert [request.method for request in storage.requests] == ["PATCH", "GET", "PUT"]
        assert not any("authorization" in request.headers for request in storage.requests)


async def test_an_address_inside_the_network_that_only_an_answer_names_is_not_dialled() -> None:
    with taking() as up, taking() as inside:
        assert up.uploads is not None
        up.uploads.base = inside.url
        async with pushing_to(up) as origin:
            begun = await origin.begin(REPOSITORY)
            with pytest.raises(UpstreamInvalid, match="not an address of the public internet"):
                await origin.append(REPOSITORY, begun.location, pieces())
        assert inside.accepted_connections == 0


@pytest.mark.parametrize(
    "location",
    [None, "ftp://example.com/x", "http://host:nine", "x" * 20_000],
    ids=["none", "scheme", "no URL", "too long"],
)
async def test_an_upload_that_goes_on_nowhere_is_no_upload(location: str | None) -> None:
    with taking() as up:
        up.inject(Fault(headers={"location": location}))
        async with pushing_to(up) as origin:
            with pytest.raises(UpstreamInvalid):
                await origin.begin(REPOSITORY)


async def test_a_redirect_of_a_push_is_not_followed() -> None:
    with taking() as up, taking() as other:
        up.inject(Fault(redirect=f"{other.url}{{path}}"), method="PUT")
        async with pushing_to(up, redirect_hosts=[other.host]) as origin:
            with pytest.raises(UpstreamInvalid, match="307"):
                await origin.put_manifest(REPOSITORY, "v1", Manifest.parse(MANIFEST, OCI_MANIFEST, Digest.of(MANIFEST)))
        assert other.count() == 0


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        (400, UpstreamRefused, 400),
        (403, UpstreamDenied, 403),
        (404, UpstreamRefused, 404),
        (413, UpstreamRefused, 413),
        (429, UpstreamRefused, 429),
        (500, UpstreamUnavailable, 503),
        (503, UpstreamUnavailable, 503),
        (304, UpstreamInvalid, 502),
        (407, UpstreamInvalid, 502),
        (408, UpstreamUnavailable, 503),
        (200, UpstreamInvalid, 502),
    ],
)
async def test_what_an_answer_means(status: int, kind: type[MirrorError], told: int) -> None:
    with taking() as up:
        up.inject(Fault(status=status, code="DENIED", retry_after=7))
        async with pushing_to(up) as origin:
            with pytest.raises(kind) as failed:
                await origin.begin(REPOSITORY)
        assert failed.value.status == told
        if kind is UpstreamRefused:
            assert failed.value.code == "DENIED"
            assert failed.value.retry_after == 7
            assert "the fake registry says so" in failed.value.message
        assert up.count() == 1, "a push is sent once"


async def test_the_words_of_a_refusal_are_bounded_printable_and_without_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = ""

    def refuse(*_: object) -> Answer:
        return error(400, "DENIED", said)

    with taking() as up:
        monkeypatch.setattr(up.uploads, "answer", refuse)
        async with pushing_to(up) as origin:
            for words, expected in (
                ("quota\x1b[31m is\r\n  used up\x00", "DENIED: quota [31m is used up"),
                ("x" * 5000, "DENIED: " + "x" * 492 + "…"),
            ):
                said = words
                with pytest.raises(UpstreamRefused) as failed:
                    await origin.begin(REPOSITORY)
                assert failed.value.message.endswith(f"(400): {expected}")
            up.require_basic({"robot": PASSWORD})
            for secret in (PASSWORD, base64.b64encode(f"robot:{PASSWORD}".encode()).decode()):
                said = f"who are you, {secret}?"
                with pytest.raises(UpstreamRefused) as failed:
                    await origin.begin(REPOSITORY)
                assert not any(one in failed.value.message for one in SECRETS)


async def test_an_origin_that_answers_before_the_end_is_not_sent_the_rest() -> None:
    with taking() as up:
        up.inject(Fault(status=413, code="SIZE_INVALID", body_until=100_000), method="PATCH")
        async with pushing_to(up) as origin:
            begun = await origin.begin(REPOSITORY)
            sent = 0

            async def endless() -> AsyncIterator[bytes]:
                nonlocal sent
                while True:
                    sent += 65536
                    yield bytes(65536)

            with pytest.raises(UpstreamRefused) as failed:
                async with asyncio.timeout(10):
                    await origin.append(REPOSITORY, begun.location, endless())
        assert failed.value.status == 413
        assert sent < 64 << 20


async def test_an_origin_that_takes_nothing_in_is_given_up() -> None:
    gate = Gate()
    with taking() as up:
        up.inject(Fault(body_gate=gate, body_gate_at=1), method="PATCH")
        async with pushing_to(up, Transport(idle_for=0.3)) as origin:
            begun = await origin.begin(REPOSITORY)
            with pytest.raises(UpstreamTimeout, match="takes in nothing"):
                await origin.append(REPOSITORY, begun.location, pieces(bytes(64 << 20)))
        gate.release()


async def test_a_stream_is_sent_as_it_comes() -> None:
    with taking() as up:
        async with pushing_to(up) as origin:
            begun = await origin.begin(REPOSITORY)

            async def slowly() -> AsyncIterator[bytes]:
                for size in range(1, 4):
                    yield b"x"
                    await eventually(functools.partial(has_received, up, size))

            assert (await origin.append(REPOSITORY, begun.location, slowly())).size == 3


async def test_a_stream_whose_connection_died_is_not_sent_again_in_part() -> None:
    with taking() as up:
        async with pushing_to(up) as origin:
            begun = await origin.begin(REPOSITORY)
            up.inject(Fault(drop=True), method="PATCH")
            with pytest.raises(UpstreamUnavailable):
                await origin.append(REPOSITORY, begun.location, pieces())
        assert up.count(method="PATCH") == 1


async def test_a_manifest_of_another_digest_was_not_taken_in() -> None:
    given = Manifest.parse(MANIFEST, OCI_MANIFEST, Digest.of(MANIFEST))
    with taking() as up:
        up.add_blob(REPOSITORY, b"{}")
        up.inject(Fault(headers={"docker-content-digest": str(BLOB_DIGEST)}), method="PUT")
        async with pushing_to(up) as origin:
            with pytest.raises(UpstreamInvalid, match="says that it took in"):
                await origin.put_manifest(REPOSITORY, "v1", given)


async def test_what_upstream_says_of_a_manifest_is_heard() -> None:
    body = json.dumps(manifest(subject={"mediaType": OCI_MANIFEST, "digest": str(BLOB_DIGEST), "size": 1})).encode()
    given = Manifest.parse(body, OCI_MANIFEST, Digest.of(body))
    with taking() as up:
        up.add_blob(REPOSITORY, b"{}")
        up.inject(Fault(headers={"warning": '299 - "it is old", 199 - "no"'}), method="PUT")
        async with pushing_to(up) as origin:
            accepted = await origin.put_manifest(REPOSITORY, "v1", given)
            assert accepted.subject == BLOB_DIGEST
            assert accepted.warnings == ("it is old",)
            assert await origin.named(REPOSITORY, "v1") == given.digest
            assert await origin.named(REPOSITORY, "v2") is None


async def test_a_prefix_stands_in_front_of_all_that_is_pushed() -> None:
    with taking() as up:
        up.add_blob("proxy/team/base", BLOB)
        async with pushing_to(up, repository_prefix="proxy/") as origin:
            await push(origin)
            assert await origin.mount(REPOSITORY, BLOB_DIGEST, "team/base") is None
        assert all(request.path.startswith(f"/v2/proxy/{REPOSITORY}/") for request in up.requests)
