"""What a worker has in memory of tags: believed while nothing has moved, and as long as that is known."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.errors import LeaseLost
from mirror.metadata.base import Fence, TagEntry, TagRecord, Tombstone
from mirror.oci import Reference
from mirror.store.generation import Generation
from mirror.tags import Tags
from tests.metadata.memory import Door, Memory, MemoryMetadata, behind

REFERENCE = Reference("up", "team/plugin", tag="v1")
KEY = ("up", "team/plugin", "v1")
OLD = TagRecord(*KEY, Digest.of(b"old"), "application/vnd.oci.image.manifest.v1+json", 3, 1000.0, serial=1)
NEW = replace(OLD, digest=Digest.of(b"new"), fetched_at=2000.0)
LOST = Fence("tag x", "somebody else's")


class Others:
    """The other replicas: ``told`` is called when they are waited for."""

    def __init__(self) -> None:
        self.moves = 7
        self.in_sight = True
        self.told: Callable[[], Awaitable[None]] | None = None

    async def seen_by_all(self) -> None:
        if self.told is not None:
            await self.told()


class Elsewhere:
    """What another replica has in its database."""

    def __init__(self) -> None:
        self.entry: TagEntry | None = None

    async def tag(self, upstream: str, repository: str, tag: str) -> TagEntry | None:
        return self.entry


class _Outrun(MemoryMetadata):
    """A store in which a tag moves while it answers; nobody sees it move again."""

    def __init__(self, memory: Memory, others: Others) -> None:
        super().__init__(memory)
        self._others = others

    async def tag(self, upstream: str, repository: str, tag: str) -> TagEntry | None:
        found = await super().tag(upstream, repository, tag)
        self._others.moves += 1
        return found


class Setup:
    """The tags of one worker, and what is around it. ``door.passed``: what was asked of the store."""

    def __init__(self, file: Path) -> None:
        self.memory = Memory()
        self.door = Door()
        self.store = MemoryMetadata(self.memory)
        self.generation = Generation(file)
        self.of_another_worker = Generation(file)
        self.others = Others()
        self.elsewhere = Elsewhere()
        metadata = behind(self.door, self.store)
        self.tags = Tags(metadata, self.generation, self.others, self.elsewhere)

    def reads(self) -> int:
        """How often the store was asked for the tag."""
        return self.door.passed.count("tag")


@asynccontextmanager
async def setup(folder: Path, *entries: TagEntry) -> AsyncIterator[Setup]:
    """A worker whose store has these entries."""
    one = Setup(folder / "generation")
    try:
        await one.store.merge_tags(entries)
        yield one
    finally:
        one.generation.close()
        one.of_another_worker.close()


async def test_a_tag_is_read_once_while_nothing_moves(tmp_path: Path) -> None:
    async with setup(tmp_path, OLD) as one:
        for _ in range(3):
            assert await one.tags.get(REFERENCE) == OLD
        assert one.reads() == 1


async def test_a_tag_is_read_anew_when_another_worker_or_another_replica_has_moved_one(tmp_path: Path) -> None:
    async with setup(tmp_path, OLD) as one:
        assert await one.tags.get(REFERENCE) == OLD
        moved = await one.store.put_tag(NEW)
        one.of_another_worker.advance()
        assert await one.tags.get(REFERENCE) == moved
        moved = await one.store.put_tag(replace(OLD, fetched_at=3000.0))
        one.others.moves += 1
        assert await one.tags.get(REFERENCE) == moved


async def test_memory_is_not_believed_while_it_is_not_known_what_the_others_do(tmp_path: Path) -> None:
    async with setup(tmp_path, OLD) as one:
        assert await one.tags.get(REFERENCE) == OLD
        moved = await one.store.put_tag(NEW)
        one.others.in_sight = False
        assert await one.tags.get(REFERENCE) == moved
        absent = replace(REFERENCE, tag="v2")
        await one.tags.note_absence(absent, 5000.0)
        one.memory.negatives.clear()
        assert not await one.tags.absent(absent, 4000.0)


async def test_a_tag_that_is_about_to_move_is_served_but_read_anew_each_time(tmp_path: Path) -> None:
    async with setup(tmp_path, OLD) as one:
        await one.store.announce_move(OLD)
        for _ in range(3):
            found = await one.tags.get(REFERENCE)
            assert found is not None
            assert found.digest == OLD.digest
        assert one.reads() == 3


async def test_what_was_read_while_a_tag_moved_is_not_kept(tmp_path: Path) -> None:
    async with setup(tmp_path, OLD) as one:
        tags = Tags(_Outrun(one.memory, one.others), one.generation, one.others, one.elsewhere)
        await tags.load(REFERENCE)
        moved = await one.store.put_tag(NEW)
        assert await tags.get(REFERENCE) == moved


async def test_what_was_read_after_a_move_is_kept(tmp_path: Path) -> None:
    async with setup(tmp_path, OLD) as one:
        one.others.moves += 1
        await one.tags.load(REFERENCE)
        await one.tags.get(REFERENCE)
        assert one.reads() == 1


async def test_without_a_store_memory_goes_on(tmp_path: Path) -> None:
    async with setup(tmp_path, OLD) as one:
        await one.tags.get(REFERENCE)
        one.door.shut()
        one.others.in_sight = False
        assert await one.tags.get(REFERENCE) == OLD
        assert await one.tags.load(REFERENCE) == OLD
        newer = await one.tags.learn(NEW, None)
        assert await one.tags.get(REFERENCE) == newer == NEW
        await one.tags.note_absence(replace(REFERENCE, tag="v2"), 5000.0)
        one.others.in_sight = True
        assert await one.tags.absent(replace(REFERENCE, tag="v2"), 4000.0)
        await one.tags.forget(REFERENCE, 5000.0, None)
        assert await one.tags.get(REFERENCE) is None


async def test_what_another_replica_knows_is_taken_over(tmp_path: Path) -> None:
    async with setup(tmp_path) as one:
        assert await one.tags.ask_elsewhere(REFERENCE) is None
        one.elsewhere.entry = OLD
        assert await one.tags.ask_elsewhere(REFERENCE) == OLD
        assert await one.tags.get(REFERENCE) == OLD
        one.door.shut()
        assert await one.tags.ask_elsewhere(REFERENCE) == OLD


async def test_a_deletion_that_another_replica_knows_is_taken_over_and_no_record(tmp_path: Path) -> None:
    async with setup(tmp_path) as one:
        deleted = one.elsewhere.entry = Tombstone(*KEY, 5000.0, serial=9)
        assert await one.tags.ask_elsewhere(REFERENCE) is None
        assert await one.store.tag(*KEY) == deleted


async def test_a_confirmation_costs_other_workers_nothing_and_a_new_digest_is_seen_by_them(tmp_path: Path) -> None:
    async with setup(tmp_path, OLD) as one:
        await one.tags.get(REFERENCE)
        before = one.of_another_worker.current()
        await one.tags.learn(replace(OLD, fetched_at=1500.0), None)
        assert one.of_another_worker.current() == before
        await one.tags.learn(NEW, None)
        assert one.of_another_worker.current() > before
        reads = one.reads()
        found = await one.tags.get(REFERENCE)
        assert found == await one.store.tag(*KEY), "with the number that the store gave it"
        assert one.reads() == reads, "who has learnt it need not read it"


async def test_a_tag_that_is_there_again_is_not_absent(tmp_path: Path) -> None:
    async with setup(tmp_path) as one:
        await one.tags.note_absence(REFERENCE, 5000.0)
        assert await one.tags.absent(REFERENCE, 4000.0)
        assert not await one.tags.absent(REFERENCE, 5000.0)
        await one.tags.learn(OLD, None)
        assert not await one.tags.absent(REFERENCE, 4000.0)
        await one.tags.note_absence(REFERENCE, 5000.0)
        await one.tags.learn(OLD, None)  # a confirmation, with which no number changes
        assert not await one.tags.absent(REFERENCE, 4000.0)


async def test_absences_are_read_from_the_store_when_another_replica_has_moved_a_tag(tmp_path: Path) -> None:
    async with setup(tmp_path) as one:
        await one.tags.note_absence(REFERENCE, 5000.0)
        one.memory.negatives.clear()
        assert await one.tags.absent(REFERENCE, 4000.0)
        one.others.moves += 1
        assert not await one.tags.absent(REFERENCE, 4000.0)
        one.memory.negatives[KEY] = 5000.0
        assert await one.tags.absent(REFERENCE, 4000.0)
        one.door.shut()
        assert not await one.tags.absent(REFERENCE, 4000.0), "nobody knows"


async def test_a_tag_moves_when_all_have_seen_that_it_is_about_to(tmp_path: Path) -> None:
    async with setup(tmp_path, OLD) as one:
        before = one.of_another_worker.current()
        waited = []

        async def told() -> None:
            found = await one.store.tag(*KEY)
            assert isinstance(found, TagRecord)
            assert (found.digest, found.moving) == (OLD.digest, True)
            assert one.of_another_worker.current() > before, "the workers beside this one have to see it too"
            waited.append(1)

        one.others.told = told
        moved = await one.tags.move(OLD, NEW, None)
        assert waited == [1]
        assert moved == await one.store.tag(*KEY)
        assert (moved.digest, moved.serial, moved.moving) == (NEW.digest, 2, False)


async def test_a_deletion_is_a_move_too(tmp_path: Path) -> None:
    async with setup(tmp_path, OLD) as one:
        await one.tags.get(REFERENCE)
        counts = [one.of_another_worker.current()]

        async def told() -> None:
            found = await one.store.tag(*KEY)
            assert isinstance(found, TagRecord)
            assert found.moving
            counts.append(one.of_another_worker.current())

        one.others.told = told
        await one.tags.forget(REFERENCE, 5000.0, None)
        counts.append(one.of_another_worker.current())
        assert len(set(counts)) == 3, "the others look again when it is about to go, and when it is gone"
        assert await one.store.tag(*KEY) == Tombstone(*KEY, 5000.0, serial=2)
        assert await one.tags.get(REFERENCE) is None


async def test_a_tag_of_which_nothing_is_known_is_deleted_without_waiting(tmp_path: Path) -> None:
    async with setup(tmp_path) as one:
        await one.tags.forget(REFERENCE, 5000.0, None)
        assert isinstance(await one.store.tag(*KEY), Tombstone)
        assert "announce_move" not in one.door.passed


@pytest.mark.parametrize(
    "write",
    [
        lambda tags: tags.learn(NEW, LOST),
        lambda tags: tags.move(OLD, NEW, LOST),
        lambda tags: tags.forget(REFERENCE, 5000.0, LOST),
    ],
    ids=["learn", "move", "forget"],
)
async def test_who_has_lost_the_lease_writes_nothing_and_is_told(
    tmp_path: Path, write: Callable[[Tags], Awaitable[object]]
) -> None:
    async with setup(tmp_path, OLD) as one:
        await one.tags.get(REFERENCE)
        before = one.generation.current()
        with pytest.raises(LeaseLost):
            await write(one.tags)
        assert one.memory.tags[KEY] == OLD
        assert one.generation.current() == before
        assert await one.tags.get(REFERENCE) == OLD
        one.memory.tags.clear()
        with pytest.raises(LeaseLost):
            await one.tags.forget(REFERENCE, 5000.0, LOST)
        assert not one.memory.tags
