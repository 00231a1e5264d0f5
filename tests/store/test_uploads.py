"""Uploads: what came is there, in order and once; they belong to who began them; they end as a blob, or not at all."""

import asyncio
import fcntl
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import blake3
import pytest

from mirror.digest import Digest, Verifier
from mirror.errors import ChunkInvalid, DigestInvalid, SizeInvalid, TooMany, UploadInvalid, UploadUnknown
from mirror.store.intake import Intake
from mirror.store.session import Received
from tests.store.disk import record
from tests.store.uploading import ANNA, CONTENT, DIGEST, LIMIT, REPOSITORY, Body, Cut, files, pieces, worker, workers
from tests.support.waiting import eventually


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("likely", ["sha256", "sha512"])
async def test_what_was_sent_in_chunks_becomes_a_blob(tmp_path: Path, algorithm: str, likely: str) -> None:
    digest = Digest.of(CONTENT, algorithm)
    with worker(tmp_path) as one:
        begun = await one.uploads.begin(REPOSITORY, ANNA, algorithm=likely)
        assert begun.size == 0
        assert await begun.append(pieces(CONTENT[:100_000]), start=0, limit=LIMIT) == 100_000
        found = await one.find(begun.id)
        assert found.size == 100_000
        assert await found.append(pieces(CONTENT[100_000:]), start=100_000, limit=LIMIT) == len(CONTENT)
        assert one.held(digest) is None
        received = await found.finish(digest, one.store)
        assert received == Received(digest, len(CONTENT), blake3.blake3(CONTENT).hexdigest())
        assert one.held(digest) == CONTENT
        assert not files(tmp_path)


async def test_an_empty_blob_is_one(tmp_path: Path) -> None:
    with worker(tmp_path) as one:
        await (await one.begin()).finish(Digest.of(b""), one.store)
        assert one.held(Digest.of(b"")) == b""


async def test_a_stream_without_a_beginning_goes_on_where_the_upload_stands(tmp_path: Path) -> None:
    with worker(tmp_path) as one:
        session = await one.begin()
        for part in (CONTENT[:5], b"", CONTENT[5:]):
            await session.append(pieces(part), limit=LIMIT)
        await session.finish(DIGEST, one.store)
        assert one.held() == CONTENT


@pytest.mark.parametrize("start", [0, 99, 101])
async def test_a_chunk_out_of_order_is_refused_with_the_size_that_is_there(tmp_path: Path, start: int) -> None:
    with worker(tmp_path) as one:
        session = await one.begin()
        await session.append(pieces(CONTENT[:100]), limit=LIMIT)
        with pytest.raises(ChunkInvalid, match="has 100 bytes") as refused:
            await session.append(pieces(CONTENT[100:]), start=start, limit=LIMIT)
        assert refused.value.size == session.size == 100
        await session.append(pieces(CONTENT[100:]), start=100, limit=LIMIT)
        await session.finish(DIGEST, one.store)


async def test_a_client_that_is_cut_off_goes_on_after_what_had_come(tmp_path: Path) -> None:
    with worker(tmp_path) as one:
        session = await one.begin()
        with pytest.raises(Cut):
            await session.append(pieces(CONTENT[:200_001], cut=True), limit=LIMIT)
        again = await one.find(session.id)
        assert again.size == 200_001
        await again.append(pieces(CONTENT[200_001:]), start=200_001, limit=LIMIT)
        await again.finish(DIGEST, one.store)
        assert one.held() == CONTENT


async def test_a_request_that_is_stopped_leaves_what_it_had_taken_in(tmp_path: Path) -> None:
    with worker(tmp_path) as one:
        session = await one.begin()
        body = Body()
        body.send(CONTENT[:100_000])
        sending = asyncio.create_task(session.append(aiter(body), limit=LIMIT))
        await eventually(lambda: one.path(session).stat().st_size)
        sending.cancel()
        await asyncio.wait([sending])
        assert sending.cancelled()
        await session.append(pieces(CONTENT[100_000:]), start=100_000, limit=LIMIT)
        await session.finish(DIGEST, one.store)


