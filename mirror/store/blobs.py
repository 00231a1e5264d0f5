"""Verified blobs on this disk. What lies under ``blobs/`` is whole and has the digest that names it.

The disk says what is held: there is no list beside it, and opening a store reads nothing. A blob is sent as slices of a
shared map, so the page cache is the only cache, and a slow client costs no memory. Files are never truncated or
rewritten; deleting one leaves the maps of downloads under way intact. A file that has rotted is condemned: what reads
its map is cut, in this process at once, and nobody opens it any more.
"""

import contextlib
import mmap
import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from weakref import WeakSet

from mirror.digest import Digest
from mirror.errors import DigestInvalid, StoreError
from mirror.store.directory import DataDirectory, sync_folder, write_whole

_MAX_OPEN = 256


class File(NamedTuple):
    """Which file lay under a name: numbers of inodes are used again, but not within one moment of writing.

    ``written_at`` in seconds since the epoch.
    """

    inode: int
    written_at: float

    @classmethod
    def of(cls, found: os.stat_result) -> "File":
        """The file that was found."""
        return cls(found.st_ino, found.st_mtime)


class Blob:
    """An open blob; stays readable after its deletion. ``size`` in bytes, ``stored_at`` in seconds since the epoch.

    ``condemned``: it has turned out that the file has other bytes than the digest says.
    """

    __slots__ = ("__weakref__", "_view", "condemned", "digest", "inode", "size", "stored_at")

    def __init__(self, digest: Digest, found: os.stat_result, view: memoryview) -> None:
        self.condemned = False
        self.digest = digest
        self.size = found.st_size
        self.inode = found.st_ino
        self.stored_at = found.st_mtime
        self._view = view

    def read(self, start: int, end: int) -> memoryview:
        """The bytes from ``start`` up to ``end``, without a copy. Raises `StoreError` once the file is condemned."""
        if self.condemned:
            raise StoreError(f"{self.digest} has rotted on the mirror's disk; ask again", retry_after=1)
        return self._view[start:end]


class BlobStore:
    """Opens, commits and deletes blobs. Its calls touch names and inodes only, which is why a loop may make them."""

    def __init__(self, directory: DataDirectory) -> None:
        self._directory = directory
        self._open: OrderedDict[Digest, Blob] = OrderedDict()
        self._mapped: WeakSet[Blob] = WeakSet()
        self._condemned: dict[Digest, File] = {}

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
            blob = _map(path, digest)
            if self._condemned.get(digest) == (blob.inode, blob.stored_at):
                return None
            self._open[digest] = blob
            self._mapped.add(blob)
            self._open.move_to_end(digest)
            if len(self._open) > _MAX_OPEN:
                self._open.popitem(last=False)
            return blob
        return None

    def holds(self, digest: Digest) -> bool:
        """Whether the blob is held."""
        path = self._directory.blob(digest)
        if digest not in self._condemned:
            return path.exists()
        with contextlib.suppress(FileNotFoundError):
            return File.of(os.stat(path)) != self._condemned[digest]
        return False

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

    def condemn(self, digest: Digest, file: File) -> None:
        """The file has rotted: whoever reads it here is cut, and it is not opened any more, even if it stays."""
        self._condemned[digest] = file
        for blob in tuple(self._mapped):
            if blob.digest == digest and (blob.inode, blob.stored_at) == file:
                blob.condemned = True
                if self._open.get(digest) is blob:
                    del self._open[digest]

    def withdraw(self, digest: Digest, file: File) -> bool:
        """Take a file away that has rotted, unless another one lies there by now; whether it was there.

        It gets another name before it goes, so that right bytes that take its place in this instant do not go with it.
        Blocks on the disk: for a thread. Raises `OSError`.
        """
        path = self._directory.blob(digest)
        aside = self._directory.spool / f"{digest.algorithm}-{digest.hex}.{os.urandom(8).hex()}.rotten"
        try:
            if File.of(os.stat(path)) != file:
                return False
            path.rename(aside)
        except FileNotFoundError:
            return False
        same = File.of(os.stat(aside)) == file
        if not same:
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink()
        sync_folder(path.parent)
        return same

    def folders(self, after: Digest | None) -> Iterator[list[Digest]]:
        """All blobs in the order of their digests, a folder at a time; those behind ``after``, where that is said.

        Blocks on the disk with each folder: for a thread. Raises `OSError`.
        """
        for algorithm in sorted(os.listdir(self._directory.blobs)):
            for beginning in _listed(self._directory.blobs / algorithm):
                if after is not None and (algorithm, beginning) < (after.algorithm, after.hex[: len(beginning)]):
                    continue
                digests = []
                for name in _listed(self._directory.blobs / algorithm / beginning):
                    with contextlib.suppress(DigestInvalid):
                        digests.append(Digest.parse(f"{algorithm}:{name}"))
                yield [digest for digest in digests if after is None or digest > after]

    def let_go(self) -> None:
        """Unmap what has no name any more, so that the disk has its space back; downloads under way go on."""
        for digest, blob in tuple(self._open.items()):
            with contextlib.suppress(OSError):
                try:
                    found = os.stat(self._directory.blob(digest)).st_ino
                except FileNotFoundError:
                    found = -1
                if found != blob.inode:
                    self._open.pop(digest, None)

    def scan(self) -> Iterator[tuple[Digest, int]]:
        """Every blob that is held, and its size in bytes. Blocks on the disk: for a thread."""
        for file in self._directory.blobs.glob("*/??/*"):
            with contextlib.suppress(FileNotFoundError, DigestInvalid):
                yield Digest.parse(f"{file.parent.parent.name}:{file.name}"), file.stat().st_size


def _listed(folder: Path) -> list[str]:
    """The names in a folder, in their order; none where it is gone, or is none."""
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _map(path: Path, digest: Digest) -> Blob:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        content = mmap.mmap(fd, found.st_size, access=mmap.ACCESS_READ) if found.st_size else b""
        return Blob(digest, found, memoryview(content))
    finally:
        os.close(fd)
