"""The module out of a layer's archive, as a blob of its own: unpacked once for all who wait, and remembered.

Like a fill, the work belongs to its own task: it ends whoever leaves, and a disk that fails costs the copy, not the
clients. Among the workers of a disk the one with the lease does it. While it reads the layer, the layer is verified
again: the module's own digest says nothing about whether it is the right one.
"""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar, TypeVarTuple

from mirror.digest import Digest, Verifier
from mirror.errors import ModuleUnknown, StoreError
from mirror.flight import Flights
from mirror.metadata.base import BlobRecord, Unpacked
from mirror.store.blobs import Blob, BlobStore
from mirror.store.directory import DataDirectory
from mirror.store.leases import Leases
from mirror.tags import Lru
from mirror.wasm.archive import LIMITS, ArchiveError, Entry, Limits, extract
from mirror.wasm.artifact import Found
from mirror.writer import to_the_end

log = logging.getLogger(__name__)

_PIECE = 1024 * 1024
_REMEMBERED = 10_000
_ANY = Digest.of(b"")
"""What a verifier expects where the digest is what it is to find out."""

_T = TypeVar("_T")
_Arguments = TypeVarTuple("_Arguments")


class Notes(Protocol):
    """What is noted about this disk: `mirror.metadata.sqlite`. Methods may raise `StoreError`."""

    async def put_blob(self, record: BlobRecord) -> None:
        """Note a blob that is committed."""
        ...

    async def unpacked(self, layer: Digest, entry: int) -> Unpacked | None:
        """What the module in an entry of an archive was kept as."""
        ...

    async def put_unpacked(self, record: Unpacked) -> None:
        """Note what a module was kept as."""
        ...


class Unpacker:
    """Unpacks modules. Wired once in each worker; ``leases`` are those of the disk."""

    def __init__(
        self,
        directory: DataDirectory,
        store: BlobStore,
        notes: Notes,
        leases: Leases,
        max_module_size: int,
        limits: Limits = LIMITS,
    ) -> None:
        """``max_module_size`` bounds one module, ``limits`` the archive around it."""
        self._directory = directory
        self._store = store
        self._notes = notes
        self._leases = leases
        self._max_module_size = max_module_size
        self._limits = limits
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="unpack")
        self._flights: Flights[Blob | bytes] = Flights()
        self._known: Lru[tuple[Digest, int], Digest] = Lru(_REMEMBERED)
        self._disk_fails = False

    async def module(self, layer: Blob, found: Found) -> Blob | bytes:
        """The module in an entry of a verified layer: as a blob, or as its bytes where the disk fails.

        Raises `ModuleUnknown` where the archive does not have it, or it is too large; `StoreError` where the layer has
        rotted on the disk.
        """
        if found.name is None:
            return layer
        if found.size > self._max_module_size:
            raise ModuleUnknown(
                f"the module has {found.size:,} bytes, more than wasm.max_module_size ({self._max_module_size:,}); "
                "make the module smaller, or the setting larger"
            )
        key = layer.digest, found.entry
        blob = self._open(self._known.get(key), found.size)
        if blob is not None:
            return blob
        task, _ = self._flights.join(key, lambda: self._unpack(layer, found))
        return await asyncio.shield(task)

    async def aclose(self) -> None:
        """Stop; what was begun leaves nothing behind."""
        await self._flights.aclose()
        self._threads.shutdown()

    async def _unpack(self, layer: Blob, found: Found) -> Blob | bytes:
        async with self._leases.hold(f"unpack {layer.digest} {found.entry}"):
            blob = await self._remembered(layer, found)
            if blob is not None:
                return blob
            reading = _Reading(layer, found, self._limits)
            try:
                try:
                    return await self._keep(layer, found, reading)
                except OSError as error:
                    self._tell(error, layer.digest)
                    return await self._in_thread(reading.whole)
            except ArchiveError as error:
                raise ModuleUnknown(f"no module can be taken out of the layer {layer.digest}: {error}") from error
            except _Rotten as error:
                log.error("%s has rotted on the disk; it is dropped, to be fetched again", layer.digest)
                with contextlib.suppress(OSError):
                    self._store.delete(layer.digest)
                raise StoreError(f"{layer.digest} has rotted on the mirror's disk; ask again", retry_after=1) from error

    async def _remembered(self, layer: Blob, found: Found) -> Blob | None:
        """The module, where it was unpacked before and is still held."""
        try:
            record = await self._notes.unpacked(layer.digest, found.entry)
        except StoreError as error:
            log.warning("whether a module of %s was unpacked before cannot be read: %s", layer.digest, error)
            return None
        blob = self._open(None if record is None else record.digest, found.size)
        if blob is not None:
            self._known.put((layer.digest, found.entry), blob.digest)
        return blob

    def _open(self, digest: Digest | None, size: int) -> Blob | None:
        if digest is None:
            return None
        try:
            blob = self._store.open(digest)
        except OSError:
            return None
        return blob if blob is not None and blob.size == size else None

    async def _keep(self, layer: Blob, found: Found, reading: "_Reading") -> Blob:
        """Unpack into a draft, then make that a blob. Raises `OSError`, and as `_Reading.pieces`."""
        began = time.monotonic()
        draft = _Draft(self._directory, layer.digest)
        try:
            await self._in_thread(draft.write, reading.pieces())
            digest, size = draft.digest, draft.size
            try:
                await self._notes.put_blob(BlobRecord(digest, size, draft.blake3, time.time()))
            except StoreError as error:
                log.error("%s was unpacked, but could not be noted: %s", digest, error)
            if self._open(digest, size) is None:  # it may have come raw, or out of another archive
                await self._in_thread(draft.commit, self._store)
        finally:
            draft.drop()
        blob = self._open(digest, size)
        if blob is None:
            raise FileNotFoundError("the module was deleted as soon as it was kept")
        self._disk_fails = False
        self._known.put((layer.digest, found.entry), digest)
        try:
            await self._notes.put_unpacked(Unpacked(layer.digest, found.entry, digest, size))
        except StoreError as error:
            log.error("that %s was unpacked could not be noted: %s", digest, error)
        log.info("unpacked %s from %s: %d bytes in %.2f s", digest, layer.digest, size, time.monotonic() - began)
        return blob

    def _tell(self, error: OSError, layer: Digest) -> None:
        """Say that the disk fails: once, until it works again."""
        level = logging.DEBUG if self._disk_fails else logging.ERROR
        log.log(level, "the disk fails (%s); the module of %s is not kept", error.strerror or error, layer)
        self._disk_fails = True

    async def _in_thread(self, call: Callable[[*_Arguments], _T], *arguments: *_Arguments) -> _T:
        """Wait for the call in any case: a draft may not be closed while a thread writes to it."""
        loop = asyncio.get_running_loop()
        return await to_the_end(loop.run_in_executor(self._threads, call, *arguments))


