"""Uploads on a disk that fails or is full, and uploads that nobody goes on with."""

import asyncio
import errno
import json
import logging
import os
from pathlib import Path

import pytest

from mirror.errors import DiskFull, MirrorError, StoreError, TooMany, UploadUnknown
from mirror.store.directory import DataDirectory
from mirror.store.intake import Intake
from mirror.store.session import Desk
from tests.store.disk import fail
from tests.store.uploading import (
    ANNA,
    CONTENT,
    DIGEST,
    HOUR,
    LIMIT,
    NOW,
    REPOSITORY,
    Body,
    Cut,
    files,
    pieces,
    worker,
    workers,
)
from tests.support.waiting import eventually


async def test_a_disk_that_is_full_in_the_middle_is_told_and_the_upload_goes_on_when_there_is_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with worker(tmp_path) as one:
        session = await one.begin()
        await session.append(pieces(CONTENT[:1000]), limit=LIMIT)
        write, left = os.pwrite, [3]

        def full(fd: int, data: memoryview, offset: int) -> int:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(fd, data[:40_000], offset)

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            with pytest.raises(DiskFull, match="disk is full") as refused:
                await session.append(pieces(CONTENT[1000:]), limit=LIMIT)
        assert refused.value.status == 507
        assert one.held() is None
        again = await one.find(session.id)
        assert again.size == 1000 + 3 * 40_000 - 10_000  # the second write was of the rest of 70,000
        await again.append(pieces(CONTENT[again.size :]), start=again.size, limit=LIMIT)
        await again.finish(DIGEST, one.store)
        assert one.held() == CONTENT


@pytest.mark.parametrize("last", [False, True])
async def test_after_bytes_that_could_not_be_synced_the_upload_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: bool
) -> None:
    with worker(tmp_path) as one:
        session = await one.begin()
        with monkeypatch.context() as patch:
            fail(patch, "fdatasync")
            if last:
                await session.append(pieces(CONTENT), limit=LIMIT, last=True)
            call = session.finish(DIGEST, one.store) if last else session.append(pieces(CONTENT), limit=LIMIT)
            with pytest.raises(StoreError, match="the upload is over"):
                await call
        assert not files(tmp_path)
        assert one.held() is None


async def test_nor_is_a_size_reported_that_could_not_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with worker(tmp_path) as one:
        session = await one.begin()
        with pytest.raises(Cut):
            await session.append(pieces(CONTENT[:1000], cut=True), limit=LIMIT)
        with monkeypatch.context() as patch:
            fail(patch, "fdatasync")
            with pytest.raises(StoreError, match="the upload is over"):
                await one.find(session.id)
        with pytest.raises(UploadUnknown):
            await one.find(session.id)


@pytest.mark.parametrize("call", ["fsync", "replace", "ftruncate"])
async def test_a_commit_that_fails_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    with worker(tmp_path) as one:
        session = await one.begin()
        await session.append(pieces(CONTENT), limit=LIMIT)
        with monkeypatch.context() as patch:
            fail(patch, call)
            with pytest.raises(StoreError, match="disk fails"):
                await session.finish(DIGEST, one.store)
        assert one.held() is None
        await (await one.find(session.id)).finish(DIGEST, one.store)
        assert one.held() == CONTENT


async def test_bytes_that_the_disk_has_lost_are_no_blob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with workers(tmp_path, 2) as (one, two):
        session = await one.begin()
        await session.append(pieces(CONTENT), limit=LIMIT)
        found = await two.find(session.id)
        monkeypatch.setattr(os, "pread", lambda fd, length, offset: b"")
        with pytest.raises(StoreError, match="disk fails"):
            await found.finish(DIGEST, two.store)
        assert two.held() is None


@pytest.mark.parametrize(
    ("call", "number"), [("open", errno.EROFS), ("replace", errno.ENOSPC), ("write", errno.EDQUOT)]
)
async def test_an_upload_that_could_not_be_begun_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    with worker(tmp_path) as one:
        with monkeypatch.context() as patch:
            fail(patch, call, number)
            with pytest.raises(StoreError if call == "open" else DiskFull, match="no upload was begun"):
                await one.begin()
        assert not [name for name in files(tmp_path) if not name.endswith(".draft")]
        await one.begin()


async def test_a_disk_that_can_only_be_read_tells_how_far_an_upload_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with worker(tmp_path) as one:
        session = await one.begin()
        await session.append(pieces(CONTENT), limit=LIMIT)
        fail(monkeypatch, "utime", errno.EROFS)
        assert (await one.find(session.id)).size == len(CONTENT)


async def test_a_data_directory_of_an_older_release_gets_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with worker(tmp_path) as one:
        (tmp_path / "uploads").rmdir()
        assert await one.uploads.expire() == 0
        with monkeypatch.context() as patch:
            fail(patch, "mkdir", errno.ENOSPC)  # it does so for folders that are there, too
            DataDirectory.open(tmp_path).close()
            assert not (tmp_path / "uploads").exists()
            with pytest.raises(DiskFull):
                await one.begin()
        assert (await one.find((await one.begin()).id)).size == 0


@pytest.mark.parametrize("state", ["", "{", "[]", "[1]", "7", '{"repository": "team-a/filter"}', '{"unheard": 1}'])
async def test_an_upload_whose_state_cannot_be_read_is_unknown(tmp_path: Path, state: str) -> None:
    with worker(tmp_path) as one:
        session = await one.begin()
        path = one.path(session)
        path.with_name(path.name + ".json").write_text(state)
        with pytest.raises(UploadUnknown):
            await one.find(session.id)


