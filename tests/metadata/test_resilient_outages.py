"""The pair while the shared store dies, forgets, comes back: no call fails, and nothing that was known is lost."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace

import pytest

from mirror.digest import Digest
from mirror.metadata.base import Dropped, LinkEntry, Metadata, TagEntry
from mirror.metadata.resilient import ResilientMetadata
from tests.metadata.conformance import ANSWER, GONE, LINK, TAG, A, B
from tests.metadata.memory import Door, Memory, MemoryMetadata, behind
from tests.metadata.test_resilient import KEY, MOVED, Replica
from tests.support.waiting import eventually


async def story(store: Metadata) -> list[object]:
    """A bit of everything, and what came of it. None of it depends on which store answers."""
    calls: list[Awaitable[object]] = [
        store.tag(*KEY),
        store.negative(*KEY, 0.0),
        store.put_negative(*KEY, 4e9),
        store.negative(*KEY, 0.0),
        store.put_tag(TAG),
        store.negative(*KEY, 0.0),
        store.put_links([LINK, replace(LINK, digest=B)]),
        store.link("ghcr.io", "team/filter", A),
        store.keep("key", ANSWER),
        store.kept("key"),
        store.put_tag(replace(TAG, fetched_at=1500.0)),
        store.tag(*KEY),
        store.announce_move(TAG),
        store.put_tag(MOVED),
        store.tag(*KEY),
        store.link("ghcr.io", "team/filter", B),
        store.drop_link("ghcr.io", "team/filter", B, 3500.0),
        store.merge_links([replace(LINK, digest=B)]),
        store.link("ghcr.io", "team/filter", B),
        store.put_links([replace(LINK, digest=B)]),
        store.link("ghcr.io", "team/filter", B),
        store.drop_link("ghcr.io", "team/filter", A, 3600.0),
        store.link("ghcr.io", "team/filter", A),
        store.delete_tag(*KEY, 3000.0),
        store.tag(*KEY),
        store.put_tag(replace(TAG, fetched_at=4000.0)),
        store.merge_tags([replace(GONE, tag="v2"), replace(TAG, tag="v3", serial=5)]),
        store.tag("ghcr.io", "team/filter", "v2"),
        store.put_tag(replace(TAG, tag="v3", digest=B)),
    ]
    answers = [await call for call in calls]
    told = frozenset([entry async for entries in store.all_tags() for entry in entries])
    return [*answers, told, await store.tag(*KEY)]


def pair(local: Door, shared: Door) -> ResilientMetadata:
    """Two stores in memory behind two doors."""
    return ResilientMetadata(
        behind(local, MemoryMetadata(Memory())), behind(shared, MemoryMetadata(Memory())), shared.is_up
    )


@pytest.mark.parametrize("what", ["the shared store", "its answer", "the local store"])
async def test_a_store_that_dies_at_any_call_changes_no_answer(what: str) -> None:
    """Each call is once the first that fails; from then on all of that store's do."""
    expected = await story(MemoryMetadata(Memory()))
    whole = Door()
    assert await story(pair(*((whole, Door()) if what == "the local store" else (Door(), whole)))) == expected
    assert len(whole.passed) > 25
    for number in range(len(whole.passed)):
        dying = Door(number, late=what == "its answer")
        store = pair(*((dying, Door()) if what == "the local store" else (Door(), dying)))
        assert await story(store) == expected, f"call {number}, {whole.passed[number]}"
        assert not dying.up
        await store.aclose()


async def test_a_shared_store_that_is_away_is_left_alone() -> None:
    """It is not tried while it is known not to answer: that would cost each client a time-out."""
    door = Door()
    door.shut()
    tries: list[str] = []
    setattr(door, "enter", tries.append)  # noqa: B010 - to hear of the tries
    store = pair(Door(), door)
    await story(store)
    assert await store.link("ghcr.io", "team/other", A) is None
    store.returned()
    await store.write_back()
    await store.aclose()
    assert tries == []


