"""Who reads what another worker gets is told when it ends, however it ends."""

import asyncio
import errno
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.errors import UpstreamUnavailable
from mirror.store.spool import Spool, Standing
from tests.fill.source import MemorySource
from tests.fill.workers import some_bytes, worker
from tests.store.disk import data_in

CONTENT = some_bytes(256 * 1024)
DIGEST = Digest.of(CONTENT)


async def test_who_waits_for_another_worker_is_told_when_this_one_stops_at_once(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    spool = Spool.acquire(directory, DIGEST)
    assert spool is not None
    async with worker(directory, MemorySource(CONTENT)) as one:
        tail = one.fills.tail(DIGEST)
        assert tail is not None
    with pytest.raises(UpstreamUnavailable):
        await asyncio.wait_for(tail.whole(), 5)
    spool.close()


async def test_who_waits_for_another_worker_is_told_when_the_disk_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(self: Spool) -> Standing:
        raise OSError(errno.EIO, "Input/output error")

    directory = data_in(tmp_path)
    spool = Spool.acquire(directory, DIGEST)
    assert spool is not None
    async with worker(directory, MemorySource(CONTENT)) as one:
        monkeypatch.setattr(Spool, "standing", fails)
        tail = one.fills.tail(DIGEST)
        assert tail is not None
        with pytest.raises(UpstreamUnavailable, match="cannot be read"):
            await asyncio.wait_for(tail.whole(), 5)
        assert "the disk fails" in caplog.text
    spool.close()
