"""The scrubber: every blob on the disk is read now and then, for bits rot, and a pull by digest believes the disk.
Also at once, where somebody wants it.

A file that has rotted (`mirror.soundness`) is taken out of service in all workers, and had again (`mirror.mending`).
One worker of a disk does all that at a time. How far it is lies on the disk (`mirror.store.scrubbed`), so that the next
one goes on there, and that the others hear which files are condemned.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, TypeVarTuple

from mirror.digest import Digest
from mirror.metrics import Metrics
from mirror.soundness import Examined, Finding, Soundness
from mirror.store.blobs import BlobStore
from mirror.store.directory import DataDirectory
from mirror.store.generation import Generation
from mirror.store.leases import Leases
from mirror.store.scrubbed import Scrubbed, load, save, version
from mirror.writer import to_the_end

log = logging.getLogger(__name__)

_LOOK_EVERY = 1.0
"""Seconds between two looks at whether it is time, and at what the worker that scrubs has condemned."""

_SAVE_EVERY = 5.0
"""Seconds of work that a crash may cost."""

_MEND_EVERY = 300.0
"""Seconds between two tries to have again what could not be had."""

_AFTER_FAILURE = 60.0
_MENDED_AT_ONCE = 4

_DISK_FAILS_AFTER = 10
"""So many files in a row that cannot be read are not damaged: the disk fails. Then none is dropped."""

_T = TypeVar("_T")
_Arguments = TypeVarTuple("_Arguments")


class Mending(Protocol):
    """Who has blobs again: `mirror.mending`."""

    async def mend(self, digest: Digest) -> bool:
        """Have it here again; False where nobody can ask for it. Raises `MirrorError`, `OSError`."""
        ...


@dataclass(frozen=True, slots=True)
class Progress:
    """How the last look at all blobs went, or goes. ``running``: it has not ended, or one is wanted and begins."""

    running: bool
    look: Scrubbed


class Scrubber:
    """Scrubs one disk every ``every`` seconds (0: only when it is wanted). ``wanted`` is the number that says so to all
    workers. ``threads`` read; ``count`` gives how many blobs there are, and blocks. ``clock`` gives seconds that never
    go back, ``now`` seconds since the epoch, as the disk does.
    """

    def __init__(
        self,
        directory: DataDirectory,
        store: BlobStore,
        soundness: Soundness,
        leases: Leases,
        mending: Mending,
        metrics: Metrics,
        threads: Executor,
        every: float,
        wanted: Generation,
        count: Callable[[], int],
        clock: Callable[[], float],
        now: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._directory = directory
        self._store = store
        self._soundness = soundness
        self._leases = leases
        self._mending = mending
        self._metrics = metrics
        self._threads = threads
        self._every = every
        self._wanted = wanted
        self._count = count
        self._clock = clock
        self._now = now
        self._sleep = sleep
        self._state = Scrubbed(0.0, ended=True)
        self._version: tuple[int, int] | None = None
        self._heard = False
        self._works = False
        self._saved_at = self._mended_at = self._rests_until = float("-inf")
        self._suspects: list[tuple[Digest, Examined]] = []
        self._told: set[Digest] = set()
        self._menders: dict[Digest, asyncio.Task[None]] = {}
        self._mended_now = asyncio.Semaphore(_MENDED_AT_ONCE)

    async def run(self) -> None:
        """Until cancelled. Runs in every worker, and works in one of them."""
        while True:
            try:
                await self.turn()
            except Exception as error:
                log.error("the disk could not be read again, which is tried later: %s", error or type(error).__name__)
                self._rests_until = self._clock() + _AFTER_FAILURE
            await self._sleep(_LOOK_EVERY)

    async def begin(self) -> Progress:
        """Have all blobs read, by whichever worker comes to it first; nothing new where they are being read.

        Raises `OSError`.
        """
        progress = await self.progress()
        if not progress.running:
            self._wanted.advance()
            log.info("all blobs on the disk are read again, for that is wanted")
        return await self.progress()

    async def progress(self) -> Progress:
        """How far it is: what this worker knows, or what another one has written down. Raises `OSError`."""
        look = self._state if self._works else await self._in_thread(load, self._directory.scrubbed)
        look = look or Scrubbed(0.0, ended=True)
        if not look.ended or self._wanted.current() == look.asked:
            return Progress(not look.ended, look)
        return Progress(True, look.beginning(0.0, look.asked, 0))

    async def turn(self) -> None:
        """Hear what was condemned, and do what is due, unless another worker is at it. Raises `OSError`."""
        await self._hear()
        if self._clock() >= self._rests_until and (self._is_to_look() or self._is_to_mend()):
            with self._leases.attempt("scrub") as mine:
                if mine:
                    await self._hear()
                    await self._work()

    async def _hear(self) -> None:
        """Know what stands on the disk: another worker may have written it."""
        found = await self._in_thread(version, self._directory.scrubbed)
        if self._heard and found == self._version:
            return
        state = await self._in_thread(load, self._directory.scrubbed)
        if state is None:  # the first look is due when the directory is old enough
            made_at = (await self._in_thread((self._directory.path / "format").stat)).st_mtime
            state = Scrubbed(made_at, ended=True)
        for digest, file in state.condemned:
            self._store.condemn(digest, file)
        self._state, self._version, self._heard = state, found, True

    def _is_to_look(self) -> bool:
        """Also where a clock was set back."""
        if not self._state.ended or self._wanted.current() != self._state.asked:
            return True
        return bool(self._every) and abs(self._now() - self._state.began) >= self._every

    def _is_to_mend(self) -> bool:
        return bool(self._state.missing) and self._clock() - self._mended_at >= _MEND_EVERY

    async def _work(self) -> None:
        """What is due; on the way out nobody works on it any more."""
        self._works = True
        try:
            if self._is_to_look():
                await self._look_at_all()
            self._mend_missing()
            while self._menders:
                await asyncio.wait(self._menders.values())
            await self._save()
        finally:
            self._works = False
            self._suspects.clear()
            left = list(self._menders.values())
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _look_at_all(self) -> None:
        if self._state.ended:
            asked = self._wanted.current()
            self._state = self._state.beginning(self._now(), asked, await self._in_thread(self._count))
            await self._save()
        folders = self._store.folders(self._state.after)
        readable = False
        while (digests := await self._in_thread(next, folders, None)) is not None:
            for digest in digests:
                readable |= await self._look_at(digest)
                if not self._suspects:
                    self._state = replace(self._state, after=digest)
                if self._clock() - self._saved_at >= _SAVE_EVERY:
                    await self._save()
                    self._mend_missing()
        if self._suspects and not readable:
            raise OSError(self._suspects[0][1].why)
        await self._condemn_suspects()
        self._state = replace(self._state, ended=True, after=None, ended_at=self._now())
        await self._save()
        log.info("all blobs on the disk were read again")

    async def _look_at(self, digest: Digest) -> bool:
        """Read one blob, and do what follows from it; whether it could be read. Raises `OSError` for a disk that fails.

        What cannot be read is suspected until another blob can be: only then it is the file, and not the disk.
        """
        examined = await self._soundness.of(digest)
        if examined.finding is Finding.UNREADABLE:
            self._suspects.append((digest, examined))
            if len(self._suspects) >= _DISK_FAILS_AFTER:
                raise OSError(examined.why)
            return False
        if examined.finding is Finding.NONE:
            return False
        await self._condemn_suspects()
        self._state = self._state.reading(examined.size)
        if examined.finding is Finding.DAMAGED:
            await self._condemn(digest, examined)
        else:
            self._metrics.scrubbed[("sound",)] += 1
        return True

    async def _condemn_suspects(self) -> None:
        suspects, self._suspects = self._suspects, []
        for digest, examined in suspects:
            if examined.lost_bytes:
                await self._condemn(digest, replace(examined, why=f"it cannot be read: {examined.why}"))
            else:
                self._metrics.scrubbed[("unreadable",)] += 1
                log.error("the file of %s cannot be read (%s), and stays as it is", digest, examined.why)

    async def _condemn(self, digest: Digest, examined: Examined) -> None:
        """Take a file out of service: in this worker at once, and before anything else in the others."""
        self._store.condemn(digest, examined.file)
        try:
            if not await self._in_thread(self._store.withdraw, digest, examined.file):
                return  # it was deleted, or has been replaced by now
        except OSError as error:
            log.error("the disk fails (%s); %s stays there, and is not served", error.strerror or error, digest)
        self._metrics.scrubbed[("damaged",)] += 1
        log.error("the file of %s is damaged (%s): it is out of service, and is had again", digest, examined.why)
        if not self._state.missing:
            self._mended_at = self._clock()
        self._state = self._state.condemning(digest, examined.file)
        await self._save()
        self._mend(digest)

    def _mend_missing(self) -> None:
        """Try again to have what could not be had, now and then."""
        if self._is_to_mend():
            self._mended_at = self._clock()
            for digest in self._state.missing:
                self._mend(digest)

    def _mend(self, digest: Digest) -> None:
        if digest not in self._menders:
            self._menders[digest] = asyncio.create_task(self._mended(digest), name=f"mend {digest}")

    async def _mended(self, digest: Digest) -> None:
        try:
            async with self._mended_now:
                had = await self._mending.mend(digest)
        except Exception as failure:
            if digest not in self._told:
                self._told.add(digest)
                self._metrics.scrubbed[("lost",)] += 1
                log.error(
                    "%s was damaged, and nobody gives it now; it is not served until it is had: %s", digest, failure
                )
        else:
            if had:
                self._metrics.scrubbed[("restored",)] += 1
            log.info("%s was damaged, and %s", digest, "is here again" if had else "is made again when it is asked for")
            self._told.discard(digest)
            self._state = self._state.mending(digest, had=had)
        finally:
            del self._menders[digest]

    async def _save(self) -> None:
        """A disk that does not take it costs no more than that it is read again after a restart."""
        self._saved_at = self._clock()
        try:
            await self._in_thread(save, self._directory.scrubbed, self._state)
            self._version = await self._in_thread(version, self._directory.scrubbed)
        except OSError as error:
            log.warning("the disk fails (%s); how far it was read is not kept", error.strerror or error)

    async def _in_thread(self, call: Callable[[*_Arguments], _T], *arguments: *_Arguments) -> _T:
        return await to_the_end(asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments))
