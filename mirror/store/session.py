"""One upload, from its first byte until it is a blob: found again by its id, after a restart and from any worker.

What it says to be there is there after a power cut. Bytes are hashed while they come; what another worker, or this one
before it was started anew, took in is read again at the end.
"""

import asyncio
import contextlib
import errno
import json
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeVar, TypeVarTuple

from mirror.digest import Digest, Verifier
from mirror.errors import ChunkInvalid, DigestInvalid, DiskFull, SizeInvalid, StoreError, UploadInvalid, UploadUnknown
from mirror.store.blobs import BlobStore
from mirror.store.directory import write_durably
from mirror.store.intake import Intake
from mirror.writer import Writer, to_the_end

log = logging.getLogger(__name__)

_MAX_PENDING = 256 * 1024
"""Bytes of an upload that may have come and not yet be taken in."""

_PATIENCE = 2.0
"""Seconds for which a request waits for another one of its upload: a client that was cut off is here again before its
first request has ended."""

_POLL = 0.01
_REMEMBERED = 1000

_T = TypeVar("_T")
_Arguments = TypeVarTuple("_Arguments")


@dataclass(frozen=True, slots=True)
class Received:
    """A pushed blob that is on the disk. ``size`` in bytes; ``blake3`` in hex, by which it is checked later."""

    digest: Digest
    size: int
    blake3: str


@dataclass(frozen=True, slots=True)
class State:
    """What stands beside an upload's bytes. ``created_at`` in seconds since the epoch."""

    repository: str
    algorithm: str
    created_at: float
    notes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> "State":
        """Read it. Raises `OSError`, and `ValueError` where a power cut has left half of it."""
        try:
            return cls(**json.loads(file.read_bytes()))
        except TypeError as error:
            raise ValueError(f"{file.name} is not the state of an upload") from error

    def write(self, file: Path) -> None:
        """Write it, durably. Raises `OSError`."""
        write_durably(file, json.dumps(asdict(self)).encode())


class Desk:
    """What the sessions of a worker have in common: threads, a clock, and the hashes of what this worker took in."""

    def __init__(self, clock: Callable[[], float], patience: float = _PATIENCE, threads: int = 8) -> None:
        """``clock`` gives seconds since the epoch; ``patience`` in seconds."""
        self.clock = clock
        self.patience = patience
        self.threads = ThreadPoolExecutor(threads, thread_name_prefix="upload")
        self._hashes: OrderedDict[str, Verifier] = OrderedDict()

    def hashes(self, upload: str, algorithm: str) -> Verifier:
        """What this worker has hashed of an upload; begun anew where that was for another algorithm."""
        found = self._hashes.pop(upload, None)
        if found is None or found.expected.algorithm != algorithm:
            found = Verifier(Digest.of(b"", algorithm))
        self._hashes[upload] = found
        if len(self._hashes) > _REMEMBERED:
            self._hashes.popitem(last=False)
        return found

    def forget(self, upload: str) -> None:
        """Hash it anew when somebody asks."""
        self._hashes.pop(upload, None)

    async def run(self, call: Callable[[*_Arguments], _T], *arguments: *_Arguments) -> _T:
        """Wait for the call in any case: a file may not be closed while a thread works on it."""
        return await to_the_end(asyncio.get_running_loop().run_in_executor(self.threads, call, *arguments))


