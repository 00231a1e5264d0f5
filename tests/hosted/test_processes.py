"""Several worker processes on one catalogue: what one was told stands, whoever is killed when."""

import asyncio
import contextlib
import functools
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.hosted.entries import OfManifest
from mirror.store.directory import DataDirectory
from tests.hosted.shelf import REPOSITORY, Shelf, shelf
from tests.hosted.worker import IN_PORTION, artifact
from tests.support.waiting import eventually

_ROOT = Path(__file__).parents[2]


class Worker:
    """A process that pushes; ``taken`` is how many of its manifests were taken in, so far as it could say so.

    With ``hears`` it takes in portions of what another replica knows; ``taken`` is how many of them.
    """

    def __init__(self, folder: Path, name: str, *, hears: bool = False) -> None:
        self.name = name
        self.taken = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.hosted.worker", folder, name, *(["hear"] if hears else [])],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._reader = threading.Thread(target=self._count)
        self._reader.start()

    def _count(self) -> None:
        assert self._process.stdout is not None
        for _ in self._process.stdout:
            self.taken += 1

    def has_taken(self, number: int) -> bool:
        """Whether it has, so many at least."""
        return self.taken >= number

    def kill(self) -> None:
        """``kill -9``; afterwards ``taken`` is final."""
        self._process.kill()
        self._process.wait(20)
        self._reader.join(20)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


@contextlib.contextmanager
def workers(folder: Path, *names: str) -> Iterator[list[Worker]]:
    """Workers that push at the same time, and are killed in the end."""
    started = [Worker(folder, name) for name in names]
    try:
        yield started
    finally:
        for worker in started:
            worker.kill()


async def whole(hosted: Shelf, name: str, number: int) -> bool:
    """Whether a push is there; it is there whole, or not at all."""
    pushed = artifact(name, number)
    found = await hosted.catalogue.tagged(REPOSITORY, f"{name}-{number}")
    if found is None:
        assert await hosted.catalogue.manifest(REPOSITORY, pushed.digest) is None
        return False
    assert found.digest == pushed.digest
    for digest, content in (*pushed.blobs.items(), (pushed.digest, pushed.body)):
        blob = hosted.store.open(digest)
        assert blob is not None
        assert bytes(blob.read(0, blob.size)) == content
    assert all([await hosted.catalogue.blob(REPOSITORY, digest) for digest in pushed.blobs])
    return True


async def all_whole(hosted: Shelf) -> bool:
    """Whether all manifests have all blobs that they name."""
    after, more = 0, True
    while more:
        told = await hosted.catalogue.entries(after, 1 << 20)
        after, more = told.next, told.more
        for entry in told.entries:
            if isinstance(entry, OfManifest) and entry.described is not None:
                for to in entry.described.blobs:
                    if await hosted.catalogue.blob(REPOSITORY, to.digest) is None:
                        return False
    return True


async def test_what_was_taken_in_survives_kill_9_whole_and_nothing_is_there_half(tmp_path: Path) -> None:
    """They create the database together."""
    DataDirectory.open(tmp_path).close()
    with workers(tmp_path, "a", "b") as pushing:
        await eventually(lambda: min(worker.taken for worker in pushing) >= 15, timeout=30)
        await asyncio.to_thread(pushing[0].kill)
        before = pushing[1].taken
        await eventually(lambda: pushing[1].taken > before + 3, timeout=30)
    async with shelf(tmp_path) as hosted:
        assert hosted.catalogue.damage is None
        for worker in pushing:
            there = [await whole(hosted, worker.name, number) for number in range(worker.taken + 2)]
            assert all(there[: worker.taken])
        latest = await hosted.catalogue.tag(REPOSITORY, "latest")
        assert latest is not None
        assert latest.serial >= sum(worker.taken for worker in pushing)


@pytest.mark.integration
async def test_of_what_was_heard_of_others_a_portion_is_there_whole_or_not_at_all_after_kill_9(tmp_path: Path) -> None:
    DataDirectory.open(tmp_path).close()
    for round_ in range(5):
        name = str(round_)
        hearing = Worker(tmp_path, name, hears=True)
        try:
            await eventually(functools.partial(hearing.has_taken, 2), timeout=30)
        finally:
            await asyncio.to_thread(hearing.kill)
        async with shelf(tmp_path) as hosted:
            assert hosted.catalogue.damage is None
            read = await hosted.catalogue.cursor(name)
            assert read is not None
            assert read.seq in (hearing.taken, hearing.taken + 1)
            tags = await hosted.catalogue.tags(REPOSITORY, 100_000, None)
            assert tags is not None
            for number in range(hearing.taken + 2):
                there = [tag for tag in tags if tag.startswith(f"{name}-{number}-")]
                assert len(there) == (IN_PORTION if number < read.seq else 0)
            assert await all_whole(hosted)
