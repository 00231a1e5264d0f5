"""One file under ``blobs/``, read from its beginning without throwing anything out of the page cache.

What the cache has already stays there, for somebody uses it; what was read for this alone goes again.
"""

import os
import stat
from pathlib import Path

from mirror.store.blobs import File

PIECE = 256 * 1024
"""Bytes that are read at a time."""


class Reading:
    """An open file. All but `close` block on the disk: for a thread. Raises `OSError`; `IsADirectoryError` for what is
    no file.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(self._fd)
            if not stat.S_ISREG(found.st_mode):
                raise IsADirectoryError(f"{path} is no file")
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_RANDOM)  # else what is read ahead would seem to be in use
        except OSError:
            self.close()
            raise
        self.file = File.of(found)
        self.size = found.st_size
        self._position = 0

    def next(self) -> bytes:
        """The next bytes; none at the end."""
        buffer = bytearray(PIECE)
        start = self._position
        hot = self._cached(buffer)
        self._position += hot
        if hot < PIECE and self._position < self.size:
            cold = os.preadv(self._fd, [memoryview(buffer)[hot:]], self._position)
            self._position += cold
            last = self._position >= self.size
            os.posix_fadvise(self._fd, start + hot, 0 if last else cold, os.POSIX_FADV_DONTNEED)
        return bytes(memoryview(buffer)[: self._position - start])

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _cached(self, buffer: bytearray) -> int:
        """Read what needs no disk; how many bytes."""
        try:
            return os.preadv(self._fd, [buffer], self._position, os.RWF_NOWAIT)
        except OSError:  # nothing of it is in the cache, or the file system cannot say
            return 0
