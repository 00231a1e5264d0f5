"""The last hour of this replica, in steps, which all its workers tell alike.

At the end of each step one of the workers looks at what all have counted, and writes the step into a file beside the
tallies, which begins anew with the mirror, as these do. A worker alone needs no file. While the disk fails, each worker
goes on by itself.
"""

import asyncio
import contextlib
import json
import logging
import math
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

from mirror.exposition import Exposition
from mirror.steps import STEP, Counts, Past, counts_of
from mirror.store.leases import Leases
from mirror.writer import to_the_end

log = logging.getLogger(__name__)

_LEASE = "history"
_TURN_WITHIN = 3.0


class PastFile:
    """The file that workers share. Blocks: for a thread. Raises `OSError`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[tuple[int, int, int], Past | None] | None = None

    def load(self) -> Past | None:
        """What stands there; None: nothing that could be read."""
        with contextlib.suppress(FileNotFoundError):
            about = self._path.stat()
            version = (about.st_ino, about.st_mtime_ns, about.st_size)
            if self._read is None or self._read[0] != version:
                self._read = version, _parsed(self._path.read_bytes())
            return self._read[1]
        return None

    def save(self, past: Past) -> None:
        """Replace it as a whole; not durably, for it ends with the mirror."""
        self._path.parent.mkdir(exist_ok=True)
        draft = self._path.with_suffix(".draft")
        draft.write_text(json.dumps(past.as_json()))
        draft.replace(self._path)


class History:
    """Wired once in each worker. ``clock`` never goes back and is the same for all workers; ``now`` gives seconds since
    the epoch. ``file`` is None for a worker alone.
    """

    def __init__(
        self,
        exposition: Exposition,
        leases: Leases,
        clock: Callable[[], float],
        now: Callable[[], float],
        file: PastFile | None,
    ) -> None:
        self._exposition = exposition
        self._leases = leases
        self._clock = clock
        self._now = now
        self._file = file
        self._past = Past(now(), clock())

    async def begin(self) -> None:
        """Know when the mirror began: whichever worker is the first says it."""
        async with self._turn():
            if await self._shared() is None:
                await self._save()

    async def run(self) -> None:
        """Take each step, until cancelled."""
        while True:
            now = self._clock()
            await asyncio.sleep(ends_after(now) - now)
            await self.step()

    async def step(self) -> None:
        """End the step, unless another worker just did."""
        async with self._turn():
            await self._shared()
            now = self._clock()
            if now - self._past.looked < STEP / 2:
                return
            self._past = self._past.after(await self._seen(), now, self._now())
            await self._save()

    async def past(self) -> Past:
        """As it stands now, whichever worker is asked."""
        await self._shared()
        return self._past

    async def last_hour(self) -> Counts:
        """All that came within the last hour."""
        past = await self.past()
        return past.last_hour(await self._seen(), self._clock())

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """While no other worker changes the file; one that hangs holds up nobody for long."""
        async with contextlib.AsyncExitStack() as held:
            if self._file is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_TURN_WITHIN):
                        await held.enter_async_context(self._leases.hold(_LEASE))
            yield

    async def _seen(self) -> Mapping[str, Counts]:
        return {name: counts_of(numbers) for name, numbers in (await self._exposition.by_worker()).items()}

    async def _shared(self) -> Past | None:
        """What the workers share, which is taken over where it says more than this one knows."""
        if self._file is None:
            return None
        try:
            shared = await asyncio.to_thread(self._file.load)
        except OSError as error:
            log.debug("the disk fails (%s): the history is that of one worker", error.strerror or error)
            return None
        if shared is None or shared.looked > self._clock() + STEP:  # left from another start of this machine
            return None
        if shared.looked >= self._past.looked or not self._past.steps:
            self._past = shared
        return shared

    async def _save(self) -> None:
        if self._file is None:
            return
        try:
            await to_the_end(asyncio.ensure_future(asyncio.to_thread(self._file.save, self._past)))
        except OSError as error:
            log.debug("the disk fails (%s): other workers do not see this step", error.strerror or error)


def ends_after(now: float) -> float:
    """When the step ends that ``now`` lies in: at the same moment for all workers."""
    return (math.floor(now / STEP) + 1) * STEP


def _parsed(content: bytes) -> Past | None:
    try:
        return Past.of_json(json.loads(content))
    except (LookupError, TypeError, ValueError):  # of another release
        return None
