"""A file that is not as large as it has to be is taken for nobody's content."""

from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.store.blobs import BlobStore
from tests.fill.source import MemorySource
from tests.fill.test_unpack import CONTENT as MODULE
from tests.fill.test_unpack import worker as unpacking
from tests.fill.workers import MIB, Client, some_bytes, worker
from tests.store.disk import data_in

CONTENT = some_bytes(MIB)
DIGEST = Digest.of(CONTENT)


async def test_a_file_that_has_lost_bytes_is_not_taken_for_what_another_worker_has_committed(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    directory.blob(DIGEST).parent.mkdir(parents=True)
    directory.blob(DIGEST).write_bytes(CONTENT[:-1])
    source = MemorySource(CONTENT)
    async with worker(directory, source) as one:
        fill = one.start(DIGEST, len(CONTENT))
        assert await Client(fill.content).body() == CONTENT
        await one.ended(fill)
        assert one.held(DIGEST) == CONTENT
    assert source.offsets == [0]


async def test_a_module_that_loses_bytes_as_soon_as_it_is_kept_is_given_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = BlobStore.commit

    def spoiling(self: BlobStore, digest: Digest, fd: int, path: Path) -> None:
        commit(self, digest, fd, path)
        if digest == Digest.of(MODULE):
            self._directory.blob(digest).write_bytes(MODULE[:-1])

    async with unpacking(tmp_path) as one:
        with monkeypatch.context() as patch:
            patch.setattr(BlobStore, "commit", spoiling)
            assert await one.module() == MODULE
