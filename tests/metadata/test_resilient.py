"""The pair of stores: what every store promises, whichever of the two works, and which of the two is believed."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.errors import LeaseLost, StoreError
from mirror.metadata.base import Fence, Metadata, TagEntry
from mirror.metadata.resilient import ResilientMetadata
from tests.metadata.conformance import ANSWER, GONE, LINK, TAG, A, B, MetadataConformance
from tests.metadata.databases import opened
from tests.metadata.memory import Door, Memory, MemoryMetadata, behind
from tests.support.waiting import eventually

KEY = ("ghcr.io", "team/filter", "v1")
MOVED = replace(TAG, digest=B, fetched_at=2000.0)


class Replica:
    """A pair on its own local store in memory, and on one that others may share, each behind a door."""

    def __init__(self, shared: Memory) -> None:
        self.local = Memory()
        self.local_door, self.shared_door = Door(), Door()
        self.metadata = ResilientMetadata(
            behind(self.local_door, MemoryMetadata(self.local)),
            behind(self.shared_door, MemoryMetadata(shared)),
            self.shared_door.is_up,
        )

    async def tag(self) -> TagEntry | None:
        """The entry of the tag that these tests are about."""
        return await self.metadata.tag(*KEY)


class TestMemory(MetadataConformance):
    """The store in memory, on which other tests rely."""

    def opened(self, place: Path) -> AbstractAsyncContextManager[Metadata]:
        """The store of this place."""
        return in_memory(place)


_PLACES: dict[Path, Memory] = {}


@asynccontextmanager
async def in_memory(place: Path) -> AsyncIterator[Metadata]:
    """A store in memory, the same for the same place."""
    yield MemoryMetadata(_PLACES.setdefault(place, Memory()))


class TestPair(MetadataConformance):
    """Both stores work."""

    def opened(self, place: Path) -> AbstractAsyncContextManager[Metadata]:
        """Two databases."""
        return pair(place, Door())


class TestPairAlone(MetadataConformance):
    """The shared store is known to be away."""

    def opened(self, place: Path) -> AbstractAsyncContextManager[Metadata]:
        """Two databases, one behind a shut door."""
        door = Door()
        door.shut()
        return pair(place, door)


class Stuck(Door):
    """A door that is shut and does not look so."""

    def is_up(self) -> bool:
        """Always."""
        return True


class TestPairWithoutAnswers(MetadataConformance):
    """The shared store fails at each call and is tried again at each."""

    def opened(self, place: Path) -> AbstractAsyncContextManager[Metadata]:
        """Two databases, one behind a door that looks open."""
        return pair(place, Stuck(0))


@asynccontextmanager
async def pair(place: Path, door: Door) -> AsyncIterator[ResilientMetadata]:
    """A pair of two databases in ``place``; the one that stands in for the shared store is behind ``door``."""
    (place / "shared").mkdir(exist_ok=True)
    async with opened(place) as local, opened(place / "shared") as shared:
        store = ResilientMetadata(local, behind(door, shared), door.is_up)
        try:
            yield store
        finally:
            await store.aclose()


async def test_what_one_replica_learnt_all_serve_at_once() -> None:
    """Tags, tombstones, links, negative and kept answers."""
    shared = Memory()
    one, other = Replica(shared), Replica(shared)
    await one.metadata.put_negative("ghcr.io", "team/filter", "v9", 4e9)
    assert await other.metadata.negative("ghcr.io", "team/filter", "v9", 0.0) == 4e9
    await one.metadata.keep("key", ANSWER)
    assert await other.metadata.kept("key") == ANSWER
    await one.metadata.put_links([LINK])
    assert await other.metadata.link("ghcr.io", "team/filter", A) == LINK
    await one.metadata.put_tag(TAG)
    assert await other.tag() == TAG
    await one.metadata.put_tag(MOVED)
    assert await other.tag() == replace(MOVED, serial=1)
    await other.metadata.delete_tag(*KEY, 3000.0)
    assert await one.tag() == replace(GONE, serial=2, deleted_at=3000.0)


async def test_what_a_replica_was_told_it_knows_when_it_is_alone() -> None:
    """Each entry and link that it read from the shared store is in its own."""
    shared = Memory()
    one, other = Replica(shared), Replica(shared)
    await one.metadata.put_tag(TAG)
    await one.metadata.put_links([LINK])
    assert await other.tag() == TAG
    assert await other.metadata.link("ghcr.io", "team/filter", A) == LINK
    await eventually(lambda: KEY in other.local.tags and bool(other.local.links))
    other.shared_door.shut()
    assert await other.tag() == TAG
    assert await other.metadata.link("ghcr.io", "team/filter", A) == LINK
    other.shared_door.open()
    gone = await one.metadata.delete_tag(*KEY, 3000.0)
    assert await other.tag() == gone
    await eventually(lambda: other.local.tags[KEY] == gone)


async def test_a_read_writes_only_what_is_worth_it() -> None:
    """Another replica's confirmation is noted here when it is some seconds newer, and is served at once."""
    shared = Memory()
    one, other = Replica(shared), Replica(shared)
    await one.metadata.put_tag(TAG)
    assert await other.tag() == TAG
    await eventually(lambda: other.local.tags.get(KEY) == TAG)
    for later, noted in ((5.0, 0.0), (9.0, 0.0), (11.0, 11.0), (12.0, 11.0)):
        confirmed = replace(TAG, fetched_at=TAG.fetched_at + later)
        await one.metadata.put_tag(confirmed)
        writes = other.local_door.passed.count("merge_tags")
        assert await other.tag() == confirmed
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert other.local.tags[KEY] == replace(TAG, fetched_at=TAG.fetched_at + noted)
        assert other.local_door.passed.count("merge_tags") - writes == (later == noted)


