"""All that has rotted is found, taken out of service and had again; nothing else is touched, nothing is read twice."""

import asyncio
import errno
import os
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.errors import StoreError
from mirror.metadata.base import BlobRecord
from mirror.store.blobs import BlobStore, File
from mirror.store.leases import Leases
from mirror.store.reading import PIECE, Reading
from mirror.store.scrubbed import Scrubbed, load, save
from tests.scrub.support import EVERY, MIB, Broken, Disk, Forbidden, breaking, worker
from tests.support.rot import rot


class KilledError(BaseException):
    """What nobody catches."""


async def test_a_bit_that_flipped_in_each_of_20_is_found_and_nothing_else_is_touched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(tmp_path)
    digests = await disk.fill(60)
    digests += [await disk.put(b"large" * PIECE), await disk.put(b"", noted=False)]
    rotten = [*digests[:57:3], digests[-2]]
    assert len(rotten) == 20
    for digest in rotten:
        rot(disk.file(digest))
    before = {digest: os.stat(disk.file(digest)).st_ino for digest in set(digests).difference(rotten)}
    async with worker(disk) as one:
        await one.scrubber.turn()
        assert one.counted() == {"sound": 42, "damaged": 20, "restored": 20}
    assert sorted(disk.mending.asked) == sorted(rotten)
    assert all(disk.is_right(digest) for digest in digests)
    assert {digest: os.stat(disk.file(digest)).st_ino for digest in before} == before
    assert sum("is damaged" in record.message for record in caplog.records) == 20
    assert list(disk.directory.spool.iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "longer", "empty"])
async def test_a_file_of_another_size_is_found_whether_it_was_noted_or_not(tmp_path: Path, damage: str) -> None:
    disk = Disk(tmp_path)
    digests = [await disk.put(b"noted"), await disk.put(b"not noted", noted=False)]
    for digest in digests:
        content = disk.contents[digest]
        disk.file(digest).write_bytes({"cut": content[:-1], "longer": content + b"!", "empty": b""}[damage])
    async with worker(disk) as one:
        await one.scrubber.turn()
        assert one.counted() == {"damaged": 2, "restored": 2}
    assert all(disk.is_right(digest) for digest in digests)


