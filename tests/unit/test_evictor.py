"""Eviction on a real disk: what goes, what stays, who does it, and what is said."""

import asyncio
import errno
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from mirror import evictor as module
from mirror import survey
from mirror.config import CacheSettings
from mirror.digest import Digest
from mirror.metadata.base import Link
from mirror.oci import OCI_MANIFEST
from mirror.store.blobs import BlobStore
from mirror.wasm.repackage import CONFIG, repackaged
from tests.hosted.shelf import REPOSITORY, describe
from tests.store.disk import data_in
from tests.support.artifacts import OCI_CONFIG, OCI_LAYER, Artifact, image, index, wasm_module
from tests.support.evicting import HOUR, Worker, evicting
from tests.support.waiting import eventually

KIB = 1024
PLACE = "ghcr.io", "team/plugin"


def limited(size: int) -> CacheSettings:
    """A cache of so many bytes, above which just that goes which is too much."""
    return CacheSettings(max_size=size + KIB, high_water=1.0, low_water=0.999)


def artifacts(number: int, size: int = 10 * KIB) -> list[Artifact]:
    """Artifacts that share nothing."""
    return [
        image([(OCI_LAYER, wasm_module(size, seed))], config=(OCI_CONFIG, b'{"seed":%d}' % seed))
        for seed in range(number)
    ]


async def hold(worker: Worker, artifact: Artifact) -> None:
    """As a pull leaves it."""
    store = BlobStore(worker.directory)
    for child in artifact.children:
        await hold(worker, child)
    for digest, content in artifact.blobs.items():
        store.put(digest, content)
    store.put(artifact.digest, artifact.body)
    links = [Link(*PLACE, artifact.digest, artifact.media_type, len(artifact.body))]
    await worker.known.put_links([*links, *(Link(*PLACE, digest, "x/y", -1) for digest in artifact.blobs)])


async def use(worker: Worker, artifact: Artifact, at: float) -> None:
    """Somebody pulls it: at a time after it came."""
    named = [artifact.digest, *artifact.blobs, *(child.digest for child in artifact.children)]
    await worker.known.touch({digest: worker.now() + at for digest in named})


def held(worker: Worker, artifacts: Sequence[Artifact]) -> list[int]:
    """The numbers of those that are there whole; none is there in part."""
    found = []
    for number, artifact in enumerate(artifacts):
        there = {worker.directory.blob(digest).exists() for digest in (artifact.digest, *artifact.blobs)}
        assert len(there) == 1, f"{number} is there in part"
        found += [number] if there.pop() else []
    return found


def size_of(*artifacts: Artifact) -> int:
    return sum(len(one.body) + sum(map(len, one.blobs.values())) for one in artifacts)


async def test_what_was_not_used_for_the_longest_goes_with_all_that_it_names(tmp_path: Path) -> None:
    data_in(tmp_path)
    all_ = artifacts(4)
    async with evicting(tmp_path, limited(size_of(*all_[:2]))) as worker:
        for artifact in all_:
            await hold(worker, artifact)
        for at, number in enumerate((2, 0, 3, 1)):
            await use(worker, all_[number], at)
        went = await worker.evictor.once()
        assert held(worker, all_) == [1, 3]
        assert went == worker.metrics.evictions[()] == len(worker.withdrawn) == 2 * (1 + len(all_[0].blobs))
        assert worker.let_go == 1
        assert await worker.evictor.once() == 0


async def test_what_was_asked_for_a_moment_ago_counts_though_nothing_was_written_yet(tmp_path: Path) -> None:
    data_in(tmp_path)
    all_ = artifacts(2)
    async with evicting(tmp_path, limited(size_of(all_[0]))) as worker:
        for at, artifact in enumerate(all_):
            await hold(worker, artifact)
            await use(worker, artifact, at - 10)
        for digest in (all_[0].digest, *all_[0].blobs):
            worker.accesses.blob(digest)
        await worker.evictor.once()
        assert held(worker, all_) == [0]
        assert await worker.known.last_access(all_[1].digest) is None


async def test_what_is_asked_for_while_it_is_decided_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_in(tmp_path)
    all_ = artifacts(2)
    async with evicting(tmp_path, CacheSettings(max_size=1)) as worker:
        for artifact in all_:
            await hold(worker, artifact)
        flush = worker.accesses.flush

        async def flushed() -> None:
            await flush()
            for digest in (all_[1].digest, *all_[1].blobs):
                worker.accesses.blob(digest)

        monkeypatch.setattr(worker.accesses, "flush", flushed)  # somebody asks right behind it
        await worker.evictor.once()
        assert held(worker, all_) == [1]


