"""A job that this worker does: what becomes of it goes into its log, and a disk that fails does not stop it."""

import asyncio
import logging
from collections.abc import Sequence

from mirror.job import Account, Line, Outcome, State, Underway, done_line, end_line
from mirror.store.jobs import JobLog, line_of
from mirror.writer import to_the_end

log = logging.getLogger(__name__)

_AGAIN_AFTER = 2.0
"""Seconds after which a disk that did not take a line is tried again."""


class Running:
    """A job under way. ``account`` is how it stood when this worker began, for whoever works on it.

    Lines are durable before anybody hears of them; those that the disk does not take are told out of memory, and tried
    again until it does, or the mirror stops: then what they say is done again.
    """

    def __init__(self, account: Account, log: JobLog, lines: int) -> None:
        """``lines``: how many the log has."""
        self.account = account
        self.order = account.order
        self.underway: dict[tuple[int, str | None], Underway] = {}
        self.cancelled = asyncio.Event()
        self._log = log
        self._saved = lines
        self._unsaved: list[bytes] = []
        self._fails = False
        self._ended = False
        self._wanted = asyncio.Event()
        self._moved = asyncio.Event()

    def add(self, outcome: Outcome) -> None:
        """Something has become of a reference."""
        self.underway.pop((outcome.number, outcome.replica), None)
        self._append(outcome.line())

    def done(self, number: int) -> None:
        """A reference is done, here and elsewhere."""
        self._append(done_line(number))

    def end(self, state: State, at: float) -> None:
        """Nothing more becomes of it; ``at``: seconds since the epoch."""
        self.underway.clear()
        self._ended = True
        self._append(end_line(state, at))

    def told(self, lines: int) -> Sequence[bytes]:
        """What comes after so many lines and is not on the disk, where that does not take it."""
        return self._unsaved[max(0, lines - self._saved) :] if self._fails else ()

    async def moved(self, within: float) -> None:
        """Wait until there is more to read, or so many seconds."""
        try:
            async with asyncio.timeout(within):
                await self._moved.wait()
        except TimeoutError:
            pass

    async def save(self) -> None:
        """Write down what comes, until the end of the job is written."""
        while self._unsaved or not self._ended:
            if not self._unsaved:
                self._wanted.clear()
                await self._wanted.wait()
            lines = tuple(self._unsaved)
            try:
                await to_the_end(asyncio.ensure_future(asyncio.to_thread(self._log.append, lines)))
            except OSError as error:
                self._lose(error)
                await asyncio.sleep(_AGAIN_AFTER)
            else:
                self._fails = False
                self._saved += len(lines)
                del self._unsaved[: len(lines)]
                self._tell()

    def close(self) -> None:
        """Let go of its log."""
        self._log.close()

    def _append(self, line: Line) -> None:
        self._unsaved.append(line_of(line))
        self._wanted.set()
        if self._fails:
            self._tell()

    def _lose(self, error: OSError) -> None:
        if not self._fails:
            self._fails = True
            log.error(
                "the disk fails (%s); the job %s goes on, and what becomes of it is written down later",
                error.strerror or error,
                self.order.job,
            )
        self._tell()

    def _tell(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