async def test_many_reads_write_back_together_and_each_tag_once() -> None:
    """A flushed store is not told the same thing by each client that asks meanwhile."""
    told: list[TagEntry] = []

    class Noting(MemoryMetadata):
        """Notes what it is told, and takes its time."""

        async def merge_tags(self, entries: Sequence[TagEntry]) -> None:
            told.extend(entries)
            await asyncio.sleep(0.05)
            await super().merge_tags(entries)

    local, shared = MemoryMetadata(Memory()), Noting(Memory())
    await local.merge_tags([replace(TAG, tag=f"v{number}") for number in range(20)])
    store = ResilientMetadata(local, shared, lambda: True)
    reads = (store.tag("ghcr.io", "team/filter", f"v{number % 20}") for number in range(1000))
    assert None not in await asyncio.gather(*reads)
    await eventually(lambda: len(shared.memory.tags) == 20)
    assert len(told) <= 40


async def test_blobs_and_accesses_are_about_this_disk() -> None:
    """The shared store is not asked, nor told."""
    shared = Memory()
    one, other = Replica(shared), Replica(shared)
    await one.metadata.touch({A: 1.0})
    assert await one.metadata.last_access(A) == 1.0
    assert await other.metadata.last_access(A) is None
    assert await one.metadata.blob(A) is None
    assert one.shared_door.passed == []


async def test_a_lost_lease_is_passed_on_and_the_later_word_taken() -> None:
    """Who slept past its lease publishes nothing: not in the shared store, not in its own."""
    shared = Memory(leases={"lease": "theirs"})
    sleeper, holder = Replica(shared), Replica(shared)
    await sleeper.metadata.put_tag(TAG, None)
    moved = await holder.metadata.put_tag(MOVED, Fence("lease", "theirs"))
    late = replace(TAG, digest=Digest.of(b"late"), fetched_at=3000.0)
    with pytest.raises(LeaseLost):
        await sleeper.metadata.put_tag(late, Fence("lease", "mine"))
    assert sleeper.local.tags[KEY] == moved
    with pytest.raises(LeaseLost):
        await sleeper.metadata.delete_tag(*KEY, 3000.0, Fence("lease", "mine"))
    with pytest.raises(LeaseLost):
        await sleeper.metadata.announce_move(moved, Fence("lease", "mine"))
    assert shared.tags[KEY] == sleeper.local.tags[KEY] == moved


async def test_a_move_is_announced_to_all_and_remembered_by_who_announced_it_and_the_shared_store() -> None:
    """Another replica that was told of it and is left alone does not take it for under way for ever."""
    shared = Memory()
    one, other = Replica(shared), Replica(shared)
    await one.metadata.put_tag(TAG)
    await one.metadata.announce_move(TAG)
    assert await other.tag() == await one.tag() == replace(TAG, moving=True)
    await eventually(lambda: other.local.tags.get(KEY) == TAG)
    one.shared_door.shut()  # the other workers on its disk ask the local store
    assert await one.tag() == replace(TAG, moving=True)
    one.shared_door.open()
    moved = await one.metadata.put_tag(MOVED)
    assert await other.tag() == await one.tag() == moved


async def test_a_move_is_announced_although_the_shared_store_has_lost_the_tag() -> None:
    """Others may have it in memory: it is put back first."""
    shared = Memory()
    one, other = Replica(shared), Replica(shared)
    await one.metadata.put_tag(TAG)
    shared.flush()
    await one.metadata.announce_move(TAG)
    assert await other.tag() == replace(TAG, moving=True)


