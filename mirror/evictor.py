"""Eviction, carried out: in batches, while pulls go on, by one of the workers on a disk.

Nothing is noted of what goes: the disk alone says what is held. So tags and links stay, whoever asks for what they name
has it fetched again, and a worker that is killed in the middle leaves nothing that would have to be mended. What is
hosted never goes: where there is any, a file is unlinked within a transaction of its records
(`mirror.hosted.writes.bury`), in which nobody can take it down.
"""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from mirror.accesses import Accesses
from mirror.config import CacheSettings
from mirror.digest import Digest
from mirror.errors import DigestInvalid, StoreError
from mirror.metrics import Metrics
from mirror.store.census import Census, Usage
from mirror.store.directory import DataDirectory
from mirror.store.eviction import batches, excess
from mirror.store.generation import Generation
from mirror.store.leases import Leases
from mirror.survey import Found, Hosts, Known, Protected, Survey, nothing

log = logging.getLogger(__name__)

_LOOK_EVERY = 2.0
_BATCH = 100
"""Blobs that go together: some milliseconds, for which pushes wait."""

_REST = 20.0
"""So many times longer than a round that fell short is the pause after it."""

_LONGEST_REST = 60.0


@dataclass(slots=True)
class _Deed:
    """What went in one round. A ``failure`` ends it, and so does a pin that came in the middle: ``outdated``."""

    gone: list[Digest] = field(default_factory=list)
    failure: OSError | None = None
    outdated: bool = False


