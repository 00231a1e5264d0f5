"""One file under ``blobs/``, read from its beginning without pushing out of the page cache what is in use.

What was read goes from the cache at once. The kernel leaves there what somebody has mapped and looked at: the blobs
that workers serve (`mirror.store.blobs`).
"""

import os
import stat
from pathlib import Path

from mirror.store.blobs import File

PIECE = 256 * 1024
"""Bytes that are read at a time."""

_FOLIO = 2 * 1024 * 1024
"""The kernel caches up to so many bytes as one, and lets go of such a piece only when all of it is meant."""


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
        except OSError:
            self.close()
            raise
        self.file = File.of(found)
        self.size = found.st_size
        self._position = 0

    def next(self) -> bytes:
        """The next bytes; none at the end."""
        piece = os.pread(self._fd, PIECE, self._position)
        self._position += len(piece)
        before = max(0, self._position - len(piece) - _FOLIO)
        length = self._position - before if piece else 0  # at the end, of all that is behind, read ahead or not
        os.posix_fadvise(self._fd, before, length, os.POSIX_FADV_DONTNEED)
        return piece

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