async def test_more_than_the_limit_is_refused_and_the_upload_stays_as_it_was(tmp_path: Path) -> None:
    with worker(tmp_path) as one:
        session = await one.begin()
        await session.append(pieces(CONTENT[:1000]), limit=1000)
        with pytest.raises(SizeInvalid, match=r"hosted\.max_blob_size \(200,000 bytes\)"):
            await session.append(pieces(bytes(len(CONTENT))), limit=200_000)
        session = await one.find(session.id)
        assert session.size == 1000
        await session.append(pieces(CONTENT[1000:]), start=1000, limit=len(CONTENT))
        await session.finish(DIGEST, one.store)
        assert one.held() == CONTENT


async def test_bytes_of_another_digest_end_the_upload(tmp_path: Path) -> None:
    with worker(tmp_path) as one:
        session = await one.begin()
        await session.append(pieces(CONTENT + b"!"), limit=LIMIT)
        with pytest.raises(DigestInvalid, match="the upload is over") as wrong:
            await session.finish(DIGEST, one.store)
        actual = str(Digest.of(CONTENT + b"!"))
        assert str(DIGEST) in wrong.value.message
        assert actual in wrong.value.message
        assert wrong.value.detail == {"expected": str(DIGEST), "actual": actual, "size": len(CONTENT) + 1}
        with pytest.raises(UploadUnknown):
            await one.find(session.id)
        assert one.held() is None
        assert not files(tmp_path)


async def test_a_digest_that_is_held_already_can_be_pushed_again(tmp_path: Path) -> None:
    with worker(tmp_path) as one:
        for _ in range(2):
            session = await one.begin()
            await session.append(pieces(CONTENT), limit=LIMIT)
            await session.finish(DIGEST, one.store)
            assert one.held() == CONTENT


async def test_of_two_that_finish_at_once_one_wins(tmp_path: Path) -> None:
    with workers(tmp_path, 2, patience=10) as (one, two):
        session = await one.begin()
        await session.append(pieces(CONTENT), limit=LIMIT)
        both = [await one.find(session.id), await two.find(session.id)]
        ends = await asyncio.gather(
            *(each.finish(DIGEST, at.store) for each, at in zip(both, (one, two), strict=True)), return_exceptions=True
        )
        assert {type(end) for end in ends} == {Received, UploadUnknown}
        assert two.held() == CONTENT


async def test_it_goes_on_in_any_worker_and_after_a_restart(tmp_path: Path) -> None:
    with workers(tmp_path, 3) as (one, two, three):
        session = await one.begin()
        for number, each in enumerate((one, two, one, two)):
            found = await each.find(session.id)
            start = number * 75_000
            await found.append(pieces(CONTENT[start : start + 75_000]), start=start, limit=LIMIT)
        received = await (await three.find(session.id)).finish(DIGEST, three.store)
        assert received.blake3 == blake3.blake3(CONTENT).hexdigest()
        assert one.held() == CONTENT


async def test_what_a_worker_took_in_whole_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    pread = os.pread

    def counted(fd: int, length: int, offset: int) -> bytes:
        read.append(length)
        return pread(fd, length, offset)

    monkeypatch.setattr(os, "pread", counted)
    with workers(tmp_path, 2) as (one, two):
        session = await one.begin()
        await session.append(pieces(CONTENT[:1000]), limit=LIMIT)
        await (await one.find(session.id)).append(pieces(CONTENT[1000:200_000]), limit=LIMIT)
        await (await two.find(session.id)).append(pieces(CONTENT[200_000:]), limit=LIMIT)
        await (await one.find(session.id)).finish(DIGEST, one.store)
        assert sum(read) == 100_000


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_one_request_at_a_time_works_on_an_upload(tmp_path: Path, elsewhere: bool) -> None:
    with workers(tmp_path, 2) as (one, two):
        session = await one.begin()
        body = Body()
        sending = asyncio.create_task(session.append(aiter(body), limit=LIMIT))
        body.send(CONTENT[:1000])
        other = await (two if elsewhere else one).find(session.id)
        for call in (other.append(pieces(b"x"), limit=LIMIT), other.verify(DIGEST), other.finish(DIGEST, two.store)):
            with pytest.raises(UploadInvalid, match="another request") as refused:
                await call
            assert refused.value.retry_after == 1
        body.send(CONTENT[1000:])
        body.send(None)
        assert await sending == len(CONTENT)
        await other.finish(DIGEST, two.store)


