"""The way to the records of hosted content: two threads keep the database off the event loop, one reads, one writes.

Changes that queue up are committed together; each is made whole or not at all, and is on the disk when it is answered.
"""

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from sqlite3 import Connection
from typing import TypeVar, cast

from mirror.errors import MirrorError, StoreError
from mirror.hosted.database import Change, Database
from mirror.metadata.thread import Ticket, WorkThread

_WHAT = "the database of hosted content"
_READ_LIMIT = 5.0
_WRITE_LIMIT = 20.0

T = TypeVar("T")
Look = Callable[[Connection], object]


class Access:
    """The database of one data directory, shared by its worker processes. Every call may raise `StoreError`."""

    def __init__(self, path: Path) -> None:
        """Open the records, which blocks. A database that cannot be used is told by `damage`, and by each call."""
        self._reader, self._writer = Database(path), Database(path)
        with contextlib.suppress(StoreError):  # said by `damage`, or again by each call
            self._reader.check()
        self._reads = WorkThread[Look]("hosted-read", self._look, self._reader.close, limit=_READ_LIMIT, what=_WHAT)
        self._writes = WorkThread[Change](
            "hosted-write", self._change, self._writer.close, limit=_WRITE_LIMIT, what=_WHAT
        )

    @property
    def damage(self) -> str | None:
        """What is wrong with the records, so that nothing is taken in any more, and what to do; None: nothing."""
        return self._writer.damage or self._reader.damage

    async def read(self, look: Callable[[Connection], T]) -> T:
        """What ``look`` finds."""
        return cast(T, await self._reads.do(look))

    async def write(self, change: Callable[[Connection], T]) -> T:
        """What ``change`` gives, once it is on the disk."""
        if self.damage is not None:
            raise StoreError(self.damage)
        return cast(T, await self._writes.do(change))

    async def aclose(self) -> None:
        """Finish what is under way and let go of everything."""
        await self._writes.aclose()
        await self._reads.aclose()

    def _look(self, tickets: Sequence[Ticket[Look]]) -> None:
        for ticket in tickets:
            try:
                ticket.finish(self._reader.read(ticket.job))
            except Exception as error:
                ticket.fail(error)

    def _change(self, tickets: Sequence[Ticket[Change]]) -> None:
        results = self._writer.change([ticket.job for ticket in tickets])
        for ticket, result in zip(tickets, results, strict=True):
            if isinstance(result, MirrorError):
                ticket.fail(result)
            else:
                ticket.finish(result)
