"""Bits flip on the disk of a mirror that serves: all is found, and is right again, or is not served."""

import asyncio
import contextlib
import functools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import httpx
import pytest

from mirror.digest import Digest
from mirror.store.blobs import BlobStore, File
from mirror.store.directory import DataDirectory
from tests.support.artifacts import compat, publish, raw, wasm_module
from tests.support.process import MirrorProcess
from tests.support.pushing import Author
from tests.support.rot import rot
from tests.support.running import Running, running
from tests.support.scrape import Scrape
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually, wait_until

pytestmark = pytest.mark.integration

AT_ONCE = {"scrub": {"every": "100ms", "rate": "1GiB"}}
"""Whenever it is looked at, which is every second."""
NEVER = {"scrub": {"every": "0"}}
REPOSITORY = "/v2/up/team/plugin"
HOSTED = "/v2/hosted/team/plugin"


async def found(mirror: Running) -> dict[str, float]:
    """What the scrubber has counted, but for what is sound."""
    numbers = Scrape.of((await mirror.get("/metrics")).body).by("result", "scrubbed_blobs_total")
    return {result: number for result, number in numbers.items() if number and result != "sound"}


async def until_found(mirror: Running, **expected: float) -> None:
    """Wait until so much was found, and no more."""

    async def is_found() -> bool:
        return await found(mirror) == expected

    so: Callable[[], bool | Awaitable[bool]] = is_found
    await eventually(so, what=f"{expected}")


class Shelf(dict[str, bytes]):
    """What to ask for, and what is to come; ``files`` are the digests of what lies on the disk for it."""

    def __init__(self) -> None:
        super().__init__()
        self.manifests: list[Digest] = []
        self.layers: list[Digest] = []
        self.unpacked: list[Digest] = []


async def cached(mirror: Running, up: FaultyUpstream, n: int) -> Shelf:
    """Have ``n`` artifacts held, with the modules that were in their layers."""
    shelf = Shelf()
    for number in range(n):
        module = wasm_module(30_000 + number, seed=number)
        artifact = compat(module)
        publish(up, "team/plugin", f"v{number}", artifact)
        shelf[f"{REPOSITORY}/manifests/{artifact.digest}"] = artifact.body
        shelf.update({f"{REPOSITORY}/blobs/{digest}": content for digest, content in artifact.blobs.items()})
        shelf[f"/modules/up/team/plugin@{artifact.digest}"] = module
        shelf.manifests.append(artifact.digest)
        shelf.layers.append(artifact.layers[0])
        shelf.unpacked.append(Digest.of(module))
    await all_come(mirror, shelf)
    for digest in (*shelf.manifests, *shelf.layers, *shelf.unpacked):
        await mirror.until_held(digest)
    return shelf


async def hosted(mirror: Running, n: int) -> Shelf:
    """Push ``n`` artifacts."""
    shelf = Shelf()
    for number in range(n):
        artifact = raw(wasm_module(20_000 + number, seed=100 + number))
        await Author(mirror).push(artifact, f"v{number}")
        shelf[f"{HOSTED}/manifests/{artifact.digest}"] = artifact.body
        shelf[f"{HOSTED}/blobs/{artifact.layers[0]}"] = artifact.blobs[artifact.layers[0]]
        shelf.manifests.append(artifact.digest)
        shelf.layers.append(artifact.layers[0])
    return shelf


async def all_come(mirror: Running, shelf: Shelf) -> None:
    """Ask for all of it."""
    for target, content in shelf.items():
        reply = await mirror.get(target)
        assert (reply.status, reply.body) == (200, content), target


@pytest.mark.shows("one bit of a file on the disk flips, or the disk cannot read it any more")
async def test_one_bit_in_each_of_20_blobs_is_found_and_each_is_served_rightly_or_not_at_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with FaultyUpstream() as up:
        async with running(tmp_path, {"up": up}, NEVER) as mirror:
            shelf, pushed = await cached(mirror, up, 6), await hosted(mirror, 2)
            directory = mirror.directory
        lost = [*pushed.manifests, *pushed.layers]
        rotten = [*shelf.manifests[:5], *shelf.layers[1:], *shelf.unpacked[:5], Digest.of(b"{}"), *lost]
        assert len(rotten) == len(set(rotten)) == 20
        for digest in rotten:
            rot(directory.blob(digest))
        everything = {digest for digest, _ in BlobStore(directory).scan()}
        kept = {digest: os.stat(directory.blob(digest)).st_ino for digest in everything.difference(rotten)}
        asked = len(up.requests)
        async with running(tmp_path, {"up": up}, AT_ONCE) as mirror:
            await until_found(mirror, damaged=20, lost=4, restored=11)
            assert len(up.requests) > asked
            assert not any(mirror.holds(digest) for digest in lost)
            asked = len(up.requests)
            await all_come(mirror, shelf)  # of the modules, which were unpacked here, those are unpacked again
            assert len(up.requests) == asked
            for target in pushed:
                reply = await mirror.get(target)
                assert (reply.status, reply.whole) == (500, True), reply
                assert "must be pushed again" in reply.message
            assert {digest: os.stat(directory.blob(digest)).st_ino for digest in kept} == kept
            for digest in lost:
                assert caplog.text.count(f"{digest} was damaged, and nobody gives it now") == 1
            for number in range(2):  # which mends it
                await Author(mirror).push(raw(wasm_module(20_000 + number, seed=100 + number)), f"v{number}")
            await all_come(mirror, pushed)