@pytest.mark.parametrize("lost", ["all of it", "the last writes"])
async def test_what_is_put_after_a_loss_is_numbered_after_what_was_lost(lost: str) -> None:
    """Otherwise the old version would win over the new one when it is written back."""
    shared = Memory()
    one, other = Replica(shared), Replica(shared)
    first = await one.metadata.put_tag(TAG)
    before = shared.snapshot()
    for number in range(3):
        await one.metadata.put_tag(replace(TAG, digest=Digest.of(bytes([number]))))
    if lost == "all of it":
        shared.flush()
    else:
        shared.restore(before)
        assert shared.tags[KEY] == first
    early = replace(MOVED, fetched_at=1.0)
    assert await one.metadata.put_tag(early) == replace(early, serial=4)
    assert await one.tag() == await other.tag() == replace(early, serial=4)
    shared.flush()
    gone = await one.metadata.delete_tag(*KEY, 2.0)
    assert gone.serial == 5
    assert await one.tag() == await other.tag() == gone


async def test_a_clock_that_was_set_back_does_not_keep_an_old_confirmation() -> None:
    """Of what a replica itself noted: upstream's word is what counts, not the clock."""
    one = Replica(Memory())
    await one.metadata.put_tag(replace(TAG, fetched_at=9000.0))
    await one.metadata.put_tag(TAG)
    assert await one.tag() == TAG


async def test_all_tags_and_links_are_those_of_both_stores() -> None:
    """Each once, the later one."""
    shared = Memory()
    one, other = Replica(shared), Replica(shared)
    for number in range(30):
        await (one, other)[number % 2].metadata.put_tag(replace(TAG, tag=f"v{number}"))
        await (one, other)[number % 2].metadata.put_links([replace(LINK, digest=Digest.of(bytes([number])))])
    await one.metadata.put_tag(replace(MOVED, tag="v1"))
    for number in range(0, 30, 3):
        del shared.tags["ghcr.io", "team/filter", f"v{number}"]
    found = [entry async for entries in one.metadata.all_tags() for entry in entries]
    assert sorted(int(entry.tag[1:]) for entry in found) == sorted({*range(0, 30, 2), *(n for n in range(30) if n % 3)})
    assert replace(MOVED, tag="v1", serial=1) in found
    assert len([link async for links in one.metadata.all_links() for link in links]) == 30
    one.local_door.shut()
    assert len([entry async for entries in one.metadata.all_tags() for entry in entries]) == 20
    one.local_door.open()
    one.shared_door.shut(unnoticed=True)
    assert len([entry async for entries in one.metadata.all_tags() for entry in entries]) == len(found)


async def test_what_a_replica_learns_is_in_its_own_database_and_not_yet_in_those_of_others() -> None:
    """From which each answers the others when Redis does not know."""
    shared = Memory()
    one, other = Replica(shared), Replica(shared)
    await one.metadata.put_tag(TAG)
    await one.metadata.put_links([LINK])
    assert one.local.tags[KEY] == TAG
    assert list(one.local.links.values()) == [LINK]
    assert (other.local.tags, other.local.links) == ({}, {})


async def test_the_newer_kept_answer_and_the_longer_absence_count() -> None:
    """Whichever store has it."""
    shared = Memory()
    one = Replica(shared)
    newer = replace(ANSWER, fetched_at=3000.0)
    one.local.answers["key"], shared.answers["key"] = ANSWER, newer
    one.local.answers["other"], shared.answers["other"] = newer, ANSWER
    one.local.negatives[KEY], shared.negatives[KEY] = 10.0, 20.0
    assert await one.metadata.kept("key") == await one.metadata.kept("other") == newer
    assert await one.metadata.negative(*KEY, 5.0) == 20.0
    assert await one.metadata.negative(*KEY, 20.0) is None


async def test_a_write_reaches_both_stores_when_its_caller_leaves() -> None:
    """Otherwise this replica would not know what it told the others."""
    shared = Memory()
    one = Replica(shared)
    for work in (one.metadata.put_tag(TAG), one.metadata.put_links([LINK])):
        task = asyncio.ensure_future(work)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await eventually(lambda: KEY in shared.tags and KEY in one.local.tags and one.local.links == shared.links != {})


async def test_both_stores_failing_is_an_error() -> None:
    """Of each call; and none of the other works on it."""
    one = Replica(Memory())
    one.local_door.shut()
    for unnoticed in (True, False):
        one.shared_door.shut(unnoticed=unnoticed)
        with pytest.raises(StoreError):
            await one.tag()
        one.shared_door.shut(unnoticed=unnoticed)
        with pytest.raises(StoreError):
            await one.metadata.put_tag(TAG)
        one.shared_door.shut(unnoticed=unnoticed)
        with pytest.raises(StoreError):
            await one.metadata.put_links([LINK])
        one.shared_door.shut(unnoticed=unnoticed)
        with pytest.raises(StoreError):
            await one.metadata.link("ghcr.io", "team/filter", A)
        one.shared_door.shut(unnoticed=unnoticed)
        with pytest.raises(StoreError):
            await one.metadata.kept("key")
