"""How much this disk holds, known without a look at each file every time.

The time of a folder under ``blobs/`` moves whenever a name comes or goes in it, and blob files never change. So only
the folders that have moved are counted again: two looks at a hundred thousand blobs, with nothing in between, cost as
many calls as there are folders, 256. It holds for all workers, and for files that anybody else takes away.
"""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mirror.store.directory import DataDirectory

_UNSETTLED = 3.0
"""Seconds for which the time of a folder may stand still while names come: file systems count in ticks, old ones in
two seconds. A folder that moved so lately is counted again.
"""

_ANEW_EVERY = 3600.0
"""Seconds after which all is counted anew, for file systems on which times are no proof."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What is on the disk. ``size``: bytes of the blobs; ``in_flight``: of fills and uploads; ``free``: on its file
    system, for this mirror.
    """

    blobs: int
    size: int
    in_flight: int
    free: int

    @property
    def used(self) -> int:
        """Bytes that the mirror takes."""
        return self.size + self.in_flight

    def limit(self, max_size: int) -> int:
        """Bytes that it may take: the file system's free ones are not all its own."""
        return min(max_size, self.used + self.free)


class File(NamedTuple):
    """A blob's file: its bytes, and when it got its name, in seconds since the epoch."""

    size: int
    named_at: float


def free_bytes(path: Path) -> int:
    """Bytes that may still be written there. Raises `OSError`."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


class Census:
    """Counts. Its methods block on the disk, and may raise `OSError`: for threads, of which any may call."""

    def __init__(
        self,
        directory: DataDirectory,
        free: Callable[[Path], int] = free_bytes,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``free`` gives the bytes that are free on a path's file system, ``now`` seconds since the epoch."""
        self._directory = directory
        self._free = free
        self._now = now
        self._counted: dict[str, tuple[int, int, int]] = {}
        self._anew_at = 0.0
        self._one_at_a_time = threading.Lock()

    def take(self) -> Usage:
        """What is there now."""
        with self._one_at_a_time:
            now = self._now()
            if now >= self._anew_at:
                self._counted, self._anew_at = {}, now + _ANEW_EVERY
            before, self._counted = self._counted, {}
            blobs = size = 0
            for folder in self._folders():
                moved_at = os.stat(folder).st_mtime_ns
                known = before.get(folder)
                if known is None or known[0] != moved_at:
                    known = (moved_at, *_count(folder))
                if now - moved_at / 1e9 > _UNSETTLED:
                    self._counted[folder] = known
                blobs, size = blobs + known[1], size + known[2]
        in_flight = _bytes_in(self._directory.spool) + _bytes_in(self._directory.uploads)
        return Usage(blobs, size, in_flight, self._free(self._directory.blobs))

    def files(self) -> Iterator[dict[str, File]]:
        """All blobs by their digests' text, a folder at a time; what else lies there is told too."""
        for folder in self._folders():
            algorithm = Path(folder).parent.name
            yield {f"{algorithm}:{name}": File(about.st_size, about.st_ctime) for name, about in _entries(folder)}

    def _folders(self) -> Iterator[str]:
        with os.scandir(self._directory.blobs) as algorithms:
            for algorithm in algorithms:
                with os.scandir(algorithm.path) as folders:
                    yield from (folder.path for folder in folders)


def _entries(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    """The names in a folder; what goes meanwhile is not there."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    yield entry.name, entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return


def _count(folder: str) -> tuple[int, int]:
    files = size = 0
    for _, about in _entries(folder):
        files, size = files + 1, size + about.st_size
    return files, size


def _bytes_in(folder: Path) -> int:
    return _count(str(folder))[1]
