"""The process in which eviction looks and unlinks: it says the same as here, and nothing of it is left behind."""

import asyncio
import os
import signal
import subprocess
from pathlib import Path

import pytest

from mirror.apart import Apart
from mirror.config import CacheSettings
from mirror.digest import Digest
from mirror.errors import StoreError
from mirror.evicting import Here, Wanted
from mirror.store.blobs import BlobStore
from tests.store.disk import data_in
from tests.support.artifacts import wasm_module
from tests.support.evicting import Worker, evicting
from tests.support.waiting import eventually

ALL = Wanted(need=1 << 40, most=2, young=0.0)


def process_of(apart: Apart) -> "subprocess.Popen[str]":
    assert apart._process is not None
    return apart._process


def hold(worker: Worker, number: int) -> list[str]:
    store, modules = BlobStore(worker.directory), [wasm_module(1000, seed) for seed in range(number)]
    for module in modules:
        store.put(Digest.of(module), module)
    return [str(Digest.of(module)) for module in modules]


async def test_it_finds_and_unlinks_what_this_process_would(tmp_path: Path) -> None:
    data_in(tmp_path)
    async with evicting(tmp_path, CacheSettings()) as worker:
        digests = hold(worker, 5)
        here = Here(worker.directory, worker.known, worker.catalogue, worker.now)
        apart = Apart(tmp_path)
        try:
            plan = await apart.look(ALL)
            assert sorted(map(sorted, plan.batches)) == sorted(map(sorted, (await here.look(ALL)).batches))
            done = await asyncio.to_thread(apart.unlink, [*digests[:2], digests[0]])
            assert (done.gone, done.absent, done.failure) == (digests[:2], [digests[0]], None)
            assert done.bytes == 2 * len(wasm_module(1000, 0))
        finally:
            await apart.aclose()


async def test_what_is_pinned_stays_and_is_told(tmp_path: Path) -> None:
    data_in(tmp_path)
    async with evicting(tmp_path, CacheSettings()) as worker:
        digests = hold(worker, 3)
        plan = await Here(worker.directory, worker.known, None, worker.now).look(
            Wanted(ALL.need, ALL.most, ALL.young, digests[:1])
        )
        assert sorted(digest for batch in plan.batches for digest in batch) == sorted(digests[1:])
        assert plan.pinned == len(wasm_module(1000, 0))


async def test_who_asks_hears_that_it_has_died(tmp_path: Path) -> None:
    data_in(tmp_path)
    apart = Apart(tmp_path)
    await apart.look(ALL)
    process_of(apart).kill()
    process_of(apart).wait()
    with pytest.raises(OSError, match=r"(?i)pipe|ended before"):
        await apart.look(ALL)
    await apart.aclose()


async def test_what_it_fails_for_is_told(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    directory.hosted.write_bytes(b"no database, and it was one once" * 100)
    apart = Apart(tmp_path)
    with pytest.raises(StoreError):
        await apart.look(ALL)
    await apart.aclose()


async def test_a_round_that_is_given_up_leaves_no_process(tmp_path: Path) -> None:
    data_in(tmp_path)
    apart = Apart(tmp_path)
    await apart.look(ALL)
    process = process_of(apart)
    os.kill(process.pid, signal.SIGSTOP)
    looking = asyncio.create_task(apart.look(ALL))
    await eventually(lambda: apart._busy, what="it is asked")
    looking.cancel()
    await apart.aclose()
    assert process.returncode == -signal.SIGKILL
    await asyncio.gather(looking, return_exceptions=True)


async def test_a_round_that_is_over_starts_no_process(tmp_path: Path) -> None:
    data_in(tmp_path)
    apart = Apart(tmp_path)
    await apart.aclose()
    with pytest.raises(OSError, match="the round is over"):
        await apart.look(ALL)  # as a thread does that had not come to it when the round was given up
    assert apart._process is None
