"""A chunk of an upload on its way: to upstream, whose pace is the client's, and into the copy that is kept here."""

import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, replace

from mirror.errors import SizeInvalid, StoreError, UploadInvalid, UpstreamInvalid
from mirror.publish import BodyCut, Chunk
from mirror.store.session import Session
from mirror.upstream.pipe import Pipe
from mirror.upstream.pushing import Progress, Pushing

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Standing:
    """How an upload stands, as its notes have it. ``kept``: all of it lies here too. ``sure``: upstream has said so."""

    location: str
    size: int
    kept: bool
    sure: bool
    min_chunk: int

    @classmethod
    def of(cls, session: Session) -> "Standing | None":
        """As it was noted; None where the upload is not one of these."""
        notes = session.notes
        if "location" not in notes:
            return None
        size, kept = int(notes["size"]), notes["kept"] == "yes"
        sure = notes["sure"] == "yes" and (not kept or session.size == size)
        return cls(notes["location"], size, kept, sure, int(notes["min_chunk"]))

    def notes(self) -> dict[str, str]:
        """As it is noted."""
        return {
            "location": self.location,
            "size": str(self.size),
            "kept": "yes" if self.kept else "no",
            "sure": "yes" if self.sure else "no",
            "min_chunk": str(self.min_chunk),
        }


class Relay:
    """A chunk on its way, to upstream and into the session; ``standing`` is how the upload stands after it.

    ``cut`` is why the client's body ended early, where that is no reason to give up the upload.
    """

    def __init__(self, origin: Pushing, repository: str, standing: Standing, session: Session, limit: int) -> None:
        self.standing = standing
        self.cut: Exception | None = None
        self._origin = origin
        self._repository = repository
        self._session = session
        self._limit = limit
        self._sent = 0
        self._sending: Pipe[Progress] | None = None
        self._keeping: Pipe[int] | None = None

    async def run(self, chunk: Chunk, last: bool) -> None:
        """Send it. ``last``: the upload is finished at once after it."""
        try:
            async with contextlib.aclosing(self._pieces(chunk.content)) as pieces:
                async for piece in pieces:
                    if self._sending is None:
                        self._begin(chunk, last)
                    await self._take(piece)
            await self._end(chunk)
        finally:
            for pipe in (self._sending, self._keeping):
                if pipe is not None:
                    await pipe.abandon()

    async def _pieces(self, content: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        try:
            async for piece in content:
                if piece:
                    yield piece
        except (BodyCut, UploadInvalid) as cut:
            self.cut = cut

    def _begin(self, chunk: Chunk, last: bool) -> None:
        at = self.standing
        self._sending = Pipe(
            lambda content: self._origin.append(
                self._repository,
                at.location,
                content,
                start=None if chunk.implied else chunk.start,
                length=chunk.length,
            )
        )
        if at.kept:
            self._keeping = Pipe(lambda content: self._session.append(content, limit=self._limit, last=last))

    async def _take(self, piece: bytes) -> None:
        assert self._sending is not None
        if self.standing.size + self._sent + len(piece) > self._limit:
            raise SizeInvalid(f"the blob is larger than hosted.max_blob_size ({self._limit:,} bytes)")
        await self._sending.feed(piece)
        self._sent += len(piece)
        if self._keeping is not None:
            try:
                await self._keeping.feed(piece)
            except StoreError as error:
                self._not_kept(error)

    async def _end(self, chunk: Chunk) -> None:
        """All that there was is on its way: what upstream says of it, and what has become of the copy."""
        if self._sending is None:
            return
        size = self.standing.size + self._sent
        kept = self.standing.kept and await self._kept() == size
        if self.cut is not None and _is_framed(chunk):  # upstream waits for the rest, so it must be cut off too
            self.standing = replace(self.standing, kept=kept, sure=False)
            return
        told = await self._sending.close()
        if not self._sending.drained or not _agrees(told.size, size):
            raise UpstreamInvalid(
                f"{self._origin.host} says that it took in {told.size or 0} bytes of {size}; begin the upload again",
                detail={"endpoint": self._origin.host},
            )
        self.standing = replace(self.standing, location=told.location, size=size, kept=kept, sure=True)

    async def _kept(self) -> int | None:
        """How much of the upload lies here."""
        if self._keeping is None:
            return None
        try:
            return await self._keeping.close()
        except StoreError as error:
            self._not_kept(error)
            return None

    def _not_kept(self, error: StoreError) -> None:
        log.warning("what is pushed is not kept here: %s", error)
        self._keeping = None


def _is_framed(chunk: Chunk) -> bool:
    """Whether upstream was told how many bytes will come: see `Pushing.append`."""
    return chunk.start is not None and not chunk.implied and bool(chunk.length)


def _agrees(told: int | None, size: int) -> bool:
    return told is None or told == size or (told == 0 and size == 1)
