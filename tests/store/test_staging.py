"""Blobs that are being imported: verified while they come, counted, swept after a crash, and seen when committed."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.store.blobs import BlobStore
from mirror.store.census import Census
from mirror.store.directory import DataDirectory
from mirror.store.spool import sweep
from mirror.store.staging import Staging

CONTENT = b"a module" * 1000
DIGEST = Digest.of(CONTENT)


async def coming(content: bytes = CONTENT, error: type[Exception] | None = None) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 1000):
        yield content[start : start + 1000]
    if error is not None:
        raise error


def names(directory: DataDirectory) -> list[str]:
    return [file.name for file in directory.spool.iterdir()]


async def test_a_draft_is_counted_and_not_seen_until_it_is_committed(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path)
    store = BlobStore(directory)
    async with Staging(directory, store) as staging:
        draft = await staging.take(DIGEST, coming())
        assert (draft.sound, draft.size, store.holds(DIGEST)) == (True, len(CONTENT), False)
        assert Census(directory).take().in_flight == len(CONTENT)
        await staging.commit(draft)
        blob = store.open(DIGEST)
        assert blob is not None
        assert bytes(blob.read(0, blob.size)) == CONTENT
    assert names(directory) == []
    directory.close()


async def test_what_nobody_commits_is_dropped(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path)
    async with Staging(directory, BlobStore(directory)) as staging:
        await staging.take(DIGEST, coming())
        assert len(names(directory)) == 1
    assert names(directory) == []
    directory.close()


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x", b"", b"another"])
async def test_what_has_another_digest_leaves_nothing_on_the_disk(tmp_path: Path, content: bytes) -> None:
    directory = DataDirectory.open(tmp_path)
    async with Staging(directory, BlobStore(directory)) as staging:
        draft = await staging.take(DIGEST, coming(content))
        assert (draft.sound, draft.actual, draft.path) == (False, Digest.of(content), None)
        assert names(directory) == []
    directory.close()


async def test_what_breaks_off_leaves_nothing_on_the_disk(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path)
    async with Staging(directory, BlobStore(directory)) as staging:
        with pytest.raises(EOFError):
            await staging.take(DIGEST, coming(error=EOFError))
        assert names(directory) == []
    directory.close()


async def test_what_is_held_is_verified_and_not_written_again(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path)
    store = BlobStore(directory)
    store.put(DIGEST, CONTENT)
    async with Staging(directory, store) as staging:
        good, bad = await staging.take(DIGEST, coming()), await staging.take(DIGEST, coming(b"a lie"))
        assert (good.sound, good.path, bad.sound) == (True, None, False)
        assert names(directory) == []
    assert store.holds(DIGEST)
    directory.close()


async def test_two_imports_of_one_blob_are_in_nobodys_way(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path)
    store = BlobStore(directory)
    async with Staging(directory, store) as one, Staging(directory, store) as other:
        drafts = [await staging.take(DIGEST, coming()) for staging in (one, other)]
        for staging, draft in zip((one, other), drafts, strict=True):
            await staging.commit(draft)
    assert (names(directory), store.holds(DIGEST)) == ([], True)
    directory.close()


async def test_what_a_crash_leaves_is_swept_away_at_the_next_start(tmp_path: Path) -> None:
    directory = DataDirectory.open(tmp_path)
    await Staging(directory, BlobStore(directory)).take(DIGEST, coming())
    assert len(names(directory)) == 1
    assert sweep(directory) == 0
    assert names(directory) == []
    directory.close()