async def test_a_state_that_the_disk_does_not_give_is_no_missing_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with worker(tmp_path) as one:
        session = await one.begin()
        with monkeypatch.context() as patch:
            fail(patch, "open")
            with pytest.raises(StoreError, match="ask again"):
                await one.find(session.id)
        assert (await one.find(session.id)).id == session.id


async def test_an_upload_that_nobody_goes_on_with_is_dropped(tmp_path: Path) -> None:
    with worker(tmp_path) as one:
        idle, used, asked = [await one.begin() for _ in range(3)]
        for session in (idle, used, asked):
            await session.append(pieces(CONTENT[:1000]), limit=LIMIT)
        one.clock.now = NOW + 0.9 * HOUR
        await used.append(pieces(CONTENT[1000:]), limit=LIMIT)
        await one.find(asked.id)
        assert await one.uploads.expire() == 0
        one.clock.now = NOW + 1.1 * HOUR
        assert await one.uploads.expire() == 1
        with pytest.raises(UploadUnknown):
            await idle.append(pieces(b""), limit=LIMIT)
        await used.finish(DIGEST, one.store)
        assert (await one.find(asked.id)).size == 1000
        assert len(files(tmp_path)) == 2


async def test_an_upload_that_is_being_written_is_not_idle(tmp_path: Path) -> None:
    with workers(tmp_path, 2) as (one, two):
        session = await one.begin()
        body = Body()
        sending = asyncio.create_task(session.append(aiter(body), limit=LIMIT))
        body.send(CONTENT)
        await eventually(lambda: one.path(session).stat().st_size)
        one.clock.now = two.clock.now = NOW + 10 * HOUR
        os.utime(one.path(session), (NOW, NOW))
        assert await two.uploads.expire() == 0
        body.send(None)
        await sending
        assert await two.uploads.expire() == 0
        await session.finish(DIGEST, one.store)


async def test_an_upload_that_is_used_just_before_it_would_be_dropped_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Intake.open
    with worker(tmp_path) as one:
        session = await one.begin()
        one.clock.now += 1.1 * HOUR

        def used(path: Path) -> Intake | None:
            os.utime(path, (one.clock.now, one.clock.now))
            return opened(path)

        monkeypatch.setattr(Intake, "open", used)
        assert await one.uploads.expire() == 0
        assert (await one.find(session.id)).id == session.id


async def test_idle_uploads_make_room_for_new_ones(tmp_path: Path) -> None:
    with worker(tmp_path, max_uploads=1) as one:
        await one.begin()
        with pytest.raises(TooMany):
            await one.begin()
        one.clock.now += 1.1 * HOUR
        await one.begin()


async def test_what_crashes_left_behind_is_dropped_in_time(tmp_path: Path) -> None:
    with worker(tmp_path) as one:
        session = await one.begin()
        name = one.path(session).name
        other = name.replace(session.id, "x" * 43)
        (tmp_path / "uploads" / f"{other}.json").write_text("{}")
        (tmp_path / "uploads" / f".{other}.json.draft").write_text("{")
        (tmp_path / "uploads" / other.replace("x", "y")).write_bytes(b"bytes without a state")
        (tmp_path / "uploads" / "lost+found").mkdir()
        for file in (tmp_path / "uploads").iterdir():
            os.utime(file, (NOW, NOW))
        assert await one.uploads.expire() == 0
        assert len(files(tmp_path)) == 6
        one.clock.now += 1.1 * HOUR
        await one.uploads.find(REPOSITORY, ANNA, session.id)
        assert await one.uploads.expire() == 1
        assert files(tmp_path) == {name, f"{name}.json", "lost+found"}


async def test_expiry_goes_on_by_itself_on_a_disk_that_fails_at_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with worker(tmp_path) as one:
        await one.begin()
        one.clock.now += 1.1 * HOUR
        pauses: list[float] = []

        async def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 1:
                failing.undo()
            if len(pauses) == 2:
                raise asyncio.CancelledError

        failing = pytest.MonkeyPatch()
        fail(failing, "listdir")
        monkeypatch.setattr("mirror.store.uploads.asyncio.sleep", pause)
        with caplog.at_level(logging.INFO), pytest.raises(asyncio.CancelledError):
            await one.uploads.run()
        assert pauses == [60, 60]
        assert "cannot be dropped" in caplog.text
        assert "dropped 1 uploads" in caplog.text
        assert not files(tmp_path)


async def test_what_is_told_names_no_path_and_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with worker(tmp_path) as one:
        session = await one.begin()
        fail(monkeypatch, "pwrite")
        with pytest.raises(MirrorError) as refused:
            await session.append(pieces(CONTENT), limit=LIMIT)
        assert refused.value.message == "the mirror's disk fails; what came before is kept"
        assert "Input/output error" in caplog.text


def test_hashes_of_forgotten_uploads_do_not_pile_up() -> None:
    desk = Desk(lambda: NOW)
    first = desk.hashes("first", "sha256")
    assert desk.hashes("first", "sha256") is first
    for number in range(1000):
        desk.hashes(str(number), "sha256")
    assert desk.hashes("first", "sha256") is not first
    assert desk.hashes("first", "sha512").expected.algorithm == "sha512"


async def test_what_is_noted_is_json_without_the_principal(tmp_path: Path) -> None:
    with worker(tmp_path) as one:
        path = one.path(await one.begin())
        noted = json.loads(path.with_name(path.name + ".json").read_text())
        assert noted == {"repository": REPOSITORY, "algorithm": "sha256", "created_at": NOW, "notes": {}}
