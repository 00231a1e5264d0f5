"""Sends answers and errors to a client."""

import asyncio
import contextlib
import json
import math
from collections.abc import Awaitable, Sequence
from urllib.parse import parse_qs

from starlette.types import Message, Receive, Scope, Send

from mirror.answer import Answer, Body, Flowing
from mirror.edge import ranges
from mirror.edge.account import LOOKUP
from mirror.edge.headers import Headers, always, describing, encode, etag
from mirror.errors import (
    ChunkInvalid,
    MirrorError,
    NameInvalid,
    RangeInvalid,
    Unsupported,
    UpstreamInvalid,
    UpstreamTimeout,
)


class Cut(Exception):
    """The body cannot be finished: the connection must be cut, so that the client sees that something is missing."""


async def send_answer(
    scope: Scope,
    receive: Receive,
    send: Send,
    answer: Answer,
    *,
    now: float,
    namespace: str | None,
    ranged: bool,
    extra: Sequence[tuple[str, str]] = (),
) -> None:
    """Send an answer to a GET or HEAD, with the conditions and the range that the request makes.

    Raises `MirrorError` while the status line has not been sent, and `Cut` after that.
    """
    scope[LOOKUP] = answer.outcome.lookup
    headers = describing(answer, now, namespace) + encode(extra)
    tag = etag(answer)
    if ranges.matches(header(scope, b"if-none-match"), tag):
        await _exists(answer)
        await _start(send, 304, headers)
        await send({"type": "http.response.body"})
        return
    if scope["method"] == "HEAD":
        await _exists(answer)
        await _start(send, 200, _sized(headers, answer.body.size, ranged))
        await send({"type": "http.response.body"})
        return
    conditional = ranged and ranges.range_stands(header(scope, b"if-range"), tag)
    span = await _ready(answer, header(scope, b"range") if conditional else None)
    start, end = (span.start, span.end) if span is not None else (0, None)
    if span is not None:
        headers += encode([("content-range", span.content_range())])
        await _start(send, 206, _sized(headers, span.end - span.start, ranged))
    else:
        await _start(send, 200, _sized(headers, answer.body.size, ranged))
    await _send_body(receive, send, answer.body, start, end)


async def send_json(send: Send, method: str, value: object, extra: list[tuple[str, str]], content_type: str) -> None:
    """Send a small JSON document, which may be given as bytes."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    await _start(send, 200, encode([("content-type", content_type), ("content-length", str(len(body))), *extra]))
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})


async def send_error(
    send: Send,
    method: str,
    error: MirrorError,
    namespace: str | None = None,
    extra: Sequence[tuple[str, str]] = (),
) -> None:
    """Send an error, with headers of its own. Source: OCI distribution specification 1.1, "Error Codes"."""
    detail = error.detail
    if detail is None and isinstance(error, UpstreamInvalid):  # always says what was wrong, to programs too
        detail = {"reason": error.message}
    told = {} if detail is None else {"detail": detail}
    body = json.dumps({"errors": [{"code": error.code, "message": error.message, **told}]}).encode()
    headers = [("content-type", "application/json"), ("content-length", str(len(body))), *always(namespace), *extra]
    retry_after = error.retry_after
    if retry_after is None and error.status in (503, 504):
        retry_after = 1
    if retry_after is not None:
        headers.append(("retry-after", str(max(1, math.ceil(retry_after)))))
    if isinstance(error, RangeInvalid):
        headers.append(("content-range", f"bytes */{error.size}"))
    if isinstance(error, Unsupported):
        headers.append(("allow", ", ".join(error.allow)))
    if isinstance(error, ChunkInvalid):
        headers.append(("range", progress(error.size)))
    await _start(send, error.status, encode(headers))
    await send({"type": "http.response.body", "body": b"" if method == "HEAD" else body})


def progress(size: int) -> str:
    """The ``Range`` of an upload that has ``size`` bytes; the grammar has no word for none, and registries say ``0-0``.

    Source: OCI distribution specification 1.1, "Pushing a blob in chunks".
    """
    return f"0-{max(0, size - 1)}"


def header(scope: Scope, name: bytes) -> str | None:
    """The value of a request's header, or None. Repeated ones are joined by a comma."""
    values = [value for key, value in scope["headers"] if key == name]
    return b", ".join(values).decode("latin-1") if values else None


