"""A replica as chaos sees it: it is killed, stopped, left hanging, and remembers what clients may count on."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.process import MirrorProcess


class Replica:
    """One mirror's process. ``moment`` is None while something is done to it, else a number that each such thing
    changes: who sees the same one before and after a request knows that nothing happened to the replica in between.

    ``held`` are the paths of what this replica has served from its own disk.
    """

    def __init__(self, name: str, mirror: MirrorProcess) -> None:
        self.name = name
        self.mirror = mirror
        self.held: set[str] = set()
        self.busy = False
        self._moments = 0
        self._steady = True

    @property
    def moment(self) -> int | None:
        return self._moments if self._steady else None

    @asynccontextmanager
    async def killed(self) -> AsyncIterator[None]:
        """SIGKILL; it starts again at the end."""
        async with self._disturbed():
            await asyncio.to_thread(self.mirror.kill)
            yield
            await asyncio.to_thread(self.mirror.start)

    @asynccontextmanager
    async def killed_in_its_start(self) -> AsyncIterator[None]:
        """SIGKILL, and once more while it starts."""
        async with self._disturbed():
            await asyncio.to_thread(self.mirror.kill)
            self.mirror.start(wait=False)
            yield
            await asyncio.to_thread(self.mirror.kill)
            await asyncio.to_thread(self.mirror.start)

    @asynccontextmanager
    async def stopped(self) -> AsyncIterator[None]:
        """SIGTERM; it starts again at the end."""
        async with self._disturbed():
            status = await asyncio.to_thread(self.mirror.stop)
            assert status == 0, f"{self.name} ended with status {status} after a SIGTERM"
            yield
            await asyncio.to_thread(self.mirror.start)

    @asynccontextmanager
    async def hanging(self) -> AsyncIterator[None]:
        """SIGSTOP, and SIGCONT at the end."""
        async with self._disturbed():
            os.killpg(self.mirror.pid, signal.SIGSTOP)
            try:
                yield
            finally:
                os.killpg(self.mirror.pid, signal.SIGCONT)

    @asynccontextmanager
    async def _disturbed(self) -> AsyncIterator[None]:
        assert not self.busy, "one thing at a time"
        self.busy, self._steady = True, False
        try:
            yield
        finally:
            self._moments += 1
            self.busy, self._steady = False, True
