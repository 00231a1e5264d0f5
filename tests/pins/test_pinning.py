"""What pinning and unpinning do, whatever the clock says, and who hears of it."""

from pathlib import Path

import pytest

from mirror.answer import Answer, Hit, Whole
from mirror.digest import Digest
from mirror.errors import (
    ManifestUnknown,
    MirrorError,
    NameInvalid,
    NameUnknown,
    NotPinned,
    TooMany,
    UpstreamDenied,
    UpstreamUnavailable,
)
from mirror.metadata.base import TagRecord
from mirror.oci import OCI_MANIFEST, Reference
from mirror.pinning import Pins
from tests.pins.book import book_in, pin

TAG = Reference("up", "team/plugin", "1")
ONE, TWO = Digest.of(b"1"), Digest.of(b"2")


class World:
    """An upstream, a clock, and what is held."""

    def __init__(self, folder: Path) -> None:
        self.book = book_in(folder)
        self.now = 1000.0
        self.gives: Digest | MirrorError = ONE
        self.record: TagRecord | None = None
        self.held: set[Digest] = set()
        self.told = 0
        self.pins = Pins(self.book, self, self, {"up"}, self.held.__contains__, self._changed, lambda: self.now)

    def _changed(self) -> None:
        self.told += 1

    async def manifest(self, reference: Reference) -> Answer:
        if isinstance(self.gives, MirrorError):
            raise self.gives
        return Answer(OCI_MANIFEST, self.gives, Whole(b""), Hit(), self.now)

    async def get(self, reference: Reference) -> TagRecord | None:
        return self.record

    def knows(self, digest: Digest) -> None:
        self.record = TagRecord("up", "team/plugin", "1", digest, OCI_MANIFEST, 1, 5.0)


async def test_each_change_is_told_to_the_others_and_what_changes_nothing_is_not(tmp_path: Path) -> None:
    world = World(tmp_path)
    pinned = await world.pins.pin(TAG, "anna")
    assert (pinned.reference, pinned.digests, pinned.by, pinned.already) == (TAG, (ONE,), "anna", False)
    assert world.told == 1
    assert (await world.pins.pin(TAG, "bert")).already
    assert world.told == 1
    assert await world.pins.unpin(TAG, "bert")
    assert world.told == 2
    assert not await world.pins.unpin(TAG, "bert")
    assert world.told == 2
    await world.pins.note_imported(TAG, ONE)
    await world.pins.note_imported(TAG, ONE)
    assert world.told == 3
    assert world.pins.covers(TAG)
    assert world.pins.listed() == []


async def test_the_later_deed_stands_though_the_clock_goes_back(tmp_path: Path) -> None:
    world = World(tmp_path)
    for _ in range(3):
        await world.pins.pin(TAG, "anna")
        assert [one.reference for one in world.pins.listed()] == [TAG]
        world.now -= 100
        await world.pins.unpin(TAG, "anna")
        assert world.pins.listed() == []


async def test_who_pins_again_protects_what_the_tag_names_by_now(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.pins.pin(TAG, "anna")
    world.now, world.gives = 1001.0, TWO
    assert (await world.pins.pin(TAG, "anna")).digests == (TWO, ONE)
    assert await world.pins.protected() == {str(ONE), str(TWO)}


@pytest.mark.parametrize("failure", [UpstreamUnavailable("it is away"), UpstreamDenied("it refuses")])
async def test_while_upstream_fails_what_is_held_is_pinned(tmp_path: Path, failure: MirrorError) -> None:
    world = World(tmp_path)
    world.gives = failure
    with pytest.raises(type(failure)):
        await world.pins.pin(TAG, "anna")
    world.knows(TWO)
    with pytest.raises(type(failure)):
        await world.pins.pin(TAG, "anna")
    world.held.add(TWO)
    assert (await world.pins.pin(TAG, "anna")).digests == (TWO,)
    assert (await world.pins.pin(TAG.at(TWO), "anna")).digests == (TWO,)


@pytest.mark.parametrize("failure", [ManifestUnknown("no such tag"), NameUnknown("it may not be pulled")])
async def test_what_upstream_does_not_have_is_not_pinned_though_it_is_held(
    tmp_path: Path, failure: MirrorError
) -> None:
    world = World(tmp_path)
    world.knows(TWO)
    world.held.add(TWO)
    world.gives = failure
    with pytest.raises(type(failure)):
        await world.pins.pin(TAG, "anna")
    assert world.pins.listed() == []


async def test_what_could_not_be_read_again_is_not_taken_down(tmp_path: Path) -> None:
    world = World(tmp_path)
    with pytest.raises(NameUnknown, match="'elsewhere'"):
        await world.pins.pin(Reference("elsewhere", "team/plugin", "1"), "anna")
    with pytest.raises(NameInvalid):
        await world.pins.pin(Reference("up", "a" * 254, "1"), "anna")
    pinned = await world.pins.pin(TAG, "Änne\n")
    assert book_in(tmp_path).standing()[0].by == "?nne?"
    assert pinned.by == "?nne?"


async def test_there_are_only_so_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirror.pinning.MOST", 1)
    world = World(tmp_path)
    await world.pins.pin(TAG, "anna")
    with pytest.raises(TooMany, match="unpin"):
        await world.pins.pin(Reference("up", "team/plugin", "2"), "anna")
    assert (await world.pins.pin(TAG, "anna")).already


async def test_a_pin_is_found_by_its_name_whatever_is_configured(tmp_path: Path) -> None:
    world = World(tmp_path)
    await pin(world.book, "before/team/plugin:1")
    found = world.pins.find("oci://before/team/plugin:1")
    assert found == Reference("before", "team/plugin", "1")
    with pytest.raises(NotPinned, match="before/team/plugin:2 is not pinned"):
        world.pins.find("before/team/plugin:2")
    with pytest.raises(NameInvalid):
        world.pins.find("Before/!")
