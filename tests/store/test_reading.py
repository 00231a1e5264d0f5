"""A file is read whole, and the page cache is afterwards what it was."""

import ctypes
import mmap
import os
from pathlib import Path

import pytest

from mirror.store.reading import PIECE, Reading

PAGE = os.sysconf("SC_PAGE_SIZE")


def whole(path: Path) -> bytes:
    """All of a file, as it is read in pieces."""
    reading = Reading(path)
    try:
        pieces = []
        while piece := reading.next():
            assert len(piece) <= PIECE
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        reading.close()


def cached(path: Path) -> list[bool]:
    """Which pages of a file are in the page cache."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    size = path.stat().st_size
    pages = ctypes.create_string_buffer(-(-size // PAGE))
    with path.open("rb") as file:
        address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), 0)
    try:
        assert libc.mincore(address, size, pages) == 0
    finally:
        libc.munmap(address, size)
    return [bool(page & 1) for page in pages.raw]


def thrown_out(path: Path) -> None:
    """Have nothing of a file in the page cache; skips the test where that cannot be."""
    with path.open("r+b") as file:
        for _ in range(100):  # pages that were written a moment ago do not go at once
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            if not any(cached(path)):
                return
    pytest.skip(f"the file system of {path} keeps everything in memory")


@pytest.mark.parametrize("size", [0, 1, PAGE, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 5])
def test_all_of_a_file_is_read_from_the_disk_as_from_memory(tmp_path: Path, size: int) -> None:
    file = tmp_path / "file"
    content = os.urandom(size)
    file.write_bytes(content)
    assert whole(file) == content
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert whole(file) == content


def test_what_was_not_in_the_page_cache_is_not_there_afterwards(tmp_path: Path) -> None:
    file = tmp_path / "cold"
    file.write_bytes(os.urandom(4 * PIECE + 100))
    thrown_out(file)
    whole(file)
    assert not any(cached(file))


def test_what_somebody_serves_stays_in_the_page_cache(tmp_path: Path) -> None:
    file = tmp_path / "hot"
    file.write_bytes(os.urandom(4 * PIECE + 100))
    thrown_out(file)
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as served:
        assert len(bytes(served)) == 4 * PIECE + 100
        whole(file)
        assert all(cached(file))


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(IsADirectoryError):
            Reading(path)
