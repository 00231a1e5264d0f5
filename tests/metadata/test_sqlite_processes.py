"""Several worker processes on one database: they share it, are killed, meet damage together, and run out of disk."""

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.metadata.base import TagRecord
from mirror.metadata.sqlite import SqliteMetadata
from tests.metadata.databases import NAME, damage_in_service, opened, set_aside
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).parents[2]


class Writer:
    """A worker that writes; ``taken`` is how many tags the database took from it."""

    def __init__(self, place: Path, name: str) -> None:
        self.name = name
        self.taken = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.metadata.worker", "write", place, name],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._reader = threading.Thread(target=self._count)
        self._reader.start()

    def _count(self) -> None:
        assert self._process.stdout is not None
        for _ in self._process.stdout:
            self.taken += 1

    def kill(self) -> None:
        """``kill -9``; afterwards ``taken`` is final."""
        self._process.send_signal(signal.SIGKILL)
        self._end()

    def stop(self) -> int:
        """Tell it to end; its exit status."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        return self._end()

    def _end(self) -> int:
        status = self._process.wait(20)
        self._reader.join(20)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        return status


@contextlib.contextmanager
def writers(place: Path, *names: str) -> Iterator[list[Writer]]:
    """Workers that write at the same time."""
    workers = [Writer(place, name) for name in names]
    try:
        yield workers
    finally:
        for worker in workers:
            if worker._process.poll() is None:
                worker.kill()


async def all_there(store: SqliteMetadata, worker: Writer) -> bool:
    """Whether each tag that the database took from a worker is there, with its link."""
    for number in range(worker.taken):
        digest = Digest.of(f"{worker.name}-{number}".encode())
        record = await store.tag("ghcr.io", "team/filter", f"{worker.name}-{number}")
        if not isinstance(record, TagRecord) or record.digest != digest:
            return False
        if await store.link("ghcr.io", "team/filter", digest) is None:
            return False
    return True


async def test_workers_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    """They create the database together, too."""
    with writers(tmp_path, "a", "b", "c") as workers:
        await eventually(lambda: min(worker.taken for worker in workers) >= 100, timeout=30)
        assert [await asyncio.to_thread(worker.stop) for worker in workers] == [0, 0, 0]
    async with opened(tmp_path) as store:
        for worker in workers:
            assert await all_there(store, worker)
        assert not store.links_incomplete


async def test_what_was_put_survives_kill_9(tmp_path: Path) -> None:
    """At any instant: what a put returned for is there, and the database is sound."""
    for number in range(6):
        with writers(tmp_path, f"a{number}", f"b{number}") as workers:
            await eventually(lambda: min(worker.taken for worker in workers) >= 10 + 7 * number, timeout=30)  # noqa: B023 - called in this round
            for worker in workers:
                worker.kill()
        async with opened(tmp_path) as store:
            for worker in workers:
                assert await all_there(store, worker)
            assert not store.links_incomplete
    assert not set_aside(tmp_path)


async def test_workers_that_meet_damage_repair_it_once_and_go_on_together(tmp_path: Path) -> None:
    """One sets the file aside and makes another; the rest go over to it."""
    with writers(tmp_path, "a", "b", "c") as workers:
        await eventually(lambda: min(worker.taken for worker in workers) >= 50, timeout=30)
        damage_in_service(tmp_path / NAME)
        await eventually(lambda: set_aside(tmp_path), timeout=30)
        before = [worker.taken for worker in workers]
        await eventually(
            lambda: all(worker.taken > taken + 20 for worker, taken in zip(workers, before, strict=True)), timeout=30
        )
        assert [await asyncio.to_thread(worker.stop) for worker in workers] == [0, 0, 0]
    assert len(set_aside(tmp_path)) == 1
    async with opened(tmp_path) as store:
        assert store.links_incomplete
        for worker in workers:
            last = await store.tag("ghcr.io", "team/filter", f"{worker.name}-{worker.taken - 1}")
            assert last is not None


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_FSIZE stands in for a full disk on Linux only")
def test_a_full_disk_refuses_writes_and_serves_reads_and_recovers(tmp_path: Path) -> None:
    """Nothing is lost, nothing is taken for damage, and writes go on when there is room."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.metadata.worker", "fill-the-disk", tmp_path, "-"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.returncode) == ("ok\n", 0), done.stderr
    assert not set_aside(tmp_path)
