"""Leases: work that only one of the workers on this disk does at a time.

A lease is an flock, so the kernel takes it back the moment its holder dies, however it dies.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

_POLL = 0.01
"""Seconds between two looks at a lease that another worker holds: flock has no wait that a loop could take part in."""


class Leases:
    """Hands out leases by name. Within one process the caller sees to it that a name is asked for once at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextlib.asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[None]:
        """Wait for the lease and hold it; the kernel needs no other proof of it.

        A disk that cannot keep leases costs a second request, never a pull.
        """
        path = self._path(name)
        try:
            fd = await _locked(path)
        except OSError:
            yield
            return
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                path.unlink()
            os.close(fd)

    @contextlib.contextmanager
    def attempt(self, name: str) -> Iterator[bool]:
        """Hold the lease, if nobody else does now; gives whether it is held. Raises `OSError`, but not at the end."""
        path = self._path(name)
        fd = try_lock(path)
        try:
            yield fd is not None
        finally:
            if fd is not None:
                with contextlib.suppress(OSError):  # or it would take the place of what has ended the work
                    path.unlink()
                os.close(fd)

    def _path(self, name: str) -> Path:
        return self._folder / hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


async def _locked(path: Path) -> int:
    while True:
        fd = try_lock(path)
        if fd is not None:
            return fd
        await asyncio.sleep(_POLL)


def try_lock(path: Path) -> int | None:
    """Open (or create) and lock a file; its descriptor, or None when another holds it.

    The file that was locked may have been unlinked or renamed by its last holder in between, so the path is looked at
    again: only a lock on the file that lies there now counts.
    """
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_ino == os.stat(path).st_ino:
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except FileNotFoundError:
            pass
        except OSError:
            os.close(fd)
            raise
        os.close(fd)
