"""How much the disk holds, counted without looking at each file every time."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.store import census as module
from mirror.store.blobs import BlobStore
from mirror.store.census import Census, File, Usage
from tests.store.disk import data_in


def later() -> float:
    """When all that has been written was written long ago."""
    return time.time() + 60


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders under ``blobs/`` that were counted."""
    found: list[str] = []
    count: Callable[[str], tuple[int, int]] = module._count

    def counting(folder: str) -> tuple[int, int]:
        if "/blobs/" in folder:
            found.append(Path(folder).name)
        return count(folder)

    monkeypatch.setattr(module, "_count", counting)
    return found


def test_all_that_takes_room_is_counted(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    store = BlobStore(directory)
    store.put(Digest.of(b"abc"), b"abc")
    store.put(Digest.of(b"defgh", "sha512"), b"defgh")
    (directory.spool / "sha256-x").write_bytes(bytes(70))
    (directory.uploads / "one").write_bytes(bytes(200))
    usage = Census(directory, free=lambda _: 1000).take()
    assert usage == Usage(2, 8, 270, 1000)
    assert (usage.used, usage.limit(500), usage.limit(5000)) == (278, 500, 1278)


def test_what_is_free_is_told_by_the_file_system(tmp_path: Path) -> None:
    found = os.statvfs(tmp_path)
    free = Census(data_in(tmp_path)).take().free
    assert abs(free - found.f_bavail * found.f_frsize) < 1 << 30


def test_a_data_directory_without_uploads_is_counted(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    directory.uploads.rmdir()
    assert Census(directory).take().used == 0


def test_only_folders_that_have_changed_are_counted_again(tmp_path: Path, counted: list[str]) -> None:
    directory = data_in(tmp_path)
    store = BlobStore(directory)
    contents = [str(number).encode() for number in range(50)]
    digests = [Digest.of(content) for content in contents]
    for digest, content in zip(digests, contents, strict=True):
        store.put(digest, content)
    census = Census(directory, now=later)
    first = census.take()
    assert len(counted) == len({digest.hex[:2] for digest in digests})
    counted.clear()
    assert census.take() == first or census.take().size == first.size
    assert counted == []
    directory.blob(digests[0]).unlink()  # whoever does it
    found = census.take()
    assert (found.blobs, found.size) == (49, first.size - len(contents[0]))
    assert counted == [digests[0].hex[:2]]


def test_a_folder_that_has_just_changed_is_looked_at_again_for_its_time_may_stand_still(
    tmp_path: Path, counted: list[str]
) -> None:
    directory = data_in(tmp_path)
    store = BlobStore(directory)
    store.put(Digest.of(b"abc"), b"abc")
    folder = directory.blob(Digest.of(b"abc")).parent
    before = folder.stat()
    census = Census(directory)
    assert census.take().blobs == 1
    (folder / Digest.of(b"abc").hex.replace("a", "b")).write_bytes(b"more")
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert census.take().blobs == 2
    assert len(counted) == 2


def test_all_is_counted_anew_now_and_then(tmp_path: Path, counted: list[str]) -> None:
    directory = data_in(tmp_path)
    BlobStore(directory).put(Digest.of(b"abc"), b"abc")
    now = [later()]
    census = Census(directory, now=lambda: now[0])
    census.take()
    now[0] += 3500
    census.take()
    assert len(counted) == 1
    now[0] += 200
    assert census.take().blobs == 1
    assert len(counted) == 2


def test_blobs_are_told_with_what_they_take_and_since_when(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    store = BlobStore(directory)
    digests = [Digest.of(b"abc"), Digest.of(b"defgh", "sha512")]
    store.put(digests[0], b"abc")
    store.put(digests[1], b"defgh")
    found: dict[str, File] = {}
    for folder in Census(directory).files():
        found |= folder
    assert {digest: file.size for digest, file in found.items()} == {str(digests[0]): 3, str(digests[1]): 5}
    assert all(found[str(digest)].named_at == directory.blob(digest).stat().st_ctime for digest in digests)
