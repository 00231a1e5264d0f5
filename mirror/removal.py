"""Blobs taken from this disk because people want it so, and nobody needs to mend anything afterwards.

As in eviction (`mirror.evictor`): the disk alone says what is held, so all workers know at once. Open downloads go on,
and so does what is being filled. Where anything is hosted, a file is unlinked within a transaction of its records, in
which nobody can take it down.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Protocol

from mirror.digest import Digest
from mirror.errors import StoreError
from mirror.store.directory import DataDirectory
from mirror.store.generation import Generation

log = logging.getLogger(__name__)

_BATCH = 100
"""Blobs that go together: some milliseconds, for which pushes wait."""


class Known(Protocol):
    """What is noted on this disk: `mirror.metadata.sqlite`. May raise `StoreError`."""

    async def forget_accesses(self, digests: Collection[Digest]) -> None: ...


class Hosts(Protocol):
    """What is hosted on this disk: `mirror.hosted.catalogue`. May raise `StoreError`."""

    async def bury(
        self, digests: Sequence[Digest], keep: Callable[[Sequence[Digest]], Mapping[Digest, bool | None]]
    ) -> Sequence[Digest]: ...


def _always(found: os.stat_result) -> bool:
    return True


class Removal:
    """Removes blobs. ``generation`` is that of `DataDirectory.evictions`; ``withdraw`` tells other replicas what is not
    held here any more, and ``let_go`` has this worker forget what it keeps of files that are gone.
    """

    def __init__(
        self,
        directory: DataDirectory,
        known: Known,
        hosted: Hosts | None,
        generation: Generation,
        withdraw: Callable[[Sequence[Digest]], Awaitable[None]],
        let_go: Callable[[], Awaitable[None]],
        unlink: Callable[[os.PathLike[str]], None] = os.unlink,
    ) -> None:
        self._directory = directory
        self._known = known
        self._hosted = hosted
        self._generation = generation
        self._withdraw = withdraw
        self._let_go = let_go
        self._unlink = unlink

    async def remove(
        self, digests: Sequence[Digest], may_go: Callable[[os.stat_result], bool] = _always
    ) -> dict[Digest, int]:
        """Take them from the disk, but for what is hosted and what ``may_go`` says of a file; what went, with its
        bytes. Raises `StoreError` where the disk fails.
        """
        gone: dict[Digest, int] = {}
        failures: list[OSError] = []

        def keep(batch: Sequence[Digest]) -> dict[Digest, bool | None]:
            return {digest: self._keep(digest, may_go, gone, failures) for digest in batch}

        for first in range(0, len(digests), _BATCH):
            before = len(gone)
            await self._bury(digests[first : first + _BATCH], keep)
            await self._tell(list(gone)[before:])
        if gone:
            await self._let_go()
        if failures:
            raise StoreError(f"the mirror's disk fails: {failures[0].strerror or failures[0]}") from failures[0]
        return gone

    async def _bury(
        self, batch: Sequence[Digest], keep: Callable[[Sequence[Digest]], Mapping[Digest, bool | None]]
    ) -> None:
        if self._hosted is not None:
            await self._hosted.bury(batch, keep)
        else:
            await asyncio.to_thread(keep, batch)

    def _keep(
        self,
        digest: Digest,
        may_go: Callable[[os.stat_result], bool],
        gone: dict[Digest, int],
        failures: list[OSError],
    ) -> bool | None:
        """What becomes of a blob that no hosted repository has (`writes.bury`). Blocks: for a thread."""
        file = self._directory.blob(digest)
        try:
            found = os.stat(file)
            if not may_go(found):
                return None
            self._unlink(file)
        except FileNotFoundError:
            return False
        except OSError as error:
            failures.append(error)
            return None
        gone[digest] = found.st_size
        return False

    async def _tell(self, gone: Sequence[Digest]) -> None:
        if gone:
            self._generation.advance()
            try:
                await self._known.forget_accesses(gone)
            except StoreError as error:
                log.debug("the last accesses of what is gone stay: %s", error)
            await self._withdraw(gone)
