"""What the mirror needs a file system to do, tried on files of the doctor's own. Blocking: for threads."""

import errno
import fcntl
import mmap
import os
import secrets
import shutil
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PREFIX = ".doctor-"
_LEFT_BEHIND_AFTER = 600.0  # seconds: longer than any doctor takes
_PAGE = 4096
_SYNCS = 7


@dataclass(frozen=True)
class System:
    """The calls that a file system may get wrong. Tests put others in their place."""

    mkdir: Callable[[Path], None] = os.mkdir
    statvfs: Callable[[Path], os.statvfs_result] = os.statvfs
    fsync: Callable[[int], None] = os.fsync
    replace: Callable[[Path, Path], None] = os.replace
    flock: Callable[[int, int], None] = fcntl.flock
    map: Callable[[int, int], Any] = mmap.mmap
    clock: Callable[[], float] = time.perf_counter
    mounts: Path = Path("/proc/self/mountinfo")
    locks: Path = Path("/proc/locks")


class ProbeFolder:
    """A folder under ``data_dir`` for the doctor's own files. `make` makes it, `remove` leaves nothing of it.

    A ``data_dir`` that is not there yet is made, as the mirror would make it, and removed again when it is empty.
    """

    def __init__(self, data_dir: Path, system: System) -> None:
        self._data_dir = data_dir
        self._system = system
        self._made: list[Path] = []
        self._removed = False
        self._busy = threading.Lock()
        self.path = data_dir / f"{_PREFIX}{secrets.token_hex(8)}"

    def make(self) -> None:
        """Make it, unless it was to be removed already; raises `OSError`."""
        with self._busy:
            if self._removed:
                return
            missing = [self._data_dir, *self._data_dir.parents]
            for folder in reversed([one for one in missing if not one.exists()]):
                with suppress(FileExistsError):  # by a mirror, this very moment
                    self._system.mkdir(folder)
                    self._made.append(folder)
            self._sweep()
            self._system.mkdir(self.path)

    def remove(self) -> None:
        """Remove it with all that is in it, and what was made for it; waits for `make` in another thread."""
        with self._busy:
            self._removed = True
            leaving = self.path.with_name(f"{self.path.name}.gone")
            with suppress(OSError):
                self.path.rename(leaving)  # so that a probe that is still at work makes no more files in it
                shutil.rmtree(leaving, ignore_errors=True)
            for folder in reversed(self._made):
                with suppress(OSError):  # it has been put to use
                    folder.rmdir()

    def _sweep(self) -> None:
        """Remove what a doctor left behind that was killed."""
        for folder in self._data_dir.glob(f"{_PREFIX}*"):
            with suppress(OSError):
                if time.time() - folder.stat().st_mtime > _LEFT_BEHIND_AFTER:
                    shutil.rmtree(folder, ignore_errors=True)


def sync_seconds(folder: Path, system: System) -> float:
    """The median time of writing a page and making it durable."""
    taken = []
    with _opened(folder / "sync") as file:
        for number in range(_SYNCS):
            os.pwrite(file.fd, bytes([number]) * _PAGE, number * _PAGE)
            began = system.clock()
            system.fsync(file.fd)
            taken.append(system.clock() - began)
    return statistics.median(taken)


def renames(folder: Path, system: System) -> str | None:
    """Whether a rename takes the place of a file, and readers of the old one keep it; else what went wrong."""
    old, new = folder / "old", folder / "new"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    with _opened(old) as reader:
        try:
            system.replace(new, old)
        except OSError as error:
            return f"a rename over a file is refused: {error.strerror or error}"
        if old.read_bytes() != b"new" or new.exists():
            return "a rename over a file leaves the old one"
        try:
            kept = os.pread(reader.fd, 3, 0)
        except OSError as error:
            return f"a file that was renamed over can no longer be read: {error.strerror or error}"
        return None if kept == b"old" else "who reads a file that is renamed over gets other bytes"


def locks(folder: Path, system: System) -> str | None:
    """Whether an flock keeps others out, and ends with its file; else what went wrong."""
    with _opened(folder / "lock") as second:
        with _opened(folder / "lock") as first:
            try:
                system.flock(first.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                return f"flock is refused: {error.strerror or error}"
            if _takes(second.fd, system):
                return "flock lets two in at once"
        return None if _takes(second.fd, system) else "flock is kept by a file that was closed"


def _takes(fd: int, system: System) -> bool:
    try:
        system.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def maps(folder: Path, system: System) -> str | None:
    """Whether a map shows what is written to its file, and the other way round; else what went wrong."""
    with _opened(folder / "map") as file, _opened(folder / "map") as other:
        os.ftruncate(file.fd, 2 * _PAGE)
        try:
            mapped = system.map(file.fd, 2 * _PAGE)
        except OSError as error:
            return f"a file cannot be mapped: {error.strerror or error}"
        try:
            os.pwrite(other.fd, b"written", _PAGE)
            if bytes(mapped[_PAGE : _PAGE + 7]) != b"written":
                return "a map does not show what was written to its file"
            mapped[:6] = b"mapped"
            if os.pread(other.fd, 6, 0) != b"mapped":
                return "a file does not show what was written to its map"
        finally:
            mapped.close()
    return None


def file_system(path: Path, system: System) -> str:
    """Its type, such as ``ext4``; empty where the machine does not tell. Source: proc_pid_mountinfo(5)."""
    try:
        lines = system.mounts.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    path, found, length = path.resolve(), "", -1
    for line in lines:
        mount, _, rest = line.partition(" - ")
        fields = mount.split(" ")
        if len(fields) < 5 or not rest:
            continue
        point = Path(fields[4].replace(r"\040", " "))
        if path.is_relative_to(point) and len(point.parts) >= length:  # the last one lies on top
            found, length = rest.split(" ")[0], len(point.parts)
    return found


def holder_of(lock: Path, system: System) -> int | None:
    """The process that holds an flock on a file, as far as the kernel tells; the lock is not touched.

    Source: proc_locks(5).
    """
    try:
        about = lock.stat()
        lines = system.locks.read_text().splitlines()
    except OSError:
        return None
    wanted = f"{os.major(about.st_dev):02x}:{os.minor(about.st_dev):02x}:{about.st_ino}"
    for line in lines:
        fields = line.split()
        if len(fields) >= 6 and fields[1] == "FLOCK" and fields[5] == wanted:
            return int(fields[4])
    return None


def out_of_space(error: OSError) -> bool:
    """Whether nothing more fits."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


class _opened:
    """A file that is made when absent, for reading and writing, closed at the end."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> "_opened":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)