async def test_while_upstream_is_away_nothing_wrong_is_served_and_all_is_right_when_it_is_back(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        async with running(tmp_path, {"up": up}, NEVER) as mirror:
            shelf = await cached(mirror, up, 1)
        up.refuse()
        for digest in (*shelf.manifests, *shelf.layers, *shelf.unpacked):
            rot(mirror.directory.blob(digest))
        shortly = {**AT_ONCE, "defaults": {"hold_for": "300ms"}}
        async with running(tmp_path, {"up": up}, shortly) as mirror:
            await until_found(mirror, damaged=3, lost=2)
            for target, content in shelf.items():
                reply = await mirror.get(target)
                assert reply.status == 503 or reply.body == content == b"{}", target
            up.accept()
            comes: Callable[[], bool | Awaitable[bool]] = functools.partial(_comes, mirror, shelf)
            await eventually(comes, what="all is right again", timeout=20)


async def _comes(mirror: Running, shelf: Shelf) -> bool:
    replies = [await mirror.get(target) for target in shelf]
    assert all(reply.status == 503 or reply.body == shelf[target] for target, reply in zip(shelf, replies, strict=True))
    return all(reply.status == 200 for reply in replies)


async def test_a_manifest_that_memory_has_is_mended_out_of_memory(tmp_path: Path) -> None:
    """Also one that was pushed, and lies nowhere else: what is remembered was held against its digest."""
    with FaultyUpstream() as up:
        async with running(tmp_path, {"up": up}, AT_ONCE) as mirror:
            shelf, pushed = await cached(mirror, up, 1), await hosted(mirror, 1)
            await all_come(mirror, pushed)
            up.refuse()
            for digest in (*shelf.manifests, *pushed.manifests):
                rot(mirror.directory.blob(digest))
            await until_found(mirror, damaged=2, restored=2)
            await all_come(mirror, shelf)
            await all_come(mirror, pushed)
        async with running(tmp_path, {"up": up}, NEVER) as mirror:
            await all_come(mirror, shelf)
            await all_come(mirror, pushed)


async def test_a_herd_gets_no_wrong_byte_once_it_was_found_and_who_was_reading_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = wasm_module(20 << 20)
    digest = Digest.of(content)
    target = f"{REPOSITORY}/blobs/{digest}"
    found_at: list[float] = []
    condemn = BlobStore.condemn

    def noting(store: BlobStore, digest: Digest, file: File) -> None:
        condemn(store, digest, file)
        found_at.append(time.monotonic())

    with FaultyUpstream() as up:
        up.add_blob("team/plugin", content)
        async with running(tmp_path, {"up": up}, AT_ONCE) as mirror:
            assert (await mirror.get(target)).body == content
            await mirror.until_held(digest)
            monkeypatch.setattr(BlobStore, "condemn", noting)
            replies: list[tuple[float, bool, bool]] = []

            async def client() -> None:
                while not found_at or time.monotonic() < found_at[0] + 0.3:
                    began = time.monotonic()
                    reply = await mirror.get(target, {"Range": "bytes=0-99999"})
                    replies.append((began, reply.whole, reply.body == content[:100_000]))

            async with reading(mirror, target) as slow:
                rot(mirror.directory.blob(digest), 1000)
                await asyncio.gather(*(client() for _ in range(8)))
                assert len(await slow.read()) < len(content)
            after = [(whole, right) for began, whole, right in replies if began >= found_at[0]]
            assert len(after) >= 8
            assert set(after) == {(True, True)}
            assert (await mirror.get(target)).body == content


@contextlib.asynccontextmanager
async def reading(mirror: Running, target: str) -> AsyncIterator[asyncio.StreamReader]:
    """A client that has begun to read an answer, and does not go on."""
    reader, writer = await asyncio.open_connection(*mirror.address, limit=1024)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    await reader.readline()
    try:
        yield reader
    finally:
        writer.close()
        await writer.wait_closed()


def test_workers_scrub_once_and_none_of_them_serves_what_has_rotted(tmp_path: Path) -> None:
    content = wasm_module(100_000)
    digest = Digest.of(content)
    settings = {"workers": 3, **AT_ONCE}
    with FaultyUpstream() as up:
        up.add_blob("team/plugin", content)
        with MirrorProcess(tmp_path, {"up": up.url}, settings) as mirror:
            target = f"{mirror.url}{REPOSITORY}/blobs/{digest}"
            for _ in range(20):  # each of them has it mapped
                assert httpx.get(target).content == content
            file = DataDirectory.attach(mirror.data_dir).blob(digest)
            wait_until(file.exists, what="it is held")
            rot(file)
            wait_until(lambda: f"the file of {digest} is damaged" in mirror.log_text(), what="it is found")
            for _ in range(20):
                assert httpx.get(target).content == content
            wait_until(lambda: "is here again" in mirror.log_text(), what="it is mended")

            def told() -> Mapping[str, float]:
                return Scrape.of(httpx.get(f"{mirror.url}/metrics").content).by("result", "scrubbed_blobs_total")

            wait_until(lambda: (told().get("damaged"), told().get("restored")) == (1, 1), what="all workers' numbers")
            assert mirror.log_text().count(f"the file of {digest} is damaged") == 1
