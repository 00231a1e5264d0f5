"""What lies under ``blobs/`` is whole, durable, and all that has to be known."""

import errno
import os
import shutil
import time
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.store.blobs import BlobStore
from mirror.store.directory import DataDirectory
from mirror.store.spool import sweep
from tests.store.disk import data_in, fail, record

CONTENT = b"some content" * 1000
DIGEST = Digest.of(CONTENT)


def place(digest: Digest) -> str:
    """Where it lies, from the data directory."""
    return f"blobs/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}"


def test_what_was_put_is_held_and_can_be_read(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    store = BlobStore(directory)
    assert store.open(DIGEST) is None
    assert not store.holds(DIGEST)
    before = time.time()
    store.put(DIGEST, CONTENT)
    for one in (store, BlobStore(directory)):
        blob = one.open(DIGEST)
        assert blob is not None
        assert one.holds(DIGEST)
        assert (blob.digest, blob.size) == (DIGEST, len(CONTENT))
        assert bytes(blob.read(0, blob.size)) == CONTENT
        assert bytes(blob.read(5, 10)) == CONTENT[5:10]
        assert before - 2 < blob.stored_at < time.time() + 2
    assert (tmp_path / place(DIGEST)).read_bytes() == CONTENT
    assert not list(directory.spool.iterdir())


def test_an_empty_blob_is_a_blob(tmp_path: Path) -> None:
    store = BlobStore(data_in(tmp_path))
    digest = Digest.of(b"")
    store.put(digest, b"")
    blob = store.open(digest)
    assert blob is not None
    assert bytes(blob.read(0, blob.size)) == b""


def test_sha512_has_a_folder_of_its_own(tmp_path: Path) -> None:
    store = BlobStore(data_in(tmp_path))
    digest = Digest.of(CONTENT, "sha512")
    store.put(digest, CONTENT)
    assert (tmp_path / "blobs" / "sha512" / digest.hex[:2] / digest.hex).exists()


def test_bytes_and_folders_are_durable_before_the_name_appears_and_the_name_before_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BlobStore(data_in(tmp_path))
    events = record(monkeypatch, tmp_path)
    store.put(DIGEST, CONTENT)
    draft = events[0].removeprefix("sync ")
    folder = f"blobs/sha256/{DIGEST.hex[:2]}"
    assert draft.startswith("spool/")
    assert events == [
        f"sync {draft}",
        "sync blobs/sha256",
        "sync blobs",
        f"rename {draft} -> {place(DIGEST)}",
        f"sync {folder}",
    ]


@pytest.mark.parametrize("call", ["write", "fsync", "mkdir", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_a_put_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    directory = data_in(tmp_path)
    store = BlobStore(directory)
    with monkeypatch.context() as patch:
        fail(patch, call, number)
        with pytest.raises(OSError, match=os.strerror(number)):
            store.put(DIGEST, CONTENT)
    assert store.open(DIGEST) is None
    assert not list(directory.spool.iterdir())
    store.put(DIGEST, CONTENT)
    assert store.holds(DIGEST)


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_process_that_ends_in_the_middle_of_a_put_leaves_a_draft_that_the_next_start_drops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    directory = data_in(tmp_path)

    def end(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, call, end)
        with pytest.raises(KeyboardInterrupt):
            BlobStore(directory).put(DIGEST, CONTENT)
    assert BlobStore(directory).open(DIGEST) is None
    assert len(list(directory.spool.iterdir())) == 1
    assert sweep(directory) == 0
    assert not list(directory.spool.iterdir())


def test_a_short_write_is_followed_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = BlobStore(data_in(tmp_path))
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[:999]))
    store.put(DIGEST, CONTENT)
    assert (tmp_path / place(DIGEST)).read_bytes() == CONTENT


def test_an_open_blob_outlives_its_deletion(tmp_path: Path) -> None:
    store = BlobStore(data_in(tmp_path))
    store.put(DIGEST, CONTENT)
    blob = store.open(DIGEST)
    assert blob is not None
    store.delete(DIGEST)
    assert store.open(DIGEST) is None
    assert not store.holds(DIGEST)
    assert bytes(blob.read(0, blob.size)) == CONTENT
    store.delete(DIGEST)


def test_what_another_worker_deletes_or_stores_is_noticed(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    ours, theirs = BlobStore(directory), BlobStore(directory)
    theirs.put(DIGEST, CONTENT)
    assert ours.open(DIGEST) is not None
    theirs.delete(DIGEST)
    assert ours.open(DIGEST) is None
    assert not ours._open, "the bytes of a deleted blob take up the disk while somebody has it open"
    theirs.put(DIGEST, CONTENT)
    blob = ours.open(DIGEST)
    assert blob is not None
    assert bytes(blob.read(0, blob.size)) == CONTENT


def test_a_file_of_another_size_is_mapped_anew(tmp_path: Path) -> None:
    """A map that is longer than its file ends the process when it is read."""
    store = BlobStore(data_in(tmp_path))
    store.put(DIGEST, CONTENT)
    assert store.open(DIGEST) is not None
    os.truncate(tmp_path / place(DIGEST), 100)
    blob = store.open(DIGEST)
    assert blob is not None
    assert blob.size == 100


def test_only_some_files_stay_open_and_no_reader_notices(tmp_path: Path) -> None:
    store = BlobStore(data_in(tmp_path))
    contents = [b"content %d" % number for number in range(300)]
    blobs = []
    for content in contents:
        store.put(Digest.of(content), content)
        blobs.append(store.open(Digest.of(content)))
    assert len(store._open) == 256
    for content, blob in zip(contents, blobs, strict=True):
        assert blob is not None
        assert bytes(blob.read(0, blob.size)) == content
    again = store.open(Digest.of(contents[0]))
    assert again is not None
    assert bytes(again.read(0, again.size)) == contents[0]


def test_a_held_blob_that_was_opened_before_costs_one_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = BlobStore(data_in(tmp_path))
    store.put(DIGEST, CONTENT)
    first = store.open(DIGEST)
    fail(monkeypatch, "open")
    assert store.open(DIGEST) is first


def test_a_disk_that_fails_is_an_error_and_not_an_absence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = BlobStore(data_in(tmp_path))
    store.put(DIGEST, CONTENT)
    fail(monkeypatch, "open")
    with pytest.raises(OSError, match="Input/output"):
        store.open(DIGEST)


def test_a_scan_finds_every_blob_and_nothing_else(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    store = BlobStore(directory)
    contents = [b"x" * number for number in range(20)]
    for content in contents:
        store.put(Digest.of(content), content)
    (directory.blobs / "sha256" / "ab").mkdir(exist_ok=True)
    (directory.blobs / "sha256" / "ab" / "something else").write_text("")
    (directory.blobs / "md5" / "ab").mkdir(parents=True)
    (directory.blobs / "md5" / "ab" / DIGEST.hex).write_text("")
    assert dict(store.scan()) == {Digest.of(content): len(content) for content in contents}


def watch(patch: pytest.MonkeyPatch, name: str, seen: list[str]) -> None:
    """Note of what folders a call of `os` is made."""
    call = getattr(os, name)

    def watched(folder: str) -> object:
        seen.append(str(folder))
        return call(folder)

    patch.setattr(os, name, watched)


@pytest.mark.integration
def test_a_store_of_100_000_blobs_is_opened_without_looking_at_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = data_in(tmp_path)
    store = BlobStore(directory)
    store.put(DIGEST, CONTENT)
    source = b""
    for number in range(256):
        (directory.blobs / "sha256" / f"{number:02x}").mkdir(exist_ok=True)
    for number in range(100_000):
        if number % 50_000 == 0:  # a file has no more than 65,000 names
            source = bytes(tmp_path / f"file {number}")
            Path(os.fsdecode(source)).touch()
        os.link(source, f"{directory.blobs}/sha256/{number % 256:02x}/{number % 256:02x}{number:062x}")
    seen: list[str] = []
    watch(monkeypatch, "listdir", seen)
    watch(monkeypatch, "scandir", seen)
    began = time.monotonic()
    opened = DataDirectory.open(tmp_path)
    sweep(opened)
    again = BlobStore(opened)
    assert again.open(DIGEST) is not None
    took = time.monotonic() - began
    opened.close()
    monkeypatch.undo()
    shutil.rmtree(directory.blobs)
    assert sorted(seen) == [str(directory.leases), str(directory.spool)]
    assert took < 2
