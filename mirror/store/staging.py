"""Blobs that are being imported: on the disk, verified while they come, and seen by nobody until they are committed.

A draft lies among the spools, as ``<algorithm>-<hex>.<random>.import``: so its bytes count as being on their way here,
and a start after a crash sweeps it away. Two imports of one blob have two drafts; the last one committed stays.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, TypeVarTuple

from mirror.digest import Digest, Verifier
from mirror.store.blobs import BlobStore
from mirror.store.directory import DataDirectory, write_whole
from mirror.writer import Writer, to_the_end

_MAX_PENDING = 1024 * 1024
"""Bytes that may have come and not yet be written."""

_T = TypeVar("_T")
_Arguments = TypeVarTuple("_Arguments")


@dataclass(frozen=True, slots=True)
class Draft:
    """What came as ``digest``, and is so where ``actual`` is the same. ``size`` in bytes, ``blake3`` in hex.

    ``path`` is None where nothing was written, because the blob is held, or has other bytes.
    """

    digest: Digest
    actual: Digest
    size: int
    blake3: str
    path: Path | None

    @property
    def sound(self) -> bool:
        """Whether it has the digest that names it."""
        return self.actual == self.digest


class Staging:
    """The drafts of one import. Leave it as a context: what was not committed is dropped. Calls raise `OSError`."""

    def __init__(self, directory: DataDirectory, store: BlobStore, random: Callable[[int], bytes] = os.urandom) -> None:
        self._directory = directory
        self._store = store
        self._random = random
        self._paths: set[Path] = set()

    async def __aenter__(self) -> "Staging":
        return self

    async def __aexit__(self, *_: object) -> None:
        await _in_thread(self._drop, set(self._paths))

    async def take(self, digest: Digest, content: AsyncIterator[bytes | memoryview]) -> Draft:
        """Take in all of ``content``, whatever becomes of it; raises what it raises.

        Of a blob that is held nothing is written, but its bytes are verified too.
        """
        held = self._store.holds(digest)
        name = f"{digest.algorithm}-{digest.hex}.{self._random(8).hex()}.import"
        path = None if held else self._directory.spool / name
        verifier = Verifier(digest)
        fd = -1 if path is None else await _in_thread(self._create, path)

        async def take_in(chunks: list[bytes]) -> None:
            await _in_thread(_append, fd, chunks, verifier)

        writer = Writer(take_in, _MAX_PENDING)
        kept = False
        try:
            try:
                async for piece in content:
                    await writer.put(bytes(piece))
            finally:
                await writer.finish()
            kept = verifier.matches()
        finally:
            if fd >= 0:
                os.close(fd)
            if path is not None and not kept:
                await _in_thread(self._drop, {path})
        return Draft(digest, verifier.actual(), verifier.size, verifier.blake3(), path if kept else None)

    async def commit(self, draft: Draft) -> None:
        """Make a sound draft a blob, durable when this returns."""
        await _in_thread(self._commit, draft)

    def _create(self, path: Path) -> int:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._paths.add(path)
        return fd

    def _commit(self, draft: Draft) -> None:
        assert draft.path is not None, "it was written"
        fd = os.open(draft.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._store.commit(draft.digest, fd, draft.path)
        finally:
            os.close(fd)
        self._paths.discard(draft.path)

    def _drop(self, paths: set[Path]) -> None:
        for path in paths:
            with contextlib.suppress(OSError):  # what cannot be dropped is swept away at the next start
                path.unlink(missing_ok=True)
            self._paths.discard(path)


def _append(fd: int, chunks: list[bytes], verifier: Verifier) -> None:
    for chunk in chunks:
        if fd >= 0:
            write_whole(fd, chunk)
        verifier.update(chunk)


async def _in_thread(call: Callable[[*_Arguments], _T], *arguments: *_Arguments) -> _T:
    """Wait for the call in any case: a file may not be closed while a thread works on it."""
    return await to_the_end(asyncio.get_running_loop().run_in_executor(None, call, *arguments))
