"""Content that is still growing, as its readers see it: bytes as they come, but never a whole body unverified.

The rule that keeps wrong bytes out of the mesh stands here, in one place (`Growing.stream`): the last `WITHHELD` bytes
of every body are sent only after size and digest of the whole content have matched. When they do not match, every
reader gets the failure instead of the end, and its connection is cut.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import TypeGuard

from mirror.digest import Digest
from mirror.errors import MirrorError, UpstreamInvalid, UpstreamUnavailable
from mirror.store.blobs import Blob
from mirror.store.overflow import WINDOW, Overflow
from mirror.store.spool import Spool, Standing

WITHHELD = 64 * 1024
"""Bytes at the end of each body that wait for the digest."""

CHUNK = 128 * 1024
"""Bytes that a reader takes at a time: what a slow client can cost in memory."""

_LAGGARD_AFTER = 10.0
"""Seconds for which the slowest reader may stand still and hold up a fill that goes through memory; then it is cut."""

_LOOK_EVERY = 0.005
"""Seconds between two looks at a spool that another worker fills."""

_NEEDS_NOTHING = sys.maxsize
"""The position of a reader that has all its bytes in hand."""


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
        self._beginnings = 0
        self.spool: Spool | None = None
        self.overflow: Overflow | None = None
        self.blob: Blob | None = None
        self.keep_whole = False
        self._closed = False
        self._readers: dict[object, int] = {}
        self._held_back = 0
        self._moved = asyncio.Event()

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
        """How many readers there are, those included whose answer cannot begin yet."""
        return len(self._readers) + self._held_back

    @contextlib.contextmanager
    def holding_back(self) -> Iterator[None]:
        """While an answer waits until it may begin."""
        self._held_back += 1
        try:
            yield
        finally:
            self._held_back -= 1

    def moved(self) -> None:
        """Wake all who wait for something to change."""
        event, self._moved = self._moved, asyncio.Event()
        event.set()

    def begin_anew(self, size: int | None) -> None:
        """Forget the bytes that came; none was sent to anyone who would believe them. ``size`` as at the beginning."""
        if self.spool is not None:
            self.spool.close()
        self.spool = self.overflow = None
        self.size = size
        self._beginnings += 1
        self.moved()

    def verify(self) -> None:
        """Say that the bytes that came are the whole, and have the digest."""
        self.size = self.available
        self.verified = True
        self.moved()

    def fail(self, failure: MirrorError) -> None:
        """Say that the whole will not come."""
        self.failure = failure
        self.moved()

    async def watch(self, spool: Spool, grown: Callable[[], None]) -> Standing:
        """Show what another worker writes to ``spool``, until it has ended or its writer is gone; how it stands then.

        Gone is a writer that left a growing spool: its lock is taken. ``grown`` is called whenever bytes have come.
        """
        self.spool = spool
        seen = 0
        while (standing := spool.standing()) is Standing.GROWING:
            if spool.size != seen:
                seen = spool.size
                grown()
                self.moved()
            if spool.take_over():
                break
            await asyncio.sleep(_LOOK_EVERY)
        return standing

    async def reached(self, position: int) -> None:
        """Wait until the byte at ``position`` has come; raise the failure if it never will."""
        while not self.verified and self.available <= position:
            await self._next()

    async def whole(self) -> None:
        """Wait until size and digest have matched; raise the failure if they do not."""
        while not self.verified:
            await self._next()

    async def kept(self) -> Blob | None:
        """Wait until the fill has ended well: the blob that it has become, or None where the disk did not keep it."""
        await self.whole()
        while not self._closed:
            await self._moved.wait()
        return self.blob

    async def stream(
        self, start: int, end: int | None, *, tentative: bool = False
    ) -> AsyncGenerator[bytes | memoryview]:
        """The bytes from ``start`` up to ``end`` (None: the last one), as they come.

        Raises the fill's failure in place of the bytes that may not be sent. A ``tentative`` reader verifies for
        itself: it does not keep the fill from beginning anew, and is cut when it does.
        """
        reader = object()
        self._readers[reader] = start
        position = start
        beginnings = self._beginnings
        try:
            while end is None or position < end:
                if tentative and beginnings != self._beginnings:
                    raise UpstreamUnavailable(f"the bytes of {self.digest} that came first were wrong", retry_after=1)
                stop = self._releasable(position, end)
                if stop > position:
                    data = self._read(position, min(stop, position + CHUNK))
                    position += len(data)
                    self._advance(reader, position)
                    self.consumed |= not tentative
                    yield data
                elif self.verified:
                    if end is not None:
                        raise UpstreamInvalid(f"{self.digest} has only {self.size} bytes, not {end}")
                    return
                elif self._ends_in_memory(end):
                    withheld = self._copy(position, end)
                    self.consumed |= not tentative
                    self._advance(reader, _NEEDS_NOTHING)  # the fill must not wait for one who waits for its end
                    await self.whole()
                    if tentative and beginnings != self._beginnings:
                        continue
                    yield withheld
                    return
                else:
                    await self._next()
        finally:
            del self._readers[reader]
            self.moved()

    def peek(self, length: int) -> bytes:
        """The first bytes, as many as have come of ``length``; not sent to anyone."""
        return b"" if self.beyond(0) else self._copy(0, min(length, self.available))

    async def room(self) -> None:
        """Wait until memory has room: until the slowest reader has gone on, or has stood still for too long."""
        overflow = self.overflow
        while overflow is not None and not self.keep_whole and overflow.start < overflow.end - WINDOW:
            slowest, surplus = self._slowest(), overflow.end - WINDOW
            overflow.forget(min(slowest, surplus))
            if overflow.start < surplus and not await self._has_gone_on(slowest):
                overflow.forget(surplus)

    def beyond(self, position: int) -> bool:
        """Whether bytes from ``position`` on have been let go of, so that a new reader cannot begin there."""
        return self.overflow is not None and max(position, self._spooled()) < self.overflow.start

    def close(self, blob: Blob | None) -> None:
        """The fill has ended: its lock goes, and its file where nobody will read it.

        ``blob`` is what it has become; readers go on from there. A file that did not become one, though it was
        verified, stays until the last who may still read it is gone.
        """
        if blob is not None and blob.size == self.size:
            self.blob = blob
        if self.spool is not None:
            self.spool.leave()
            if self.blob is not None or not self.verified:
                self.spool.close()
                self.spool = None
        self._closed = True
        self.moved()

    async def _next(self) -> None:
        if self.failure is not None:
            raise self.failure.with_traceback(None)  # one failure for many readers: each has its own way
        await self._moved.wait()

    def _advance(self, reader: object, position: int) -> None:
        self._readers[reader] = position
        if self.overflow is not None:
            self.moved()

    def _slowest(self) -> int:
        """Where the slowest reader is, of those whose bytes are still there."""
        return min((at for at in self._readers.values() if not self.beyond(at)), default=_NEEDS_NOTHING)

    async def _has_gone_on(self, slowest: int) -> bool:
        """Wait until the slowest reader has left its place; False when it stays there for too long."""
        try:
            async with asyncio.timeout(_LAGGARD_AFTER):
                while self._slowest() <= slowest:
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    def _releasable(self, position: int, end: int | None) -> int:
        """Up to where bytes may be sent now, to a reader of which ``end`` is the end."""
        last = self.size if end is None else end
        if self.verified and self.size is not None:
            return self.size if last is None else min(last, self.size)
        if self.failure is not None:
            return position
        return self.available - WITHHELD if last is None else min(self.available, last - WITHHELD)

    def _ends_in_memory(self, end: int | None) -> TypeGuard[int]:
        """Whether a reader's last bytes are there, withheld, and may be let go of before the digest has matched."""
        return end is not None and self.overflow is not None and self.failure is None and end <= self.available

    def _read(self, start: int, end: int) -> bytes | memoryview:
        """At least one byte from ``start`` on, and none from ``end`` on."""
        if self.blob is not None:
            return self.blob.read(start, end)
        if self.spool is not None and start < self._spooled():
            return self.spool.read(start, min(end, self._spooled()))
        if self.overflow is None or start < self.overflow.start:
            raise UpstreamUnavailable(
                f"{self.digest} passed through, because the disk fails, and this client was too slow"
            )
        return self.overflow.read(start, end)

    def _copy(self, start: int, end: int) -> bytes:
        parts = bytearray()
        while start + len(parts) < end:
            parts += self._read(start + len(parts), end)
        return bytes(parts)

    def _spooled(self) -> int:
        return self.spool.size if self.spool is not None else 0
