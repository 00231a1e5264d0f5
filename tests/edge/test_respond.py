"""Errors and answers have the status, the headers and the body that the specifications want."""

import asyncio
import json

import pytest
from starlette.types import Message

from mirror.answer import Answer, Collapsed, Filled, Flowing, Hit, Outcome, Passed, Revalidated, Stale, Whole
from mirror.digest import Digest
from mirror.edge.headers import cache_status
from mirror.edge.respond import send_answer, send_error
from mirror.errors import (
    BlobUnknown,
    DigestInvalid,
    DigestMismatch,
    ManifestUnknown,
    MirrorError,
    NameInvalid,
    NameUnknown,
    PaginationInvalid,
    RangeInvalid,
    StoreError,
    TagInvalid,
    Unsupported,
    UpstreamDenied,
    UpstreamInvalid,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from mirror.store.growing import Growing
from mirror.store.overflow import Overflow
from tests.edge.asgi import Sent, nothing_more

CONTENT = b"0123456789"
DIGEST = Digest.of(CONTENT)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NameInvalid("m"), 400, "NAME_INVALID"),
        (TagInvalid("m"), 400, "TAG_INVALID"),
        (DigestInvalid("m"), 400, "DIGEST_INVALID"),
        (PaginationInvalid("m"), 400, "PAGINATION_NUMBER_INVALID"),
        (RangeInvalid("m", size=7), 416, "RANGE_INVALID"),
        (Unsupported("m"), 405, "UNSUPPORTED"),
        (NameUnknown("m"), 404, "NAME_UNKNOWN"),
        (ManifestUnknown("m"), 404, "MANIFEST_UNKNOWN"),
        (BlobUnknown("m"), 404, "BLOB_UNKNOWN"),
        (UpstreamDenied("m"), 403, "DENIED"),
        (UpstreamInvalid("m"), 502, "UPSTREAM_INVALID"),
        (DigestMismatch("m"), 502, "UPSTREAM_INVALID"),
        (UpstreamUnavailable("m"), 503, "UPSTREAM_UNAVAILABLE"),
        (UpstreamTimeout("m"), 504, "UPSTREAM_TIMEOUT"),
        (StoreError("m"), 500, "UNKNOWN"),
    ],
)
async def test_each_error_has_its_status_and_its_code(error: MirrorError, status: int, code: str) -> None:
    for method in ("GET", "HEAD"):
        sent = Sent()
        await send_error(sent.send, method, error, "ghcr.io")
        detail = {"size": 7} if status == 416 else {"reason": "m"} if status == 502 else None
        expected = {"code": code, "message": "m", **({"detail": detail} if detail else {})}
        body = json.dumps({"errors": [expected]}).encode()
        assert sent.status == status
        assert sent.finished
        assert sent.body == (body if method == "GET" else b"")
        assert sent.headers["content-length"] == str(len(body))
        assert sent.headers["content-type"] == "application/json"
        assert sent.headers["oci-namespace"] == "ghcr.io"
        assert ("retry-after" in sent.headers) == (status in (503, 504))
        assert sent.headers.get("allow") == ("GET, HEAD" if status == 405 else None)
        assert sent.headers.get("content-range") == ("bytes */7" if status == 416 else None)
        assert "www-authenticate" not in sent.headers


@pytest.mark.parametrize(("seconds", "told"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (6.5, "7"), (None, "1")])
async def test_retry_after_is_a_whole_number_that_is_not_too_early(seconds: float | None, told: str) -> None:
    sent = Sent()
    await send_error(sent.send, "GET", UpstreamUnavailable("m", retry_after=seconds))
    assert sent.headers["retry-after"] == told


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Hit(), "wasm-mirror; hit"),
        (Hit(9.9), "wasm-mirror; hit; ttl=9"),
        (Revalidated(10.0), "wasm-mirror; fwd=stale; fwd-status=200; ttl=10; detail=revalidated"),
        (Stale(UpstreamUnavailable("m")), "wasm-mirror; fwd=stale; detail=upstream_unavailable"),
        (Stale(UpstreamDenied("m")), "wasm-mirror; fwd=stale; detail=denied"),
        (Filled(), "wasm-mirror; fwd=miss; fwd-status=200; stored"),
        (Filled(0.0), "wasm-mirror; fwd=miss; fwd-status=200; stored; ttl=0"),
        (Collapsed(3.0), "wasm-mirror; fwd=miss; fwd-status=200; stored; collapsed; ttl=3"),
        (Passed(), "wasm-mirror; fwd=request; fwd-status=200"),
    ],
)
def test_cache_status_tells_each_outcome(outcome: Outcome, status: str) -> None:
    assert cache_status(outcome) == status


