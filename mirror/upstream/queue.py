"""So many requests at a time, and a fair queue for the rest: who pulls many blobs does not keep others waiting.

What clients cannot do without goes first. Within that, repositories take turns, and each has its own order of arrival.
"""

import asyncio
from collections import OrderedDict, deque

_Line = OrderedDict[str, deque[asyncio.Future[None]]]
"""Who waits, by repository; the first repository is next."""


class Place:
    """The right to have one request under way, until `leave`."""

    def __init__(self, queue: "FairQueue") -> None:
        self._queue: FairQueue | None = queue

    def leave(self) -> None:
        """Let the next one go. May be called again."""
        queue, self._queue = self._queue, None
        if queue is not None:
            queue.next()


class FairQueue:
    """At most ``limit`` places. For one event loop.

    Somebody waits only while all places are taken.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.under_way = 0
        self._first: _Line = OrderedDict()
        self._later: _Line = OrderedDict()

    @property
    def has_room(self) -> bool:
        """Whether a place is free."""
        return self.under_way < self.limit

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(len(waiters) for line in (self._first, self._later) for waiters in line.values())

    async def enter(self, repository: str, *, first: bool) -> Place:
        """A place, for a request about this repository; ``first`` ones go before all others."""
        if self.has_room:
            self.under_way += 1
            return Place(self)
        line = self._first if first else self._later
        turn = asyncio.get_running_loop().create_future()
        line.setdefault(repository, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.next()
            else:
                self._forget(line, repository, turn)
            raise
        return Place(self)

    def next(self) -> None:
        """A place is free: whose turn it is gets it."""
        for line in (self._first, self._later):
            if line:
                repository, waiters = next(iter(line.items()))
                turn = waiters.popleft()
                line.move_to_end(repository)
                if not waiters:
                    del line[repository]
                if turn.cancelled():
                    return self.next()
                turn.set_result(None)
                return None
        self.under_way -= 1
        return None

    @staticmethod
    def _forget(line: _Line, repository: str, turn: asyncio.Future[None]) -> None:
        waiters = line.get(repository)
        if waiters is not None and turn in waiters:
            waiters.remove(turn)
            if not waiters:
                del line[repository]