class Session:
    """An upload. ``size``: so many bytes of it are on the disk. `mirror.store.uploads.Uploads` gives it out.

    All calls raise `UploadUnknown` once it is over, `UploadInvalid` while another request works on it, and `StoreError`
    (`DiskFull`) when the disk does not do its part; what was taken in before stands then, unless the words say that the
    upload is over.
    """

    def __init__(self, desk: Desk, path: Path, upload: str, state: State, size: int) -> None:
        self.id = upload
        self.size = size
        self._desk = desk
        self._path = path
        self._state = state

    @property
    def notes(self) -> Mapping[str, str]:
        """What was noted about it."""
        return self._state.notes

    async def append(
        self, chunks: AsyncIterator[bytes], *, start: int | None = None, limit: int, last: bool = False
    ) -> int:
        """Take in bytes from ``start`` on (None: wherever the upload stands); the size then, which is durable.

        Raises `ChunkInvalid` when the upload does not end at ``start``; `SizeInvalid` above ``limit`` bytes in all,
        which leaves the upload as it was; and what ``chunks`` raises, which leaves what had come until then. ``last``:
        `finish` follows at once, and makes it durable.
        """
        async with self._held() as intake:
            if start is not None and start != intake.size:
                await self._sync(intake)
                self.size = intake.size
                raise ChunkInvalid(
                    f"the upload has {intake.size} bytes, so the next chunk begins there, not at {start}",
                    size=intake.size,
                )
            await self._take_in(intake, chunks, limit)
            if not last:
                await self._sync(intake)
            self.size = intake.size
        return self.size

    async def verify(self, digest: Digest) -> None:
        """Hold the bytes against their digest, so that `finish` has little to do.

        Raises `DigestInvalid` when they have another one: then the upload is over.
        """
        async with self._held() as intake:
            await self._verified(intake, digest)

    async def finish(self, digest: Digest, store: BlobStore) -> Received:
        """Make the bytes a blob of ``store``, which is durable when this returns. Raises as `verify`."""
        async with self._held() as intake:
            hashes = await self._verified(intake, digest)
            await self._desk.run(intake.commit, digest, store)
            await self._desk.run(self._forget)
            return Received(digest, intake.size, hashes.blake3())

    async def cancel(self) -> None:
        """Forget it, even while another request writes to it, which then gets `UploadUnknown`."""
        with self._telling():
            await self._desk.run(self._path.unlink)
            await self._desk.run(self._forget)

    async def note(self, **notes: str) -> None:
        """Note something about it, durably."""
        async with self._held():
            self._state = replace(self._state, notes={**self._state.notes, **notes})
            await self._desk.run(self._state.write, state_of(self._path))

    async def _take_in(self, intake: Intake, chunks: AsyncIterator[bytes], limit: int) -> None:
        hashes = self._desk.hashes(self.id, self._state.algorithm)
        before = received = intake.size
        writer = Writer(lambda batch: self._desk.run(intake.take, batch, hashes), _MAX_PENDING)
        try:
            try:
                async for chunk in chunks:
                    received += len(chunk)
                    if received > limit:
                        raise SizeInvalid(f"the blob is larger than hosted.max_blob_size ({limit:,} bytes)")
                    if chunk:
                        await writer.put(chunk)
            finally:
                await writer.finish()
        except SizeInvalid:
            self._desk.forget(self.id)
            await self._desk.run(intake.cut, before)
            raise
        finally:
            await self._desk.run(intake.touch, self._desk.clock())

    async def _verified(self, intake: Intake, digest: Digest) -> Verifier:
        hashes = self._desk.hashes(self.id, digest.algorithm)
        while not await self._desk.run(intake.hash_on, hashes):
            pass
        actual = hashes.actual()
        if actual != digest:
            await self._desk.run(intake.drop)
            await self._desk.run(self._forget)
            raise DigestInvalid(
                f"the bytes that came have the digest {actual}, not {digest}; the upload is over, begin a new one",
                detail={"expected": str(digest), "actual": str(actual), "size": intake.size},
            )
        await self._sync(intake)
        return hashes

    async def _sync(self, intake: Intake) -> None:
        """Make it durable. What a disk did not write once it may have forgotten: then the upload is over."""
        try:
            await self._desk.run(intake.sync)
        except OSError as error:
            await self._desk.run(intake.drop)
            await self._desk.run(self._forget)
            raise told(error, "the upload is over, begin a new one") from error

    @contextlib.asynccontextmanager
    async def _held(self) -> AsyncIterator[Intake]:
        with self._telling():
            intake = await self._open()
            try:
                yield intake
            finally:
                intake.close()

    async def _open(self) -> Intake:
        give_up_at = time.monotonic() + self._desk.patience
        while (intake := Intake.open(self._path)) is None:
            if time.monotonic() >= give_up_at:
                raise UploadInvalid(
                    "another request sends bytes of this upload; ask for its status when that has ended", retry_after=1
                )
            await asyncio.sleep(_POLL)
        return intake

    def _forget(self) -> None:
        self._desk.forget(self.id)
        with contextlib.suppress(OSError):  # it says nothing without the bytes; expiry takes it away
            state_of(self._path).unlink()

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Errors of the disk become ours."""
        try:
            yield
        except FileNotFoundError as error:
            raise unknown() from error
        except OSError as error:
            raise told(error, "what came before is kept") from error


def state_of(path: Path) -> Path:
    """Where the state of the upload at ``path`` lies."""
    return path.with_name(path.name + ".json")


def unknown() -> UploadUnknown:
    """What a client hears of an upload that is over, or not its own."""
    return UploadUnknown("there is no such upload: it is finished, cancelled or expired, or somebody else's")


def told(error: OSError, words: str) -> StoreError:
    """What the client hears of a disk that fails; ``words`` say what became of its push. The log hears it too."""
    log.error("the disk fails under a push (%s); %s", error.strerror or error, words)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DiskFull(f"the mirror's disk is full; {words}")
    return StoreError(f"the mirror's disk fails; {words}")
