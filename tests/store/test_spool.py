"""A spool: one writer, whoever dies; readers in any worker learn from the file alone what has become of it."""

import errno
import fcntl
import gc
import os
import time
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.store.blobs import BlobStore
from mirror.store.directory import DataDirectory
from mirror.store.spool import Spool, Standing, sweep
from tests.store.disk import data_in, fail, record
from tests.store.process import process

CONTENT = b"some content" * 1000
DIGEST = Digest.of(CONTENT)
NAME = f"sha256-{DIGEST.hex}"


def writer(directory: DataDirectory) -> Spool:
    """The writer."""
    spool = Spool.acquire(directory, DIGEST)
    assert spool is not None
    return spool


def reader(directory: DataDirectory) -> Spool:
    """One of the readers."""
    spool = Spool.follow(directory, DIGEST)
    assert spool is not None
    return spool


def test_a_reader_sees_what_was_written_and_then_that_it_is_verified(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    assert Spool.follow(directory, DIGEST) is None
    writing = writer(directory)
    reading = reader(directory)
    assert reading.standing() is Standing.GROWING
    assert reading.size == 0
    writing.append(CONTENT[:100])
    writing.append(CONTENT[100:200])
    assert reading.standing() is Standing.GROWING
    assert reading.size == writing.size == 200
    assert reading.read(50, 150) == writing.read(50, 150) == CONTENT[50:150]
    writing.append(CONTENT[200:])
    store = BlobStore(directory)
    assert store.open(DIGEST) is None
    writing.commit(store)
    assert reading.standing() is writing.standing() is Standing.VERIFIED
    assert reading.size == len(CONTENT)
    blob = store.open(DIGEST)
    assert blob is not None
    assert bytes(blob.read(0, blob.size)) == CONTENT
    assert not list(directory.spool.iterdir())


def test_it_is_durable_before_it_is_a_blob(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = data_in(tmp_path)
    writing = writer(directory)
    writing.append(CONTENT)
    events = record(monkeypatch, tmp_path)
    writing.commit(BlobStore(directory))
    folder = f"blobs/sha256/{DIGEST.hex[:2]}"
    assert events[0] == f"sync spool/{NAME}"
    assert events[-2:] == [f"rename spool/{NAME} -> {folder}/{DIGEST.hex}", f"sync {folder}"]


def test_there_is_one_writer_in_this_process_too(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    first = writer(directory)
    assert Spool.acquire(directory, DIGEST) is None
    assert not reader(directory).take_over()
    first.append(CONTENT[:100])
    first.leave()
    second = writer(directory)
    assert second.size == 100
    second.close()
    assert writer(directory).size == 100


def test_a_writer_that_is_forgotten_holds_no_lock(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    writer(directory)
    gc.collect()
    writer(directory).close()


def test_a_writer_that_is_killed_leaves_its_bytes_to_one_of_its_readers(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    text = CONTENT.decode()
    with process("hold-spool", tmp_path, text) as other:
        one, two = reader(directory), reader(directory)
        assert Spool.acquire(directory, DIGEST) is None
        assert not one.take_over()
        other.kill()
        other.wait()
        assert one.take_over()
        assert not two.take_over()
        assert Spool.acquire(directory, DIGEST) is None
    assert one.size == 3
    one.append(CONTENT[3:])
    one.commit(BlobStore(directory))
    assert two.standing() is Standing.VERIFIED
    assert two.read(0, len(CONTENT)) == CONTENT


def test_what_is_no_longer_there_is_not_taken_over(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    writing, reading = writer(directory), reader(directory)
    writing.append(CONTENT)
    writing.drop()
    writing.close()
    assert not reading.take_over()
    assert not reading.writable
    # Nor is it locked: a file of this name may be another one's by then.
    again = os.open(f"/proc/self/fd/{reading._fd}", os.O_RDWR)
    fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(again)


def test_a_reader_of_a_dropped_spool_can_go_on_reading_and_knows(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    writing, reading = writer(directory), reader(directory)
    writing.append(CONTENT)
    writing.drop()
    assert reading.standing() is Standing.ORPHANED
    assert reading.size == len(CONTENT)
    assert reading.read(0, 10) == CONTENT[:10]
    assert Spool.follow(directory, DIGEST) is None
    again = writer(directory)
    assert again.size == 0
    assert reading.standing() is writing.standing() is Standing.ORPHANED
    assert again.standing() is Standing.GROWING


def test_a_spool_drops_no_other_one_of_its_name(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    first, reading = writer(directory), reader(directory)
    first.drop()
    second = writer(directory)
    first.drop()
    reading.drop()
    assert second.standing() is Standing.GROWING
    second.append(CONTENT)
    second.commit(BlobStore(directory))
    second.drop()
    assert BlobStore(directory).holds(DIGEST)


def test_a_reader_drops_nothing(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    writing, reading = writer(directory), reader(directory)
    reading.drop()
    reading.leave()
    assert writing.standing() is Standing.GROWING
    assert Spool.acquire(directory, DIGEST) is None


def test_a_blob_that_was_evicted_in_the_meantime_is_no_verified_spool(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    writing, reading = writer(directory), reader(directory)
    writing.append(CONTENT)
    store = BlobStore(directory)
    writing.commit(store)
    store.delete(DIGEST)
    assert reading.standing() is Standing.ORPHANED


def test_a_write_that_fails_half_way_counts_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = data_in(tmp_path)
    writing = writer(directory)
    writing.append(CONTENT[:100])
    write = os.pwrite

    def half(fd: int, data: memoryview, offset: int) -> int:
        if len(data) < 50:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data[:60], offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", half)
        with pytest.raises(OSError, match="No space"):
            writing.append(bytes(100))
    assert writing.size == 100
    assert reader(directory).size == 160
    # Bytes that were written count for who comes next; those that are left behind the end are not committed.
    writing.commit(BlobStore(directory))
    assert directory.blob(DIGEST).read_bytes() == CONTENT[:100]


@pytest.mark.parametrize("call", ["fsync", "replace", "ftruncate"])
def test_a_commit_that_fails_can_be_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    directory = data_in(tmp_path)
    writing, reading = writer(directory), reader(directory)
    writing.append(CONTENT)
    with monkeypatch.context() as patch:
        fail(patch, call)
        with pytest.raises(OSError, match="Input/output"):
            writing.commit(BlobStore(directory))
    assert reading.standing() is Standing.GROWING
    writing.drop()
    assert reading.standing() is Standing.ORPHANED
    assert not BlobStore(directory).holds(DIGEST)


def test_bytes_that_are_not_there_are_an_error(tmp_path: Path) -> None:
    writing = writer(data_in(tmp_path))
    writing.append(b"abc")
    assert writing.read(0, 10) == b"abc"
    with pytest.raises(OSError, match="lost bytes"):
        writing.read(3, 10)


def test_a_closed_one_is_closed(tmp_path: Path) -> None:
    writing = writer(data_in(tmp_path))
    writing.append(b"abc")
    writing.close()
    writing.close()
    writing.leave()
    with pytest.raises(OSError, match="Bad file"):
        writing.read(0, 3)


def test_a_disk_that_cannot_lock_or_open_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = data_in(tmp_path)

    def no_locks(fd: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", no_locks)
        with pytest.raises(OSError, match="No locks"):
            Spool.acquire(directory, DIGEST)
    directory.spool.joinpath(NAME).unlink()
    directory.spool.rmdir()
    with pytest.raises(OSError, match="No such file"):
        Spool.acquire(directory, DIGEST)
    assert Spool.follow(directory, DIGEST) is None


def test_a_start_keeps_what_can_be_resumed_and_drops_the_rest(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    now = time.time()
    for name, hours in (("young", 1), ("old", 25), ("young.1234.whole", 0), ("from the future", -100)):
        file = directory.spool / f"sha256-{name}"
        file.write_bytes(CONTENT)
        os.utime(file, (now - hours * 3600, now - hours * 3600))
    (directory.spool / "lost+found").mkdir()
    (directory.leases / "abc").touch()
    (directory.leases / "folder").mkdir()
    assert sweep(directory, now) == 2
    assert {file.name for file in directory.spool.iterdir()} == {"sha256-young", "sha256-from the future", "lost+found"}
    assert [file.name for file in directory.leases.iterdir()] == ["folder"]


def test_a_sweep_of_a_disk_that_fails_does_not_stop_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = data_in(tmp_path)
    (directory.spool / "a.whole").touch()
    (directory.leases / "abc").touch()
    fail(monkeypatch, "unlink", errno.EROFS)
    assert sweep(directory) == 0
