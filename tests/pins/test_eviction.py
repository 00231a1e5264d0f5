"""What eviction makes of pins: whatever becomes of links, of made manifests, and in the middle of a round."""

import os
from pathlib import Path

import pytest

from mirror import evictor as module
from mirror.config import CacheSettings
from mirror.digest import Digest
from mirror.errors import StoreError
from mirror.metadata.base import Link
from mirror.oci import OCI_MANIFEST
from mirror.store.blobs import BlobStore
from mirror.wasm.repackage import CONFIG, repackaged
from tests.store.disk import data_in
from tests.support.artifacts import OCI_CONFIG, OCI_LAYER, Artifact, image, wasm_module
from tests.support.evicting import Worker, evicting

KIB = 1024
ALL = CacheSettings(max_size=1)
"""Room for nothing: all goes that may."""


def artifacts(number: int) -> list[Artifact]:
    return [
        image([(OCI_LAYER, wasm_module(10 * KIB, seed))], config=(OCI_CONFIG, b'{"seed":%d}' % seed))
        for seed in range(number)
    ]


async def hold(worker: Worker, artifact: Artifact, *, linked: bool = True) -> None:
    store = BlobStore(worker.directory)
    for digest, content in (*artifact.blobs.items(), (artifact.digest, artifact.body)):
        store.put(digest, content)
    if linked:
        await worker.known.put_links([Link("up", "team/plugin", artifact.digest, artifact.media_type, 1)])


def held(worker: Worker, artifact: Artifact) -> bool:
    return all(worker.directory.blob(digest).exists() for digest in (artifact.digest, *artifact.blobs))


async def test_a_manifest_whose_links_were_lost_stays_with_all_that_it_names_when_it_is_pinned(tmp_path: Path) -> None:
    data_in(tmp_path)
    kept, other = artifacts(2)
    async with evicting(tmp_path, ALL) as worker:
        await hold(worker, kept, linked=False)
        await hold(worker, other)
        worker.pinned = {str(kept.digest)}
        await worker.evictor.once()
        assert (held(worker, kept), held(worker, other)) == (True, False)


async def test_what_was_made_here_stays_whole_when_it_is_pinned(tmp_path: Path) -> None:
    data_in(tmp_path)
    content = wasm_module(KIB)
    made = repackaged(Digest.of(b"another artifact"), Digest.of(content), len(content))
    artifact = Artifact(made.body, OCI_MANIFEST, {Digest.of(content): content, Digest.of(CONFIG): CONFIG})
    async with evicting(tmp_path, ALL) as worker:
        await hold(worker, artifact)
        worker.pinned = {str(made.digest)}
        await worker.evictor.once()
        assert held(worker, artifact)


async def test_what_is_pinned_in_the_middle_of_a_round_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BATCH", 1)
    data_in(tmp_path)
    first, second = artifacts(2)
    gone: list[str] = []

    def unlink(file: str) -> None:
        gone.append(os.fspath(file))
        worker.pinned = {str(second.digest)}
        os.unlink(file)

    async with evicting(tmp_path, ALL, unlink=unlink) as worker:
        for at, one in enumerate((first, second)):
            await hold(worker, one)
            await worker.known.touch({digest: worker.now() + at for digest in (one.digest, *one.blobs)})
        await worker.evictor.once()
        assert gone
        assert held(worker, second)
        assert not worker.metrics.eviction_short  # the next round looks anew, and says what is short
        await worker.evictor.once()
        assert held(worker, second)
        assert worker.metrics.eviction_short[("pinned",)] > 10 * KIB


async def test_where_nobody_can_say_what_is_pinned_nothing_goes(tmp_path: Path) -> None:
    data_in(tmp_path)
    (only,) = artifacts(1)
    async with evicting(tmp_path, ALL) as worker:
        await hold(worker, only)
        worker.failure = StoreError("the pins cannot be read")
        with pytest.raises(StoreError):
            await worker.evictor.once()
        assert held(worker, only)
