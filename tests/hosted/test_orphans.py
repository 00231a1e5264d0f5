"""Files that nothing names go after the grace; nothing that anybody names, or may have named, goes with them."""

import asyncio
import logging
import time
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.errors import StoreError
from mirror.hosted import orphans as module
from mirror.hosted.gc import Gc
from mirror.hosted.orphans import Orphans
from mirror.hosted.together import ByItself
from tests.hosted.cache import Cached
from tests.hosted.shelf import REPOSITORY, Shelf, shelf
from tests.support.artifacts import raw, wasm_module
from tests.support.waiting import eventually

GRACE = 100.0
PLUGIN = raw(wasm_module())


class Ahead:
    """The disk's clock, set ahead by the test."""

    by = 0.0

    def __call__(self) -> float:
        return time.time() + self.by


class Unpacked:
    """What was unpacked, as the test says."""

    def __init__(self, *digests: Digest) -> None:
        self.digests = set(digests)

    async def all_unpacked(self) -> set[Digest]:
        return self.digests


class Asked(ByItself):
    """Notes that the other replicas were asked for what they know."""

    def __init__(self) -> None:
        self.times = 0

    async def asked(self) -> None:
        self.times += 1


async def look(
    hosted: Shelf, clock: Ahead, cache: Cached | None = None, *unpacked: Digest, together: ByItself | None = None
) -> tuple[int, int]:
    """How many files are given to the collector, and how many it takes away."""
    cache, together = cache or Cached(), together or ByItself()
    orphans = Orphans(hosted.catalogue, cache, Unpacked(*unpacked), hosted.directory, GRACE, together, clock)
    found = await orphans.once()
    gc = Gc(hosted.catalogue, cache, hosted.directory, GRACE, clock, together=together)
    return found, (await gc.once()).files


def leave(hosted: Shelf, content: bytes) -> Digest:
    """A file whose process was killed before it was linked."""
    digest = Digest.of(content)
    hosted.store.put(digest, content)
    return digest


async def test_a_file_that_was_never_linked_goes_after_the_grace_and_not_before(tmp_path: Path) -> None:
    clock, others = Ahead(), Asked()
    async with shelf(tmp_path, clock) as hosted:
        digest = leave(hosted, b"killed")
        clock.by = GRACE - 10
        assert await look(hosted, clock) == (0, 0)
        assert hosted.store.holds(digest)
        clock.by = GRACE + 10
        assert await look(hosted, clock, together=others) == (1, 1)
        assert others.times == 1
        assert not hosted.store.holds(digest)
        assert await look(hosted, clock) == (0, 0)


async def test_what_anybody_names_stays(tmp_path: Path) -> None:
    clock = Ahead()
    async with shelf(tmp_path, clock) as hosted:
        await hosted.push(REPOSITORY, PLUGIN, "1.0")
        cached, unpacked = leave(hosted, b"of an upstream"), leave(hosted, b"out of an archive")
        held = sorted(hosted.store.scan(), key=str)
        clock.by = GRACE + 10
        assert await look(hosted, clock, Cached(cached), unpacked) == (0, 0)
        assert sorted(hosted.store.scan(), key=str) == held


async def test_nothing_goes_while_links_may_have_been_lost(tmp_path: Path) -> None:
    clock = Ahead()
    async with shelf(tmp_path, clock) as hosted:
        digest = leave(hosted, b"of an upstream")
        clock.by = GRACE + 10
        assert await look(hosted, clock, Cached(incomplete=True)) == (0, 0)
        assert hosted.store.holds(digest)


async def test_what_is_linked_after_it_was_found_stays(tmp_path: Path) -> None:
    clock = Ahead()
    async with shelf(tmp_path, clock) as hosted:
        digest = leave(hosted, b"pushed again")
        clock.by = GRACE + 10
        orphans = Orphans(hosted.catalogue, Cached(), Unpacked(), hosted.directory, GRACE, ByItself(), clock)
        assert await orphans.once() == 1
        await hosted.catalogue.link_blob(REPOSITORY, digest, len(b"pushed again"))
        assert await look(hosted, clock) == (0, 0)
        assert hosted.store.holds(digest)


async def test_many_files_are_looked_at_in_portions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH", 7)
    clock = Ahead()
    async with shelf(tmp_path, clock) as hosted:
        for number in range(30):
            leave(hosted, b"%d" % number)
        clock.by = GRACE + 10
        assert await look(hosted, clock) == (30, 30)


async def test_a_look_that_fails_is_told_and_does_not_end_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And the first one comes when the mirror has run for the grace."""
    monkeypatch.setattr(module, "_EVERY", 0.01)

    class Failing(Unpacked):
        async def all_unpacked(self) -> set[Digest]:
            if not self.digests:
                raise StoreError("it is away")
            return self.digests

    made = Failing()
    async with shelf(tmp_path) as hosted:
        digest = leave(hosted, b"killed")
        orphans = Orphans(hosted.catalogue, Cached(), made, hosted.directory, 0.05, ByItself(), named_at=lambda _: 0.0)
        began = time.monotonic()
        with caplog.at_level(logging.INFO):
            task = asyncio.create_task(orphans.run())
            try:
                await eventually(lambda: "it is away" in caplog.text)
                assert time.monotonic() - began >= 0.05
                made.digests.add(Digest.of(b"another"))
                await eventually(lambda: "1 files that nothing names" in caplog.text)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        assert await hosted.catalogue.doomed("", 10) == [digest]
