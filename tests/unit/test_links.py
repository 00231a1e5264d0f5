"""What a worker has in memory of links: believed while nobody drops one, and as long as that is known."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from mirror.cluster.alone import Alone
from mirror.digest import Digest
from mirror.links import Links
from mirror.metadata.base import BlobRecord, Dropped, Link, LinkEntry
from mirror.store.generation import Generation
from tests.metadata.memory import Door, Memory, MemoryMetadata, behind

LINK = Link("up", "team/plugin", Digest.of(b"layer"), "application/wasm", 5)
PLACE = LINK.upstream, LINK.repository, LINK.digest


class Others(Alone):
    """Other replicas: what they move is told by ``moves``, and ``known`` is what stands in their databases."""

    def __init__(self) -> None:
        self.moves = 7
        self.in_sight = True
        self.waited_for = 0
        self.known: LinkEntry | None = None

    async def seen_by_all(self) -> None:
        self.waited_for += 1

    async def link(self, upstream: str, repository: str, digest: Digest) -> LinkEntry | None:
        return self.known


class Setup:
    """Two workers on one disk, with one store. ``door.passed``: what the first one has asked of the store."""

    def __init__(self, folder: Path) -> None:
        self.memory = Memory()
        self.store = MemoryMetadata(self.memory)
        self.door = Door()
        self.others = Others()
        self.generations = [Generation(folder / "generation") for _ in range(2)]
        stores = behind(self.door, self.store), self.store
        self.links, self.of_another_worker = (
            Links(store, generation, self.others, self.others)
            for store, generation in zip(stores, self.generations, strict=True)
        )

    def reads(self) -> int:
        """How often the store was asked for a link."""
        return self.door.passed.count("link")


@asynccontextmanager
async def setup(folder: Path) -> AsyncIterator[Setup]:
    """Two workers that know nothing."""
    one = Setup(folder)
    try:
        yield one
    finally:
        for generation in one.generations:
            generation.close()


async def test_links_are_read_once_and_asked_of_other_replicas_when_told_to(tmp_path: Path) -> None:
    async with setup(tmp_path) as one:
        assert await one.links.get(*PLACE) is None
        assert await one.links.ask_elsewhere(*PLACE) is None
        one.others.known = LINK
        assert await one.links.get(*PLACE) is None, "nobody else was to be asked"
        assert await one.links.ask_elsewhere(*PLACE) == LINK
        assert await one.store.link(*PLACE) == LINK, "it is taken over"
        read = one.reads()
        one.memory.links.clear()
        assert await one.links.get(*PLACE) == LINK
        assert one.reads() == read


async def test_a_link_that_one_worker_drops_no_worker_has_any_more(tmp_path: Path) -> None:
    async with setup(tmp_path) as one:
        await one.links.add([LINK])
        assert await one.of_another_worker.get(*PLACE) == LINK
        await one.links.drop(*PLACE, 1000.0)
        assert one.others.waited_for == 1
        for links in (one.links, one.of_another_worker):
            assert await links.get(*PLACE) is None
        assert await one.store.link(*PLACE) == Dropped(*PLACE, 1000.0, 0)


async def test_a_link_is_read_anew_when_another_replica_may_have_dropped_it(tmp_path: Path) -> None:
    async with setup(tmp_path) as one:
        await one.links.add([LINK])
        assert await one.links.get(*PLACE) == LINK
        await one.store.drop_link(*PLACE, 1000.0)
        one.others.moves += 1
        assert await one.links.get(*PLACE) is None


async def test_links_in_memory_are_not_believed_while_nobody_knows_whether_one_was_dropped(tmp_path: Path) -> None:
    async with setup(tmp_path) as one:
        await one.links.add([LINK])
        await one.store.drop_link(*PLACE, 1000.0)
        one.others.in_sight = False
        assert await one.links.get(*PLACE) is None


async def test_a_link_that_is_dropped_while_it_is_read_is_not_kept(tmp_path: Path) -> None:
    class Slow(MemoryMetadata):
        async def link(self, upstream: str, repository: str, digest: Digest) -> LinkEntry | None:
            found = await super().link(upstream, repository, digest)
            if isinstance(found, Link):
                await of_another.drop(*PLACE, 1000.0)
            return found

    async with setup(tmp_path) as one:
        of_another = one.of_another_worker
        links = Links(Slow(one.memory), one.generations[0], one.others, one.others)
        await one.store.put_links([LINK])
        assert await links.get(*PLACE) == LINK, "it was so when it was asked"
        assert await links.get(*PLACE) is None


async def test_what_another_replica_knows_from_before_brings_no_dropped_link_back(tmp_path: Path) -> None:
    """Its own later word does, and so does that of upstream."""
    async with setup(tmp_path) as one:
        await one.links.add([LINK])
        await one.links.drop(*PLACE, 1000.0)
        one.others.known = LINK
        assert await one.links.ask_elsewhere(*PLACE) is None
        assert await one.links.get(*PLACE) is None
        one.others.known = replace(LINK, serial=1)
        assert await one.links.ask_elsewhere(*PLACE) == replace(LINK, serial=1)
        await one.links.drop(*PLACE, 1001.0)
        await one.links.add([LINK])
        assert await one.of_another_worker.get(*PLACE) == replace(LINK, serial=2)


async def test_a_drop_that_only_another_replica_knows_counts_here_too(tmp_path: Path) -> None:
    async with setup(tmp_path) as one:
        await one.store.put_links([LINK])
        one.others.known = Dropped(*PLACE, 1000.0, 0)
        assert await one.links.ask_elsewhere(*PLACE) is None
        assert await one.links.get(*PLACE) is None


async def test_what_is_known_better_of_a_link_does_not_bring_it_back(tmp_path: Path) -> None:
    async with setup(tmp_path) as one:
        unsized = replace(LINK, size=-1)
        await one.links.add([unsized])
        await one.store.put_blob(BlobRecord(LINK.digest, 5, "0" * 64, 1000.0))
        await one.of_another_worker.drop(*PLACE, 1000.0)
        assert await one.links.sized(unsized) == LINK
        await one.links.correct(replace(LINK, size=6))
        assert await one.links.get(*PLACE) is None
        await one.links.add([unsized])
        assert await one.links.sized(replace(unsized, serial=1)) == replace(LINK, serial=1)
        assert await one.of_another_worker.get(*PLACE) == replace(LINK, serial=1)


@pytest.mark.parametrize("everyone_reads", [True, False])
async def test_lost_links_are_made_up_for_only_where_everyone_reads_everything(
    tmp_path: Path, everyone_reads: bool
) -> None:
    """Else a blob of one repository could be read through another, by whoever may read that one."""
    async with setup(tmp_path) as one:
        links = Links(one.store, one.generations[0], one.others, one.others, lenient=everyone_reads)
        assert not await links.lost(*PLACE)
        one.store.links_incomplete = True
        assert await links.lost(*PLACE) is everyone_reads
        await links.drop(*PLACE, 1000.0)
        assert not await links.lost(*PLACE), "that it is not there is no loss"


async def test_links_are_kept_in_memory_when_the_store_fails(tmp_path: Path) -> None:
    async with setup(tmp_path) as one:
        one.door.shut()
        assert await one.links.get(*PLACE) is None
        await one.links.add([LINK])
        assert await one.links.get(*PLACE) == LINK
        await one.links.drop(*PLACE, 1000.0)
        assert await one.links.get(*PLACE) is None
