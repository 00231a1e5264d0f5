"""The download: what is missing of a blob, from upstream to whoever takes it in, through cuts and retries.

A cut is followed by a request for the rest, with the hash of what has come: no reader notices.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from mirror.digest import Digest, Verifier
from mirror.errors import DigestMismatch, UpstreamCutShort, UpstreamError, UpstreamInvalid
from mirror.oci import Reference
from mirror.store.growing import Growing
from mirror.upstream.backoff import Backoff
from mirror.writer import Writer

_MAX_PENDING = 4 * 1024 * 1024
"""Bytes that may have come from upstream and not yet be taken in."""

_MAX_BLOB = 64 * 1024**3
"""Bytes after which a blob whose size nobody has announced is given up."""

_ENDS_THERE = 3
"""Times after which a body that ends early at the same byte is taken for what upstream has, not for a bad line."""

TakeIn = Callable[[list[bytes], Verifier], Awaitable[None]]
"""Hashes and keeps the next bytes."""


class BlobStream(Protocol):
    """The body of a blob, as an upstream sends it."""

    @property
    def offset(self) -> int:
        """Where in the blob the first byte lies."""
        ...

    @property
    def size(self) -> int | None:
        """The size of the whole blob, if upstream tells."""
        ...

    @property
    def endpoint(self) -> str:
        """Who sends it."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None:
        """Stop reading."""
        ...


class Source(Protocol):
    """Where blobs come from: `mirror.upstream.failover.Upstream`."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """Its endpoints, as a stream names them."""
        ...

    def cool_down(self, endpoint: str) -> None:
        """Ask this endpoint after all others for a while: it sent wrong bytes."""
        ...

    async def open_blob(self, repository: str, digest: Digest, *, offset: int = 0, deadline: float) -> BlobStream:
        """The blob from ``offset`` on; raises `UpstreamError` or `BlobUnknown`."""
        ...


class Patience:
    """Until when (the loop's clock) a fill goes on trying."""

    def __init__(self, seconds: float) -> None:
        self.now = asyncio.get_running_loop().time
        self.ends_at = 0.0
        self._seconds = seconds

    def renew(self, seconds: float | None = None) -> None:
        """Go on for as long again, or for ``seconds``, from now."""
        self.ends_at = max(self.ends_at, self.now() + (self._seconds if seconds is None else seconds))


class Download:
    """One blob out of one repository. ``senders`` are the endpoints that sent bytes of it."""

    def __init__(
        self,
        source: Source,
        origin: Reference,
        content: Growing,
        verifier: Verifier,
        patience: Patience,
        take_in: TakeIn,
    ) -> None:
        """``verifier`` has seen what is there already; ``content`` says the size, as soon as one is known."""
        self.senders: set[str] = set()
        self._source = source
        self._origin = origin
        self._content = content
        self._verifier = verifier
        self._patience = patience
        self._backoff = Backoff(random.random)
        self._take_in = take_in

    async def run(self) -> None:
        """Until all is there and verified.

        Raises `UpstreamInvalid` for wrong bytes, `BlobUnknown`, and, when nothing has come for too long, the failure
        of the last try.
        """
        verifier, digest = self._verifier, self._content.digest
        cuts = 0
        while not self._complete():
            stream = await self._open(verifier.size)
            self.senders.add(stream.endpoint)
            before = verifier.size
            try:
                self._agree(stream)
                await self._pump(stream)
                if self._content.size is None:
                    break
                if not self._complete():
                    raise UpstreamCutShort(f"{stream.endpoint} sent only a part of {digest}", received=verifier.size)
            except UpstreamInvalid:
                raise
            except UpstreamError as failure:
                progress = verifier.size > before
                cuts = cuts + 1 if isinstance(failure, UpstreamCutShort) and not progress else 0
                if cuts >= _ENDS_THERE:
                    raise UpstreamInvalid(
                        f"{stream.endpoint} ends {digest} after {verifier.size} bytes, time and again",
                        detail={"endpoint": stream.endpoint, "size": self._content.size, "received": verifier.size},
                    ) from failure
                await self._pause(failure, progress=progress)
            finally:
                await stream.aclose()
        if not verifier.matches():
            raise DigestMismatch(
                f"{self._origin.upstream} sent bytes for {digest} that do not have this digest",
                detail={"expected": str(digest), "actual": str(verifier.actual()), "size": verifier.size},
            )

    def _complete(self) -> bool:
        if self._content.size is None:
            return self._verifier.size > 0 and self._verifier.matches()
        return self._verifier.size >= self._content.size

    async def _open(self, offset: int) -> BlobStream:
        while True:
            deadline = self._patience.ends_at
            try:
                return await self._source.open_blob(
                    self._origin.repository, self._content.digest, offset=offset, deadline=deadline
                )
            except UpstreamInvalid:
                raise
            except UpstreamError:
                if self._patience.ends_at <= max(deadline, self._patience.now()):
                    raise

    def _agree(self, stream: BlobStream) -> None:
        """Hold the size that upstream announces against the one that is known."""
        content = self._content
        if stream.size is not None and content.size is None:
            content.size = stream.size
            content.moved()
        if stream.size is not None and stream.size != content.size:
            raise UpstreamInvalid(
                f"{stream.endpoint} announces {stream.size} bytes for {content.digest}, which has {content.size}",
                detail={"expected": content.size, "actual": stream.size},
            )

    async def _pause(self, failure: UpstreamError, *, progress: bool) -> None:
        """After a cut: go on at once where bytes had come, else after a while; raise when it has been too long."""
        if progress:
            self._patience.renew()
            self._backoff = Backoff(random.random)
            return
        pause = self._backoff.pause()
        if self._patience.now() + pause >= self._patience.ends_at:
            raise failure
        await asyncio.sleep(pause)

    async def _pump(self, stream: BlobStream) -> None:
        """Move bytes from upstream to the spool. Hashing and writing go on behind the reading, in a thread."""
        verifier = self._verifier
        skip = verifier.size - stream.offset
        limit = self._content.size if self._content.size is not None else _MAX_BLOB
        received = verifier.size
        writer = Writer(lambda chunks: self._take_in(chunks, verifier), _MAX_PENDING)
        try:
            async for chunk in stream:
                if skip:
                    chunk, skip = chunk[skip:], max(0, skip - len(chunk))
                received += len(chunk)
                if received > limit:
                    raise UpstreamInvalid(f"{stream.endpoint} sends more than {limit} bytes for {self._content.digest}")
                if chunk:
                    await writer.put(chunk)
                    await self._content.room()
        finally:
            await writer.finish()
