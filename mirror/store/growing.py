"""Content that is still growing, as its readers see it: bytes as they come, but never a whole body unverified.

The rule that keeps wrong bytes out of the mesh stands here, in one place (`Growing.stream`): the last `WITHHELD` bytes
of every body are sent only after size and digest of the whole content have matched. When they do not match, every
reader gets the failure instead of the end, and its connection is cut.
"""

import asyncio
from collections.abc import AsyncGenerator

from mirror.digest import Digest
from mirror.errors import MirrorError, UpstreamUnavailable
from mirror.store.blobs import Blob
from mirror.store.overflow import WINDOW, Overflow
from mirror.store.spool import Spool

WITHHELD = 64 * 1024
"""Bytes at the end of each body that wait for the digest."""

CHUNK = 256 * 1024
"""Bytes that a reader takes at a time: what a slow client can cost in memory."""

_LAGGARD_AFTER = 10.0
"""Seconds for which the slowest reader may hold up a fill that goes through memory, before it is cut."""


class Growing:
    """The bytes of one digest, from the first one on. One writer (a fill) and any number of readers, on one loop.

    ``size`` is the size of the whole in bytes, or None while nobody knows it. The bytes lie in a spool; where the disk
    fails, the rest lies in an `Overflow`; where another worker was faster, in its blob.
    """

    def __init__(self, digest: Digest, size: int | None) -> None:
        self.digest = digest
        self.size = size
        self.verified = False
        self.failure: MirrorError | None = None
        self.consumed = False
        self.spool: Spool | None = None
        self.overflow: Overflow | None = None
        self.blob: Blob | None = None
        self.keep_whole = False
        self._readers: dict[object, int] = {}
        self._moved = asyncio.Event()
        self._closed = False

    @property
    def available(self) -> int:
        """How many bytes have come."""
        if self.blob is not None:
            return self.blob.size
        if self.overflow is not None:
            return self.overflow.end
        return self.spool.size if self.spool is not None else 0

    @property
    def waiters(self) -> int:
        """How many readers there are."""
        return len(self._readers)

    def moved(self) -> None:
        """Wake all who wait for something to change."""
        event, self._moved = self._moved, asyncio.Event()
        event.set()

    def verify(self) -> None:
        """Say that the bytes that came are the whole, and have the digest."""
        self.size = self.available
        self.verified = True
        self.moved()

    def fail(self, failure: MirrorError) -> None:
        """Say that the whole will not come."""
        self.failure = failure
        self.moved()

    async def reached(self, position: int) -> None:
        """Wait until the byte at ``position`` has come; raise the failure if it never will."""
        while not self.verified and self.available <= position:
            await self._next()

    async def whole(self) -> None:
        """Wait until size and digest have matched; raise the failure if they do not."""
        while not self.verified:
            await self._next()

    async def stream(self, start: int, end: int | None) -> AsyncGenerator[bytes | memoryview]:
        """The bytes from ``start`` up to ``end`` (None: the last one), as they come.

        Raises the fill's failure in place of the bytes that may not be sent.
        """
        reader = object()
        self._readers[reader] = start
        position = start
        try:
            while end is None or position < end:
                stop = await self._releasable(position, end)
                if stop <= position:
                    return
                data = self._read(position, min(stop, position + CHUNK))
                position += len(data)
                self._readers[reader] = position
                if self.overflow is not None:
                    self.moved()
                self.consumed = True
                yield data
        finally:
            del self._readers[reader]
            self.moved()
            self._close_if_idle()

    def peek(self, length: int) -> bytes:
        """The first bytes, as many as have come of ``length``; not sent to anyone."""
        end = min(length, self.available)
        return bytes(self._read(0, end)) if end and not self.beyond(0) else b""

    async def room(self) -> None:
        """Wait until memory has room for more: until the slowest reader has gone on, or has been given up."""
        if self.overflow is None or self.keep_whole:
            return
        while self.overflow.end - self.overflow.start > WINDOW:
            self.overflow.forget(min(self._readers.values(), default=self.overflow.end))
            if self.overflow.end - self.overflow.start <= WINDOW:
                return
            try:
                async with asyncio.timeout(_LAGGARD_AFTER):
                    await self._moved.wait()
            except TimeoutError:
                self.overflow.forget(self.overflow.end - WINDOW)

    def beyond(self, position: int) -> bool:
        """Whether the byte at ``position`` has been let go of, so that a new reader cannot begin there."""
        return self.overflow is not None and self._spooled() <= position < self.overflow.start

    def close(self) -> None:
        """Let go of the file, once the last reader is gone."""
        self._closed = True
        self._close_if_idle()

    async def _next(self) -> None:
        if self.failure is not None:
            raise self.failure
        await self._moved.wait()

    async def _releasable(self, position: int, end: int | None) -> int:
        while True:
            last = self.size if end is None else end
            if self.verified and last is not None:
                return last
            stop = self.available - WITHHELD if last is None else min(self.available, last - WITHHELD)
            if stop > position and self.failure is None:
                return stop
            await self._next()

    def _read(self, start: int, end: int) -> bytes | memoryview:
        if self.blob is not None:
            return self.blob.read(start, end)
        if self.spool is not None and start < self._spooled():
            return self.spool.read(start, min(end, self._spooled()))
        if self.overflow is None or start < self.overflow.start:
            raise UpstreamUnavailable(
                f"{self.digest} passed through, because the disk fails, and this client was too slow"
            )
        return self.overflow.read(start, end)

    def _spooled(self) -> int:
        return self.spool.size if self.spool is not None else 0

    def _close_if_idle(self) -> None:
        if self._closed and not self._readers and self.spool is not None:
            self.spool.close()
