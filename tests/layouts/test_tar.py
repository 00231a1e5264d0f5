"""The strict reader of tar archives: what it gives, and what it refuses, however the bytes are cut into pieces."""

import asyncio
import contextlib
import gzip
import io
import tarfile
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.errors import ArchiveInvalid
from mirror.layouts.source import Limits, opened
from mirror.layouts.tar import Tar
from tests.support.artifacts import entry
from tests.support.layouts import ZEROS, tar_of

LIMITS = Limits(total=1 << 20, entries=50)
FILES = {"oci-layout": b"{}", "blobs/sha256/aa": b"a" * 600}
PLAIN = tar_of(FILES)


async def pieces(content: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def read(content: bytes, size: int = 4096, limits: Limits = LIMITS) -> dict[str, bytes]:
    """The files of an archive."""
    found = {}
    tar = Tar(await opened(pieces(content, size), limits), limits)
    while (one := await tar.next()) is not None:
        if not one.folder:
            found[one.name] = b"".join([bytes(piece) async for piece in tar.content()])
    return found


async def refusal(content: bytes, limits: Limits = LIMITS) -> str:
    with pytest.raises(ArchiveInvalid) as refused:
        await read(content, limits=limits)
    return refused.value.message


def written(format: int, files: dict[str, bytes]) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=format) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return plain.getvalue()


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("size", [1, 511, 4096])
async def test_what_all_writers_write_is_read_however_it_comes(format: int, size: int) -> None:
    files = {"oci-layout": b"{}", "./index.json": b"x" * 513, "blobs/sha512/" + "a" * 80: b"", "empty": b""}
    if format != tarfile.USTAR_FORMAT:
        files["blobs/sha512/" + "b" * 128] = b"long"
    assert await read(written(format, files), size) == {name.removeprefix("./"): files[name] for name in files}


async def test_folders_are_passed_over_also_twice() -> None:
    folder = entry("./blobs/", kind=tarfile.DIRTYPE)
    assert await read(folder + folder + entry("./", kind=tarfile.DIRTYPE) + tar_of({"a": b"1"})) == {"a": b"1"}


async def test_what_of_an_entry_was_not_read_is_passed_over() -> None:
    tar = Tar(await opened(pieces(PLAIN, 100), LIMITS), LIMITS)
    names = []
    while (one := await tar.next()) is not None:
        names.append(one.name)
        async for _ in tar.content():
            break
    assert names == ["oci-layout", "blobs/sha256/aa"]


@pytest.mark.parametrize("members", [1, 3])
async def test_a_gzipped_archive_is_read(members: int) -> None:
    part = len(PLAIN) // members
    parts = [PLAIN[number * part : (number + 1) * part if number + 1 < members else None] for number in range(members)]
    assert await read(b"".join(map(gzip.compress, parts)), 10) == FILES


REFUSED = {
    "a symbolic link": (entry("blobs/sha256/a", kind=tarfile.SYMTYPE), "holds a symbolic link, 'blobs/sha256/a'"),
    "a hard link": (entry("a", kind=tarfile.LNKTYPE), "holds a hard link"),
    "a device": (entry("a", kind=tarfile.CHRTYPE), "holds a device"),
    "a block device": (entry("a", kind=tarfile.BLKTYPE), "holds a device"),
    "a pipe": (entry("a", kind=tarfile.FIFOTYPE), "holds a pipe"),
    "a sparse file": (entry("a", kind=tarfile.GNUTYPE_SPARSE), "holds a sparse file"),
    "a contiguous file": (entry("a", kind=tarfile.CONTTYPE), "of a kind that not all readers know"),
    "a name that leads out": (entry("blobs/../../etc/passwd"), "leads out of it"),
    "only dots": (entry(".."), "leads out of it"),
    "an absolute name": (entry("/etc/passwd"), "an absolute name, '/etc/passwd'"),
    "no name": (entry("a").replace(b"a", b"\0", 1), "checksum"),
    "a name twice": (entry("a", b"1") + entry("./a", b"2"), "holds 'a' twice"),
    "a folder with content": (entry("a/", b"content", kind=tarfile.DIRTYPE), "has content"),
    "a file named as a folder": (entry("a/", b"x"), "name of a folder"),
    "too many bytes": (entry("a", size=(1 << 20) + 1), "cache.max_size"),
    "far too many bytes": (entry("a", size=1 << 50), "cache.max_size"),
    "too many entries": (b"".join(entry(str(number)) for number in range(51)), "more than 50 entries"),
}


