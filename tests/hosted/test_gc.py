"""What no manifest names goes after the grace, and its bytes when nothing needs them; nothing else goes."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.errors import NotNow, StoreError
from mirror.hosted.entries import OfBlob
from mirror.hosted.gc import Collected, Gc
from mirror.hosted.together import ByItself, Together, Turn
from tests.hosted.cache import Cached
from tests.hosted.shelf import OTHER, REPOSITORY, Shelf, shelf
from tests.support.artifacts import OCI_LAYER, image, raw, wasm_module
from tests.support.waiting import eventually

GRACE = 100.0
PLUGIN = raw(wasm_module())


class Ahead:
    """The disk's clock, set ahead by the test."""

    def __init__(self) -> None:
        self.by = 0.0

    def __call__(self) -> float:
        return time.time() + self.by


class Agreeing(ByItself):
    """Notes what is done in agreement with other replicas: ``said``. ``away`` are repositories that cannot be had."""

    def __init__(self, moment: int, *away: str) -> None:
        self.moment = moment
        self.away = away
        self.said: list[str] = []

    @contextlib.asynccontextmanager
    async def changing(self, repository: str) -> AsyncIterator[Turn]:
        """The right to change it."""
        if repository in self.away:
            raise NotNow("somebody else is at it", retry_after=1)
        self.said.append(f"begin {repository}")
        yield Turn(self.moment)
        self.said.append(f"end {repository}")

    async def told(self) -> None:
        """All others know."""
        self.said.append("told")


def collector(hosted: Shelf, clock: Ahead, cache: Cached | None = None, together: Together | None = None) -> Gc:
    together = together or ByItself()
    return Gc(hosted.catalogue, cache or Cached(), hosted.directory, GRACE, clock, together=together)


async def test_a_blob_that_no_manifest_names_goes_after_the_grace_and_not_before(tmp_path: Path) -> None:
    clock = Ahead()
    async with shelf(tmp_path, clock) as hosted:
        digest = await hosted.push_blob(REPOSITORY, b"a layer")
        gc = collector(hosted, clock)
        clock.by = GRACE - 10
        assert await gc.once() == Collected(0, 0)
        clock.by = GRACE + 10
        assert await gc.once() == Collected(1, 1, len(b"a layer"))
        assert await hosted.catalogue.blob(REPOSITORY, digest) is None
        assert not hosted.store.holds(digest)
        assert await gc.once() == Collected(0, 0)


async def test_what_a_manifest_names_stays_even_without_a_tag(tmp_path: Path) -> None:
    clock = Ahead()
    async with shelf(tmp_path, clock) as hosted:
        await hosted.push(REPOSITORY, PLUGIN)
        clock.by = 10 * GRACE
        assert await collector(hosted, clock).once() == Collected(0, 0)
        assert all(map(hosted.store.holds, (PLUGIN.digest, *PLUGIN.blobs)))


async def test_a_blob_that_is_confirmed_or_mounted_stays_for_another_grace(tmp_path: Path) -> None:
    clock = Ahead()
    async with shelf(tmp_path, clock) as hosted:
        digest = await hosted.push_blob(REPOSITORY, b"a layer")
        gc = collector(hosted, clock)
        clock.by = GRACE - 10
        assert await hosted.catalogue.touch(REPOSITORY, digest)
        clock.by = GRACE + 10
        assert await hosted.catalogue.mount_blob(OTHER, digest, REPOSITORY)
        assert await gc.once() == Collected(0, 0)
        clock.by = 2 * GRACE
        assert await gc.once() == Collected(1, 0)
        assert await hosted.catalogue.blob(OTHER, digest) is not None
        assert hosted.store.holds(digest)
        clock.by = 3 * GRACE
        assert await gc.once() == Collected(1, 1, len(b"a layer"))
        assert not hosted.store.holds(digest)


async def test_a_manifest_of_another_repository_keeps_the_bytes_but_not_the_link(tmp_path: Path) -> None:
    clock = Ahead()
    async with shelf(tmp_path, clock) as hosted:
        await hosted.push(REPOSITORY, PLUGIN)
        for digest in PLUGIN.blobs:
            await hosted.catalogue.mount_blob(OTHER, digest, REPOSITORY)
        clock.by = 2 * GRACE
        assert await collector(hosted, clock).once() == Collected(len(PLUGIN.blobs), 0)
        assert [await hosted.catalogue.blob(OTHER, digest) for digest in PLUGIN.blobs] == [None] * len(PLUGIN.blobs)
        assert all(map(hosted.store.holds, PLUGIN.blobs))


