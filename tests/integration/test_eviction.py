"""A mirror whose disk holds little: what was not used for the longest goes, is fetched again, and nobody notices."""

import asyncio
import hashlib
import logging
import sys
from pathlib import Path

import pytest

from mirror import evictor, survey
from mirror.config import CacheSettings
from mirror.digest import Digest
from mirror.store.directory import DataDirectory
from tests.support.artifacts import OCI_CONFIG, RAW_LAYER, Artifact, image, publish, tar_gz, wasm_module
from tests.support.evicting import evicting
from tests.support.pushing import Author
from tests.support.running import Running, running
from tests.support.scrape import Scrape
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

KIB = 1024
MIB = 1024 * KIB
NAME = "/v2/up/team/plugin"
_ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eviction looks often, and blobs are old as soon as they are there."""
    monkeypatch.setattr(evictor, "_LOOK_EVERY", 0.02)
    monkeypatch.setattr(evictor, "_REST", 1.0)
    monkeypatch.setattr(survey, "YOUNG", 0.0)


def artifact(number: int, size: int = 100 * KIB) -> Artifact:
    """One of many that share nothing."""
    config = (OCI_CONFIG, b'{"number":%d}' % number)
    return image([(RAW_LAYER, wasm_module(size, number))], config=config)


def published(up: FaultyUpstream, count: int, size: int = 100 * KIB) -> list[Artifact]:
    """So many, under the tags 0, 1, 2, …"""
    made = [artifact(number, size) for number in range(count)]
    for number, one in enumerate(made):
        publish(up, "team/plugin", str(number), one)
    return made


def bounded(size: int) -> dict[str, object]:
    return {"cache": {"max_size": size}, "defaults": {"fresh_for": "1h"}}


async def pull(mirror: Running, number: int, one: Artifact) -> None:
    """As an agent: the manifest by its tag, then the layer; both are right."""
    manifest = await mirror.get(f"{NAME}/manifests/{number}")
    assert (manifest.status, manifest.body) == (200, one.body)
    for digest in one.layers:
        reply = await mirror.get(f"{NAME}/blobs/{digest}")
        assert (reply.status, reply.body) == (200, one.blobs[digest])


def holds(mirror: Running, one: Artifact) -> bool:
    """Whether its manifest and its layers are held; False: none of them."""
    found = {mirror.holds(digest) for digest in (one.digest, *one.layers)}
    return found == {True}


async def until_gone(mirror: Running, one: Artifact) -> None:
    await eventually(
        lambda: not any(mirror.holds(digest) for digest in (one.digest, *one.layers)), what="it is evicted"
    )


async def scraped(mirror: Running) -> Scrape:
    return Scrape.of((await mirror.get("/metrics")).body)


@pytest.mark.shows("more is cached than `cache.max_size`, or than the disk has room for")
async def test_what_was_not_used_for_the_longest_goes_and_is_fetched_again(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        first, second, third, fourth = published(up, 4)
        async with running(tmp_path, {"up": up}, bounded(400 * KIB)) as mirror:
            for number, one in enumerate((first, second, third)):
                await pull(mirror, number, one)
            assert (await mirror.get(f"{NAME}/manifests/0")).status == 200  # an agent looks again
            await pull(mirror, 3, fourth)
            await until_gone(mirror, second)
            assert [holds(mirror, one) for one in (first, third, fourth)] == [True] * 3
            heads = up.count(method="HEAD")

            async def fetched_again() -> bool:  # until then the manifest is still in memory
                await pull(mirror, 1, second)
                return up.count(path=f"/manifests/{second.digest}") == 1

            again: bool = await eventually(fetched_again)
            assert again
            assert up.count(method="HEAD") == heads  # its tag was known
            await mirror.until_held(second.digest)  # not in memory alone
            await until_gone(mirror, third)
            assert [holds(mirror, one) for one in (first, second, fourth)] == [True] * 3
            told = await scraped(mirror)
            assert told.sum("evictions_total") == 4
            assert told.sum("cache_limit_bytes") == 400 * KIB
            assert told.sum("eviction_short_bytes") == 0


@pytest.mark.shows("the disk is full, and nothing on it may go")
async def test_what_is_hosted_stays_whatever_else_comes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with FaultyUpstream() as up:
        cached = published(up, 3)
        hosted = artifact(99, 300 * KIB)
        async with running(tmp_path, {"up": up}, bounded(320 * KIB)) as mirror:
            author = Author(mirror)
            for content in hosted.blobs.values():
                assert (await author.blob(content)).status == 201
            assert (await author.manifest(hosted, "1")).status == 201
            for number, one in enumerate(cached):
                await pull(mirror, number, one)
            for one in cached:
                await until_gone(mirror, one)
            assert holds(mirror, hosted)
            reply = await mirror.get(f"/v2/hosted/team/plugin/blobs/{hosted.layers[0]}")
            assert reply.body == hosted.blobs[hosted.layers[0]]
            await eventually(lambda: "nothing more may go" in caplog.text, what="it is said")
            told = await scraped(mirror)
            assert told.sum("eviction_short_bytes", reason="hosted") > 300 * KIB
            await pull(mirror, 0, cached[0])
        said = [one for one in caplog.records if one.levelno >= logging.WARNING and "may go" in one.getMessage()]
        assert len(said) == 1


async def test_what_was_pushed_stays_where_nothing_is_hosted_any_more(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        cached, hosted = published(up, 1), artifact(99)
        async with running(tmp_path, {"up": up}) as mirror:
            author = Author(mirror)
            for content in hosted.blobs.values():
                await author.blob(content)
            assert (await author.manifest(hosted, "1")).status == 201
        async with running(tmp_path, {"up": up}, {**bounded(10 * KIB), "hosted": {"enabled": False}}) as mirror:
            await pull(mirror, 0, cached[0])
            await until_gone(mirror, cached[0])
            assert holds(mirror, hosted)


@pytest.mark.shows("more is cached than `cache.max_size`, or than the disk has room for")
async def test_a_download_survives_the_eviction_of_its_blob(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        large, *others = published(up, 4, 8 * MIB)
        async with running(tmp_path, {"up": up}, bounded(20 * MIB)) as mirror:
            await pull(mirror, 0, large)
            layer = large.layers[0]
            reader, writer = await asyncio.open_connection(*mirror.address)
            writer.write(f"GET {NAME}/blobs/{layer} HTTP/1.1\r\nHost: {mirror.host}\r\n\r\n".encode())
            assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(64 * KIB)
            for number, one in enumerate(others, 1):
                await pull(mirror, number, one)
            await until_gone(mirror, large)
            body += await reader.readexactly(8 * MIB - len(body))
            assert hashlib.sha256(body).hexdigest() == layer.hex
            writer.close()
            await writer.wait_closed()


async def test_the_space_of_what_has_gone_is_free(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        made = published(up, 6, MIB)
        async with running(tmp_path, {"up": up}, bounded(3 * MIB)) as mirror:
            for number, one in enumerate(made):
                await pull(mirror, number, one)
                await pull(mirror, number, one)  # from the disk, which maps it
            await until_gone(mirror, made[0])

            def mapped() -> list[str]:
                lines = Path("/proc/self/maps").read_text().splitlines()
                return [line for line in lines if str(tmp_path) in line and line.endswith("(deleted)")]

            await eventually(lambda: not mapped(), what="no file is mapped that has gone")


async def test_a_manifest_that_has_gone_is_not_served_from_memory_for_ever(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        first, second = published(up, 2)
        async with running(tmp_path, {"up": up}, bounded(150 * KIB)) as mirror:
            await pull(mirror, 0, first)
            await pull(mirror, 1, second)
            await until_gone(mirror, first)

            async def kept_again() -> bool:
                await mirror.get(f"{NAME}/manifests/{first.digest}")
                return mirror.holds(first.digest)

            found: bool = await eventually(kept_again, what="who asks for it has it kept again")
            assert found


async def test_a_module_that_was_unpacked_goes_and_is_made_anew(tmp_path: Path) -> None:
    module = wasm_module(100 * KIB, 50)
    packed = image([("application/vnd.oci.image.layer.v1.tar+gzip", tar_gz({"plugin.wasm": module}))])
    with FaultyUpstream() as up:
        others = published(up, 3)
        publish(up, "team/plugin", "packed", packed)
        async with running(tmp_path, {"up": up}, bounded(300 * KIB)) as mirror:
            assert (await mirror.get("/modules/up/team/plugin:packed")).body == module
            assert mirror.holds(Digest.of(module))
            for number, one in enumerate(others):
                await pull(mirror, number, one)
            await eventually(lambda: not mirror.holds(Digest.of(module)), what="it is evicted")
            assert (await mirror.get("/modules/up/team/plugin:packed")).body == module


@pytest.mark.parametrize("files", [2, 7])
async def test_who_is_killed_in_the_middle_leaves_nothing_that_lies(tmp_path: Path, files: int) -> None:
    with FaultyUpstream() as up:
        made = published(up, 4)
        async with running(tmp_path, {"up": up}) as mirror:
            for number, one in enumerate(made):
                await pull(mirror, number, one)
                for digest in one.blobs:
                    await mirror.get(f"{NAME}/blobs/{digest}")
        folder = tmp_path / "data"
        before = blobs(folder)
        ended = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.evicting", str(folder), str(files), cwd=_ROOT
        )
        assert await ended.wait() == -9
        assert blobs(folder) == before - (files - 1)
        async with running(tmp_path, {"up": up}) as mirror:
            for number, one in enumerate(made):
                await pull(mirror, number, one)
        async with evicting(folder, CacheSettings(max_size=1)) as worker:  # nor a lease that nobody has
            assert await worker.evictor.once() == blobs(folder) + worker.metrics.evictions[()]


def blobs(folder: Path) -> int:
    return len(list(DataDirectory.attach(folder).blobs.rglob("*/??/*")))
