"""What a replica gives to the others: all that it holds or is getting, to those who can sign, and to nobody else."""

import asyncio
import contextlib
import random
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

from mirror.cluster.secret import SKEW
from mirror.digest import Digest
from mirror.download import BlobStream
from mirror.errors import StoreError, UpstreamError, UpstreamInvalid, UpstreamUnavailable
from mirror.metadata.base import Dropped, Link, LinkEntry, TagEntry, TagRecord, Tombstone
from mirror.peers import Peers
from mirror.store.growing import CHUNK, WITHHELD
from tests.cluster.replica import SECRET, Filling, Replica, asking, replicas, secret_in
from tests.support.asking import ask
from tests.support.waiting import eventually

MIB = 1024 * 1024
CONTENT = random.Random(4).randbytes(300_000)
DIGEST = Digest.of(CONTENT)
BLOB = f"/peer/v1/blobs/{DIGEST}"
RECORD = TagRecord("ghcr.io", "team/plugin", "v1", DIGEST, "application/json", 7, 1234.5678901, 3, moving=True)
DELETED = Tombstone("ghcr.io", "team/plugin", "v2", 99.25, 8)
LINK = Link("ghcr.io", "team/plugin", DIGEST, "application/wasm", -1)


class Reading:
    """A stream, taken in as it comes."""

    def __init__(self, stream: BlobStream) -> None:
        self.offset = stream.offset
        self.size = stream.size
        self.received = b""
        self.failure: UpstreamError | None = None
        self.task = asyncio.create_task(self._read(stream))

    async def _read(self, stream: BlobStream) -> None:
        try:
            async for chunk in stream:
                self.received += chunk
        except UpstreamError as failure:
            self.failure = failure
        finally:
            await stream.aclose()

    async def until(self, count: int) -> None:
        """Wait until so many bytes have come, and no more."""
        await eventually(lambda: len(self.received) >= count, what=f"{count} bytes")
        assert len(self.received) == count


async def opened(peers: Peers, replica: Replica, filling: Filling, offset: int = 0) -> Reading:
    """The blob that ``replica`` is getting, from ``offset`` on."""
    deadline = asyncio.get_running_loop().time() + 10
    return Reading(await peers.open_blob(replica.url, filling.digest, offset=offset, held=False, deadline=deadline))


