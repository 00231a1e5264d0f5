"""What is told of jobs, out of their logs, while somebody writes these: this worker, or another one."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mirror.errors import NotFound
from mirror.job import Account, Line, Order, Outcome, Summary, Underway
from mirror.running import Running
from mirror.store.jobs import JobFolder, parsed
from mirror.tags import Lru

_READ_EVERY = 0.25
"""Seconds between two looks at what another worker writes."""


class Foreign(NotFound):
    """A job that another release has written, in a way that this one cannot read."""


@dataclass(frozen=True, slots=True)
class Portion:
    """A part of what there is to tell of a job: outcomes in the order in which they came to be, and what is under way.

    When the ``summary`` says that the job has ended, no outcome comes after these.
    """

    summary: Summary
    outcomes: Sequence[Outcome]
    underway: Sequence[Underway]


class Reader:
    """Reads one log from its beginning on, for one or for many. ``lines``: how many were read.

    ``running`` gives a job that this worker does: what the disk does not take of its log is read out of memory.
    """

    def __init__(self, job: str, folder: JobFolder, running: Callable[[str], Running | None]) -> None:
        self.lines = 0
        self._job = job
        self._folder = folder
        self._running = running
        self._offset = 0
        self._account: Account | None = None
        self._turn = asyncio.Lock()

    @property
    def account(self) -> Account:
        """How the job stands by what was read; raises `NotFound` where that is nothing."""
        if self._account is None:
            raise unknown(self._job)
        return self._account

    async def more(self) -> list[Outcome]:
        """The outcomes of the next lines, empty when there are none now.

        Raises `NotFound` when there is no such job (any more), or another release has written it.
        """
        async with self._turn:
            while self._account is None or self._account.state == "running":
                portion = await asyncio.to_thread(self._folder.read, self._job, self._offset)
                if portion is None:
                    raise unknown(self._job)
                lines, self._offset = portion
                if not lines:  # by then the offset is that of the log's end
                    running = self._running(self._job)
                    lines = [parsed(line) for line in running.told(self.lines)] if running is not None else []
                if not lines:
                    break
                if outcomes := [found for line in lines if (found := self._read(line)) is not None]:
                    return outcomes
            return []

    async def to_the_end(self) -> list[Outcome]:
        """The outcomes of all lines that there are; raises as `more` does."""
        found: list[Outcome] = []
        while outcomes := await self.more():
            found += outcomes
        return found

    def _read(self, line: Line) -> Outcome | None:
        self.lines += 1
        if self._account is None:
            try:
                self._account = Account(Order.of(line))
            except ValueError as error:
                raise Foreign(f"the job {self._job} cannot be read: {error}") from error
            return None
        return self._account.read(line)


class Views:
    """What is told of the jobs in a folder; ``running`` as for `Reader`."""

    def __init__(self, folder: JobFolder, running: Callable[[str], Running | None]) -> None:
        self._folder = folder
        self._running = running
        self._ended: Lru[str, Summary] = Lru(200)
        self._readers: dict[str, Reader] = {}
        self._cursors: Lru[tuple[str, int], Reader] = Lru(50)

    def reader(self, job: str) -> Reader:
        """Who reads a job's log from its beginning on."""
        return Reader(job, self._folder, self._running)

    async def all(self) -> Sequence[Summary]:
        """All jobs that there are, the latest first."""
        found = []
        for job in await asyncio.to_thread(self._folder.ids):
            with contextlib.suppress(NotFound):
                found.append(await self.summary(job))
        return found

    async def summary(self, job: str) -> Summary:
        """How a job stands. Raises `NotFound`."""
        if (known := self._ended.get(job)) is not None and await asyncio.to_thread(self._folder.size, job) > 0:
            return known
        reader = self._readers.setdefault(job, self.reader(job))
        try:
            await reader.to_the_end()
            summary = reader.account.summary()
        except NotFound:
            self._readers.pop(job, None)
            raise
        if summary.state != "running":
            self._ended.put(job, summary)
            self._readers.pop(job, None)
        return summary

    async def portion(self, job: str, after: int, within: float = 0.0) -> Portion:
        """What is to be told after so many outcomes: some of those that there are.

        Where there are none, this waits for up to ``within`` seconds until there are. Raises `NotFound`.
        """
        reader = self._cursors.get((job, after))
        self._cursors.drop((job, after))
        passed = after
        if reader is None:
            reader, passed = self.reader(job), 0
        outcomes = await reader.more()
        while outcomes and passed + len(outcomes) <= after:
            passed += len(outcomes)
            outcomes = await reader.more()
        if not outcomes and within and reader.account.state == "running":
            await self._moved(job, within)
            outcomes = await reader.more()
        told = outcomes[max(0, after - passed) :]
        summary = reader.account.summary()
        if summary.state == "running":  # else nobody asks for more
            self._cursors.put((job, passed + len(outcomes)), reader)
        return Portion(summary, told, await self._underway(job) if summary.state == "running" else ())

    async def _moved(self, job: str, within: float) -> None:
        if (running := self._running(job)) is not None:
            await running.moved(within)
        else:
            await asyncio.sleep(min(within, _READ_EVERY))

    async def _underway(self, job: str) -> Sequence[Underway]:
        """What is under way, wherever it is done; a moment old where that is another worker."""
        if (running := self._running(job)) is not None:
            return tuple(running.underway.values())
        with contextlib.suppress(OSError, TypeError, ValueError):
            now = await asyncio.to_thread(self._folder.now, job)
            return tuple(Underway(*fields) for fields in now.get("now", ()))
        return ()


def unknown(job: str) -> NotFound:
    """What who asks for a job gets that is not there."""
    return NotFound(f"there is no job {job[:80]!r} (any more); GET /api/v1/prewarm lists those that there are")