async def test_a_deleted_manifest_goes_with_what_only_it_named(tmp_path: Path) -> None:
    clock = Ahead()
    sharing = image([(OCI_LAYER, b"its own")])
    async with shelf(tmp_path, clock) as hosted:
        for artifact in (PLUGIN, sharing):
            await hosted.push(REPOSITORY, artifact)
        await hosted.catalogue.delete_manifest(REPOSITORY, PLUGIN.digest)
        gc = collector(hosted, clock)
        assert await gc.once() == Collected(0, 0)
        clock.by = 2 * GRACE
        own = set(PLUGIN.blobs) - set(sharing.blobs)
        size = sum(len(PLUGIN.blobs[digest]) for digest in own) + len(PLUGIN.body)
        assert await gc.once() == Collected(len(own), len(own) + 1, size)
        assert not any(map(hosted.store.holds, (PLUGIN.digest, *own)))
        assert all(map(hosted.store.holds, (sharing.digest, *sharing.blobs)))


@pytest.mark.parametrize("incomplete", [True, False])
async def test_bytes_that_the_cache_has_links_to_stay(tmp_path: Path, incomplete: bool) -> None:
    """Or may have: where links were lost, none is missed."""
    clock = Ahead()
    async with shelf(tmp_path, clock) as hosted:
        digest = await hosted.push_blob(REPOSITORY, b"a layer")
        clock.by = 2 * GRACE
        cache = Cached(incomplete=True) if incomplete else Cached(digest)
        assert await collector(hosted, clock, cache).once() == Collected(1, 0)
        assert hosted.store.holds(digest)


async def test_a_file_that_was_just_made_waits_for_its_link(tmp_path: Path) -> None:
    """A push has put the bytes again, and is about to take them down."""
    clock = Ahead()
    async with shelf(tmp_path, clock) as hosted:
        digest = await hosted.push_blob(REPOSITORY, b"a layer")
        await hosted.catalogue.delete_blob(REPOSITORY, digest)
        hosted.store.put(digest, b"a layer")
        gc = collector(hosted, clock)
        assert await gc.once() == Collected(0, 0)
        await hosted.catalogue.link_blob(REPOSITORY, digest, 7)
        assert await gc.once() == Collected(0, 0)
        assert hosted.store.holds(digest)


async def test_bytes_that_are_linked_while_the_collector_looks_elsewhere_stay(tmp_path: Path) -> None:
    clock = Ahead()
    async with shelf(tmp_path, clock) as hosted:
        digest = await hosted.push_blob(REPOSITORY, b"a layer")
        clock.by = 2 * GRACE
        cache = Cached()
        cache.may_answer.clear()
        running = asyncio.create_task(collector(hosted, clock, cache).once())
        await eventually(lambda: cache.asked)
        await hosted.catalogue.link_blob(OTHER, digest, 7)
        cache.may_answer.set()
        assert await running == Collected(1, 0)
        assert hosted.store.holds(digest)


async def test_what_a_killed_collector_left_is_done_by_the_next(tmp_path: Path) -> None:
    clock = Ahead()
    async with shelf(tmp_path, clock) as hosted:
        digest = await hosted.push_blob(REPOSITORY, b"a layer")
        clock.by = 2 * GRACE
        assert await hosted.catalogue.expire(REPOSITORY, clock(), 10) == 1
    async with shelf(tmp_path, clock) as hosted:
        assert await collector(hosted, clock).once() == Collected(0, 1, len(b"a layer"))
        assert not hosted.store.holds(digest)


async def test_workers_may_collect_side_by_side_in_many_batches(tmp_path: Path) -> None:
    clock = Ahead()
    async with shelf(tmp_path, clock) as one, shelf(tmp_path, clock) as two:
        contents = [b"layer %d" % number for number in range(450)]
        await asyncio.gather(*(one.push_blob(REPOSITORY, content) for content in contents))
        await one.push(REPOSITORY, PLUGIN)
        clock.by = 2 * GRACE
        collected = await asyncio.gather(collector(one, clock).once(), collector(two, clock).once())
        assert sum(found.links for found in collected) == len(contents)
        assert not any(one.store.holds(Digest.of(content)) for content in contents)
        assert all(map(one.store.holds, PLUGIN.blobs))


