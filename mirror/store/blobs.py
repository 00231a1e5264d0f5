"""Verified blobs on this disk. What lies under ``blobs/`` is whole and has the digest that names it.

The disk says what is held: there is no list beside it, and opening a store reads nothing. A blob is sent as slices of a
shared map, so the page cache is the only cache, and a slow client costs no memory. Files are never truncated or
rewritten; deleting one leaves the maps of downloads under way intact.
"""

import contextlib
import mmap
import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from mirror.digest import Digest
from mirror.errors import DigestInvalid
from mirror.store.directory import DataDirectory, sync_folder, write_whole

_MAX_OPEN = 256


class Blob:
    """An open blob; stays readable after its deletion. ``size`` in bytes, ``stored_at`` in seconds since the epoch."""

    __slots__ = ("_view", "digest", "inode", "size", "stored_at")

    def __init__(self, digest: Digest, found: os.stat_result, view: memoryview) -> None:
        self.digest = digest
        self.size = found.st_size
        self.inode = found.st_ino
        self.stored_at = found.st_mtime
        self._view = view

    def read(self, start: int, end: int) -> memoryview:
        """The bytes from ``start`` up to ``end``, without a copy."""
        return self._view[start:end]


class BlobStore:
    """Opens, commits and deletes blobs. Its calls touch names and inodes only, which is why a loop may make them."""

    def __init__(self, directory: DataDirectory) -> None:
        self._directory = directory
        self._open: OrderedDict[Digest, Blob] = OrderedDict()

    def open(self, digest: Digest) -> Blob | None:
        """The blob, or None when it is not held. Raises `OSError` when the disk fails."""
        path = self._directory.blob(digest)
        blob = self._open.get(digest)
        try:
            found = os.stat(path)
        except FileNotFoundError:
            self._open.pop(digest, None)
            return None
        if blob is not None and blob.inode == found.st_ino and blob.size == found.st_size:
            self._open.move_to_end(digest)
            return blob
        with contextlib.suppress(FileNotFoundError):
            blob = self._open[digest] = _map(path, digest)
            self._open.move_to_end(digest)
            if len(self._open) > _MAX_OPEN:
                self._open.popitem(last=False)
            return blob
        return None

    def holds(self, digest: Digest) -> bool:
        """Whether the blob is held."""
        return self._directory.blob(digest).exists()

    def holds_any(self) -> bool:
        """Whether any blob is held. Blocks on the disk: for a thread."""
        return next(self.scan(), None) is not None

    def commit(self, digest: Digest, fd: int, path: Path) -> None:
        """Make the verified file at ``path``, open as ``fd``, visible as ``digest``; durable when this returns.

        Blocks on the disk: for a thread. Raises `OSError`.
        """
        target = self._directory.blob(digest)
        os.fsync(fd)
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            sync_folder(target.parent.parent)
            sync_folder(target.parent.parent.parent)
        path.replace(target)
        sync_folder(target.parent)

    def put(self, digest: Digest, content: bytes) -> None:
        """Keep small verified content (a manifest). Blocks on the disk: for a thread. Raises `OSError`."""
        draft = self._directory.spool / f"{digest.algorithm}-{digest.hex}.{os.urandom(8).hex()}.whole"
        fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            write_whole(fd, content)
            self.commit(digest, fd, draft)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise
        finally:
            os.close(fd)

    def delete(self, digest: Digest) -> None:
        """Take a blob away; downloads under way go on."""
        self._open.pop(digest, None)
        self._directory.blob(digest).unlink(missing_ok=True)

    def scan(self) -> Iterator[tuple[Digest, int]]:
        """Every blob that is held, and its size in bytes. Blocks on the disk: for a thread."""
        for file in self._directory.blobs.glob("*/??/*"):
            with contextlib.suppress(FileNotFoundError, DigestInvalid):
                yield Digest.parse(f"{file.parent.parent.name}:{file.name}"), file.stat().st_size


def _map(path: Path, digest: Digest) -> Blob:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        content = mmap.mmap(fd, found.st_size, access=mmap.ACCESS_READ) if found.st_size else b""
        return Blob(digest, found, memoryview(content))
    finally:
        os.close(fd)