async def test_what_was_flushed_is_served_and_written_back() -> None:
    """By each read for what it asked; by the beat's word for all, tombstones and links too."""
    shared = Memory()
    one, new = Replica(shared), Replica(shared)
    for number in range(250):
        await one.metadata.put_tag(replace(TAG, tag=f"v{number}"))
        await one.metadata.put_links([replace(LINK, digest=Digest.of(bytes([number])))])
    gone = await one.metadata.delete_tag("ghcr.io", "team/filter", "v7", 2000.0)
    before = shared.snapshot()
    shared.flush()
    assert await one.metadata.tag("ghcr.io", "team/filter", "v8") == replace(TAG, tag="v8")
    await eventually(lambda: list(shared.tags) == [("ghcr.io", "team/filter", "v8")])
    one.metadata.returned()
    await eventually(lambda: (shared.tags, shared.links) == (before.tags, before.links))
    assert await new.metadata.tag("ghcr.io", "team/filter", "v7") == gone
    assert await new.metadata.link("ghcr.io", "team/filter", Digest.of(b"\x05")) is not None


@pytest.mark.parametrize("when", ["away from it", "down, and it was flushed", "there"])
async def test_a_link_that_was_dropped_comes_back_from_no_replica(when: str) -> None:
    """Whoever knew it still, and was not there; nor does the drop have to be known to the shared store."""
    shared = Memory()
    one, other = Replica(shared), Replica(shared)
    place = LINK.upstream, LINK.repository, LINK.digest
    await one.metadata.put_links([LINK])
    assert await other.metadata.link(*place) == LINK
    await eventually(lambda: bool(other.local.links))
    if when != "there":
        other.shared_door.shut()
    await one.metadata.drop_link(*place, 2000.0)
    if when == "down, and it was flushed":
        shared.flush()
    other.shared_door.open()
    other.metadata.returned()
    await other.metadata.write_back()
    for _ in range(2):
        for replica in (one, other):
            found = await replica.metadata.link(*place)
            if when != "down, and it was flushed":
                assert isinstance(found, Dropped)
        await one.metadata.write_back()
    for replica in (one, other):
        assert isinstance(await replica.metadata.link(*place), Dropped)
        assert isinstance(replica.local.links[place], Dropped) or replica is other
    await eventually(lambda: isinstance(other.local.links[place], Dropped))
    assert [links async for links in other.metadata.all_links()] == []


async def test_what_is_dropped_is_what_stands_here_whatever_the_shared_store_has_lost() -> None:
    shared = Memory()
    one, other = Replica(shared), Replica(shared)
    place = LINK.upstream, LINK.repository, LINK.digest
    await one.metadata.drop_link(*place, 1000.0)
    await one.metadata.put_links([LINK])
    assert await other.metadata.link(*place) == replace(LINK, serial=1)
    await eventually(lambda: bool(other.local.links))
    shared.flush()
    gone = await one.metadata.drop_link(*place, 2000.0)
    assert gone.serial == 1
    for replica in (one, other):
        assert await replica.metadata.link(*place) == gone


async def test_a_link_that_is_dropped_while_the_shared_store_is_away_is_dropped_there_afterwards() -> None:
    shared = Memory()
    one, other = Replica(shared), Replica(shared)
    place = LINK.upstream, LINK.repository, LINK.digest
    await one.metadata.put_links([LINK])
    one.shared_door.shut()
    await one.metadata.drop_link(*place, 2000.0)
    assert await other.metadata.link(*place) == LINK
    one.shared_door.open()
    one.metadata.returned()
    await eventually(lambda: isinstance(shared.links[place], Dropped))
    assert isinstance(await other.metadata.link(*place), Dropped)
    await other.metadata.put_links([LINK])
    assert await one.metadata.link(*place) == replace(LINK, serial=1)


