"""An upstream in memory: what each GET gets is scripted, and its bytes flow as far as a tap lets them."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from mirror.digest import Digest
from mirror.errors import BlobUnknown, MirrorError, UpstreamUnavailable

PIECE = 64 * 1024


class Tap:
    """Lets the bytes of a blob through up to a position; without one all of them. ``reached`` is how far they came."""

    def __init__(self, upto: int | None = None) -> None:
        self.upto = upto
        self.reached = 0
        self._moved = asyncio.Event()

    def open(self, upto: int | None = None) -> None:
        """Let more through: up to a position, or everything."""
        self.upto = upto
        event, self._moved = self._moved, asyncio.Event()
        event.set()

    async def limit(self, position: int) -> int | None:
        """Wait until the byte at ``position`` may come; how far it goes then."""
        while self.upto is not None and self.upto <= position:
            await self._moved.wait()
        return self.upto


@dataclass(slots=True)
class Sending:
    """What one GET gets. Positions are positions in the blob."""

    endpoint: str = "up.test"
    content: bytes | None = None
    """Sent in place of the right bytes."""
    announces: int | None = -1
    """The size that is told; -1: the true one."""
    cut_at: int | None = None
    """Where the connection breaks."""
    ignores_range: bool = False
    refuses: MirrorError | None = None
    """The answer in place of any bytes, once the tap is open."""
    piece: int = PIECE
    tap: Tap = field(default_factory=Tap)


@dataclass(frozen=True, slots=True)
class Asked:
    """One GET."""

    repository: str
    digest: Digest
    offset: int


class MemoryStream:
    """The body of one answer."""

    def __init__(self, content: bytes, sending: Sending, offset: int) -> None:
        self.content = sending.content if sending.content is not None else content
        self.offset = 0 if sending.ignores_range else offset
        self.size = len(self.content) if sending.announces == -1 else sending.announces
        self.endpoint = sending.endpoint
        self.closed = False
        self.sending = sending

    async def __aiter__(self) -> AsyncIterator[bytes]:
        sending, position = self.sending, self.offset
        while True:
            end = len(self.content) if sending.cut_at is None else min(sending.cut_at, len(self.content))
            if position >= end:
                break
            limit = await sending.tap.limit(position)
            stop = min(position + sending.piece, end, end if limit is None else limit)
            yield self.content[position:stop]
            position = sending.tap.reached = stop
            await asyncio.sleep(0)  # as a socket would let others run
        if sending.cut_at is not None:
            raise UpstreamUnavailable(f"{self.endpoint} broke off at {position}")

    async def aclose(self) -> None:
        """Note that it was closed."""
        self.closed = True


class MemorySource:
    """Holds blobs. ``script`` says what happens to the next GETs, one entry each; after that all goes well."""

    def __init__(self, *contents: bytes, hosts: tuple[str, ...] = ("up.test",)) -> None:
        self.contents = {Digest.of(content): content for content in contents}
        self.hosts = hosts
        self.script: deque[Sending] = deque()
        self.gets: list[Asked] = []
        self.cooled: list[str] = []
        self.streams: list[MemoryStream] = []
        self.lacking: set[str] = set()
        """Repositories that have none of the blobs."""
        self.away = False

    @property
    def offsets(self) -> list[int]:
        """From where on each GET asked."""
        return [asked.offset for asked in self.gets]

    def cool_down(self, endpoint: str) -> None:
        """Note who is blamed."""
        self.cooled.append(endpoint)

    async def open_blob(self, repository: str, digest: Digest, *, offset: int = 0, deadline: float) -> MemoryStream:
        """The next entry of the script; as the real one, it raises when the deadline has passed."""
        self.gets.append(Asked(repository, digest, offset))
        if repository in self.lacking:
            raise BlobUnknown(f"{repository} does not have {digest}")
        if self.away or asyncio.get_running_loop().time() >= deadline:
            raise UpstreamUnavailable("too late to ask, or nobody there")
        sending = self.script.popleft() if self.script else Sending()
        await asyncio.sleep(0)
        if sending.refuses is not None:
            await sending.tap.limit(0)
            raise sending.refuses
        stream = MemoryStream(self.contents[digest], sending, offset)
        self.streams.append(stream)
        return stream