class Evictor:
    """Sees to it that the disk holds no more than it may. Wired once in each worker.

    ``generation`` is that of `DataDirectory.evictions`. ``withdraw`` tells other replicas what is not held here any
    more; ``let_go`` has this worker forget what it keeps of files that are gone. ``now`` gives seconds since the epoch,
    as the disk does.
    """

    def __init__(
        self,
        directory: DataDirectory,
        census: Census,
        known: Known,
        accesses: Accesses,
        hosted: Hosts | None,
        leases: Leases,
        generation: Generation,
        settings: CacheSettings,
        metrics: Metrics,
        withdraw: Callable[[Sequence[Digest]], Awaitable[None]],
        let_go: Callable[[], Awaitable[None]],
        now: Callable[[], float] = time.time,
        unlink: Callable[[os.PathLike[str]], None] = os.unlink,
        protected: Protected = nothing,
    ) -> None:
        self._survey = Survey(directory, census, known, accesses, hosted, now, protected)
        self._protected = protected
        self._directory = directory
        self._census = census
        self._known = known
        self._accesses = accesses
        self._hosted = hosted
        self._leases = leases
        self._generation = generation
        self._settings = settings
        self._metrics = metrics
        self._withdraw = withdraw
        self._let_go = let_go
        self._unlink = unlink
        self._seen = generation.current()
        self._said: str | None = None

    async def run(self) -> None:
        """Look every now and then, until cancelled: one worker does, and the others wait for it to end."""
        while True:
            await self._pause(_LOOK_EVERY)
            try:
                with self._leases.attempt("evict") as mine:
                    while mine:
                        await self._pause(await self._look())
            except OSError as error:
                self._say("disk", f"the disk fails ({error.strerror or error}); nothing can be evicted")

    async def once(self) -> int:
        """Evict, where too much is held; how many blobs went. For one worker at a time.

        Raises `StoreError`, `OSError`.
        """
        usage = await asyncio.to_thread(self._census.take)
        settings = self._settings
        limit = usage.limit(settings.max_size)
        need = excess(usage.used, limit, settings.high_water, settings.low_water)
        if not need:
            self._metrics.eviction_short.clear()
            self._said = None
            return 0
        began = time.monotonic()
        found = await self._survey.look()
        stays = found.hosted | found.pinned
        plan = await asyncio.to_thread(
            lambda: list(batches(found.held(), found.names, stays, need, _BATCH))  # seconds, where all goes
        )
        deed = _Deed()
        for batch in plan:
            deed.outdated = deed.outdated or not await self._protected() <= found.pinned
            if deed.failure is None and not deed.outdated:
                await self._evict(batch, deed)
        freed = found.bytes_of(map(str, deed.gone))
        await self._notice()
        if deed.gone:
            log.info(
                "evicted %d blobs (%d bytes) in %.2f s, for the disk held %d bytes of %d",
                len(deed.gone),
                freed,
                time.monotonic() - began,
                usage.used,
                limit,
            )
        if not deed.outdated:
            pinned = await asyncio.to_thread(found.bytes_pinned) if need > freed else 0
            self._tell(found, usage, limit, need - freed, deed.failure, pinned)
        return len(deed.gone)

    async def _look(self) -> float:
        """Evict what has to go; seconds until the next look."""
        began = time.monotonic()
        try:
            await self.once()
        except (StoreError, OSError) as error:
            why = (error.strerror if isinstance(error, OSError) else None) or str(error)
            self._say("unknown", f"nothing can be evicted, for it cannot be found out what may go: {why}")
        else:
            if not self._metrics.eviction_short:
                return _LOOK_EVERY
        return min(max(_LOOK_EVERY, _REST * (time.monotonic() - began)), _LONGEST_REST)

    async def _pause(self, seconds: float) -> None:
        """Meanwhile this worker lets go of what any worker has evicted."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, _LOOK_EVERY))
            await self._notice()

    async def _notice(self) -> None:
        current = self._generation.current()
        if current != self._seen:
            self._seen = current
            await self._let_go()

    async def _evict(self, batch: Sequence[str], deed: _Deed) -> None:
        """Let a batch go, but for what was asked for since it was looked at."""
        wanted = [digest for digest in map(_digest, batch) if digest is not None and not self._accesses.lately(digest)]
        before = len(deed.gone)

        def keep(digest: Digest) -> bool | None:
            return self._keep(digest, deed)

        if self._hosted is not None:
            await self._hosted.bury(wanted, keep)
        else:
            await asyncio.to_thread(lambda: [keep(digest) for digest in wanted])
        gone = deed.gone[before:]
        if gone:
            self._metrics.evictions[()] += len(gone)
            self._generation.advance()
            await self._forget(gone)
            await self._withdraw(gone)

    def _keep(self, digest: Digest, deed: _Deed) -> bool | None:
        """What becomes of a blob that no hosted repository has (`writes.bury`). Blocks: for a thread."""
        if deed.failure is not None:
            return None
        file = self._directory.blob(digest)
        try:
            if self._survey.is_young(os.stat(file).st_ctime):  # it came again meanwhile
                return None
            self._unlink(file)
        except FileNotFoundError:
            return False
        except OSError as error:
            deed.failure = error
            return None
        deed.gone.append(digest)
        return False

    async def _forget(self, gone: Sequence[Digest]) -> None:
        try:
            await self._known.forget_accesses(gone)
        except StoreError as error:
            log.debug("the last accesses of what was evicted stay: %s", error)

    def _tell(self, found: Found, usage: Usage, limit: int, missing: int, failure: OSError | None, pinned: int) -> None:
        """Count what stands against eviction where it fell short; and say it, unless it will be gone in a minute."""
        short = self._metrics.eviction_short
        short.clear()
        if missing <= 0:
            self._said = None
            return
        young = found.bytes_of(found.young - found.hosted)
        hosted = found.bytes_of(found.hosted)
        reasons = {"hosted": hosted, "pinned": pinned, "in_flight": usage.in_flight, "young": young}
        short.update({(reason,): size for reason, size in reasons.items()})
        if failure is not None:
            self._say("disk", f"the disk fails ({failure.strerror or failure}); nothing can be evicted")
        elif missing > young:
            what = "cache.max_size" if limit == self._settings.max_size else "what its file system has room for"
            self._say(
                "full",
                f"the disk holds {usage.used:,} bytes of the {limit:,} that it may ({what}), and nothing more may go: "
                f"{hosted:,} bytes are hosted, {pinned:,} pinned, {usage.in_flight:,} on their way here; what the disk "
                "does not take is passed through to clients and not kept. Give data_dir more room, unpin what is not "
                "needed any more, or delete what is hosted and not needed",
            )

    def _say(self, kind: str, what: str) -> None:
        """Once, until it is over or something else."""
        if kind != self._said:
            self._said = kind
            log.error("%s", what)


def _digest(text: str) -> Digest | None:
    """None for the name of a file that is no blob's."""
    try:
        return Digest.parse(text)
    except DigestInvalid:
        return None