async def test_it_goes_on_after_the_database_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Ahead()
    async with shelf(tmp_path, clock) as hosted:
        digest = await hosted.push_blob(REPOSITORY, b"a layer")
        clock.by = 2 * GRACE
        gc, failed, once = collector(hosted, clock), asyncio.Event(), Gc.once

        async def fails_first(self: Gc) -> Collected:
            if not failed.is_set():
                failed.set()
                raise StoreError("it is busy")
            return await once(self)

        monkeypatch.setattr(Gc, "once", fails_first)
        running = asyncio.create_task(gc.run(0.001))
        await eventually(lambda: not hosted.store.holds(digest))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert failed.is_set()


async def test_links_go_in_agreement_with_other_replicas_which_are_told_before_it_ends(tmp_path: Path) -> None:
    clock = Ahead()
    async with shelf(tmp_path, clock) as hosted:
        for repository in (REPOSITORY, OTHER):
            await hosted.push_blob(repository, b"a layer")
        await hosted.push("team/third", PLUGIN)
        clock.by = 2 * GRACE
        together = Agreeing(await hosted.catalogue.latest() + 1)
        assert await collector(hosted, clock, together=together).once() == Collected(2, 1, len(b"a layer"))
        said = [f"begin {OTHER}", "told", f"end {OTHER}", f"begin {REPOSITORY}", "told", f"end {REPOSITORY}"]
        assert together.said == said
        told = await hosted.catalogue.entries(0, 1 << 20)
        gone = [entry for entry in told.entries if isinstance(entry, OfBlob) and entry.gone]
        assert {entry.moment for entry in gone} == {together.moment}
        for entry in gone:
            assert entry.before is not None
            assert entry.touched_at < entry.before < clock()


async def test_what_the_replicas_cannot_agree_on_now_goes_the_next_time(tmp_path: Path) -> None:
    clock = Ahead()
    async with shelf(tmp_path, clock) as hosted:
        digests = [await hosted.push_blob(repository, b"a layer") for repository in (REPOSITORY, OTHER)]
        clock.by = 2 * GRACE
        moment = await hosted.catalogue.latest() + 1
        assert await collector(hosted, clock, together=Agreeing(moment, REPOSITORY)).once() == Collected(1, 0)
        assert await hosted.catalogue.blob(REPOSITORY, digests[0]) is not None
        assert await collector(hosted, clock, together=Agreeing(moment)).once() == Collected(1, 1, len(b"a layer"))


async def test_bytes_of_a_copy_go_with_their_last_link_and_not_before(tmp_path: Path) -> None:
    """Another replica took the blob in, and took it away again."""
    clock = Ahead()
    digest = Digest.of(b"a copy")
    async with shelf(tmp_path, clock) as hosted:
        link = OfBlob(REPOSITORY, digest, 1 << 50, False, 6, time.time() + 10 * GRACE)
        await hosted.catalogue.merge([link])
        hosted.store.put(digest, b"a copy")
        await hosted.catalogue.doom([digest])
        clock.by = 5 * GRACE
        assert await collector(hosted, clock).once() == Collected(0, 0)
        assert hosted.store.holds(digest)
        await hosted.catalogue.merge([replace(link, moment=link.moment + 1, gone=True)])
        assert await collector(hosted, clock).once() == Collected(0, 1, len(b"a copy"))


async def test_that_something_went_is_forgotten_after_months(tmp_path: Path) -> None:
    clock = Ahead()
    async with shelf(tmp_path, clock) as hosted:
        digest = await hosted.push_blob(REPOSITORY, b"a layer")
        await hosted.catalogue.delete_blob(REPOSITORY, digest)
        await hosted.push(REPOSITORY, PLUGIN)
        for days, gone in ((89, 1), (91, 0)):
            clock.by = days * 86_400
            await collector(hosted, clock).once()
            told = await hosted.catalogue.entries(0, 1 << 20)
            assert sum(entry.gone for entry in told.entries) == gone