async def test_who_comes_back_too_soon_waits_for_the_request_before(tmp_path: Path) -> None:
    with worker(tmp_path, patience=10) as one:
        session = await one.begin()
        body = Body()
        sending = asyncio.create_task(session.append(aiter(body), limit=LIMIT))
        body.send(CONTENT[:1000])
        rest = asyncio.create_task((await one.find(session.id)).append(pieces(CONTENT[1000:]), limit=LIMIT))
        body.send(None)
        assert await sending == 1000
        assert await rest == len(CONTENT)


async def test_what_was_cancelled_is_gone_at_once_even_while_it_is_written(tmp_path: Path) -> None:
    with workers(tmp_path, 2) as (one, two):
        session = await one.begin()
        body = Body()
        body.send(CONTENT[:1000])
        sending = asyncio.create_task(session.append(aiter(body), limit=LIMIT))
        await (await two.find(session.id)).cancel()
        assert not files(tmp_path)
        body.send(CONTENT[1000:])
        body.send(None)
        with pytest.raises(UploadUnknown):
            await sending
        for call in (session.cancel(), session.finish(DIGEST, one.store), session.append(pieces(b""), limit=LIMIT)):
            with pytest.raises(UploadUnknown, match="finished, cancelled or expired"):
                await call
        assert one.held() is None


async def test_an_upload_is_found_by_who_began_it_and_there_only(tmp_path: Path) -> None:
    with worker(tmp_path) as one:
        session = await one.begin()
        for repository, principal in ((REPOSITORY, "bob"), (REPOSITORY, ""), ("team-b/filter", ANNA)):
            with pytest.raises(UploadUnknown):
                await one.find(session.id, repository, principal)
        assert (await one.find(session.id)).id == session.id


@pytest.mark.parametrize(
    "upload", ["", "..", "../lock", "lock", "a" * 42, "a" * 44, "a" * 5000, "a" * 42 + "\n", "é" + "a" * 42]
)
async def test_an_id_outside_the_grammar_never_becomes_a_path(tmp_path: Path, upload: str) -> None:
    with worker(tmp_path) as one:
        await one.begin()
        with pytest.raises(UploadUnknown):
            await one.find(upload)


async def test_an_id_is_made_of_256_random_bits_and_is_a_secret_of_its_owner(tmp_path: Path) -> None:
    with worker(tmp_path) as one:
        ids = {(await one.begin(principal=str(number))).id for number in range(20)}
        assert len(ids) == 20
        assert {len(each) for each in ids} == {43}
        assert len({each[:8] for each in ids}) == 20
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "uploads").iterdir()} == {0o600}
    assert ANNA not in " ".join(files(tmp_path))


async def test_each_principal_may_have_so_many_open_in_all_workers_together(tmp_path: Path) -> None:
    with workers(tmp_path, 2, max_uploads=3) as (one, two):
        begun = await asyncio.gather(*((one, two)[n % 2].begin() for n in range(6)), return_exceptions=True)
        assert [type(each) for each in begun].count(TooMany) == 3
        with pytest.raises(TooMany, match=r"hosted\.max_uploads") as refused:
            await two.begin("team-b/other")
        assert refused.value.retry_after
        await two.begin(principal="bob")
        mine = next(each for each in begun if not isinstance(each, BaseException))
        await mine.cancel()
        await two.begin()