class _Rotten(Exception):
    """A layer that was verified when it was stored has other bytes now."""


class _Reading:
    """Reads a module out of a layer, which is verified on the way; as often as it is asked to. Blocks."""

    def __init__(self, layer: Blob, found: Found, limits: Limits) -> None:
        assert found.name is not None, "a raw layer is its module"
        self._layer = layer
        self._entry = Entry(found.entry, found.name, found.size, found.magic)
        self._limits = limits

    def pieces(self) -> Iterator[bytes]:
        """The bytes, a megabyte at most at a time; only with the end of them they are the right ones.

        Raises `ArchiveError`, `_Rotten`.
        """
        verifier = Verifier(self._layer.digest)
        chunks = self._chunks(verifier)
        failure = None
        try:
            yield from extract(chunks, self._entry, self._limits)
        except ArchiveError as error:
            failure = error
        for _ in chunks:
            pass
        if not verifier.matches():
            raise _Rotten
        if failure is not None:
            raise failure

    def whole(self) -> bytes:
        """All of them, as `pieces`."""
        return b"".join(self.pieces())

    def _chunks(self, verifier: Verifier) -> Iterator[memoryview]:
        for start in range(0, self._layer.size, _PIECE):
            chunk = self._layer.read(start, start + _PIECE)
            verifier.update(chunk)
            yield chunk


class _Draft:
    """A file in the spool folder that becomes a blob; after a crash the next start drops it."""

    def __init__(self, directory: DataDirectory, layer: Digest) -> None:
        name = f"{layer.algorithm}-{layer.hex}.{os.urandom(8).hex()}.unpacked"
        self._path: Path = directory.spool / name
        self._fd = -1
        self._hashes = Verifier(_ANY)

    @property
    def digest(self) -> Digest:
        """Of what was written."""
        return self._hashes.actual()

    @property
    def size(self) -> int:
        """Of what was written, in bytes."""
        return self._hashes.size

    @property
    def blake3(self) -> str:
        """Of what was written, in hex."""
        return self._hashes.blake3()

    def write(self, pieces: Iterator[bytes]) -> None:
        """Write and hash. Blocks on the disk. Raises `OSError`, and what ``pieces`` raises."""
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        for piece in pieces:
            view = memoryview(piece)
            while view:
                view = view[os.write(self._fd, view) :]
            self._hashes.update(piece)

    def commit(self, store: BlobStore) -> None:
        """Make it a blob. Blocks on the disk. Raises `OSError`."""
        store.commit(self.digest, self._fd, self._path)

    def drop(self) -> None:
        """Let go of the file, and take it away where it did not become a blob."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        with contextlib.suppress(OSError):
            self._path.unlink()
