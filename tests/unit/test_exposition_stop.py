"""A worker that stops writes its numbers one after the other, so that the last ones are those that stay."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mirror import exposition
from mirror.exposition import Exposition
from mirror.metrics import Metrics
from mirror.store.census import Census
from mirror.store.tallies import Tally
from tests.store.disk import data_in
from tests.support.waiting import eventually


class SlowTally(Tally):
    """A tally on a disk that takes its time for the first write."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.go_on = threading.Event()
        self.writing = 0
        self.most_at_once = 0

    def write(self, numbers: object) -> None:
        self.writing += 1
        self.most_at_once = max(self.most_at_once, self.writing)
        self.go_on.wait(5)
        super().write(numbers)
        self.writing -= 1

    def others(self) -> Iterator[tuple[str, Any, bool]]:
        return iter(())


async def test_the_last_numbers_are_not_written_beside_those_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exposition, "_WRITE_EVERY", 0.0)
    directory, metrics = data_in(tmp_path), Metrics()
    tally = SlowTally(directory.tallies)
    one = Exposition(metrics, Census(directory), {}, tally, max_size=1 << 30)
    running = asyncio.create_task(one.run())
    await eventually(lambda: tally.writing == 1)
    running.cancel()
    metrics.wasm_checks[("accepted",)] += 1
    closing = asyncio.create_task(one.aclose())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.05, tally.go_on.set)
    await asyncio.gather(running, closing, return_exceptions=True)
    assert tally.most_at_once == 1
    (kept,) = [file for file in directory.tallies.iterdir() if file.suffix == ".json"]
    assert '[["accepted"], [1]]' in kept.read_text()
