"""Answers that would harm who believes them: bombs, bodies without a bound, swapped content, JSON that is none, and
secrets that come back. Numbers are those of the threats that the project defends against; each test fails without the
defence.
"""

import gzip
import json
import logging
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import pytest

from mirror.digest import Digest
from mirror.errors import DigestMismatch, MirrorError, UpstreamError, UpstreamInvalid
from mirror.upstream.transport import Transport
from tests.support.contents import Answer
from tests.support.faults import Fault
from tests.support.tokens import TokenService
from tests.support.upstream import FaultyUpstream
from tests.upstream.support import (
    BLOB_DIGEST,
    LOGIN,
    MANIFEST_DIGEST,
    PASSWORD,
    REPOSITORY,
    SECRETS,
    Resolver,
    content,
    holding,
    manifest,
    private,
    pulling_from,
    within,
)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as entered:
        yield entered


class Answering(FaultyUpstream):
    """A registry with the same ``status`` and ``body`` for every question."""

    def __init__(self, body: bytes, status: int = 200) -> None:
        super().__init__()
        self.body = body
        self.status = status

    def answer(self, path: str, query: Mapping[str, str]) -> Answer:
        """What it always says."""
        return Answer(self.status, {"content-type": "application/json"}, self.body)


class Babbling(TokenService):
    """A token service that always says the same."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.body = body

    def answer(self, method: str, query: Mapping[str, str], authorization: str, body: bytes) -> Answer:
        """What it always says."""
        return Answer(200, {"content-type": "application/json"}, self.body)


# 18: nothing is decompressed.


async def test_a_decompression_bomb_is_not_unpacked(stack: ExitStack) -> None:
    up = stack.enter_context(FaultyUpstream())
    bomb = gzip.compress(bytes(64 * 1024 * 1024))
    up.add_manifest(REPOSITORY, bomb, tag="v1")
    digest = up.add_blob(REPOSITORY, bomb)
    async with pulling_from(up) as upstream:
        assert await content(await upstream.open_blob(REPOSITORY, digest, deadline=within())) == bomb
        up.inject(Fault(headers={"content-encoding": "gzip"}))
        with pytest.raises(UpstreamInvalid, match="identity"):
            await upstream.get_manifest(REPOSITORY, "v1", deadline=within())
        with pytest.raises(UpstreamInvalid, match="identity"):
            await upstream.open_blob(REPOSITORY, digest, deadline=within())


# 20: every body that is read whole has a bound (manifests: test_client.py).


async def test_lists_and_tokens_without_a_bound_are_read_to_a_limit(stack: ExitStack) -> None:
    up = holding(stack.enter_context(FaultyUpstream()))
    up.inject(Fault(pad_to=1 << 30, framing="chunked"))
    async with pulling_from(up) as upstream:
        with pytest.raises(UpstreamInvalid, match="more than the"):
            await upstream.list_tags(REPOSITORY, n=None, last=None, deadline=within())
        with pytest.raises(UpstreamInvalid, match="more than the"):
            await upstream.referrers(REPOSITORY, BLOB_DIGEST, artifact_type=None, page=None, deadline=within())
        up.require_bearer()
        with pytest.raises(UpstreamInvalid, match="more than the"):
            await upstream.head_manifest(REPOSITORY, "v1")
    assert max(request.sent for request in up.requests) < 64 * 1024 * 1024


async def test_the_body_of_an_error_is_not_read_without_a_bound(stack: ExitStack) -> None:
    up = holding(stack.enter_context(FaultyUpstream()))
    up.inject(Fault(status=503, pad_to=1 << 30))
    up.inject(Fault(framing="chunked"), skip=1)
    async with pulling_from(up) as upstream:
        for _ in range(2):
            with pytest.raises(UpstreamError, match="503"):
                await upstream.head_blob(REPOSITORY, BLOB_DIGEST, deadline=within(0.5))
            with pytest.raises(UpstreamError, match="503"):
                await upstream.list_tags(REPOSITORY, n=None, last=None, deadline=within(0.5))
    assert max(request.sent for request in up.requests) < 64 * 1024 * 1024


# 21: what a digest names is what is delivered.


async def test_a_manifest_that_was_swapped_is_refused_although_it_names_its_own_digest(stack: ExitStack) -> None:
    up = stack.enter_context(FaultyUpstream())
    swapped = json.dumps(manifest(annotations={"evil": "yes"})).encode()
    up.add_manifest(REPOSITORY, swapped, digest=MANIFEST_DIGEST)
    up.inject(Fault(headers={"docker-content-digest": str(Digest.of(swapped))}))
    async with pulling_from(up) as upstream:
        with pytest.raises(DigestMismatch):
            await upstream.get_manifest(REPOSITORY, str(MANIFEST_DIGEST), deadline=within())


async def test_a_header_that_contradicts_the_bytes_is_refused(stack: ExitStack) -> None:
    up = holding(stack.enter_context(FaultyUpstream()))
    up.inject(Fault(headers={"docker-content-digest": str(Digest.of(b"other"))}))
    async with pulling_from(up) as upstream:
        for target in ("v1", str(MANIFEST_DIGEST)):
            with pytest.raises(DigestMismatch):
                await upstream.get_manifest(REPOSITORY, target, deadline=within())


# 24: JSON is read strictly, wherever it comes from.


@pytest.mark.parametrize(
    "body", [b'{"tags": [], "tags": ["a"]}', b'{"tags": NaN}', b'{"tags":' + b"[" * 10_000, b"[]", b'{"a":"\xff"}']
)
async def test_json_that_is_none_is_refused_in_lists_and_tokens(stack: ExitStack, body: bytes) -> None:
    up = stack.enter_context(Answering(body))
    async with pulling_from(up) as upstream:
        with pytest.raises(UpstreamInvalid):
            await upstream.list_tags(REPOSITORY, n=None, last=None, deadline=within())
        with pytest.raises(UpstreamInvalid):
            await upstream.referrers(REPOSITORY, BLOB_DIGEST, artifact_type=None, page=None, deadline=within())
        up.require_bearer(Babbling(body))
        with pytest.raises(UpstreamInvalid):
            await upstream.head_manifest(REPOSITORY, "v1")


@pytest.mark.parametrize("tags", [["ok", "../../etc"], ["a b"], [5], "abc", {"a": 1}, [["a"]]])
async def test_a_list_of_tags_that_holds_something_else_is_refused(stack: ExitStack, tags: object) -> None:
    up = stack.enter_context(Answering(json.dumps({"name": REPOSITORY, "tags": tags}).encode()))
    async with pulling_from(up) as upstream:
        with pytest.raises(UpstreamInvalid, match="tags"):
            await upstream.list_tags(REPOSITORY, n=None, last=None, deadline=within())


# 25: nothing secret is told to anybody else.


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500),
        Fault(status=403),
        Fault(drop=True),
        Fault(gzip=True),
        Fault(html=True),
        Fault(status=400),
        Fault(redirect="http://storage.test/x?X-Amz-Signature=signature-that-opens-storage"),
        Fault(redirect="http://user:signature-that-opens-storage@127.0.0.1:9/x"),
    ],
)
@pytest.mark.parametrize("path", ["/manifests/", "/token"])
async def test_no_error_and_no_log_tells_a_secret(
    stack: ExitStack, caplog: pytest.LogCaptureFixture, fault: Fault, path: str
) -> None:
    caplog.set_level(logging.DEBUG)
    up = private(stack.enter_context(FaultyUpstream()))
    up.inject(fault, path=path)
    transport = Transport(resolver=Resolver(**{"storage.test": ["127.0.0.1"]}))
    async with pulling_from(up, credentials=LOGIN, transport=transport) as upstream:
        with pytest.raises(MirrorError) as failed:
            await upstream.head_manifest(REPOSITORY, "v1")
    told = "".join(traceback.format_exception(failed.value)) + repr(failed.value.detail) + caplog.text + repr(upstream)
    assert up.tokens is not None
    tokens = list(up.tokens._issued)  # the only place where a fake registry keeps them
    assert all(secret not in told for secret in (*SECRETS, *tokens, "signature-that-opens-storage"))


async def test_what_upstream_says_in_an_error_is_not_repeated(stack: ExitStack) -> None:
    """It might be what we sent."""
    up = stack.enter_context(Answering(b""))
    up.require_basic({"robot": PASSWORD})
    async with pulling_from(up, credentials=LOGIN) as upstream:
        up.body = json.dumps({"errors": [{"code": "DENIED", "message": PASSWORD, "detail": PASSWORD}]}).encode()
        up.status = 400
        with pytest.raises(UpstreamInvalid) as failed:
            await upstream.list_tags(REPOSITORY, n=None, last=None, deadline=within())
    assert failed.value.detail == {"endpoint": up.host, "status": 400, "codes": ["DENIED"]}
    assert PASSWORD not in failed.value.message


async def test_a_page_that_a_client_asks_for_stays_below_its_address(stack: ExitStack) -> None:
    up = holding(stack.enter_context(FaultyUpstream()))
    async with pulling_from(up) as upstream:
        page = "page=0&x=/../../token#/ HTTP/1.1\r\nX-Evil: 1"
        await upstream.referrers(REPOSITORY, BLOB_DIGEST, artifact_type="a&b=c", page=page, deadline=within())
    (request,) = up.requests
    assert request.path == f"/v2/{REPOSITORY}/referrers/{BLOB_DIGEST}"
    assert request.query["artifactType"] == "a&b=c"
    assert "x-evil" not in request.headers