async def test_what_is_held_is_given_whole_or_in_part(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (one,):
        one.put(CONTENT)
        for query in ("", "?held=1"):
            whole = await one.signed("GET", BLOB + query)
            assert (whole.status, whole.body, whole.whole) == (200, CONTENT, True)
            assert whole.header("docker-content-digest") == str(DIGEST)
            part = await one.signed("GET", BLOB + query, {"Range": "bytes=299990-"})
            assert (part.status, part.body) == (206, CONTENT[-10:])
            assert part.header("content-range") == "bytes 299990-299999/300000"
            head = await one.signed("HEAD", BLOB + query)
            assert (head.status, head.body, head.header("content-length")) == (200, b"", "300000")
            beyond = await one.signed("GET", BLOB + query, {"Range": "bytes=300000-"})
            assert (beyond.status, beyond.code) == (416, "RANGE_INVALID")


async def test_what_is_neither_held_nor_coming_is_not_there(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (one,):
        for method in ("GET", "HEAD"):
            reply = await one.signed(method, BLOB)
            assert reply.status == 404
        assert (await one.signed("GET", BLOB)).code == "BLOB_UNKNOWN"


async def test_what_is_coming_is_not_held(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (one,):
        one.fill(CONTENT, size=len(CONTENT)).come(200_000)
        for method in ("GET", "HEAD"):
            assert (await one.signed(method, f"{BLOB}?held=1")).status == 404
        assert (await one.signed("HEAD", BLOB)).header("content-length") == "300000"


async def test_bytes_are_passed_on_as_they_come_and_the_last_ones_once_verified(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (one,), asking(tmp_path, one) as peers:
        filling = one.fill(CONTENT, size=len(CONTENT))
        reading = await opened(peers, one, filling)
        assert (reading.offset, reading.size) == (0, len(CONTENT)), "the status line waits for no byte"
        for end in (1, 70_000, len(CONTENT) - WITHHELD):
            filling.come(end)
            await reading.until(end)
        filling.come()
        await asyncio.sleep(0.05)  # for bytes that must not come
        assert len(reading.received) == len(CONTENT) - WITHHELD
        filling.end()
        await reading.task
        assert (reading.received, reading.failure) == (CONTENT, None)


async def test_an_archive_is_passed_on_as_it_comes_too(tmp_path: Path) -> None:
    content = b"\x1f\x8b" + CONTENT
    async with replicas(tmp_path) as (one,), asking(tmp_path, one) as peers:
        filling = one.fill(content, size=len(content))
        reading = await opened(peers, one, filling)
        filling.come(1000)
        await reading.until(1000)
        filling.end()
        await reading.task
        assert reading.received == content


async def test_a_range_waits_for_its_bytes(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (one,), asking(tmp_path, one) as peers:
        filling = one.fill(CONTENT, size=len(CONTENT))
        filling.come(1000)
        reading = await opened(peers, one, filling, 150_000)
        assert (reading.offset, reading.size) == (150_000, len(CONTENT))
        filling.come(150_000)
        await asyncio.sleep(0.05)  # for bytes that must not come
        assert reading.received == b""
        filling.come(150_010)
        await reading.until(10)
        filling.end()
        await reading.task
        assert reading.received == CONTENT[150_000:]


async def test_while_the_size_is_not_known_all_comes_from_the_first_byte_on(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (one,), asking(tmp_path, one) as peers:
        filling = one.fill(CONTENT, size=None)
        opening = asyncio.create_task(opened(peers, one, filling, 1000))
        await eventually(lambda: one.asked)
        await asyncio.sleep(0.05)  # for a status line that must not come
        assert not opening.done()
        filling.come(200_000)
        reading = await opening
        assert (reading.offset, reading.size) == (0, None)
        await reading.until(200_000 - WITHHELD)
        filling.end()
        await reading.task
        assert (reading.received, reading.failure) == (CONTENT, None)


async def test_an_empty_blob_is_one_too(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (one,), asking(tmp_path, one) as peers:
        for size in (0, None):
            filling = one.fill(b"", size=size)
            opening = asyncio.create_task(opened(peers, one, filling))
            await eventually(lambda: one.asked)
            filling.end()
            reading = await opening
            await reading.task
            assert (reading.received, reading.failure) == (b"", None)
            one.asked.clear()
            assert filling.spool is not None
            filling.spool.drop()
            filling.spool.close()


@pytest.mark.parametrize("size", [len(CONTENT), None])
async def test_a_fill_that_fails_cuts_the_connection(tmp_path: Path, size: int | None) -> None:
    async with replicas(tmp_path) as (one,), asking(tmp_path, one) as peers:
        filling = one.fill(CONTENT, size=size)
        filling.come(len(CONTENT))
        reading = await opened(peers, one, filling)
        await reading.until(len(CONTENT) - WITHHELD)
        filling.fail(UpstreamInvalid("wrong bytes"))
        await reading.task
        assert isinstance(reading.failure, UpstreamUnavailable)
        assert len(reading.received) == len(CONTENT) - WITHHELD


async def test_a_fill_that_has_failed_already_is_told_as_an_error(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (one,):
        filling = one.fill(CONTENT, size=len(CONTENT))
        filling.fail(UpstreamUnavailable("down"))
        assert (await one.signed("GET", BLOB)).code == "UPSTREAM_UNAVAILABLE"


async def test_a_fill_that_fails_before_anything_is_known_is_told_as_an_error(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (one,):
        for headers in ({}, {"Range": "bytes=5-"}):
            filling = one.fill(CONTENT, size=None)
            asked = asyncio.create_task(one.signed("GET", BLOB, headers))
            await eventually(lambda: one.asked)
            filling.fail(UpstreamUnavailable("down"))
            assert (await asked).status == 503
            one.asked.clear()


async def test_a_replica_that_leaves_is_waited_for_no_longer(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (one,), asking(tmp_path, one) as peers:
        filling = one.fill(CONTENT, size=len(CONTENT))
        filling.come(1000)
        reading = await opened(peers, one, filling)
        await reading.until(1000)
        assert filling.growing.waiters == 1
        reading.task.cancel()
        await eventually(lambda: filling.growing.waiters == 0)


async def test_a_replica_that_takes_nothing_costs_little_memory(tmp_path: Path) -> None:
    size = 64 * MIB
    async with replicas(tmp_path) as (one,), asking(tmp_path, one) as peers:
        filling = one.fill(bytes(size), size=size)
        held = one.put(bytes(32 * MIB))
        deadline = asyncio.get_running_loop().time() + 10
        tracemalloc.start()
        try:
            streams = [
                await peers.open_blob(one.url, digest, offset=0, held=digest == held, deadline=deadline)
                for digest in [filling.digest, held] * 5
            ]
            filling.come()
            filling.growing.verify()
            fast = await peers.open_blob(one.url, filling.digest, offset=0, held=False, deadline=deadline)
            assert sum([len(chunk) async for chunk in fast]) == size
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        for stream in (*streams, fast):
            await stream.aclose()
        # Of each: a piece on its way out, the loop's reads on this side; slices of maps are no memory of Python's.
        assert peak < 11 * (CHUNK + 2 * MIB), f"{peak / MIB:.1f} MiB"


async def test_a_disk_that_fails_does_not_keep_back_what_passes_it_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with replicas(tmp_path) as (one,):

        def fails(digest: Digest) -> None:
            raise OSError(5, "Input/output error")

        filling = one.fill(CONTENT, size=len(CONTENT))
        filling.end()
        monkeypatch.setattr(one.store, "open", fails)
        assert (await one.signed("GET", f"{BLOB}?held=1")).status == 404
        assert (await one.signed("GET", BLOB)).body == CONTENT


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
@pytest.mark.parametrize("target", [BLOB, f"{BLOB}?held=1", "/peer/v1/tags/a/b?tag=c", "/peer/v1/x", "/peer/v1/blobs/"])
async def test_who_does_not_sign_is_told_nothing(tmp_path: Path, method: str, target: str) -> None:
    async with replicas(tmp_path) as (one,):
        one.put(CONTENT)
        reply = await ask(one.address, target, method=method)
        assert reply.status == 401
        assert reply.header("www-authenticate") == "WasmMirror"
        if method != "HEAD":
            assert reply.code == "UNAUTHORIZED"
            assert str(DIGEST) not in reply.message


@pytest.mark.parametrize(
    ("method", "target", "age"),
    [
        ("GET", f"/peer/v1/blobs/{DIGEST}?held=1", 0.0),
        ("GET", "/peer/v1/tags/ghcr.io/team/plugin?tag=v1", 0.0),
        ("HEAD", BLOB, 0.0),
        ("GET", BLOB, SKEW + 5),
        ("GET", BLOB, -SKEW - 5),
    ],
)
async def test_a_proof_is_good_for_one_question_and_some_minutes(
    tmp_path: Path, method: str, target: str, age: float
) -> None:
    async with replicas(tmp_path) as (one,):
        one.put(CONTENT)
        one.knows.tags.append(RECORD)
        proof = one.secret.sign("GET", one.url + BLOB, time.time() - age).header
        assert (await ask(one.address, target, method=method, headers={"Authorization": proof})).status == 401


async def test_what_was_signed_for_one_replica_is_not_answered_by_another(tmp_path: Path) -> None:
    async with replicas(tmp_path, 2) as (one, other):
        other.put(CONTENT)
        proof = one.secret.sign("GET", one.url + BLOB, time.time()).header
        assert (await ask(other.address, BLOB, headers={"Authorization": proof})).status == 401


async def test_a_fresh_proof_with_the_right_secret_is_taken(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (one,):
        one.put(CONTENT)
        for secret, status in ((SECRET, 200), (SECRET + b"!", 401)):
            proof = secret_in(tmp_path / "mine", secret).sign("GET", one.url + BLOB, time.time() - SKEW + 5).header
            assert (await ask(one.address, BLOB, headers={"Authorization": proof})).status == status
        twice = [("Authorization", proof), ("Authorization", proof)]
        assert (await ask(one.address, BLOB, headers=twice)).status == 401


@pytest.mark.parametrize(
    ("method", "target", "status", "code"),
    [
        ("POST", BLOB, 405, "UNSUPPORTED"),
        ("GET", "/peer/v1/blobs/sha256:00", 400, "DIGEST_INVALID"),
        ("GET", "/peer/v1/blobs/", 400, "DIGEST_INVALID"),
        ("GET", f"/peer/v1/blobs/..%2F{DIGEST}", 400, "DIGEST_INVALID"),
        ("GET", "/peer/v1/tags/ghcr.io/team/plugin", 400, "TAG_INVALID"),
        ("GET", "/peer/v1/tags/ghcr.io/team/plugin?tag=..", 400, "TAG_INVALID"),
        ("GET", "/peer/v1/tags/ghcr.io?tag=v1", 400, "NAME_INVALID"),
        ("GET", "/peer/v1/tags/ghcr.io/../x?tag=v1", 400, "NAME_INVALID"),
        ("GET", "/peer/v1/links/ghcr.io/team/plugin?digest=md5:0", 400, "DIGEST_INVALID"),
        ("GET", "/peer/v1/tags/ghcr.io/x?" + "a&" * 9, 400, "NAME_INVALID"),
        ("GET", "/peer/v1/", 404, "UNKNOWN"),
        ("GET", "/peer/v2/blobs/", 404, "UNKNOWN"),
        ("GET", "/peer/v1/secrets", 404, "UNKNOWN"),
        ("GET", "/peer/v1/tags/ghcr.io/team/plugin?tag=v1", 404, "UNKNOWN"),
        ("GET", f"/peer/v1/links/ghcr.io/team/plugin?digest={DIGEST}", 404, "UNKNOWN"),
    ],
)
async def test_what_cannot_be_answered_is_an_error_of_its_kind(
    tmp_path: Path, method: str, target: str, status: int, code: str
) -> None:
    async with replicas(tmp_path) as (one,):
        reply = await one.signed(method, target)
        assert (reply.status, reply.code) == (status, code)
        assert str(tmp_path) not in reply.message


@pytest.mark.parametrize("entry", [RECORD, DELETED])
async def test_an_entry_of_a_tag_arrives_as_it_is(tmp_path: Path, entry: TagEntry) -> None:
    async with replicas(tmp_path) as (one,), asking(tmp_path, one) as peers:
        one.knows.tags.append(entry)
        assert await peers.tag(entry.upstream, entry.repository, entry.tag) == entry
        assert await peers.tag("docker.io", entry.repository, entry.tag) is None


@pytest.mark.parametrize(
    "entry", [LINK, replace(LINK, serial=3), Dropped(LINK.upstream, LINK.repository, LINK.digest, 1000.5, 2)]
)
async def test_a_link_arrives_as_it_is(tmp_path: Path, entry: LinkEntry) -> None:
    async with replicas(tmp_path) as (one,), asking(tmp_path, one) as peers:
        one.knows.links.append(entry)
        assert await peers.link(LINK.upstream, LINK.repository, LINK.digest) == entry
        assert await peers.link(LINK.upstream, "team/other", LINK.digest) is None


async def test_a_database_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with replicas(tmp_path) as (one,):

        async def fails(*_: str) -> None:
            raise StoreError("the database fails")

        monkeypatch.setattr(one.knows, "tag", fails)
        assert (await one.signed("GET", "/peer/v1/tags/ghcr.io/team/plugin?tag=v1")).status == 500


async def test_many_replicas_read_one_fill(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (one,), contextlib.AsyncExitStack() as stack:
        filling = one.fill(CONTENT, size=len(CONTENT))
        readings = []
        for number in range(20):
            peers = await stack.enter_async_context(asking(tmp_path, one))
            readings.append(await opened(peers, one, filling, number * 1000))
        for end in range(10_000, 300_000, 10_000):
            filling.come(end)
            await asyncio.sleep(0)
        filling.end()
        for reading in readings:
            await reading.task
            assert reading.received == CONTENT[reading.offset :]
            assert reading.failure is None
