"""A blob while it is being filled: one writer, many readers, in any number of workers.

A spool is one file. Its writer holds an flock on it and only ever appends; its readers learn everything from the file:

=========================================  ==============================================================
the file grows                             more bytes can be read
it lies under ``blobs/``                   its bytes are verified
its name is gone, and it is no blob        its writer has given it up: these bytes will not become a blob here
nobody holds the lock                      the writer died, or gave up for now: who takes the lock goes on
=========================================  ==============================================================
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Mapping
from enum import Enum, auto
from pathlib import Path

from mirror.digest import Digest
from mirror.errors import DigestInvalid
from mirror.store.blobs import BlobStore
from mirror.store.directory import DataDirectory
from mirror.store.leases import try_lock

_ABANDONED_AFTER = 24 * 3600.0
"""Seconds after which bytes that nobody has asked for again are dropped at start."""


class Standing(Enum):
    """What has become of a spool, seen from a reader."""

    GROWING = auto()
    VERIFIED = auto()
    ORPHANED = auto()


class Spool:
    """The file of one digest. ``size`` is the number of bytes that can be read.

    Methods may raise `OSError`. `append`, `commit` and `acquire` block on the disk, so they are for a thread, and the
    file must not be closed under them; the others touch names, inodes and the page cache.
    """

    def __init__(self, directory: DataDirectory, digest: Digest, fd: int, *, writable: bool) -> None:
        self._fd = fd
        self.digest = digest
        self.writable = writable
        self._path = _path(directory, digest)
        self._blob = directory.blob(digest)
        found = os.fstat(fd)
        self._inode = found.st_ino
        self.size = found.st_size

    def __del__(self) -> None:
        self.close()

    @classmethod
    def acquire(cls, directory: DataDirectory, digest: Digest) -> "Spool | None":
        """The spool to write to, with the bytes that an earlier writer left; None while another writes."""
        fd = try_lock(_path(directory, digest))
        return None if fd is None else cls(directory, digest, fd, writable=True)

    @classmethod
    def follow(cls, directory: DataDirectory, digest: Digest) -> "Spool | None":
        """The spool to read while another worker writes; None when there is none."""
        try:
            fd = os.open(_path(directory, digest), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        return cls(directory, digest, fd, writable=False)

    def append(self, data: bytes | memoryview) -> None:
        """Write the next bytes; they can be read when this returns."""
        view = memoryview(data)
        offset = self.size
        while view:
            written = os.pwrite(self._fd, view, offset)
            view = view[written:]
            offset += written
        self.size = offset

    def read(self, start: int, end: int) -> bytes:
        """Bytes from ``start`` up to ``end``, which must not lie beyond ``size``; at least one.

        Most were written just now, so they are in the page cache.
        """
        data = os.pread(self._fd, end - start, start)
        if not data:
            raise OSError(errno.EIO, "the spool has lost bytes that were written to it")
        return data

    def standing(self) -> Standing:
        """What has become of it; brings ``size`` up to date."""
        if _inode(self._path) == self._inode:
            standing = Standing.GROWING
        elif _inode(self._blob) == self._inode:
            standing = Standing.VERIFIED
        else:
            standing = Standing.ORPHANED
        self.size = os.fstat(self._fd).st_size  # after the look: a size from before may be that of unfinished bytes
        return standing

    def take_over(self) -> bool:
        """Become the writer, if the one before is gone."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        self.writable = True
        if self.standing() is Standing.GROWING:
            return True
        self.leave()
        return False

    def commit(self, store: BlobStore) -> None:
        """Make the verified bytes a blob. Bytes beyond ``size``, left by a write that failed, are cut off first."""
        os.ftruncate(self._fd, self.size)
        store.commit(self.digest, self._fd, self._path)
        self.leave()

    def drop(self) -> None:
        """Take its name away: nobody finds these bytes any more; who reads them can go on doing so."""
        if self.writable and _inode(self._path) == self._inode:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()

    def leave(self) -> None:
        """Stop writing, if this is the writer; what is there stays for who goes on."""
        if self.writable:
            self.writable = False
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the file, and of the lock."""
        self.writable = False
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def sweep(directory: DataDirectory, now: float | None = None) -> int:
    """Drop what nobody goes on with: old spools and unfinished drafts. For the start, before any worker runs.

    Returns how many spools stay, to be resumed when somebody asks for their blobs.
    """
    now = time.time() if now is None else now
    kept = 0
    for file in directory.spool.iterdir():
        with contextlib.suppress(OSError):  # what cannot be dropped does no harm
            if "." in file.name or now - file.stat().st_mtime > _ABANDONED_AFTER:
                file.unlink()
            elif file.is_file():
                kept += 1
    for file in directory.leases.iterdir():
        with contextlib.suppress(OSError):
            file.unlink()
    return kept


def recently_written(directory: DataDirectory, within: float, now: float) -> Mapping[Digest, int]:
    """The spools that were written to in the last ``within`` seconds, and their sizes; whoever writes them.

    Raises `OSError`. For a thread.
    """
    found: dict[Digest, int] = {}
    with os.scandir(directory.spool) as entries:
        for entry in entries:
            with contextlib.suppress(DigestInvalid, FileNotFoundError):
                digest = Digest.parse(entry.name.replace("-", ":", 1))
                status = entry.stat()
                if now - status.st_mtime <= within:
                    found[digest] = status.st_size
    return found


def _path(directory: DataDirectory, digest: Digest) -> Path:
    return directory.spool / f"{digest.algorithm}-{digest.hex}"


def _inode(path: Path) -> int | None:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return None