async def answered(*, method: str = "GET", fetched_at: float | None = None, ranged: bool = True, **fields: str) -> Sent:
    headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
    answer = Answer("application/octet-stream", DIGEST, Whole(CONTENT), Hit(), fetched_at)
    sent = Sent()
    scope = {"type": "http", "method": method, "headers": headers}
    await send_answer(scope, nothing_more, sent.send, answer, now=1000.0, namespace=None, ranged=ranged)
    assert sent.finished
    return sent


@pytest.mark.parametrize(
    ("fetched_at", "age"), [(None, "0"), (1000.0, "0"), (998.9, "1"), (0.0, "1000"), (2000.0, "0")]
)
async def test_age_counts_whole_seconds_and_is_never_negative(fetched_at: float | None, age: str) -> None:
    assert (await answered(fetched_at=fetched_at)).headers["age"] == age


async def test_a_whole_answer() -> None:
    sent = await answered()
    assert (sent.status, sent.body) == (200, CONTENT)
    assert sent.headers == {
        "content-type": "application/octet-stream",
        "docker-content-digest": str(DIGEST),
        "etag": f'"{DIGEST}"',
        "cache-status": "wasm-mirror; hit",
        "age": "0",
        "docker-distribution-api-version": "registry/2.0",
        "x-content-type-options": "nosniff",
        "content-length": "10",
        "accept-ranges": "bytes",
    }


async def test_a_part() -> None:
    sent = await answered(range="bytes=2-4", if_range=f'"{DIGEST}"')
    assert (sent.status, sent.body) == (206, b"234")
    assert sent.headers["content-range"] == "bytes 2-4/10"
    assert sent.headers["content-length"] == "3"


async def test_head_has_the_headers_of_the_whole_and_no_body() -> None:
    sent = await answered(method="HEAD", range="bytes=2-4")
    assert (sent.status, sent.body, sent.headers) == (200, b"", (await answered()).headers)


async def test_if_none_match_comes_before_the_range() -> None:
    sent = await answered(range="bytes=20-", if_none_match=f'W/"{DIGEST}"')
    assert (sent.status, sent.body) == (304, b"")
    assert sent.headers["etag"] == f'"{DIGEST}"'
    assert "content-length" not in sent.headers


async def test_a_manifest_has_no_ranges() -> None:
    sent = await answered(ranged=False, range="bytes=2-4")
    assert (sent.status, sent.body) == (200, CONTENT)
    assert "accept-ranges" not in sent.headers


async def beyond(content: Growing, sent: Sent, hold_until: float | None = None) -> None:
    """Ask for bytes 15 to 19 of what upstream says has 10."""
    answer = Answer("application/octet-stream", DIGEST, Flowing(content, False, 0), Filled(), hold_until=hold_until)
    scope = {"type": "http", "method": "GET", "headers": [(b"range", b"bytes=15-19")]}
    left = asyncio.Event()

    async def stays() -> Message:
        await left.wait()
        return {"type": "http.disconnect"}

    await send_answer(scope, stays, sent.send, answer, now=1000.0, namespace=None, ranged=True)


@pytest.mark.parametrize(("size", "status"), [(20, 206), (10, 416)])
async def test_a_range_beyond_the_size_that_was_announced_waits_for_the_true_one(size: int, status: int) -> None:
    content, sent = Growing(DIGEST, 10), Sent()
    content.overflow = Overflow(0)
    content.overflow.append(bytes(5))
    asking = asyncio.create_task(beyond(content, sent))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not asking.done()
    content.overflow.append(bytes(size - 5))
    content.verify()
    if status == 416:
        with pytest.raises(RangeInvalid):
            await asking
        assert not sent.messages
    else:
        await asking
        assert (sent.status, sent.body, sent.headers["content-range"]) == (206, bytes(5), "bytes 15-19/20")


async def test_a_range_beyond_the_size_that_was_announced_is_waited_for_only_as_long_as_a_client_is_held() -> None:
    content, sent = Growing(DIGEST, 10), Sent()
    with pytest.raises(UpstreamTimeout):
        await asyncio.wait_for(beyond(content, sent, hold_until=0.0), 5)
    assert not sent.messages