async def test_an_index_goes_with_its_images(tmp_path: Path) -> None:
    data_in(tmp_path)
    all_ = artifacts(2)
    whole = index(*all_)
    async with evicting(tmp_path, CacheSettings(max_size=1)) as worker:
        await hold(worker, whole)
        await worker.evictor.once()
        assert held(worker, all_) == []
        assert not worker.directory.blob(whole.digest).exists()


async def test_what_came_less_than_a_minute_ago_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data_in(tmp_path)
    all_ = artifacts(2)
    async with evicting(tmp_path, CacheSettings(max_size=1)) as worker:
        worker.ahead = survey.YOUNG - 5
        for artifact in all_:
            await hold(worker, artifact)
        assert await worker.evictor.once() == 0
        assert held(worker, all_) == [0, 1]
        assert worker.metrics.eviction_short[("young",)] == size_of(*all_)
        assert not [line for line in caplog.records if line.levelno >= logging.WARNING]
        worker.ahead = survey.YOUNG + 5
        await worker.evictor.once()
        assert held(worker, all_) == []
        assert worker.metrics.eviction_short[("young",)] == 0


async def test_what_comes_again_while_it_is_decided_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_in(tmp_path)
    (artifact,) = artifacts(1)
    async with evicting(tmp_path, CacheSettings(max_size=1)) as worker:
        await hold(worker, artifact)
        assert worker.catalogue is not None
        bury = worker.catalogue.bury

        async def buried(
            digests: Sequence[Digest], keep: Callable[[Sequence[Digest]], Mapping[Digest, bool | None]]
        ) -> Sequence[Digest]:
            worker.ahead = 0  # so the files are of this moment
            return await bury(digests, keep)

        monkeypatch.setattr(worker.catalogue, "bury", buried)
        assert await worker.evictor.once() == 0
        assert held(worker, [artifact]) == [0]


async def test_what_is_hosted_stays_and_it_is_said_why_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data_in(tmp_path)
    hosted, cached = artifacts(2)
    async with evicting(tmp_path, CacheSettings(max_size=KIB)) as worker:
        assert worker.catalogue is not None
        for artifact in (hosted, cached):
            await hold(worker, artifact)
        for digest, content in hosted.blobs.items():
            await worker.catalogue.link_blob(REPOSITORY, digest, len(content))
        await worker.catalogue.put_manifest(REPOSITORY, describe(hosted), ["1"])
        for _ in range(3):
            await worker.evictor.once()
        assert held(worker, [hosted, cached]) == [0]
        assert worker.metrics.eviction_short[("hosted",)] == size_of(hosted)
        (line,) = [line.getMessage() for line in caplog.records if line.levelno >= logging.WARNING]
        assert f"{size_of(hosted):,} bytes are hosted" in line
        assert "cache.max_size" in line


async def test_what_is_pushed_while_it_is_decided_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data_in(tmp_path)
    (artifact,) = artifacts(1)
    async with evicting(tmp_path, CacheSettings(max_size=1)) as worker:
        await hold(worker, artifact)
        catalogue = worker.catalogue
        assert catalogue is not None
        flush = worker.accesses.flush

        async def flushed() -> None:
            await flush()
            for digest, content in artifact.blobs.items():
                await catalogue.link_blob(REPOSITORY, digest, len(content))
            await catalogue.put_manifest(REPOSITORY, describe(artifact), ["1"])

        monkeypatch.setattr(worker.accesses, "flush", flushed)
        assert await worker.evictor.once() == 0
        assert held(worker, [artifact]) == [0]


