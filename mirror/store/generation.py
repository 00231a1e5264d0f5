"""One number that all workers on a disk see without a system call: it moves whenever a tag does.

A worker keeps tag records in memory while the number stands still, and reads them anew when it has moved, so no worker
goes on with a version that another has left behind.
"""

import fcntl
import logging
import mmap
import os
import struct
from pathlib import Path

log = logging.getLogger(__name__)

_NUMBER = struct.Struct("=Q")


class Generation:
    """A counter that is read through a map. Where its file fails, it counts for this process alone.

    It is written by a write, not through the map: a full disk then gives an error, and not a signal that kills.
    """

    def __init__(self, path: Path, told: str = "moved tags") -> None:
        """``told``: what it tells of, in the words of errors."""
        self._told = told
        self._fd = -1
        self._unshared = 0
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            if os.fstat(self._fd).st_size < _NUMBER.size:
                os.ftruncate(self._fd, _NUMBER.size)
            self._map = mmap.mmap(self._fd, _NUMBER.size, access=mmap.ACCESS_READ)
        except OSError as error:
            log.error("%s cannot be used (%s): other workers will notice %s late", path, error.strerror, told)
            self._release()
            self._map = mmap.mmap(-1, _NUMBER.size)

    def current(self) -> int:
        """The number now."""
        return int(_NUMBER.unpack_from(self._map)[0]) + self._unshared

    def advance(self) -> None:
        """Move it on, for all workers."""
        if self._fd >= 0:
            try:
                self._advance_file()
                return
            except OSError as error:
                why = error.strerror or error
                log.error("the disk fails (%s): other workers will notice %s late", why, self._told)
        self._unshared += 1

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()
        self._release()

    def _advance_file(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            (number,) = _NUMBER.unpack_from(self._map)
            os.pwrite(self._fd, _NUMBER.pack((number + 1) % 2**64), 0)
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
