"""A request's body, piece by piece, as fast as it is taken in. Source: RFC 9112, section 6.

The server reads no more from a client's socket while a piece of 64 KiB waits to be received here.
"""

import asyncio
import re
from collections.abc import AsyncIterator

from starlette.types import Receive, Scope

from mirror.edge.respond import header
from mirror.errors import SizeInvalid, UploadInvalid, UploadStalled
from mirror.publish import BodyCut, Chunk

IDLE = 60.0
"""Seconds that a client may send nothing in the middle of a body."""

_RANGE = re.compile(r"(?:bytes[ =])?([0-9]{1,18})-([0-9]{1,18})(?:/(?:[0-9]+|\*))?")
_LENGTH = re.compile(r"[0-9]{1,18}")


def announced(scope: Scope) -> int | None:
    """The body's length as its header tells; None: it does not say."""
    length = header(scope, b"content-length")
    if length is None:
        return None
    if not _LENGTH.fullmatch(length):
        raise UploadInvalid("Content-Length is not one number")
    return int(length)


def is_empty(scope: Scope) -> bool:
    """Whether the request has no body."""
    return not announced(scope) and header(scope, b"transfer-encoding") is None


def chunk_of(scope: Scope, receive: Receive) -> Chunk:
    """The body as a piece of a blob. Raises `UploadInvalid` for headers that contradict one another.

    ``Content-Range`` is ``<first>-<last>``; the form of HTTP, ``bytes <first>-<last>/<size>``, is understood too.
    """
    length = announced(scope)
    text = header(scope, b"content-range")
    if text is None:
        return Chunk(pieces_of(receive), None, length)
    match = _RANGE.fullmatch(text.strip())
    if match is None:
        raise UploadInvalid("Content-Range must be <first>-<last>: the positions of the chunk's bytes in the blob")
    first, last = map(int, match.groups())
    if last < first:
        raise UploadInvalid("the Content-Range ends before it begins")
    size = last - first + 1
    if length is not None and length != size:
        raise UploadInvalid(f"the Content-Range is that of {size} bytes, and the Content-Length is {length}")
    return Chunk(pieces_of(receive, size), first, size)


async def whole_of(scope: Scope, receive: Receive, limit: int, too_large: str) -> bytes:
    """A small body. Raises `SizeInvalid` with the words ``too_large`` above ``limit`` bytes, and `BodyCut`."""
    length = announced(scope)
    if length is not None and length > limit:
        raise SizeInvalid(too_large)
    body = bytearray()
    async for piece in pieces_of(receive):
        body += piece
        if len(body) > limit:
            raise SizeInvalid(too_large)
    return bytes(body)


async def pieces_of(receive: Receive, size: int | None = None) -> AsyncIterator[bytes]:
    """The body; ``size``: it must have so many bytes. Raises `UploadStalled`, `UploadInvalid` and `BodyCut`."""
    seen = 0
    more = True
    while more:
        try:
            async with asyncio.timeout(IDLE):
                message = await receive()
        except TimeoutError:
            raise UploadStalled(
                f"no byte has come for {IDLE:g} s; ask where the upload stands, and go on there"
            ) from None
        if message["type"] == "http.disconnect":
            raise BodyCut
        piece, more = message.get("body", b""), message.get("more_body", False)
        seen += len(piece)
        if size is not None and seen > size:
            raise UploadInvalid(f"the chunk has more than the {size} bytes of its Content-Range")
        if piece:
            yield piece
    if size is not None and seen < size:
        raise UploadInvalid(f"the chunk has {seen} bytes, and its Content-Range is that of {size}")
