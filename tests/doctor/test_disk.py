"""What the doctor says of the data directory; what a file system gets wrong is put in the place of its calls."""

import asyncio
import errno
import itertools
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mirror.doctor.disk import Disk
from mirror.doctor.probes import ProbeFolder, System, file_system, holder_of
from mirror.doctor.report import Mark
from mirror.store.directory import FORMAT, DataDirectory
from tests.doctor.support import Found, found_by
from tests.support.waiting import eventually


async def disk(path: Path, **system: Any) -> Found:
    """What is found of ``path``, with those calls of the system replaced."""
    return await found_by(Disk(path, System(**{"mounts": path / "no-mounts", **system})))


def fails_with(number: int) -> Callable[..., Any]:
    def fail(*_: object) -> Any:
        raise OSError(number, os.strerror(number))

    return fail


def files(path: Path) -> list[str]:
    return sorted(str(file.relative_to(path)) for file in path.rglob("*"))


async def test_a_good_disk_is_well_and_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    found = await disk(tmp_path)
    assert {finding.mark for finding in found.findings} == {Mark.OK}, found
    for check in ("access", "space", "inodes", "fsync", "rename", "flock", "mmap"):
        assert found.mark(check) is Mark.OK, found
    assert files(tmp_path) == ["blobs"]


async def test_it_works_while_a_mirror_runs_and_says_so(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path)
    try:
        before = files(tmp_path)
        found = await disk(tmp_path)
        assert f"process {os.getpid()}" in found["use"].said
        assert {finding.mark for finding in found.findings} == {Mark.OK}, found
        assert files(tmp_path) == before
    finally:
        directory.close()
    assert "no mirror runs" in (await disk(tmp_path))["use"].said


async def test_a_folder_that_is_not_there_is_tried_and_not_left_behind(tmp_path: Path) -> None:
    found = await disk(tmp_path / "new" / "data")
    assert found.mark("access") is Mark.OK
    assert found.mark("mmap") is Mark.OK
    assert files(tmp_path) == []


async def test_a_folder_that_was_put_to_use_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "data"

    def used(fd: int) -> None:
        (path / "format").write_text("{}")

    await disk(path, fsync=used)
    assert files(tmp_path) == ["data", "data/format"]


async def test_what_cannot_be_written_leads_to_its_owner_or_another_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = await disk(tmp_path / "file" / "data")
    assert found.mark("access") is Mark.FAIL
    assert "data_dir" in found["access"].advice


@pytest.mark.parametrize(
    ("number", "advice"), [(errno.EACCES, "chown"), (errno.ENOSPC, "free some space"), (errno.EROFS, "mount it")]
)
async def test_why_nothing_can_be_written_decides_the_advice(tmp_path: Path, number: int, advice: str) -> None:
    found = await disk(tmp_path, mkdir=fails_with(number))
    assert found.mark("access") is Mark.FAIL
    assert advice in found["access"].advice
    assert found.mark("fsync") is None


async def test_a_disk_that_fills_up_under_the_probes_is_told(tmp_path: Path) -> None:
    found = await disk(tmp_path, fsync=fails_with(errno.ENOSPC))
    assert found.mark("writing") is Mark.FAIL
    assert "free some space" in found["writing"].advice
    assert files(tmp_path) == []


def room(*, free: int = 1 << 40, whole: int = 1 << 40, inodes: int = 1 << 20, free_inodes: int = 1 << 20) -> Any:
    fields = (4096, 4096, whole >> 12, free >> 12, free >> 12, inodes, free_inodes, free_inodes, 0, 255)
    return lambda _: os.statvfs_result(fields)


async def test_little_room_is_told_before_there_is_none(tmp_path: Path) -> None:
    for free, mark in ((10 << 20, Mark.FAIL), (500 << 20, Mark.WARN), (30 << 30, Mark.WARN), (300 << 30, Mark.OK)):
        found = await disk(tmp_path, statvfs=room(free=free))
        assert found.mark("space") is mark, f"{free} bytes: {found}"
    assert "not kept" in (await disk(tmp_path, statvfs=room(free=0)))["space"].advice


async def test_few_inodes_are_told(tmp_path: Path) -> None:
    found = await disk(tmp_path, statvfs=room(free_inodes=9_000))
    assert found.mark("inodes") is Mark.WARN
    assert "mkfs" in found["inodes"].advice
    assert (await disk(tmp_path, statvfs=room(inodes=0, free_inodes=0))).mark("inodes") is Mark.OK


async def test_a_slow_fsync_is_told_by_its_median(tmp_path: Path) -> None:
    for seconds, mark in ((0.060, Mark.WARN), (0.040, Mark.OK)):
        ticks = itertools.count(0.0, seconds)
        found = await disk(tmp_path, clock=lambda ticks=ticks: next(ticks))
        assert found.mark("fsync") is mark
    assert "60.0 ms" in (await disk(tmp_path, clock=itertools.count(0.0, 0.060).__next__))["fsync"].said


async def test_a_rename_that_does_not_replace_is_told(tmp_path: Path) -> None:
    for wrong in (fails_with(errno.EEXIST), lambda *_: None):
        found = await disk(tmp_path, replace=wrong)
        assert found.mark("rename") is Mark.FAIL
        assert "local disk" in found["rename"].advice


async def test_a_lock_that_keeps_nobody_out_is_told(tmp_path: Path) -> None:
    for wrong in (fails_with(errno.ENOLCK), lambda *_: None):
        found = await disk(tmp_path, flock=wrong)
        assert found.mark("flock") is Mark.FAIL
        assert "local disk" in found["flock"].advice


