"""Records of pins agree whatever the order in which they come, and their file outlives damage."""

import errno
import itertools
import json
import random
import zlib
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.errors import StoreError, UpstreamInvalid
from mirror.store.directory import write_durably
from mirror.store.pinfile import Loaded, PinFile
from mirror.store.pins import (
    BURIED_FOR,
    Imported,
    Named,
    Pin,
    Record,
    Records,
    of_record,
    to_record,
)

ONE, TWO, THREE = (Digest.of(text) for text in (b"1", b"2", b"3"))
NAME = "up/team/plugin:1"


def pinned(at: int, *names: tuple[Digest, float], reference: str = NAME) -> Pin:
    return Pin(reference, at, "anna", names=tuple(Named(*one) for one in names))


def unpinned(at: int) -> Pin:
    return Pin(NAME, at, "anna", stands=False)


def digests(pin: Pin | None) -> list[Digest]:
    assert pin is not None
    return [one.digest for one in pin.names]


def after(*records: Record) -> Records:
    return Records().with_merged(records)


def test_of_a_pin_and_an_unpin_the_newest_stands() -> None:
    assert after(pinned(1), unpinned(2)).pin(NAME) == unpinned(2)
    assert after(pinned(3), unpinned(2)).pin(NAME) == pinned(3)


def test_a_pin_protects_the_two_digests_that_were_named_last() -> None:
    pin = pinned(1, (ONE, 1.0)).following(Named(TWO, 2.0)).following(Named(THREE, 3.0))
    assert digests(pin) == [THREE, TWO]


def test_a_tag_that_moves_back_names_the_digest_before_again() -> None:
    pin = pinned(1, (ONE, 1.0)).following(Named(TWO, 2.0)).following(Named(ONE, 3.0))
    assert digests(pin) == [ONE, TWO]


def test_what_was_asked_earlier_does_not_move_a_pin_back() -> None:
    pin = pinned(1, (ONE, 1.0)).following(Named(TWO, 2.0))
    assert pin.following(Named(ONE, 1.5)) is pin
    assert pin.following(Named(THREE, 0.5)) == pin
    assert digests(pin.following(Named(THREE, 1.5))) == [TWO, THREE]


def test_that_a_tag_still_names_the_same_changes_nothing() -> None:
    pin = pinned(1, (ONE, 1.0))
    assert pin.following(Named(ONE, 9.0)) is pin


def test_replicas_agree_whatever_they_hear_first() -> None:
    """Random histories, told in random orders, in parts, and more than once."""
    chance = random.Random(7)
    for _ in range(200):
        records: list[Record] = []
        for _ in range(6):
            at = chance.randrange(3)
            names = [(chance.choice([ONE, TWO, THREE]), float(chance.randrange(4))) for _ in range(2)]
            kinds: list[Record] = [pinned(at, *names[:1]), unpinned(at), Imported(NAME, at, names[0][0])]
            records.append(chance.choice(kinds))
        ends = []
        for order in itertools.islice(itertools.permutations(records), 0, 720, 97):
            there = after(*order[:3])
            here = after(*order[2:])
            ends.append(there.with_merged(here.all.values()))
            ends.append(here.with_merged(there.all.values()).with_merged(order))
        assert all(end == ends[0] for end in ends)


def test_a_tombstone_is_kept_for_90_days() -> None:
    records = after(unpinned(1000), pinned(1, (ONE, 1.0), reference="up/other:1"))
    assert records.without_old(BURIED_FOR) == records
    assert list(records.without_old(BURIED_FOR + 1.001).all) == ["pin up/other:1"]


