"""The keeper follows tags, brings what is missing, and gives nobody trouble with what it cannot have."""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirror.answer import Answer, Hit, Whole
from mirror.digest import Digest
from mirror.errors import ManifestUnknown
from mirror.holdings import Holdings
from mirror.keeping import Keeper
from mirror.metadata.base import TagRecord
from mirror.oci import OCI_MANIFEST, Reference
from mirror.pinned import Book
from mirror.store.blobs import BlobStore
from mirror.store.directory import DataDirectory
from mirror.store.leases import Leases
from mirror.store.pins import Named, Pin
from tests.pins.book import pin
from tests.support.artifacts import Artifact, raw, wasm_module
from tests.support.waiting import eventually

ONE, TWO = (raw(wasm_module(1000, seed=number)) for number in (40, 41))
TAG = "up/team/plugin:1"


@dataclass(frozen=True, slots=True)
class Word:
    """What became of a reference."""

    result: str
    why: str | None = None


class Others:
    """The other replicas: how often they were told, and read."""

    def __init__(self) -> None:
        self.told = 0
        self.read = 0

    def changed(self) -> None:
        self.told += 1

    def turn(self) -> None:
        self.read += 1


class World:
    """A disk, and all that a keeper asks."""

    def __init__(self, folder: Path) -> None:
        self.directory = DataDirectory.open(folder)
        self.store = BlobStore(self.directory)
        self.book = Book(self.directory, Leases(self.directory.leases), time.time)
        self.now = 1000.0
        self.records: dict[Reference, TagRecord] = {}
        self.moved = 0
        self.asked: list[str] = []
        self.warmed: list[str] = []
        self.word = Word("failed", "it is away")
        self.held_up: asyncio.Event | None = None
        self.slept = 0
        self.others = Others()
        self.looked = 0
        self.takes = 0.0
        self.keeper = Keeper(
            self.book,
            self,
            self,
            {"up", "hosted"},
            self._leaves_no_record,
            Holdings(self.directory),
            self,
            self.others,
            Leases(self.directory.leases),
            lambda: self.now,
            lambda: self.now,
            self._sleep,
        )

    @property
    def moves(self) -> tuple[int, int]:
        return self.moved, 0

    async def get(self, reference: Reference) -> TagRecord | None:
        self.looked += 1
        self.now += self.takes
        return self.records.get(reference)

    async def manifest(self, reference: Reference) -> Answer:
        self.asked.append(str(reference))
        if reference.tag == "gone":
            raise ManifestUnknown("it is gone")
        return Answer(OCI_MANIFEST, TWO.digest, Whole(TWO.body), Hit())

    async def warm(self, reference: Reference) -> Word:
        self.warmed.append(str(reference))
        if self.held_up is not None:
            await self.held_up.wait()
        return self.word

    async def _sleep(self, seconds: float) -> None:
        self.slept += 1
        await asyncio.sleep(seconds / 50)

    async def _leaves_no_record(self, reference: Reference) -> bool:
        return reference.upstream == "hosted"

    def put(self, *artifacts: Artifact) -> None:
        for one in artifacts:
            for digest, content in (*one.blobs.items(), (one.digest, one.body)):
                self.store.put(digest, content)

    def names(self, artifact: Artifact, at: float) -> None:
        """The tag is known to name that."""
        self.moved += 1
        record = TagRecord("up", "team/plugin", "1", artifact.digest, OCI_MANIFEST, 1, at)
        self.records[Reference("up", "team/plugin", "1")] = record

    async def turns(self, count: int = 3) -> None:
        """Some turns, with what they begin."""
        for _ in range(count):
            await self.keeper.turn()
            for _ in range(5):
                await asyncio.sleep(0)

    async def pin(self, reference: str, *artifacts: Artifact) -> None:
        names = tuple(Named(one.digest, 10.0 - number) for number, one in enumerate(artifacts))
        await self.book.change(lambda _: [Pin(reference, 1, "anna", names=names)])

    def protected(self, reference: str) -> Sequence[Digest]:
        (found,) = [pin for pin in self.book.standing() if pin.reference == reference]
        return [named.digest for named in found.names]