@pytest.mark.parametrize("lost", ["one key", "the last writes", "everything"])
@pytest.mark.shows("Redis loses what it was told: it evicts keys, or a failover loses the last writes")
async def test_what_the_shared_store_lost_no_replica_that_knows_it_unlearns(lost: str) -> None:
    """The later entry is served by who has it at once, and by all as soon as it has asked."""
    shared = Memory()
    one, other = Replica(shared), Replica(shared)
    await one.metadata.put_tag(TAG)
    assert await other.tag() == TAG
    before = shared.snapshot()
    moved = await one.metadata.put_tag(replace(MOVED, fetched_at=1.0))
    if lost == "one key":
        del shared.tags[KEY]
    elif lost == "the last writes":
        shared.restore(before)
    else:
        shared.flush()
    assert await one.tag() == moved
    await eventually(lambda: shared.tags.get(KEY) == moved)
    assert await other.tag() == moved


async def test_a_tag_that_moved_while_the_shared_store_was_away_is_what_all_serve_when_it_is_back() -> None:
    """Also when it comes back with what it had."""
    shared = Memory()
    one, other = Replica(shared), Replica(shared)
    await one.metadata.put_tag(TAG)
    assert await other.tag() == TAG
    one.shared_door.shut(unnoticed=True)
    other.shared_door.shut()
    moved = await one.metadata.put_tag(MOVED)
    assert (moved.serial, await one.tag(), await other.tag()) == (1, moved, TAG)
    for replica in (one, other):
        replica.shared_door.open()
        replica.metadata.returned()
    await eventually(lambda: shared.tags[KEY] == moved)
    assert await one.tag() == await other.tag() == moved


@pytest.mark.shows("two replicas move a tag, each for itself, while Redis is away")
async def test_a_tag_that_two_replicas_moved_on_their_own_is_settled_by_the_time() -> None:
    """Both had the same right; from then on there is one answer."""
    shared = Memory()
    one, other = Replica(shared), Replica(shared)
    await one.metadata.put_tag(TAG)
    await other.tag()
    await eventually(lambda: KEY in other.local.tags)
    for replica in (one, other):
        replica.shared_door.shut()
    await one.metadata.put_tag(replace(MOVED, digest=Digest.of(b"earlier"), fetched_at=1999.0))
    moved = await other.metadata.put_tag(MOVED)
    for replica in (one, other):
        replica.shared_door.open()
        await replica.metadata.write_back()
    assert await one.tag() == await other.tag() == moved


@pytest.mark.shows("a replica was away for long, and knows old tags")
async def test_a_tombstone_wins_over_the_record_of_a_replica_that_was_away() -> None:
    """Whatever that replica's clock says."""
    shared = Memory()
    one, away = Replica(shared), Replica(shared)
    await away.metadata.put_tag(TAG)
    away.shared_door.shut()
    await away.metadata.put_tag(replace(TAG, fetched_at=9000.0))
    gone = await one.metadata.delete_tag(*KEY, 2000.0)
    away.shared_door.open()
    await away.metadata.write_back()
    assert await one.tag() == await away.tag() == gone
    await eventually(lambda: away.local.tags[KEY] == gone)


async def test_writing_back_ends_quietly_when_the_store_goes_away_and_begins_again() -> None:
    """In portions: what was written is there."""
    shared = Memory()
    one = Replica(shared)
    one.shared_door.shut()
    for number in range(300):
        await one.metadata.put_tag(replace(TAG, tag=f"v{number}"))
    one.shared_door.open()
    one.shared_door.calls = len(one.shared_door.passed) + 3
    await one.metadata.write_back()
    assert 0 < len(shared.tags) < 300
    one.shared_door.open()
    one.metadata.returned()
    await eventually(lambda: len(shared.tags) == 300)


async def test_a_flush_in_the_middle_of_writing_back_makes_it_run_once_more() -> None:
    """However often that is said."""
    shared = Memory()
    one = Replica(shared)
    for number in range(300):
        await one.metadata.put_tag(replace(TAG, tag=f"v{number}"))
    shared.flush()
    one.shared_door.passed.clear()
    one.metadata.returned()
    await eventually(lambda: len(shared.tags) > 100)
    shared.flush()
    for _ in range(10):
        one.metadata.returned()
    await eventually(lambda: len(shared.tags) == 300)
    portions = one.shared_door.passed.count("merge_tags")
    one.metadata.returned()
    await eventually(lambda: one.shared_door.passed.count("merge_tags") > portions)
    assert portions <= 2 * 43  # 300 tags in portions of 7, as the store in memory tells them