async def test_what_was_never_noted_is_held_against_its_digest_and_noted(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    sound, rotten = await disk.put(b"sound", noted=False), await disk.put(b"rotten", noted=False)
    rot(disk.file(rotten))
    disk.mending.nowhere = {rotten}
    async with worker(disk) as one:
        await one.scrubber.turn()
        assert one.counted() == {"sound": 1, "damaged": 1, "lost": 1}
    assert await disk.notes.blob(sound) is not None
    assert await disk.notes.blob(rotten) is None


@pytest.mark.parametrize("wrong", ["size", "hash"])
async def test_a_note_that_is_wrong_costs_nothing_that_is_right(tmp_path: Path, wrong: str) -> None:
    disk = Disk(tmp_path)
    digest = await disk.put(b"right")
    note = await disk.notes.blob(digest)
    assert note is not None
    lie = BlobRecord(digest, 4, note.blake3, 0.0) if wrong == "size" else BlobRecord(digest, 5, "0" * 64, 0.0)
    await disk.notes.put_blob(lie)
    async with worker(disk) as one:
        await one.scrubber.turn()
        assert one.counted() == {"sound": 1}
    assert disk.is_right(digest)
    mended = await disk.notes.blob(digest)
    assert mended is not None
    assert (mended.size, mended.blake3) == (5, note.blake3)


async def test_each_round_begins_when_its_time_has_come(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    (digest,) = await disk.fill(1)
    disk.time.at -= 1
    async with worker(disk) as one:
        await one.scrubber.turn()
        assert disk.opened == []
        disk.time.at += 1
        for _ in range(3):
            await one.scrubber.turn()
        assert disk.opened == [digest]
        disk.time.at += EVERY
        await one.scrubber.turn()
        assert disk.opened == [digest, digest]


async def test_a_scrub_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    digests = await disk.fill(40, MIB)

    def killed(path: Path) -> Reading:
        if len(disk.opened) == 25:
            raise KilledError
        return Reading(path)

    async with worker(disk, rate=MIB, open_file=killed) as one:  # a second for each
        with pytest.raises(KilledError):
            await one.scrubber.turn()
    first, disk.opened = disk.opened, []
    async with worker(disk, rate=MIB) as another:
        await another.scrubber.turn()
    assert first == digests[: len(first)]
    assert disk.opened == digests[-len(disk.opened) :]
    assert 40 <= len(first) + len(disk.opened) <= 40 + 7  # 5 s of work, and the one in the middle of which it was
    state = load(disk.directory.scrubbed)
    assert state is not None
    assert state.ended


async def test_a_state_that_cannot_be_read_begins_anew(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    digests = await disk.fill(3)
    for rubbish in (b"", b"{}", b'{"v": 1, "began": null}', b"\xff" * 100, b"[" * 100_000):
        disk.directory.scrubbed.write_bytes(rubbish)
        disk.opened = []
        disk.time.at += EVERY
        async with worker(disk) as one:
            await one.scrubber.turn()
        assert disk.opened == digests


async def test_two_workers_scrub_once_and_both_hear_what_was_condemned(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    digests = await disk.fill(30)
    rot(disk.file(digests[7]))
    async with worker(disk) as one, worker(disk) as other:
        maps = [each.store.open(digests[7]) for each in (one, other)]
        for _ in range(2):
            await asyncio.gather(one.scrubber.turn(), other.scrubber.turn())
        assert sorted(set(disk.opened)) == digests
        assert len(disk.opened) == 31  # the rotten one is read once more
        assert sum(each.metrics.scrubbed[("damaged",)] for each in (one, other)) == 1
        for each, blob in zip((one, other), maps, strict=True):
            assert blob is not None
            with pytest.raises(StoreError, match="rotted"):
                blob.read(0, 1)
            again = each.store.open(digests[7])
            assert again is not None
            assert bytes(again.read(0, again.size)) == disk.contents[digests[7]]


async def test_what_another_worker_has_just_finished_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(tmp_path)
    await disk.fill(3)
    attempt = Leases.attempt

    def late(leases: Leases, name: str) -> AbstractContextManager[bool]:
        save(disk.directory.scrubbed, Scrubbed(disk.time.at, ended=True))
        return attempt(leases, name)

    monkeypatch.setattr(Leases, "attempt", late)
    async with worker(disk) as one:
        await one.scrubber.turn()
    assert disk.opened == []


async def test_the_rate_is_never_exceeded_and_a_pause_is_not_made_up_for(tmp_path: Path) -> None:
    disk, read = Disk(tmp_path), [(0.0, 0)]

    class Timed(Reading):
        def next(self) -> bytes:
            piece = super().next()
            read.append((disk.time.at, len(piece)))
            return piece

    await disk.fill(3, MIB)
    rate = 64 * 1024
    async with worker(disk, rate=rate, open_file=Timed) as one:
        disk.time.at += 10 * EVERY
        read[0] = disk.time.at, 0
        await one.scrubber.turn()
    for (before, size), (at, _) in pairwise(read):
        assert at - before >= size / rate
    assert sum(size for _, size in read) == 3 * MIB
    assert disk.time.at - read[0][0] < 3 * MIB / rate * 1.2


async def test_many_small_files_are_work_too(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    await disk.fill(20, 8)
    before = disk.time.at
    async with worker(disk, rate=32 * 1024) as one:
        await one.scrubber.turn()
    assert disk.time.at - before >= 20


async def test_a_file_that_the_disk_cannot_read_is_damaged_when_others_can_be_read(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    digests = await disk.fill(20)
    broken = digests[3:6] + digests[-1:]
    async with worker(disk, open_file=breaking(Broken, *broken)) as one:
        await one.scrubber.turn()
        assert one.counted() == {"sound": 16, "damaged": 4, "restored": 4}
    assert all(disk.is_right(digest) for digest in digests)


@pytest.mark.parametrize("n", [3, 40])
async def test_a_disk_that_cannot_be_read_at_all_loses_nothing_and_is_tried_again(tmp_path: Path, n: int) -> None:
    disk = Disk(tmp_path)
    digests = await disk.fill(n)
    async with worker(disk, open_file=breaking(Broken, *digests)) as one:
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output error"):
                await one.scrubber.turn()
        assert one.counted() == {}
    assert all(disk.is_right(digest) for digest in digests)
    async with worker(disk) as one:
        await one.scrubber.turn()
        assert one.counted() == {"sound": n}


async def test_a_file_that_may_not_be_read_is_left_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk(tmp_path)
    digests = await disk.fill(3)
    async with worker(disk, open_file=breaking(Forbidden, digests[1])) as one:
        await one.scrubber.turn()
        assert one.counted() == {"sound": 2, "unreadable": 1}
    assert disk.is_right(digests[1])
    assert f"{digests[1]} cannot be read (Permission denied)" in caplog.text


async def test_what_is_deleted_or_no_file_at_all_is_passed_over(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    sound, rotten = await disk.put(b"a" * MIB), await disk.put(b"b" * MIB)
    rot(disk.file(rotten))
    folder = disk.file(Digest.of(b"none"))
    folder.mkdir(parents=True)
    (disk.directory.blobs / "sha256" / "stray").write_bytes(b"")
    (disk.directory.blobs / "sha256" / "00").mkdir(exist_ok=True)
    (disk.directory.blobs / "sha256" / "00" / "no digest").write_bytes(b"")

    class Deleted(Reading):
        def next(self) -> bytes:
            disk.store.delete(sound)
            disk.store.delete(rotten)
            return super().next()

    async with worker(disk, open_file=Deleted) as one:
        await one.scrubber.turn()
        assert one.counted().get("damaged", 0) == 0
    assert disk.mending.asked == []
    assert folder.is_dir()


async def test_right_bytes_that_come_in_the_middle_stay(tmp_path: Path) -> None:
    """Somebody pushes it again while the rotten file is read."""
    disk = Disk(tmp_path)
    digest = await disk.put(b"a" * MIB)
    rot(disk.file(digest))

    class Replaced(Reading):
        def next(self) -> bytes:
            piece = super().next()
            if not piece:
                disk.store.put(digest, disk.contents[digest])
            return piece

    def late(path: Path) -> Reading:  # the second reading finds out what the first suspects
        return Replaced(path) if disk.opened.count(digest) == 2 else Reading(path)

    async with worker(disk, open_file=late) as one:
        await one.scrubber.turn()
        assert one.counted() == {}
    assert disk.is_right(digest)
    assert disk.mending.asked == []


async def test_right_bytes_that_come_at_the_last_instant_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(tmp_path)
    digest = await disk.put(b"right")
    rot(disk.file(digest))
    judged = File.of(os.stat(disk.file(digest)))
    rename = Path.rename

    def renamed(self: Path, target: Path) -> Path:
        monkeypatch.undo()
        disk.store.put(digest, disk.contents[digest])
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", renamed)
    assert not disk.store.withdraw(digest, judged)
    assert disk.is_right(digest)
    assert list(disk.directory.spool.iterdir()) == []


async def test_what_cannot_be_deleted_is_not_served_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(tmp_path)
    rotten, sound = await disk.put(b"rotten"), await disk.put(b"sound")
    disk.mending.nowhere = {rotten}
    rot(disk.file(rotten))

    def read_only(store: BlobStore, digest: Digest, file: File) -> bool:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(BlobStore, "withdraw", read_only)
    async with worker(disk) as one:
        blob = one.store.open(rotten)
        await one.scrubber.turn()
        assert disk.file(rotten).exists()
        assert one.store.open(rotten) is None
        assert not one.store.holds(rotten)
        assert one.store.holds(sound)
        assert blob is not None
        with pytest.raises(StoreError):
            blob.read(0, 1)
        disk.store.put(rotten, disk.contents[rotten])
        assert one.store.holds(rotten)
        assert one.store.open(rotten) is not None


async def test_what_nobody_gives_is_said_once_and_tried_again_also_after_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk(tmp_path)
    digest = await disk.put(b"hosted")
    rot(disk.file(digest))
    disk.mending.nowhere = {digest}
    async with worker(disk) as one:
        await one.scrubber.turn()
        for _ in range(3):
            await one.scrubber.turn()
        assert disk.mending.asked == [digest]
        disk.time.at += 301
        await one.scrubber.turn()
        assert disk.mending.asked == [digest] * 2
        assert one.counted() == {"damaged": 1, "lost": 1}
        assert caplog.text.count("nobody gives it now") == 1
    async with worker(disk) as another:
        disk.mending.nowhere = set()
        await another.scrubber.turn()
        assert another.counted() == {"restored": 1}
    assert disk.is_right(digest)
    state = load(disk.directory.scrubbed)
    assert state is not None
    assert state.missing == frozenset()


async def test_what_nobody_can_ask_for_is_let_go(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    digest = await disk.put(b"made here")
    rot(disk.file(digest))
    disk.mending.unneeded = {digest}
    async with worker(disk) as one:
        await one.scrubber.turn()
        disk.time.at += 301
        await one.scrubber.turn()
        assert one.counted() == {"damaged": 1}
    assert disk.mending.asked == [digest]
    assert not disk.file(digest).exists()


async def test_a_disk_that_takes_no_state_is_scrubbed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(tmp_path)
    digests = await disk.fill(5)
    rot(disk.file(digests[2]))
    (disk.directory.path / ".scrubbed.draft").mkdir()
    async with worker(disk) as one:
        await one.scrubber.turn()
        assert one.counted() == {"sound": 4, "damaged": 1, "restored": 1}
        await one.scrubber.turn()
        assert one.counted()["sound"] == 4
