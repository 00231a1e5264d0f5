"""Archives that are written: the same bytes each time, as long as was said, and what other readers take them for."""

import io
import json
import tarfile
from collections.abc import AsyncIterator

from mirror.digest import Digest
from mirror.layouts import layout
from mirror.layouts.layout import Named
from mirror.layouts.writing import Contents
from mirror.oci import OCI_MANIFEST, Descriptor
from tests.layouts.test_tar import read

NAME = "ghcr.io/team/plugin:1"
BLOBS = {Digest.of(content, algorithm): content for content, algorithm in [(b"{}", "sha256"), (b"x" * 700, "sha512")]}
NAMED = [Named(Descriptor(OCI_MANIFEST, next(iter(BLOBS)), 2), NAME)]


async def blob(digest: Digest) -> AsyncIterator[bytes]:
    yield BLOBS[digest][:1]
    yield BLOBS[digest][1:]


async def written() -> bytes:
    contents = Contents(NAMED, [(digest, len(content)) for digest, content in BLOBS.items()])
    archive = b"".join([piece async for piece in contents.written(blob)])
    assert len(archive) == contents.size()
    return archive


async def test_the_same_content_is_the_same_archive_as_long_as_was_said() -> None:
    assert await written() == await written()


async def test_what_is_written_is_read_again_by_us_and_by_others() -> None:
    archive = await written()
    files = {layout.blob_name(digest): content for digest, content in BLOBS.items()}
    ours = await read(archive)
    assert files.items() <= ours.items()
    with tarfile.open(fileobj=io.BytesIO(archive)) as theirs:
        assert [one.name for one in theirs if one.isdir()] == ["blobs", "blobs/sha256", "blobs/sha512"]
        for name, content in ours.items():
            file = theirs.extractfile(name)
            assert file is not None
            assert file.read() == content
    assert json.loads(ours["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    assert layout.parse_index(ours["index.json"]) == NAMED
    (entry,) = json.loads(ours["index.json"])["manifests"]
    assert entry["annotations"] == {layout.REF_NAME: NAME, layout.CONTAINERD_NAME: NAME}


async def test_an_archive_says_what_it_holds_before_the_blobs_come() -> None:
    assert list(await read(await written()))[:2] == ["oci-layout", "index.json"]


async def test_a_blob_of_more_than_eight_gigabytes_has_a_header_that_says_so() -> None:
    size = 9 << 30
    contents = Contents([], [(next(iter(BLOBS)), size)])
    assert contents.size() > size
    async for piece in contents.written(blob):
        if piece.startswith(b"././@PaxHeader"):
            assert str(size).encode() in piece
            break
    else:
        raise AssertionError("no header says it")
