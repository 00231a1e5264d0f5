"""An answer: data about what was found and how, and a way to read it. Only ``edge/`` turns it into HTTP."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import ClassVar, Protocol

from mirror.digest import Digest
from mirror.errors import MirrorError
from mirror.store.blobs import Blob
from mirror.store.growing import WITHHELD, Growing

_SLICE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Hit:
    """Served from here, without a word to upstream. ``ttl`` is for how many seconds that stays so, if it ends."""

    lookup: ClassVar[str] = "hit"
    ttl: float | None = None


@dataclass(frozen=True, slots=True)
class Revalidated:
    """Served from here, after upstream confirmed it."""

    lookup: ClassVar[str] = "hit"
    ttl: float | None = None


@dataclass(frozen=True, slots=True)
class Stale:
    """Served from here, because asking upstream failed."""

    lookup: ClassVar[str] = "stale"
    failure: MirrorError


@dataclass(frozen=True, slots=True)
class Filled:
    """Fetched from upstream for this request."""

    lookup: ClassVar[str] = "miss"
    ttl: float | None = None


@dataclass(frozen=True, slots=True)
class Collapsed:
    """Fetched from upstream for another request, and shared with this one."""

    lookup: ClassVar[str] = "collapsed"
    ttl: float | None = None


@dataclass(frozen=True, slots=True)
class Passed:
    """Asked of upstream, as every time: an answer that is not cached while upstream answers."""

    lookup: ClassVar[str] = "miss"


Outcome = Passed | Hit | Revalidated | Stale | Filled | Collapsed
"""How an answer came about. ``Cache-Status`` (`mirror.edge.headers`) and the metric ``lookups_total`` are derived from
it; ``lookup`` is the latter's label.
"""


class Body(Protocol):
    """Content that can be read from anywhere. ``size`` is in bytes, None while nobody knows it."""

    @property
    def size(self) -> int | None: ...

    async def ready(self, start: int, end: int | None) -> None:
        """Wait until the status line of an answer with these bytes may be sent; raise what stands against it."""
        ...

    def read(self, start: int, end: int | None) -> AsyncGenerator[bytes | memoryview]:
        """The bytes from ``start`` up to ``end``."""
        ...


@dataclass(frozen=True, slots=True)
class Whole:
    """Content in memory."""

    content: bytes

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.content)

    async def ready(self, start: int, end: int | None) -> None:
        """It always is."""

    async def read(self, start: int, end: int | None) -> AsyncGenerator[bytes | memoryview]:
        """A slice."""
        yield self.content[start:end]


@dataclass(frozen=True, slots=True)
class Held:
    """A verified blob on this disk."""

    blob: Blob

    @property
    def size(self) -> int:
        """In bytes."""
        return self.blob.size

    async def ready(self, start: int, end: int | None) -> None:
        """It always is."""

    async def read(self, start: int, end: int | None) -> AsyncGenerator[bytes | memoryview]:
        """Slices of its map."""
        end = self.blob.size if end is None else end
        for position in range(start, end, _SLICE):
            yield self.blob.read(position, min(end, position + _SLICE))


@dataclass(frozen=True, slots=True)
class Announced:
    """A blob that upstream has, and that nobody reads now."""

    size: int | None

    async def ready(self, start: int, end: int | None) -> None:
        """It always is."""

    async def read(self, start: int, end: int | None) -> AsyncGenerator[bytes | memoryview]:
        """Nothing."""
        return
        yield b""


_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Flowing:
    """A blob that is being filled.

    ``whole_first``: nothing of it, not even the status line, is sent before it is verified, because its readers do not
    wait for the end (agents stop at ``plugin.wasm``). None: nobody has said what it is, so its first bytes decide; a
    gzip stream is taken for such an archive up to ``max_module_size`` bytes.

    A short body is withheld in the same way: none of it could be sent anyway, and an error with a status can be
    retried, while a cut cannot.
    """

    content: Growing
    whole_first: bool | None
    max_module_size: int

    @property
    def size(self) -> int | None:
        """In bytes, once it is known."""
        return self.content.size

    async def ready(self, start: int, end: int | None) -> None:
        """Wait for the first byte, or for all of them."""
        with self.content.holding_back():
            await self._begins(start, end)

    async def _begins(self, start: int, end: int | None) -> None:
        if self.whole_first is False:
            await self.content.reached(start)
        else:
            await self.content.reached(len(_GZIP) - 1)
        if self.content.size is None:
            await self.content.reached(start + WITHHELD)
        last = self.content.size if end is None else end
        short = last is not None and last - start <= WITHHELD
        if short or self.whole_first or (self.whole_first is None and self._may_be_an_archive()):
            await self.content.whole()
        else:
            await self.content.reached(start)

    def read(self, start: int, end: int | None) -> AsyncGenerator[bytes | memoryview]:
        """The bytes as they come; the last ones once all are verified."""
        return self.content.stream(start, end)

    def _may_be_an_archive(self) -> bool:
        size = self.content.size
        return (size is None or size <= self.max_module_size) and self.content.peek(len(_GZIP)) == _GZIP


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client gets. ``fetched_at`` (seconds since the epoch): when it came from upstream, or was last confirmed.

    ``hold_until`` (the loop's clock) is until when a client waits for the status line.
    """

    media_type: str
    digest: Digest
    body: Body
    outcome: Outcome
    fetched_at: float | None = None
    hold_until: float | None = None