async def test_a_map_that_does_not_show_what_is_written_is_told(tmp_path: Path) -> None:
    class Copy(bytearray):
        def close(self) -> None: ...

    for wrong in (fails_with(errno.ENODEV), lambda _, size: Copy(size)):
        found = await disk(tmp_path, map=wrong)
        assert found.mark("mmap") is Mark.FAIL
        assert "local disk" in found["mmap"].advice
    assert files(tmp_path) == []


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /run rw shared:5 - tmpfs tmpfs rw
31 22 0:41 / /srv/a\\040b rw shared:5 - nfs4 server:/export rw
32 22 0:42 / /pod rw - overlay overlay rw
33 22 0:43 / /bucket rw - fuse.s3fs s3fs rw
34 22 0:44 / /pod rw - xfs /dev/sdb rw
"""


def test_the_file_system_is_that_of_the_longest_mount_point_and_the_topmost(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    system = System(mounts=mounts)
    expected = {"/": "ext4", "/running": "ext4", "/run/x": "tmpfs", "/srv/a b/c": "nfs4", "/pod": "xfs"}
    assert {path: file_system(Path(path), system) for path in expected} == expected
    assert file_system(Path("/"), System(mounts=tmp_path / "absent")) == ""


@pytest.mark.parametrize(
    ("kind", "mark", "words"),
    [
        ("ext4", Mark.OK, ""),
        ("tmpfs", Mark.WARN, "restart"),
        ("overlay", Mark.WARN, "mount a volume"),
        ("nfs4", Mark.WARN, "local disk"),
        ("fuse.s3fs", Mark.WARN, "local disk"),
    ],
)
async def test_file_systems_with_pitfalls_are_told(tmp_path: Path, kind: str, mark: Mark, words: str) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"22 1 8:1 / / rw - {kind} somewhere rw\n")
    found = await disk(tmp_path, mounts=mounts)
    assert found.mark("file system") is mark
    assert words in found["file system"].advice


async def test_a_format_that_this_release_cannot_read_is_told(tmp_path: Path) -> None:
    for content, words in ((f'{{"format": {FORMAT + 1}}}', "newer release"), ("spoilt", "cannot be read")):
        (tmp_path / "format").write_text(content)
        found = await disk(tmp_path)
        assert found.mark("format") is Mark.FAIL
        assert words in found["format"].said


def test_a_lock_is_looked_up_and_not_taken(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text("")
    system = System(flock=fails_with(errno.EINVAL))
    assert holder_of(lock, system) is None
    assert holder_of(tmp_path / "absent", system) is None


# It ends, and leaves nothing behind.


async def test_an_interrupted_examination_leaves_nothing_behind(tmp_path: Path) -> None:
    at_work, goes_on = threading.Event(), threading.Event()

    def fsync(fd: int) -> None:
        at_work.set()
        goes_on.wait(30)

    task = asyncio.create_task(disk(tmp_path / "data", fsync=fsync))
    await asyncio.to_thread(at_work.wait, 10)
    assert files(tmp_path) != []
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert files(tmp_path) == []
    goes_on.set()


async def test_an_examination_that_is_interrupted_at_its_first_step_leaves_nothing_behind(tmp_path: Path) -> None:
    at_work, goes_on, made = threading.Event(), threading.Event(), list[Path]()

    def mkdir(path: Path) -> None:
        at_work.set()
        goes_on.wait(30)
        path.mkdir()
        made.append(path)

    task = asyncio.create_task(disk(tmp_path / "data", mkdir=mkdir))
    await asyncio.to_thread(at_work.wait, 10)
    task.cancel()
    await asyncio.wait([task], timeout=0.2)  # as much as it does while the disk is busy
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: len(made) == 2)
    assert files(tmp_path) == []


def test_a_folder_that_was_removed_is_made_no_more(tmp_path: Path) -> None:
    folder = ProbeFolder(tmp_path / "data", System())
    folder.remove()
    folder.make()
    assert files(tmp_path) == []


def test_a_probe_that_is_still_at_work_makes_no_file_while_its_folder_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ProbeFolder(tmp_path, System())
    folder.make()
    remove = shutil.rmtree

    def slow(path: Path, ignore_errors: bool) -> None:
        with pytest.raises(FileNotFoundError):
            (folder.path / "late").write_text("")
        remove(path, ignore_errors=ignore_errors)

    monkeypatch.setattr("mirror.doctor.probes.shutil.rmtree", slow)
    folder.remove()
    assert files(tmp_path) == []


async def test_a_disk_that_hangs_while_things_are_put_away_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    monkeypatch.setattr("mirror.doctor.disk._REMOVED_WITHIN", 0.1)
    monkeypatch.setattr(ProbeFolder, "remove", lambda _: goes_on.wait(30))
    try:
        async with asyncio.timeout(10):
            found = await disk(tmp_path)
    finally:
        goes_on.set()
    assert found.mark("mmap") is Mark.OK


async def test_a_disk_that_hangs_is_given_up(tmp_path: Path) -> None:
    goes_on = threading.Event()

    def hang(fd: int) -> None:
        goes_on.wait(30)

    try:
        found = await found_by(Disk(tmp_path, System(fsync=hang)), within=0.3)
    finally:
        goes_on.set()
    assert found.mark("time") is Mark.FAIL
    assert files(tmp_path) == []


async def test_what_a_killed_doctor_left_behind_is_removed_by_the_next(tmp_path: Path) -> None:
    old, young = tmp_path / ".doctor-old", tmp_path / ".doctor-young"
    for folder in (old, young):
        folder.mkdir()
        (folder / "sync").write_text("")
    os.utime(old, (0, 0))
    await disk(tmp_path)
    assert files(tmp_path) == [".doctor-young", ".doctor-young/sync"]
