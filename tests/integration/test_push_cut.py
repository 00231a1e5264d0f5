"""Pushes that break off, that come together, that are too large: nothing half is seen, and nothing whole is lost."""

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.digest import Digest
from tests.support.artifacts import Artifact, image, raw, wasm_module
from tests.support.pushing import OCTETS, Author
from tests.support.running import Running, running
from tests.support.waiting import eventually

UP = {"ghcr.io": "http://127.0.0.1:9"}
CONTENT = random.Random(7).randbytes(300_000)
DIGEST = Digest.of(CONTENT)
EXAMPLE = "application/vnd.example"


@contextlib.asynccontextmanager
async def sending(
    mirror: Running, line: str, *headers: str
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A request of which the header has been sent."""
    reader, writer = await asyncio.open_connection(*mirror.address)
    try:
        fields = "".join(f"{one}\r\n" for one in (f"Host: {mirror.host}", *headers))
        writer.write(f"{line} HTTP/1.1\r\n{fields}\r\n".encode())
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def stands_at(author: Author, upload: str) -> int:
    """Bytes that an upload has; -1: there is none."""
    reply = await author.ask("GET", upload)
    return int((reply.header("range") or "").partition("-")[2]) + 1 if reply.status == 204 else -1


@pytest.mark.shows("the mirror is killed, or a client leaves, in the middle of a push")
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_a_chunk_that_is_cut_can_be_gone_on_with(tmp_path: Path, method: str) -> None:
    async with running(tmp_path, UP) as mirror:
        author = Author(mirror)
        upload = await author.begin()
        target = upload if method == "PATCH" else f"{upload}?digest={DIGEST}"
        async with sending(mirror, f"{method} {target}", f"Content-Length: {len(CONTENT)}") as (_, writer):
            writer.write(CONTENT[:200_000])
            await writer.drain()
        assert (await author.ask("HEAD", f"blobs/{DIGEST}")).status == 404
        size = 0
        while (reply := await author.chunk(upload, size, CONTENT[size:])).status == 416:  # some may still be taken in
            size = int((reply.header("range") or "").partition("-")[2]) + 1
        assert (reply.status, 1 < size <= 200_000) == (202, True)
        assert (await author.finish(upload, DIGEST)).status == 201
        assert (await author.ask("GET", f"blobs/{DIGEST}")).body == CONTENT


async def test_a_whole_blob_in_a_post_that_is_cut_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, UP, {"hosted": {"max_uploads": 1}}) as mirror:
        author = Author(mirror)
        line = f"POST {author.root}/blobs/uploads/?digest={DIGEST}"
        async with sending(mirror, line, f"Content-Length: {len(CONTENT)}") as (_, writer):
            writer.write(CONTENT[:200_000])
            await writer.drain()

        async def may_begin() -> bool:
            return (await author.ask("POST", "blobs/uploads/")).status == 202

        begun: bool = await eventually(may_begin, what="the upload is gone")
        assert begun
        assert (await author.ask("HEAD", f"blobs/{DIGEST}")).status == 404
        assert not mirror.files()


async def test_a_body_in_chunked_coding_is_taken_in_and_its_end_is_seen(tmp_path: Path) -> None:
    async with running(tmp_path, UP) as mirror:
        author = Author(mirror)
        for whole in (False, True):
            upload = await author.begin()
            async with sending(mirror, f"PUT {upload}?digest={DIGEST}", "Transfer-Encoding: chunked") as (
                reader,
                writer,
            ):
                for start in range(0, len(CONTENT), 100_000):
                    piece = CONTENT[start : start + 100_000]
                    writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                if whole:
                    writer.write(b"0\r\n\r\n")
                    assert (await reader.readline()).startswith(b"HTTP/1.1 201 ")
            there = await author.ask("GET", f"blobs/{DIGEST}")
            assert (there.status, there.body == CONTENT) == ((200, True) if whole else (404, False))


async def test_a_client_that_waits_to_be_told_is_told_to_go_on_or_why_not(tmp_path: Path) -> None:
    async with running(tmp_path, UP, {"hosted": {"max_blob_size": "1MiB"}}) as mirror:
        author = Author(mirror)
        upload = await author.begin()
        line, expect = f"PUT {upload}?digest={DIGEST}", "Expect: 100-continue"
        async with sending(mirror, line, "Content-Length: 2000000", expect) as (reader, writer):
            assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
        async with sending(mirror, line, f"Content-Length: {len(CONTENT)}", expect) as (reader, writer):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(CONTENT)
            assert (await reader.readline()).startswith(b"HTTP/1.1 201 ")


async def test_a_refusal_does_not_spoil_the_connection(tmp_path: Path) -> None:
    """A client that keeps its connection sends the rest of the body, and then the next request."""
    async with running(tmp_path, UP) as mirror:
        line = "PUT /v2/ghcr.io/team/plugin/manifests/v1"
        async with sending(mirror, line, "Content-Length: 3000000") as (reader, writer):
            assert (await reader.readline()).startswith(b"HTTP/1.1 405 ")
            await reader.readuntil(b"\r\n\r\n")
            writer.write(bytes(3_000_000))
            writer.write(f"GET /healthz HTTP/1.1\r\nHost: {mirror.host}\r\n\r\n".encode())
            assert b"HTTP/1.1 200 OK" in await reader.readuntil(b"200 OK")


@pytest.mark.shows("the mirror is killed, or a client leaves, in the middle of a push")
async def test_a_push_that_ends_anywhere_is_not_seen_until_it_is_whole(tmp_path: Path) -> None:
    before = image([(EXAMPLE, b"old")], config=(EXAMPLE, b"old config"))
    after = image([(EXAMPLE, b"new"), (EXAMPLE, b"newer")], config=(EXAMPLE, b"new config"))
    async with running(tmp_path, UP) as mirror:
        author = Author(mirror)
        assert (await author.push(before, "v1")).status == 201
        steps = [(digest, content) for digest, content in after.blobs.items()]
        for count in range(len(steps) + 1):
            for digest, content in steps[:count]:
                assert (await author.blob(content, digest)).status == 201
            upload = await author.begin()
            assert (await author.chunk(upload, 0, b"half")).status == 202
            async with sending(
                mirror,
                f"PUT {author.root}/manifests/v1",
                f"Content-Type: {after.media_type}",
                f"Content-Length: {len(after.body)}",
            ) as (_, writer):
                writer.write(after.body[:-1])
                await writer.drain()
            assert (await author.ask("GET", "manifests/v1")).body == before.body
            assert (await author.ask("GET", f"manifests/{after.digest}")).status == 404
            assert (await author.ask("GET", "tags/list")).json["tags"] == ["v1"]
            if count < len(steps):
                assert (await author.manifest(after, "v1")).status == 404
        assert (await author.manifest(after, "v1")).status == 201
        assert (await author.ask("GET", "manifests/v1")).body == after.body


async def test_of_two_pushes_of_one_tag_one_wins_whole(tmp_path: Path) -> None:
    async with running(tmp_path, UP) as mirror:
        author = Author(mirror)
        for turn in range(2):
            rivals = [raw(wasm_module(1000, seed=10 * turn + number)) for number in range(2)]
            replies = await asyncio.gather(*(author.push(rival, "v1") for rival in rivals))
            assert [reply.status for reply in replies] == [201, 201]
            there = await author.ask("GET", "manifests/v1")
            (winner,) = [rival for rival in rivals if rival.body == there.body]
            assert there.header("docker-content-digest") == str(winner.digest)
            for rival in rivals:  # the other one is whole too, by its digest
                assert (await author.ask("GET", f"manifests/{rival.digest}")).body == rival.body
                for digest, content in rival.blobs.items():
                    assert (await author.ask("GET", f"blobs/{digest}")).body == content


async def test_two_requests_do_not_mix_their_bytes_in_one_upload(tmp_path: Path) -> None:
    async with running(tmp_path, UP) as mirror:
        author = Author(mirror)
        upload = await author.begin()
        replies = await asyncio.gather(*(author.chunk(upload, 0, CONTENT) for _ in range(2)))
        assert sorted(reply.status for reply in replies) == [202, 416]
        assert (await author.finish(upload, DIGEST)).status == 201


async def test_each_limit_names_its_setting(tmp_path: Path) -> None:
    limits = {"max_blob_size": 1000, "max_manifest_size": 2000, "max_repository_size": 3000, "max_uploads": 2}
    async with running(tmp_path, UP, {"hosted": limits}) as mirror:
        author = Author(mirror)
        upload = await author.begin()
        large = bytes(1001)
        for reply in (
            await author.ask("POST", f"blobs/uploads/?digest={Digest.of(large)}", OCTETS, large),
            await author.chunk(upload, 0, large),
            await author.finish(upload, Digest.of(large), large),
        ):
            assert (reply.status, reply.code) == (413, "SIZE_INVALID")
            assert "hosted.max_blob_size" in reply.message
        line = f"PATCH {upload}"
        async with sending(mirror, line, "Transfer-Encoding: chunked") as (reader, writer):
            writer.write(b"%x\r\n" % len(large) + large + b"\r\n0\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
        assert await stands_at(author, upload) == 1  # as empty as it was: nothing is told as 0-0
        manifest = raw(wasm_module(), {"annotations": {"large": "x" * 2000}})
        reply = await author.manifest(manifest, "v1")
        assert (reply.status, reply.code) == (413, "SIZE_INVALID")
        assert "hosted.max_manifest_size" in reply.message
        await author.begin()
        reply = await author.ask("POST", "blobs/uploads/")
        assert (reply.status, reply.code) == (429, "TOOMANYREQUESTS")
        assert "hosted.max_uploads" in reply.message
        assert int(reply.header("retry-after") or 0) > 0


async def test_a_repository_that_is_full_takes_no_more(tmp_path: Path) -> None:
    async with running(tmp_path, UP, {"hosted": {"max_repository_size": 2500}}) as mirror:
        author = Author(mirror)
        assert (await author.blob(bytes(1200))).status == 201
        assert (await author.blob(bytes(1201))).status == 201
        reply = await author.blob(bytes(1202))
        assert (reply.status, reply.code) == (413, "SIZE_INVALID")
        assert "hosted.max_repository_size" in reply.message
        assert (await author.ask("HEAD", f"blobs/{Digest.of(bytes(1202))}")).status == 404
        assert (await author.blob(bytes(1200))).status == 201  # is there already
        small: Artifact = image([], config=("application/octet-stream", bytes(1200)))
        reply = await author.manifest(small, "v1")
        assert (reply.status, reply.code) == (413, "SIZE_INVALID")
        assert (await author.ask("DELETE", f"blobs/{Digest.of(bytes(1201))}")).status == 202
        assert (await author.manifest(small, "v1")).status == 201


async def test_no_more_of_a_large_blob_is_in_memory_than_a_few_pieces(tmp_path: Path) -> None:
    """Sent as fast as it goes: what is taken in slower waits in the kernel, and the client with it."""
    size, piece = 12 << 20, bytes(1 << 20)
    async with running(tmp_path, UP) as mirror:
        author = Author(mirror)
        uploads = [await author.begin() for _ in range(2)]
        before = most = _private()

        async def send(upload: str) -> bytes:
            nonlocal most
            async with sending(mirror, f"PATCH {upload}", f"Content-Length: {size}") as (reader, writer):
                for _ in itertools.repeat(None, size >> 20):
                    writer.write(piece)
                    await writer.drain()
                    most = max(most, _private())
                return await reader.readline()

        lines = await asyncio.gather(*map(send, uploads))
        assert all(line.startswith(b"HTTP/1.1 202 ") for line in lines)
        assert [await stands_at(author, upload) for upload in uploads] == [size, size]

        assert most - before < 12 << 20


def _private() -> int:
    """Bytes of memory of this process, without what is shared with files."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(fields["RssAnon"].split()[0])