def test_a_record_is_the_same_after_it_was_told() -> None:
    for record in (pinned(5, (ONE, 1.5), (TWO, 0.5)), unpinned(6), Imported(NAME, 7, ONE)):
        assert to_record(json.loads(json.dumps(of_record(record)))) == record
    assert to_record({"unheard-of": 1}) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"pin": "no reference"},
        {"pin": "up/team/plugin"},
        {"pin": 1},
        {"at": -1},
        {"at": "1"},
        {"by": "ä"},
        {"stands": 1},
        {"names": {}},
        {"names": [{"digest": "sha256:0", "since": 1}]},
        {"names": [{"digest": str(ONE), "since": float("nan")}]},
        {"names": [{"digest": str(ONE), "since": 1.0}] * 3},
    ],
)
def test_what_makes_no_sense_is_not_believed(fields: dict[str, object]) -> None:
    with pytest.raises(UpstreamInvalid):
        to_record({**of_record(pinned(1)), **fields})


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "pins", tmp_path / "pins.backup"


RECORDS = after(*(pinned(number, (ONE, 1.0), reference=f"up/team/plugin:{number}") for number in range(20)))


def save(path: Path, backup: Path, records: Records) -> None:
    PinFile(path, backup).save(records)


def load(path: Path, backup: Path) -> Loaded:
    return PinFile(path, backup).load()


def test_what_was_written_is_read(files: tuple[Path, Path]) -> None:
    assert load(*files).records == Records()
    save(*files, RECORDS)
    assert load(*files).records == RECORDS
    assert load(*files).damage is None


@pytest.mark.parametrize("cut", [0, 5, 30, 700, -1])
def test_a_file_that_was_cut_is_told_of_and_its_backup_taken(files: tuple[Path, Path], cut: int) -> None:
    save(*files, RECORDS)
    files[0].write_bytes(files[0].read_bytes()[:cut])
    found = load(*files)
    assert found.records == RECORDS
    assert found.damage is not None
    assert "is damaged" in found.damage


def test_any_flipped_bit_is_found(files: tuple[Path, Path]) -> None:
    save(*files, RECORDS)
    right = files[0].read_bytes()
    chance = random.Random(3)
    for _ in range(25):
        wrong = bytearray(right)
        wrong[chance.randrange(len(wrong))] ^= 1 << chance.randrange(8)
        files[0].write_bytes(wrong)
        found = load(*files)
        assert found.records == RECORDS
        assert found.damage is not None


def test_of_two_damaged_files_all_lines_count_that_are_whole(files: tuple[Path, Path]) -> None:
    save(*files, RECORDS)
    lines = files[0].read_bytes().split(b"\n")
    files[0].write_bytes(b"\n".join(lines[:8]))
    files[1].write_bytes(b"\n".join([b"", *lines[10:]]))
    found = load(*files)
    assert len(found.records.all) == 18
    assert found.damage is not None
    assert "18 records" in found.damage


def test_a_file_that_is_gone_is_had_from_its_backup(files: tuple[Path, Path]) -> None:
    save(*files, RECORDS)
    files[0].unlink()
    assert load(*files).records == RECORDS


def test_what_a_later_release_has_written_is_left_alone(files: tuple[Path, Path]) -> None:
    save(*files, RECORDS)
    text = b'{"v":2}'
    files[0].write_bytes(b"%08x %s\n" % (zlib.crc32(text), text))
    with pytest.raises(StoreError, match="later release"):
        load(*files)


def test_on_a_full_disk_the_backup_makes_room(files: tuple[Path, Path]) -> None:
    save(*files, RECORDS)

    def write(path: Path, content: bytes) -> None:
        if files[1].exists() or path == files[1]:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_durably(path, content)

    fewer = after(*list(RECORDS.all.values())[:3])
    PinFile(*files, write).save(fewer)
    assert load(*files).records == fewer


def test_who_reads_and_writes_by_turns_has_what_the_other_wrote(files: tuple[Path, Path]) -> None:
    """Lines are remembered; what they say is not mixed up."""
    one, other = PinFile(*files), PinFile(*files)
    records = RECORDS
    for number in range(10):
        writer, reader = (one, other) if number % 2 else (other, one)
        changed = Pin(f"up/team/plugin:{number}", 100 + number, "bert", stands=False)
        records = records.with_merged([changed, pinned(7, reference=f"up/more:{number}")])
        writer.save(records)
        assert reader.load().records == records == load(*files).records
    fewer = Records(dict(list(records.all.items())[::2]))
    one.save(fewer)
    assert other.load().records == fewer
