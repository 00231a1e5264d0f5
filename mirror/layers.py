"""Layers of artifacts, as they are opened: whole and verified, from the disk or, where that fails, out of memory."""

import asyncio
import hashlib

from mirror.answer import Answer, Body, Flowing, Held, Whole
from mirror.digest import Digest, Verifier
from mirror.errors import UpstreamUnavailable
from mirror.store.blobs import Blob

_PIECE = 1024 * 1024


class Loose(Blob):
    """A layer that the disk did not keep."""

    __slots__ = ()

    def __init__(self, digest: Digest, content: bytes) -> None:
        self.condemned = False
        self.digest = digest
        self.size = len(content)
        self.inode = 0
        self.stored_at = 0.0
        self._view = memoryview(content)


def keep_whole(answer: Answer) -> None:
    """Let no part of a layer go that is on its way, where the disk fails and it has to stay in memory."""
    if isinstance(answer.body, Flowing):
        answer.body.content.keep_whole = True


async def whole(answer: Answer) -> Blob:
    """All of a layer; raise what stands against it. What does not lie on the disk needs `keep_whole` at once."""
    if isinstance(answer.body, Held):
        return answer.body.blob
    assert isinstance(answer.body, Flowing), "a layer is held, or on its way"
    content = answer.body.content
    blob = await content.kept()
    if blob is not None:
        return blob
    parts = [part async for part in content.stream(0, None)]
    return Loose(answer.digest, b"".join(parts))


async def head(body: Body, length: int) -> bytes:
    """The first bytes of a layer, as soon as they are there."""
    match body:
        case Held(blob):
            return bytes(blob.read(0, length))
        case Flowing(content=content):
            await content.reached(length - 1)
            if content.beyond(0):
                raise UpstreamUnavailable(
                    f"{content.digest} passed through, because the disk fails; ask again", retry_after=1
                )
            return content.peek(length)
        case Whole(content=content):
            return content[:length]
    raise AssertionError("a layer is held, or on its way")


async def hashed(answer: Answer) -> tuple[Digest, Body]:
    """The sha256 of a layer, for which all of it is needed, and what it is read from."""
    layer = await whole(answer)
    digest = await asyncio.to_thread(_sha256, layer)
    return digest, Whole(bytes(layer.read(0, layer.size))) if isinstance(layer, Loose) else Held(layer)


def is_damaged(layer: Blob) -> bool:
    """Whether a layer that was verified when it came has other bytes now. Blocks: for a thread."""
    verifier = Verifier(layer.digest)
    for start in range(0, layer.size, _PIECE):
        verifier.update(layer.read(start, start + _PIECE))
    return not verifier.matches()


def _sha256(layer: Blob) -> Digest:
    found = hashlib.sha256()
    for start in range(0, layer.size, _PIECE):
        found.update(layer.read(start, start + _PIECE))
    return Digest("sha256", found.hexdigest())