async def test_a_tag_that_moves_is_followed_without_asking_anybody(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put(ONE, TWO)
    await world.pin(TAG, ONE)
    world.names(ONE, 11.0)
    await world.turns()
    assert world.protected(TAG) == [ONE.digest]
    world.names(TWO, 12.0)
    await world.turns()
    assert world.protected(TAG) == [TWO.digest, ONE.digest]
    assert (world.asked, world.warmed) == ([], [])
    assert world.others.told == 1
    assert world.others.read == 6


async def test_what_is_missing_is_brought_by_its_name_and_what_was_before_by_its_digest(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.pin(TAG, TWO, ONE)
    await world.turns()
    assert world.warmed == [TAG, f"up/team/plugin@{ONE.digest}"]


async def test_what_cannot_be_had_is_tried_less_and_less_often_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world = World(tmp_path)
    await world.pin(TAG, ONE)
    tried = []
    for _ in range(200):
        before = len(world.warmed)
        await world.turns(1)
        tried += [world.now - 1000] * (len(world.warmed) - before)
        world.now += 10
    assert tried == [0, 30, 90, 210, 450, 930, 1830]
    assert world.book.problem(TAG) == "it is away"
    world.put(ONE)
    world.now += 60
    await world.turns()
    assert world.book.problem(TAG) is None
    assert caplog.messages == [
        f"{TAG} is pinned, and not all of it is here: it is away; it is tried again now and then",
        f"{TAG} is pinned, and is here now",
    ]


async def test_only_a_few_are_brought_at_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.held_up = asyncio.Event()
    for number in range(9):
        await pin(world.book, f"up/many:{number}")
    await world.turns()
    assert len(world.warmed) == 4
    world.held_up.set()
    await world.turns(6)
    assert len(world.warmed) == 9


async def test_what_is_unpinned_is_brought_no_more(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.pin(TAG, ONE)
    await world.turns()
    await world.book.change(lambda _: [Pin(TAG, 2, "anna", stands=False)])
    world.now += 3600
    await world.turns()
    assert world.warmed == [TAG]
    assert world.book.problem(TAG) is None


async def test_a_pin_of_an_upstream_that_is_not_configured_here_is_kept_and_told(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.pin("elsewhere/team/plugin:1", ONE)
    await world.turns()
    assert world.warmed == []
    assert world.book.problem("elsewhere/team/plugin:1") == "no upstream 'elsewhere' is configured"


async def test_a_hosted_tag_is_looked_up_once_a_minute(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put(ONE, TWO)
    await world.pin("hosted/team/plugin:1", ONE)
    await world.pin("hosted/team/plugin:gone", ONE)
    await world.turns()
    assert world.protected("hosted/team/plugin:1") == [TWO.digest, ONE.digest]
    assert world.protected("hosted/team/plugin:gone") == [ONE.digest]
    assert len(world.asked) == 2
    world.now += 60
    await world.turns()
    assert len(world.asked) == 4


async def test_a_look_that_takes_long_is_followed_by_a_long_rest(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put(ONE, TWO)
    await world.pin(TAG, ONE)
    world.takes = 0.5
    await world.turns()
    world.names(TWO, 12.0)
    await world.turns()
    assert world.looked == 1
    world.now += 10
    await world.turns(1)
    assert world.looked == 2
    assert world.protected(TAG) == [TWO.digest, ONE.digest]


async def test_one_worker_keeps_and_when_it_ends_another_does(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.pin(TAG, ONE)
    first = asyncio.create_task(world.keeper.run())
    await eventually(lambda: world.warmed == [TAG], what="it is brought")
    with Leases(world.directory.leases).attempt("keep pins") as mine:
        assert not mine
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    with Leases(world.directory.leases).attempt("keep pins") as mine:
        assert mine


async def test_a_disk_that_fails_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    world = World(tmp_path)
    await world.pin(TAG, ONE)
    blob = world.directory.blob(ONE.digest)
    blob.parent.parent.mkdir(parents=True)
    blob.parent.symlink_to(blob.parent)  # a loop: no file can be reached there
    kept = asyncio.create_task(world.keeper.run())
    await eventually(lambda: world.slept > 5, what="it was tried several times")
    kept.cancel()
    await asyncio.gather(kept, return_exceptions=True)
    assert ["what is pinned cannot be kept now" in one for one in caplog.messages] == [True]


async def test_what_is_damaged_is_written_anew(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.put(ONE)
    await world.pin(TAG, ONE)
    world.directory.pins.write_bytes(b"")
    await world.book.look()
    await world.turns(1)
    assert Book(world.directory, Leases(world.directory.leases), time.time).is_damaged is False
