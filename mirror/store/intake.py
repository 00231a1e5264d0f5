"""The bytes of an upload, while one request works on them: a file that grows until it becomes a blob.

The file says all: its length is how far the upload is, an flock on it is the request that writes, its name gone is an
upload that is over. Bytes that were once taken in never change.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

from mirror.digest import Digest, Verifier
from mirror.store.blobs import BlobStore

_PIECE = 1024 * 1024
_GO = 32 * _PIECE


class Intake:
    """An upload's file, open and locked. ``size`` in bytes, of what was written whole.

    Methods may raise `OSError`, `FileNotFoundError` for an upload that is over. All but `close` block on the disk: they
    are for a thread, one at a time, and the file must not be closed under them.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd
        self.size = os.fstat(fd).st_size

    @classmethod
    def open(cls, path: Path) -> "Intake | None":
        """The file at ``path``; None while another request, here or in another worker, works on it."""
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            intake = cls(path, fd)
            intake._still_there()
        except BlockingIOError:
            os.close(fd)
            return None
        except OSError:
            os.close(fd)
            raise
        return intake

    def take(self, chunks: Sequence[bytes], hashes: Verifier) -> None:
        """Write the next bytes, and hash them where ``hashes`` has seen all before them."""
        self._still_there()
        offset = self.size
        for chunk in chunks:
            view = memoryview(chunk)
            while view:
                written = os.pwrite(self._fd, view, offset)
                view = view[written:]
                offset += written
        if hashes.size == self.size:
            for chunk in chunks:
                hashes.update(chunk)
        self.size = offset

    def hash_on(self, hashes: Verifier) -> bool:
        """Hash what ``hashes`` has not seen, 32 MiB of it at most; whether it has seen all then."""
        stop = min(self.size, hashes.size + _GO)
        while hashes.size < stop:
            piece = os.pread(self._fd, min(_PIECE, stop - hashes.size), hashes.size)
            if not piece:
                raise OSError(errno.EIO, "the upload has lost bytes that were written to it")
            hashes.update(piece)
        return hashes.size == self.size

    def sync(self) -> None:
        """Make what was taken in survive a power cut."""
        os.fdatasync(self._fd)

    def cut(self, size: int) -> None:
        """Go back to the first ``size`` bytes."""
        os.ftruncate(self._fd, size)
        self.size = size

    def touch(self, now: float) -> None:
        """Note that the upload was used."""
        os.utime(self._fd, (now, now))

    def commit(self, digest: Digest, store: BlobStore) -> None:
        """Make it the blob ``digest``, as which it was verified."""
        os.ftruncate(self._fd, self.size)
        store.commit(digest, self._fd, self._path)

    def drop(self) -> None:
        """Take its name away, so that nobody goes on with it."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()

    def close(self) -> None:
        """Let go of the file, and of the lock."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _still_there(self) -> None:
        os.stat(self._path)