async def test_who_counts_and_begins_does_so_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listdir = os.listdir
    counted = []

    def alone(folder: Path) -> list[str]:
        fd = os.open(folder / "lock", os.O_RDWR)
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(fd)
        counted.append(folder)
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", alone)
    with worker(tmp_path) as one:
        await one.begin()
    assert counted


async def test_a_file_that_became_a_blob_before_it_was_locked_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock
    with worker(tmp_path) as one:
        session = await one.begin()
        path = one.path(session)

        def late(fd: int, how: int) -> None:
            path.rename(tmp_path / "blob")
            flock(fd, how)

        monkeypatch.setattr(fcntl, "flock", late)
        with pytest.raises(FileNotFoundError):
            Intake.open(path)


async def test_notes_are_kept_with_the_upload(tmp_path: Path) -> None:
    with workers(tmp_path, 2) as (one, two):
        session = await one.uploads.begin(REPOSITORY, ANNA, notes={"a": "1", "b": "2"})
        await (await two.find(session.id)).note(b="3", c="ä")
        assert (await one.find(session.id)).notes == {"a": "1", "b": "3", "c": "ä"}


async def test_what_is_said_to_be_there_was_synced_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: dict[str, int] = {}
    fdatasync = os.fdatasync

    def recorded(fd: int) -> None:
        fdatasync(fd)
        synced[Path(os.readlink(f"/proc/self/fd/{fd}")).name] = os.fstat(fd).st_size

    monkeypatch.setattr(os, "fdatasync", recorded)
    events = record(monkeypatch, tmp_path)
    with worker(tmp_path) as one:
        session = await one.begin()
        name = one.path(session).name
        assert events[-3:] == [
            f"sync uploads/.{name}.json.draft",
            f"rename uploads/.{name}.json.draft -> uploads/{name}.json",
            "sync uploads",
        ]
        assert await session.append(pieces(CONTENT[:100]), limit=LIMIT) == synced.pop(name) == 100
        with pytest.raises(Cut):
            await session.append(pieces(CONTENT[100:200], cut=True), limit=LIMIT)
        assert not synced
        assert (await one.find(session.id)).size == synced.pop(name) == 200
        with pytest.raises(ChunkInvalid):
            await session.append(pieces(b""), start=0, limit=LIMIT)
        assert synced.pop(name) == 200
        await session.append(pieces(CONTENT[200:]), limit=LIMIT, last=True)
        assert not synced
        await session.finish(DIGEST, one.store)
        assert synced.pop(name) == len(CONTENT)
        folder = f"blobs/sha256/{DIGEST.hex[:2]}"
        assert events[-2:] == [f"rename uploads/{name} -> {folder}/{DIGEST.hex}", f"sync {folder}"]


async def test_verified_before_it_has_little_to_do_at_the_end(tmp_path: Path) -> None:
    with workers(tmp_path, 2) as (one, two):
        session = await one.begin()
        await session.append(pieces(CONTENT), limit=LIMIT)
        found = await two.find(session.id)
        await found.verify(DIGEST)
        assert two.desk.hashes(session.id, "sha256").size == len(CONTENT)
        assert two.held() is None
        await found.finish(DIGEST, two.store)
        assert two.held() == CONTENT


async def test_little_of_what_comes_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = taken = most = 0
    take = Intake.take

    def counted(self: Intake, chunks: Sequence[bytes], hashes: Verifier) -> None:
        nonlocal taken
        take(self, chunks, hashes)
        taken += sum(map(len, chunks))

    async def much() -> AsyncIterator[bytes]:
        nonlocal given, most
        for _ in range(400):
            given += 20_000
            most = max(most, given - taken)
            yield bytes(20_000)

    monkeypatch.setattr(Intake, "take", counted)
    with worker(tmp_path) as one:
        session = await one.begin()
        await session.append(much(), limit=LIMIT)
        received = await session.finish(Digest("sha256", hashlib.sha256(bytes(8_000_000)).hexdigest()), one.store)
    assert received.size == 8_000_000
    assert most < 600 * 1024