async def test_pulls_go_on_while_it_is_written_back() -> None:
    """The loop is given back between two portions."""
    one = Replica(Memory())
    for number in range(3000):
        one.local.tags["ghcr.io", "team/filter", f"v{number}"] = replace(TAG, tag=f"v{number}")
    one.metadata.returned()
    for _ in range(20):
        await one.metadata.tag("ghcr.io", "team/filter", "v2999")
    assert one.shared_door.passed.count("merge_tags") < 100
    await one.metadata.aclose()


async def test_closing_stops_what_is_done_behind_and_loses_no_write() -> None:
    """A put that was begun is made, what is being written back is left, and nothing runs on."""
    shared = Memory()
    one, other = Replica(shared), Replica(shared)
    await other.metadata.put_tag(replace(TAG, tag="v2"))
    for number in range(3000):
        one.local.tags["ghcr.io", "other", f"v{number}"] = replace(TAG, repository="other", tag=f"v{number}")
    one.metadata.returned()
    put = asyncio.ensure_future(one.metadata.put_tag(TAG))
    await one.metadata.tag("ghcr.io", "team/filter", "v2")
    await one.metadata.aclose()
    assert await put == TAG
    assert one.local.tags[KEY] == TAG
    assert one.local.tags["ghcr.io", "team/filter", "v2"] == replace(TAG, tag="v2")
    assert len(shared.tags) < 3000
    one.metadata.returned()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_what_was_read_from_the_others_is_noted_before_closing() -> None:
    """However slow the disk is."""

    class Slow(MemoryMetadata):
        """Takes its time."""

        async def merge_tags(self, entries: Sequence[TagEntry]) -> None:
            await asyncio.sleep(0.05)
            await super().merge_tags(entries)

        async def merge_links(self, entries: Sequence[LinkEntry]) -> None:
            await asyncio.sleep(0.05)
            await super().merge_links(entries)

    local, shared = Slow(Memory()), MemoryMetadata(Memory())
    await shared.put_tag(TAG)
    await shared.put_links([LINK])
    store = ResilientMetadata(local, shared, lambda: True)
    assert await store.tag(*KEY) == TAG
    assert await store.link("ghcr.io", "team/filter", A) == LINK
    await store.aclose()
    assert (local.memory.tags, local.memory.links) == (shared.memory.tags, shared.memory.links)


async def test_a_full_disk_is_no_reason_to_fail() -> None:
    """What the shared store says is enough; when there is room again, this replica learns what it missed."""
    shared = Memory()
    one = Replica(shared)
    one.local_door.shut()
    assert await one.metadata.put_tag(TAG) == TAG
    assert await one.tag() == TAG
    await one.metadata.put_links([LINK])
    assert await one.metadata.link("ghcr.io", "team/filter", A) == LINK
    one.local_door.open()
    calls: list[Callable[[], Awaitable[object]]] = [one.tag, lambda: one.metadata.link("ghcr.io", "team/filter", A)]
    for call in calls:
        assert await call() is not None
    await eventually(lambda: one.local.tags == shared.tags and one.local.links == shared.links)


async def test_a_store_that_cannot_be_closed_does_not_keep_the_other_open() -> None:
    """The database is closed whatever the network does."""
    closed: list[str] = []

    class Unruly(MemoryMetadata):
        """Fails at the end."""

        async def aclose(self) -> None:
            raise OSError("no route")

    class Noting(MemoryMetadata):
        """Says when it was closed."""

        async def aclose(self) -> None:
            closed.append("local")

    with suppress(OSError):
        await ResilientMetadata(Noting(Memory()), Unruly(Memory()), lambda: True).aclose()
    assert closed == ["local"]
