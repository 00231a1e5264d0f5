"""Bytes of a fill that the disk does not take: kept in memory, for the clients that wait, while they need them."""

from bisect import bisect_right

WINDOW = 32 * 1024 * 1024
"""Bytes that are kept at most, unless a body has to be withheld whole."""


class Overflow:
    """A growing stretch of a blob, from ``start`` up to ``end``, whose beginning may be let go of.

    Memory goes in whole chunks, so at most one more than ``end - start`` is held.
    """

    def __init__(self, start: int) -> None:
        self.start = start
        self.end = start
        self._offsets: list[int] = []
        self._chunks: list[bytes] = []

    def append(self, data: bytes) -> None:
        """Add the next bytes."""
        self._offsets.append(self.end)
        self._chunks.append(data)
        self.end += len(data)

    def read(self, start: int, end: int) -> bytes:
        """Bytes from ``start``, which must be held, up to ``end`` or the end of their chunk."""
        index = bisect_right(self._offsets, start) - 1
        offset = self._offsets[index]
        return self._chunks[index][start - offset : end - offset]

    def forget(self, before: int) -> None:
        """Let go of what lies before ``before``."""
        if before > self.start:
            self.start = min(before, self.end)
            index = len(self._offsets) if before >= self.end else bisect_right(self._offsets, before) - 1
            del self._offsets[:index], self._chunks[:index]
