"""Eviction, carried out: in batches, while pulls go on, by one of the workers on a disk.

Nothing is noted of what goes: the disk alone says what is held. So tags and links stay, whoever asks for what they name
has it fetched again, and a worker that is killed in the middle leaves nothing that would have to be mended. What is
hosted never goes: where there is any, a file is unlinked within a transaction of its records
(`mirror.hosted.writes.bury`), in which nobody can take it down.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mirror import survey
from mirror.accesses import Accesses
from mirror.config import CacheSettings
from mirror.digest import Digest
from mirror.errors import DigestInvalid, StoreError
from mirror.evicting import Hand, Plan, Unlinked, Wanted
from mirror.metrics import Metrics
from mirror.store.census import Census, Usage
from mirror.store.eviction import excess
from mirror.store.generation import Generation
from mirror.store.leases import Leases
from mirror.survey import Protected, nothing

log = logging.getLogger(__name__)

_LOOK_EVERY = 2.0
_BATCH = 200
"""Blobs that go together: some milliseconds, for which pushes wait."""

_REST = 20.0
"""So many times longer than a round that fell short is the pause after it."""

_LONGEST_REST = 60.0


class Hosted(Protocol):
    """What is hosted on this disk: `mirror.hosted.catalogue`. May raise `StoreError`."""

    async def bury(
        self, digests: Sequence[Digest], keep: Callable[[Sequence[Digest]], Mapping[Digest, bool | None]]
    ) -> Sequence[Digest]: ...


class Known(Protocol):
    """What is known of this disk: `mirror.metadata.sqlite`. May raise `StoreError`."""

    async def forget_accesses(self, digests: Collection[Digest]) -> None: ...


@dataclass(slots=True)
class _Deed:
    """What went in one round. A ``failure`` ends it, and so does a pin that came in the middle: ``outdated``."""

    gone: list[Digest] = field(default_factory=list)
    freed: int = 0
    failure: str | None = None
    outdated: bool = False


class Evictor:
    """Sees to it that the disk holds no more than it may. Wired once in each worker.

    ``generation`` is that of `DataDirectory.evictions`. ``withdraw`` tells other replicas what is not held here any
    more; ``let_go`` has this worker forget what it keeps of files that are gone. ``hand`` gives, for each round, who
    looks at all files and unlinks.
    """

    def __init__(
        self,
        census: Census,
        known: Known,
        accesses: Accesses,
        hosted: Hosted | None,
        leases: Leases,
        generation: Generation,
        settings: CacheSettings,
        metrics: Metrics,
        withdraw: Callable[[Sequence[Digest]], Awaitable[None]],
        let_go: Callable[[], Awaitable[None]],
        hand: Callable[[], Hand],
        protected: Protected = nothing,
    ) -> None:
        self._protected = protected
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
        self._hand = hand
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
        await self._accesses.flush()
        deed, hand = _Deed(), self._hand()
        try:
            pinned = await self._protected()
            plan = await hand.look(Wanted(need, _BATCH, survey.YOUNG, pinned))
            for batch in plan.batches:
                deed.outdated = deed.outdated or not await self._protected() <= pinned
                if deed.failure is None and not deed.outdated:
                    await self._evict(hand, batch, deed)
        finally:
            await hand.aclose()
        await self._notice()
        if deed.gone:
            log.info(
                "evicted %d blobs (%d bytes) in %.2f s, for the disk held %d bytes of %d",
                len(deed.gone),
                deed.freed,
                time.monotonic() - began,
                usage.used,
                limit,
            )
        if not deed.outdated:
            self._tell(plan, usage, limit, need - deed.freed, deed.failure)
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

    async def _evict(self, hand: Hand, batch: Sequence[str], deed: _Deed) -> None:
        """Let a batch go, but for what was asked for since it was looked at."""
        wanted = [digest for digest in map(_digest, batch) if digest is not None and not self._accesses.lately(digest)]
        before = len(deed.gone)

        def keep(digests: Sequence[Digest]) -> dict[Digest, bool | None]:
            """As `mirror.hosted.writes.bury` asks. Blocks: for a thread."""
            try:
                done = hand.unlink([str(digest) for digest in digests])
            except OSError as error:
                done = Unlinked(failure=error.strerror or str(error))
            gone, absent = set(done.gone), set(done.absent)
            deed.gone += [digest for digest in digests if str(digest) in gone]
            deed.freed += done.bytes
            deed.failure = done.failure
            return {digest: False if str(digest) in gone | absent else None for digest in digests}

        if self._hosted is not None:
            await self._hosted.bury(wanted, keep)
        else:
            await asyncio.to_thread(keep, wanted)
        gone = deed.gone[before:]
        if gone:
            self._metrics.evictions[()] += len(gone)
            self._generation.advance()
            await self._forget(gone)
            await self._withdraw(gone)

    async def _forget(self, gone: Sequence[Digest]) -> None:
        try:
            await self._known.forget_accesses(gone)
        except StoreError as error:
            log.debug("the last accesses of what was evicted stay: %s", error)

    def _tell(self, plan: Plan, usage: Usage, limit: int, missing: int, failure: str | None) -> None:
        """Count what stands against eviction where it fell short; and say it, unless it will be gone in a minute."""
        short = self._metrics.eviction_short
        short.clear()
        if missing <= 0:
            self._said = None
            return
        young, hosted, pinned = plan.young, plan.hosted, plan.pinned
        reasons = {"hosted": hosted, "pinned": pinned, "in_flight": usage.in_flight, "young": young}
        short.update({(reason,): size for reason, size in reasons.items()})
        if failure is not None:
            self._say("disk", f"the disk fails ({failure}); nothing can be evicted")
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