@pytest.mark.parametrize("fault", REFUSED)
async def test_what_readers_could_take_for_two_things_is_refused(fault: str) -> None:
    content, words = REFUSED[fault]
    told = await refusal(content + ZEROS)
    assert words in told
    assert "\n" not in told


def pax(records: dict[str, str]) -> bytes:
    info = tarfile.TarInfo("a")
    info.pax_headers = records
    return info.tobuf(tarfile.PAX_FORMAT)


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (pax({"GNU.sparse.major": "1"}), "sparse file"),
        (pax({"path": "../a"}), "leads out of it"),
        (pax({"path": "/a"}), "absolute name"),
        (pax({"path": "b" * 5000}), "a name of 5,000 bytes"),
        (pax({"size": "-1"}), "a number that is none"),
        (pax({"comment": "c" * 70_000}), "a header of 70"),
        (tarfile.TarInfo.create_pax_global_header({"path": "b"}) + entry("a"), "names all files alike"),
    ],
)
async def test_a_pax_header_cannot_say_what_a_plain_one_may_not(header: bytes, words: str) -> None:
    assert words in await refusal(header + ZEROS)


async def test_what_pax_headers_say_of_times_and_owners_does_no_harm() -> None:
    header = tarfile.TarInfo.create_pax_global_header({"comment": "git"})
    assert await read(header + pax({"mtime": "1.5", "LIBARCHIVE.xattr": "x"}) + ZEROS) == {"a": b""}


@pytest.mark.parametrize("cut", [1, 511, 512, 700, 1024, 1500, len(PLAIN) - 1024, len(PLAIN) - 512, len(PLAIN) - 1])
async def test_an_archive_that_is_cut_short_is_refused(cut: int) -> None:
    assert "cut short" in await refusal(PLAIN[:cut])
    squeezed = gzip.compress(PLAIN)
    assert "cut short" in await refusal(squeezed[: max(6, len(squeezed) * cut // (len(PLAIN) + 1))])


async def test_nothing_but_zeros_may_follow_the_end() -> None:
    assert await read(PLAIN + bytes(10_000)) == FILES
    assert "goes on behind its end" in await refusal(PLAIN + entry("b"))
    assert "goes on behind its end" in await refusal(PLAIN + bytes(5000) + b"x")
    assert "zeros without an end" in await refusal(PLAIN + bytes(5 << 20))
    assert "gzip stream cannot be read" in await refusal(gzip.compress(PLAIN) + b"garbage")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\x28\xb5\x2f\xfd and more", "compressed with zstd"),
        (b"BZh91AY&SY", "compressed with bzip2"),
        (b"\xfd7zXZ\0", "compressed with xz"),
        (b"PK\x03\x04", "compressed with zip"),
        (b"<!doctype html>" * 100, "no tar archive"),
        (b"\x1f\x8b\x08 no gzip", "gzip stream cannot be read"),
    ],
)
async def test_what_is_no_tar_is_called_what_it_is(content: bytes, words: str) -> None:
    assert words in await refusal(content)


async def test_a_bomb_is_given_up_early() -> None:
    bomb = gzip.compress(entry("a", size=1 << 30) + bytes(3 << 20))
    limits = Limits(total=1 << 31, ratio=20, ratio_from=1 << 20)
    assert "more than 20 times its size" in await refusal(bomb, limits)
    members = gzip.compress(b"") * 10_001
    assert "members" in await refusal(members)


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=6), st.integers(0, len(PLAIN) - 1))
def test_a_damaged_archive_has_no_other_files_or_is_refused(damage: bytes, at: int) -> None:
    broken = PLAIN[:at] + damage + PLAIN[at + len(damage) :]
    with contextlib.suppress(ArchiveInvalid):
        assert asyncio.run(read(broken)).keys() == FILES.keys()
