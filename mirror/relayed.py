"""An upload that goes on to an upstream while it comes, and is kept here on the way.

Each piece goes up as soon as it is there; upstream's pace is the client's. What upstream has counts: it is asked how
far an upload is whenever that is in doubt. The copy on this disk is a convenience: it is given up when it falls short,
and what was pushed is then fetched like all that is not held. An upload that upstream has failed or refused is over.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Protocol

from mirror.digest import Digest
from mirror.errors import (
    ChunkInvalid,
    MirrorError,
    SizeInvalid,
    StoreError,
    UploadInvalid,
    UploadUnknown,
    UpstreamRefused,
)
from mirror.names import Place
from mirror.publish import Chunk
from mirror.relay import Relay, Standing
from mirror.store.leases import Leases
from mirror.store.session import Session
from mirror.upstream.pushing import Pushing

log = logging.getLogger(__name__)

_PATIENCE = 2.0
"""Seconds for which a request waits for another one of its upload, whose client may just have been cut off."""


class Keeper(Protocol):
    """Who knows the sessions, and what to do with a blob that upstream has: `mirror.through`."""

    async def session(self, place: Place, principal: str, upload: str) -> Session: ...

    async def keep(self, place: Place, digest: Digest, size: int, session: Session | None) -> None:
        """Upstream has the blob; ``session`` holds all of it, if there is one."""
        ...


class Relayed:
    """One upload, for one request: an `mirror.publish.Upload`."""

    def __init__(
        self,
        keeper: Keeper,
        origin: Pushing,
        leases: Leases,
        place: Place,
        principal: str,
        session: Session,
        standing: Standing,
        limit: int,
    ) -> None:
        """``limit`` in bytes; ``leases`` are those of this disk."""
        self._keeper = keeper
        self._origin = origin
        self._leases = leases
        self._place = place
        self._principal = principal
        self._session = session
        self._at = standing
        self._limit = limit

    @property
    def id(self) -> str:
        """Its id here; upstream's is nobody's business."""
        return self._session.id

    @property
    def size(self) -> int:
        """Bytes that upstream has."""
        return self._at.size

    @property
    def min_chunk(self) -> int:
        """What upstream wants of chunks."""
        return self._at.min_chunk

    async def append(self, chunk: Chunk) -> int:
        """Take in a chunk; the size after it."""
        async with self._alone():
            await self._send(chunk)
            await self._note()
        return self.size

    async def finish(self, digest: Digest, last: Chunk | None) -> None:
        """The blob is whole, after ``last``: upstream takes it in under its digest, or the upload is over."""
        async with self._alone():
            if last is not None:
                await self._send(last, last=True)
            async with self._or_over():
                kept = self._at.kept and await self._is_whole(digest)
                await self._origin.finish(self._place.repository, self._at.location, digest)
            await self._keeper.keep(self._place, digest, self.size, self._session if kept else None)
            await self._forget()

    async def cancel(self) -> None:
        """Forget it, there and here."""
        await self._cancel_there()
        await self._session.cancel()

    async def look(self) -> None:
        """Ask upstream how far it is, where that is in doubt. Raises `UploadUnknown` when upstream does not know."""
        if not self._at.sure:
            async with self._alone():
                pass

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """While no other request of this upload is at work, in any worker; it stands as it does then, for sure."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await stack.enter_async_context(self._leases.hold(f"upload {self.id}"))
            except TimeoutError as error:
                raise UploadInvalid(
                    "another request sends bytes of this upload; ask for its status when that has ended", retry_after=1
                ) from error
            self._session = await self._keeper.session(self._place, self._principal, self.id)
            self._at = Standing.of(self._session) or self._at
            if not self._at.sure:
                await self._ask_where()
            yield

    async def _ask_where(self) -> None:
        try:
            told = await self._origin.status(self._place.repository, self._at.location)
        except UpstreamRefused as error:
            await self._forget()
            raise UploadUnknown(f"the upload is over, begin a new one: {error}") from error
        if told.size is None:
            await self._forget()
            raise UploadUnknown(f"{self._origin.host} does not say how far the upload is; begin a new one")
        size = told.size or min(self._session.size, 1)  # 0-0 may be said of one byte, and of none
        kept = self._at.kept and self._session.size == size
        self._at = replace(self._at, location=told.location, size=size, kept=kept, sure=True)
        await self._note()

    async def _send(self, chunk: Chunk, *, last: bool = False) -> None:
        """Send a chunk on, and keep it. Of a body that its client cuts short, what came before stands."""
        if chunk.start is not None and chunk.start != self.size:
            raise ChunkInvalid(
                f"the upload has {self.size} bytes, so the next chunk begins there, not at {chunk.start}",
                size=self.size,
            )
        relay = Relay(self._origin, self._place.repository, self._at, self._session, self._limit)
        try:
            async with self._or_over():
                await relay.run(chunk, last)
        except SizeInvalid:
            await self._cancel_there()
            raise
        finally:
            self._at = relay.standing
        if relay.cut is not None:
            await self._note()
            raise relay.cut

    async def _is_whole(self, digest: Digest) -> bool:
        """Whether the copy here is the blob; raises `DigestInvalid` when the client has sent another one."""
        try:
            await self._session.verify(digest)
        except StoreError as error:
            log.warning("what is pushed as %s is not kept here: %s", digest, error)
            return False
        except MirrorError:
            await self._cancel_there()
            raise
        return True

    @contextlib.asynccontextmanager
    async def _or_over(self) -> AsyncIterator[None]:
        """What upstream fails or refuses in the middle is over: clients begin again."""
        try:
            yield
        except MirrorError:
            await self._forget()
            raise

    async def _cancel_there(self) -> None:
        try:
            await self._origin.cancel(self._place.repository, self._at.location)
        except MirrorError as error:
            log.info("an upload could not be cancelled: %s", error)

    async def _note(self) -> None:
        await self._session.note(**self._at.notes())

    async def _forget(self) -> None:
        with contextlib.suppress(MirrorError):
            await self._session.cancel()
