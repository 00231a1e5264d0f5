"""What clients wait for lies on the disk, or in a window: memory stays flat, however many of them are slow.

Counted by Python here; the process as a whole is measured by ``make bench``.
"""

import asyncio
import contextlib
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.store import growing
from mirror.store.growing import CHUNK, Growing
from mirror.store.overflow import WINDOW
from tests.fill.source import MemorySource, Sending
from tests.fill.test_disk import full_from
from tests.fill.workers import MIB, worker
from tests.store.disk import data_in

SIZE = 192 * MIB
SLOW = 100
IN_FLIGHT = 16 * MIB  # what has come from upstream and is being taken in, and what the allocator and asyncio need


@contextlib.contextmanager
def at_most(limit: int) -> Iterator[None]:
    """Fails when Python held more memory than ``limit`` at any time, not counting what it held before."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= limit, f"{peak / MIB:.0f} MiB"


class Slow:
    """Takes one piece, and the next one only when told."""

    def __init__(self, content: Growing) -> None:
        self.taken = 0
        self._more = asyncio.Event()
        self.task = asyncio.create_task(self._read(content))

    async def _read(self, content: Growing) -> None:
        async with contextlib.aclosing(content.stream(0, None)) as body:
            async for data in body:
                self.taken += len(data)
                await self._more.wait()  # with the piece in hand, as a transport has it

    def leave(self) -> None:
        """Disconnect."""
        self.task.cancel()


async def read_fast(content: Growing) -> int:
    """How many bytes a client gets that takes all."""
    taken = 0
    async with contextlib.aclosing(content.stream(0, None)) as body:
        async for data in body:
            taken += len(data)
    return taken


def a_large_blob() -> tuple[MemorySource, Digest]:
    content = bytes(SIZE)
    source = MemorySource(content)
    source.script.append(Sending(piece=256 * 1024))
    return source, next(iter(source.contents))


async def test_a_hundred_slow_clients_cost_a_piece_each(tmp_path: Path) -> None:
    source, digest = a_large_blob()
    async with worker(data_in(tmp_path), source) as one:
        with at_most(SLOW * CHUNK + IN_FLIGHT):
            fill = one.start(digest, SIZE)
            slow = [Slow(fill.content) for _ in range(SLOW)]
            assert await read_fast(fill.content) == SIZE
            await one.ended(fill)
            assert all(0 < client.taken <= CHUNK for client in slow)
            for client in slow:
                client.leave()
    assert source.offsets == [0]


async def test_without_a_disk_they_cost_the_window_in_addition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full_from(0)(monkeypatch)
    monkeypatch.setattr(growing, "_LAGGARD_AFTER", 0.1)
    source, digest = a_large_blob()
    async with worker(data_in(tmp_path), source) as one:
        with at_most(SLOW * CHUNK + WINDOW + IN_FLIGHT):
            fill = one.start(digest, SIZE)
            slow = [Slow(fill.content) for _ in range(SLOW)]
            assert await read_fast(fill.content) == SIZE
            await one.ended(fill)
            for client in slow:
                client.leave()
    assert source.offsets == [0]
