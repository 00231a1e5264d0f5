"""What is on the disk, for people: counted while somebody asks, and what is wrong said in a sentence."""

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import pytest

from mirror import stock
from mirror.contents import Contents
from mirror.digest import Digest
from mirror.errors import StoreError
from mirror.stock import Stocktaking
from mirror.store.census import Census, Usage
from mirror.store.directory import DataDirectory

BLOB, PINNED, HOSTED = (Digest.of(name) for name in (b"blob", b"pinned", b"hosted"))


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[DataDirectory]:
    found = DataDirectory.open(tmp_path / "data")
    for digest, size in ((BLOB, 1), (PINNED, 10), (HOSTED, 100)):
        found.blob(digest).parent.mkdir(parents=True)
        found.blob(digest).write_bytes(bytes(size))
    yield found
    found.close()


class CountedCensus(Census):
    """Says how often it was taken, and fails when it is told to."""

    times = 0
    fails: OSError | None = None

    def take(self) -> Usage:
        self.times += 1
        if self.fails is not None:
            raise self.fails
        return super().take()


class Hosts:
    """Content that is hosted."""

    async def linked(self, after: Digest | None, limit: int) -> Sequence[tuple[Digest, int]]:
        return [(HOSTED, 100)] if after is None else []

    async def linked_manifests(self, after: Digest | None, limit: int) -> Sequence[tuple[Digest, int]]:
        return []


class Stand:
    """Who takes stock, of a disk with a blob of each kind."""

    def __init__(self, directory: DataDirectory) -> None:
        self.clock = 0.0
        self.damage: str | None = None
        self.pins: AbstractSet[str] = {str(PINNED), str(HOSTED)}
        self.fails = False
        self.census = CountedCensus(directory)
        contents = Contents(directory)
        self.stock = Stocktaking(
            directory, self.census, contents, self.protected, Hosts(), lambda: self.damage, lambda: self.clock
        )

    async def protected(self) -> AbstractSet[str]:
        if self.fails:
            raise StoreError("the pins cannot be read")
        return self.pins

    async def problem(self, short: Mapping[str, float] | None = None) -> str | None:
        self.clock += 60
        return (await self.stock.now(short or {})).problem


async def test_what_is_held_and_what_of_it_stays(directory: DataDirectory) -> None:
    found = await Stand(directory).stock.now({})
    assert found.usage is not None
    assert (found.usage.blobs, found.usage.size, found.problem) == (3, 111, None)
    assert found.kept == stock.Kept(pinned=10, hosted=100)
    assert not list(directory.leases.iterdir())


async def test_it_is_counted_no_more_often_than_it_is_worth(directory: DataDirectory) -> None:
    stand = Stand(directory)
    for seconds, times in ((0, 1), (4.9, 1), (0.2, 2), (1, 2), (100, 3)):
        stand.clock += seconds
        await stand.stock.now({})
        assert stand.census.times == times


async def test_what_is_pinned_later_is_seen_after_a_while(directory: DataDirectory) -> None:
    stand = Stand(directory)
    await stand.stock.now({})
    stand.pins = set()
    assert (await stand.stock.now({})).kept == stock.Kept(pinned=10, hosted=100)
    stand.clock += 31
    assert (await stand.stock.now({})).kept == stock.Kept(pinned=0, hosted=100)


async def test_pins_that_cannot_be_read_leave_the_rest(directory: DataDirectory) -> None:
    stand = Stand(directory)
    stand.fails = True
    found = await stand.stock.now({})
    assert found.kept is None
    assert found.usage is not None


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full: what upstreams send is passed through to clients and not kept"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EROFS, "the disk takes nothing (Read-only file system)"),
        (errno.EIO, "the disk takes nothing (Input/output error)"),
    ],
)
async def test_a_disk_that_takes_nothing_is_said_and_what_it_holds_is_counted_all_the_same(
    directory: DataDirectory, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    def fail(fd: int, content: bytes) -> None:
        raise OSError(number, os.strerror(number))

    stand = Stand(directory)
    monkeypatch.setattr(stock, "write_whole", fail)
    found = await stand.stock.now({})
    assert found.problem is not None
    assert found.problem.startswith(words)
    assert str(directory.path) not in found.problem
    assert found.usage is not None
    monkeypatch.undo()
    assert await stand.problem() is None


async def test_a_disk_that_cannot_be_read_is_said(directory: DataDirectory) -> None:
    stand = Stand(directory)
    stand.census.fails = OSError(errno.EIO, os.strerror(errno.EIO))
    found = await stand.stock.now({})
    assert found.usage is None
    assert found.problem == "the disk fails (Input/output error), and what it holds cannot be seen"


async def test_records_of_what_is_hosted_that_are_damaged_are_a_problem(directory: DataDirectory) -> None:
    stand = Stand(directory)
    stand.damage = "the records are damaged"
    assert await stand.problem() == "the records are damaged"


async def test_what_stands_against_eviction_is_told_unless_it_will_be_gone_in_a_minute(
    directory: DataDirectory,
) -> None:
    stand = Stand(directory)
    assert await stand.problem({"hosted": 0, "pinned": 0, "in_flight": 0, "young": 5}) is None
    problem = await stand.problem({"hosted": 1000, "pinned": 20, "in_flight": 0, "young": 5})
    assert problem is not None
    assert problem.startswith(
        "eviction cannot free what it has to: 1,000 bytes are hosted, 20 bytes are pinned; give data_dir more room"
    )