def query(scope: Scope) -> dict[str, str]:
    """The parameters of a request's query; of one that stands twice, the first."""
    raw = scope["query_string"]
    if not raw:
        return {}
    try:
        found = parse_qs(raw.decode("latin-1"), keep_blank_values=True, max_num_fields=20)
    except ValueError as error:
        raise NameInvalid("the query has more than 20 parameters") from error
    return {name: values[0] for name, values in found.items()}


def challenging(send: Send, scheme: str) -> Send:
    """``send`` with the header that a 401 must have. Source: RFC 9110, section 11.6.1."""

    async def challenge(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"www-authenticate", scheme.encode())]}
        await send(message)

    return challenge


async def _ready(answer: Answer, wanted: str | None) -> ranges.Span | None:
    """Wait until the status line may be sent; the range that is ``wanted``, if one is.

    By the size as it is known then: a download that begins anew may have found that an upstream had told a wrong one.
    """
    if wanted is None:
        await _wait(answer, 0, None)
        return None
    while True:
        await _exists(answer)
        size, span = answer.body.size, await _span(answer, wanted)
        await _wait(answer, *((span.start, span.end) if span is not None else (0, None)))
        if span is None or answer.body.size == size:
            return span


async def _span(answer: Answer, wanted: str) -> ranges.Span | None:
    """The range that is ``wanted``; raises `RangeInvalid` once it is certain that there are no such bytes."""
    body = answer.body
    try:
        return ranges.parse_range(wanted, body.size) if body.size is not None else None
    except RangeInvalid:
        if not isinstance(body, Flowing):
            raise
    await _bounded(answer, body.content.whole())  # an upstream may have announced too little
    return ranges.parse_range(wanted, body.content.available)


async def _exists(answer: Answer) -> None:
    """Wait until it is certain that there is such content, and of which size: a descriptor says so, or upstream."""
    if answer.body.size is None and isinstance(answer.body, Flowing):
        await _bounded(answer, answer.body.content.reached(0))


async def _wait(answer: Answer, start: int, end: int | None) -> None:
    """Wait for the status line: as long as the client may be held; for a range in the middle, as long as it takes."""
    ready = answer.body.ready(start, end)
    if start and not (isinstance(answer.body, Flowing) and answer.body.whole_first):
        await ready
    else:
        await _bounded(answer, ready)


async def _bounded(answer: Answer, waiting: Awaitable[None]) -> None:
    try:
        async with asyncio.timeout_at(answer.hold_until):
            await waiting
    except TimeoutError as error:
        raise UpstreamTimeout(
            f"{answer.digest} has not come from upstream in time; the mirror goes on fetching it, so ask again",
            retry_after=1,
        ) from error


def _sized(headers: Headers, size: int | None, ranged: bool) -> Headers:
    length = [("content-length", str(size))] if size is not None else []
    return headers + encode([*length, *([("accept-ranges", "bytes")] if ranged else [])])


async def _start(send: Send, status: int, headers: Headers) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _send_body(receive: Receive, send: Send, body: Body, start: int, end: int | None) -> None:
    if not isinstance(body, Flowing):
        await _pour(send, body, start, end)
        return
    # Bytes that are yet to come must not be waited for when nobody is there to take them.
    pouring = asyncio.ensure_future(_pour(send, body, start, end))
    gone = asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((pouring, gone), return_when=asyncio.FIRST_COMPLETED)
        if pouring.done():
            pouring.result()
    finally:
        pouring.cancel()
        gone.cancel()
        await asyncio.gather(pouring, gone, return_exceptions=True)


async def _pour(send: Send, body: Body, start: int, end: int | None) -> None:
    content = body.read(start, end)
    try:
        async with contextlib.aclosing(content):
            async for data in content:
                await send({"type": "http.response.body", "body": data, "more_body": True})
                # To a client that has left, uvicorn "sends" without a pause: others must get their turn all the same.
                await asyncio.sleep(0)
    except (MirrorError, OSError) as error:
        raise Cut from error
    await send({"type": "http.response.body"})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