async def test_fills_and_uploads_stay_and_count(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    all_ = artifacts(2)
    (directory.spool / "sha256-x").write_bytes(bytes(size_of(all_[0])))
    (directory.uploads / "y").write_bytes(bytes(100))
    async with evicting(tmp_path, limited(size_of(*all_) + 100)) as worker:
        for at, artifact in enumerate(all_):
            await hold(worker, artifact)
            await use(worker, artifact, at)
        await worker.evictor.once()
        assert held(worker, all_) == [1]
    assert (directory.spool / "sha256-x").exists()
    assert (directory.uploads / "y").exists()


@pytest.mark.shows("more is cached than `cache.max_size`, or than the disk has room for")
async def test_a_file_system_with_little_room_is_the_limit(tmp_path: Path) -> None:
    data_in(tmp_path)
    all_ = artifacts(10)
    room = [size_of(*all_)]
    async with evicting(tmp_path, CacheSettings(low_water=0.81), free=lambda _: room[0]) as worker:
        for at, artifact in enumerate(all_):
            await hold(worker, artifact)
            await use(worker, artifact, at)
        assert await worker.evictor.once() == 0
        room[0] = 0  # others have taken it
        await worker.evictor.once()
        assert held(worker, all_) == list(range(2, 10))


async def test_a_manifest_that_was_made_here_stays_for_nobody_gives_it_again(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    module, source = wasm_module(KIB), Digest.of(b"another artifact")
    made = repackaged(source, Digest.of(module), len(module))
    artifact = Artifact(made.body, OCI_MANIFEST, {Digest.of(module): module, Digest.of(CONFIG): CONFIG})
    async with evicting(tmp_path, CacheSettings(max_size=1)) as worker:
        await hold(worker, artifact)
        await worker.evictor.once()
        assert directory.blob(made.digest).exists()
        assert not directory.blob(Digest.of(module)).exists()


async def test_of_several_workers_one_evicts_until_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_EVERY", 0.01)
    data_in(tmp_path)
    all_ = artifacts(6)
    settings = limited(size_of(*all_[:4]))
    async with evicting(tmp_path, settings) as first, evicting(tmp_path, settings) as second:
        for at, artifact in enumerate(all_):
            await hold(first, artifact)
            await use(first, artifact, at)
        tasks = {worker: asyncio.create_task(worker.evictor.run()) for worker in (first, second)}
        await eventually(lambda: first.let_go > 0 and second.let_go > 0, what="both let go of them")
        assert held(first, all_) == [2, 3, 4, 5]
        one, other = (first, second) if first.metrics.evictions[()] else (second, first)
        assert other.metrics.evictions[()] == 0
        tasks[one].cancel()
        for at, artifact in enumerate(all_[:2]):
            await use(other, artifact, 100 + at)
            await hold(other, artifact)
        gone = [digest for artifact in all_[2:4] for digest in (artifact.digest, *artifact.blobs)]
        await eventually(
            lambda: not any(other.directory.blob(digest).exists() for digest in gone), what="the other one goes on"
        )
        assert held(other, all_) == [0, 1, 4, 5]
        tasks[other].cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


async def test_a_disk_that_cannot_be_written_is_said_once_and_again_after_it_could(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data_in(tmp_path)
    all_ = artifacts(2)
    failing = [True]

    def unlink(file: str) -> None:
        if failing[0]:
            raise OSError(errno.EROFS, "Read-only file system")
        os.unlink(file)

    def said() -> int:
        return len([line for line in caplog.records if "Read-only file system" in line.getMessage()])

    async with evicting(tmp_path, CacheSettings(max_size=1), hosts=False, unlink=unlink) as worker:
        await hold(worker, all_[0])
        for _ in range(3):
            assert await worker.evictor.once() == 0
        assert said() == 1
        failing[0] = False
        assert await worker.evictor.once() > 0
        failing[0] = True
        await hold(worker, all_[1])
        await worker.evictor.once()
        assert said() == 2


async def test_while_it_is_not_known_what_is_hosted_nothing_goes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_EVERY", 0.01)
    directory = data_in(tmp_path)
    (artifact,) = artifacts(1)
    directory.hosted.write_bytes(b"no database, and it was one once" * 100)
    async with evicting(tmp_path, CacheSettings(max_size=1)) as worker:
        await hold(worker, artifact)
        running = asyncio.create_task(worker.evictor.run())
        await eventually(lambda: "nothing can be evicted" in caplog.text, what="it is said")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert held(worker, [artifact]) == [0]


async def test_a_clock_that_was_set_back_makes_nothing_young_for_ever(tmp_path: Path) -> None:
    data_in(tmp_path)
    all_ = artifacts(1)
    async with evicting(tmp_path, CacheSettings(max_size=1)) as worker:
        worker.ahead = -HOUR
        await hold(worker, all_[0])
        await worker.evictor.once()
        assert held(worker, all_) == []
