"""Whether a blob's file has the bytes that its digest says.

BLAKE3 is compared with what was noted when the blob came, for it is cheap. Where nothing was noted, or something else,
the digest decides: nothing right is taken for damaged because of a note that is wrong.
"""

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol, TypeVar, TypeVarTuple

import blake3

from mirror.digest import Digest, Verifier
from mirror.errors import StoreError
from mirror.metadata.base import BlobRecord
from mirror.store.blobs import File
from mirror.store.directory import DataDirectory
from mirror.store.reading import Reading
from mirror.writer import to_the_end

log = logging.getLogger(__name__)

_OPENED = 32 * 1024
"""Bytes for which the opening of a file counts: a hundred thousand small ones are work too."""

_LOST_BYTES = frozenset({errno.EIO, errno.EBADMSG, errno.EUCLEAN})
"""Errors that say that a file's bytes are gone, or that the disk is."""

_NOBODY = File(0, 0.0)

_T = TypeVar("_T")
_Arguments = TypeVarTuple("_Arguments")


class Notes(Protocol):
    """What was noted of blobs on this disk: `mirror.metadata.sqlite`. May raise `StoreError`."""

    async def blob(self, digest: Digest) -> BlobRecord | None: ...

    async def put_blob(self, record: BlobRecord) -> None: ...


class Pace:
    """So many bytes a second, and no more after a pause. ``clock`` gives seconds that never go back."""

    def __init__(self, rate: int, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._free_at = clock()

    def after(self, size: int) -> float:
        """Seconds to wait after so many bytes were read."""
        now = self._clock()
        self._free_at = max(self._free_at, now) + size / self._rate
        return self._free_at - now


class Finding(Enum):
    """What became of reading a file: its bytes are right; wrong; not to be had from the disk; it is gone, or no file of
    which that could be said.
    """

    SOUND = "sound"
    DAMAGED = "damaged"
    UNREADABLE = "unreadable"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found of one ``file`` of ``size`` bytes, and ``why``, in words."""

    finding: Finding
    file: File = _NOBODY
    why: str = ""
    lost_bytes: bool = False
    size: int = 0


class Soundness:
    """Examines blobs, each in pieces, no faster than ``pace``. ``threads`` read and hash."""

    def __init__(
        self,
        directory: DataDirectory,
        notes: Notes,
        threads: Executor,
        pace: Pace,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        open_file: Callable[[Path], Reading] = Reading,
    ) -> None:
        self._directory = directory
        self._notes = notes
        self._threads = threads
        self._pace = pace
        self._sleep = sleep
        self._open_file = open_file

    async def of(self, digest: Digest) -> Examined:
        """Look at one blob."""
        file = _NOBODY
        try:
            reading = await self._in_thread(self._open_file, self._directory.blob(digest))
            file = reading.file
            try:
                await self._sleep(self._pace.after(_OPENED))
                note = await self._note(digest)
                if note is not None and note.size == reading.size and await self._blake3(reading) == note.blake3:
                    return Examined(Finding.SOUND, file, size=reading.size)
            finally:
                reading.close()
            return await self._by_digest(digest, note)
        except (FileNotFoundError, IsADirectoryError):
            return Examined(Finding.NONE)
        except OSError as error:
            why = error.strerror or str(error)
            return Examined(Finding.UNREADABLE, file, why, lost_bytes=error.errno in _LOST_BYTES)

    async def _by_digest(self, digest: Digest, note: BlobRecord | None) -> Examined:
        """Read it, for the second time if it differs from its note: what memory got wrong once is no damage."""
        reading = await self._in_thread(self._open_file, self._directory.blob(digest))
        try:
            verifier = Verifier(digest)
            while piece := await self._piece(reading, verifier.update):
                await self._sleep(self._pace.after(len(piece)))
        finally:
            reading.close()
        if not verifier.matches():
            why = "other bytes than its digest says"
            if note is not None and note.size != verifier.size:
                why = f"{verifier.size:,} bytes instead of {note.size:,}"
            return Examined(Finding.DAMAGED, reading.file, why, size=verifier.size)
        try:
            await self._notes.put_blob(BlobRecord(digest, verifier.size, verifier.blake3(), reading.file.written_at))
        except StoreError as error:
            log.debug("that %s is sound could not be noted: %s", digest, error)
        return Examined(Finding.SOUND, reading.file, size=verifier.size)

    async def _blake3(self, reading: Reading) -> str:
        hashed = blake3.blake3()
        while piece := await self._piece(reading, hashed.update):
            await self._sleep(self._pace.after(len(piece)))
        return hashed.hexdigest()

    async def _piece(self, reading: Reading, update: Callable[[bytes], object]) -> bytes:
        def read() -> bytes:
            piece = reading.next()
            update(piece)
            return piece

        return await self._in_thread(read)

    async def _note(self, digest: Digest) -> BlobRecord | None:
        try:
            return await self._notes.blob(digest)
        except StoreError as error:
            log.debug("what was noted of %s cannot be read: %s", digest, error)
            return None

    async def _in_thread(self, call: Callable[[*_Arguments], _T], *arguments: *_Arguments) -> _T:
        """Wait for the call in any case: a file may not be closed while a thread reads it."""
        return await to_the_end(asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments))
