"""One number that all workers on a disk see without a system call: it moves whenever a tag does.

A worker keeps tag records in memory while the number stands still, and reads them anew when it has moved, so no worker
goes on with a version that another has left behind.
"""

import contextlib
import fcntl
import mmap
import os
import struct
from pathlib import Path

_NUMBER = struct.Struct("=Q")


class Generation:
    """A mapped counter. Without a usable file it counts for this process alone."""

    def __init__(self, path: Path) -> None:
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if os.fstat(self._fd).st_size < _NUMBER.size:
                os.ftruncate(self._fd, _NUMBER.size)
            self._map = mmap.mmap(self._fd, _NUMBER.size)
        except OSError:
            self._release()
            self._map = mmap.mmap(-1, _NUMBER.size)

    def current(self) -> int:
        """The number now."""
        return int(_NUMBER.unpack_from(self._map)[0])

    def advance(self) -> None:
        """Move it on, for all workers."""
        with contextlib.ExitStack() as stack:
            if self._fd >= 0:
                fcntl.flock(self._fd, fcntl.LOCK_EX)
                stack.callback(fcntl.flock, self._fd, fcntl.LOCK_UN)
            _NUMBER.pack_into(self._map, 0, (self.current() + 1) % 2**64)

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()
        self._release()

    def _release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
