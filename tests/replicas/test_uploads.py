"""Uploads whose requests reach any of three replicas: hosted ones, and those that go on to an upstream."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.store.uploads import name_of
from tests.auth.support import basic, users_file
from tests.support.asking import Reply
from tests.support.balancer import Balancer
from tests.support.process import MirrorProcess, merged
from tests.support.pushing import OCTETS, At, Author
from tests.support.replicas import Replicas, replicated
from tests.support.tokens import TokenService
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.needs("redis-server")]

HOSTED, THROUGH = "hosted/team/plugin", "up/team/plugin"
PUSHED = {"push": "through", "credentials": {"username": "robot", "password": "secret"}}
SETTINGS: Mapping[str, object] = {"upstreams": {"up": PUSHED}}
MIB = 1024 * 1024


@contextmanager
def three(
    folder: Path, settings: Mapping[str, object] | None = None, own: Mapping[int, Mapping[str, object]] | None = None
) -> Iterator[tuple[FaultyUpstream, Replicas]]:
    """Three replicas, and an upstream that takes pushes."""
    with replicated(folder, settings=merged(SETTINGS, settings or {}), own=own) as (up, _, replicas):
        up.take_pushes()
        yield up, replicas


def authors(replicas: Replicas, name: str, headers: Mapping[str, str] | None = None) -> list[Author]:
    """Somebody who pushes, as each replica sees them."""
    return [Author(At(url), name, headers) for url in replicas.urls]


def owner_of(replicas: Replicas, upload: str) -> MirrorProcess:
    """The replica that an upload's address names."""
    (found,) = [one for one in replicas if upload.rpartition("/")[2].startswith(name_of(one.url))]
    return found


def length(reply: Reply) -> int:
    """How far an upload is, as it was told."""
    assert reply.status in (202, 204, 416), reply
    return int((reply.header("range") or "").partition("-")[2]) + 1


@contextlib.asynccontextmanager
async def sending(url: str, method: str, target: str, *headers: str) -> AsyncIterator["Sending"]:
    """A request with a body in chunked coding, of which the header has been sent."""
    host, _, port = url.partition("://")[2].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        fields = "".join(f"{one}\r\n" for one in (f"Host: {host}:{port}", "Transfer-Encoding: chunked", *headers))
        writer.write(f"{method} {target} HTTP/1.1\r\n{fields}\r\n".encode())
        yield Sending(reader, writer)
    finally:
        writer.transport.abort()


class Sending:
    """The rest of the request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer

    async def send(self, piece: bytes) -> None:
        """One chunk; the empty one ends the body."""
        self._writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        await self._writer.drain()

    async def status(self) -> int:
        """That of the answer."""
        return int((await self.reader.readline()).split()[1])


async def at_once(author: Author, url: str, content: bytes) -> None:
    digest = Digest.of(content)
    assert (await author.ask("POST", f"blobs/uploads/?digest={digest}", OCTETS, content)).status == 201


async def post_and_put(author: Author, url: str, content: bytes) -> None:
    assert (await author.blob(content)).status == 201


async def in_chunks(author: Author, url: str, content: bytes) -> None:
    upload = await author.begin()
    for start in range(0, len(content), 70_000):
        reply = await author.chunk(upload, start, content[start : start + 70_000])
        assert (reply.status, reply.header("location")) == (202, upload), reply
    assert (await author.finish(upload, Digest.of(content))).status == 201


async def streamed(author: Author, url: str, content: bytes) -> None:
    upload = await author.begin()
    async with sending(url, "PATCH", upload) as request:
        for start in range(0, len(content), 30_000):
            await request.send(content[start : start + 30_000])
        await request.send(b"")
        assert await request.status() == 202
    assert (await author.finish(upload, Digest.of(content))).status == 201


async def resumed(author: Author, url: str, content: bytes) -> None:
    upload = await author.begin()
    assert (await author.chunk(upload, 0, content[:10])).status == 202
    # With its place: what was cut off may reach the owner when all is there, and is refused then.
    async with sending(url, "PATCH", upload, "Content-Range: 10-89999") as request:
        await request.send(content[10:90_000])
    size = length(await author.ask("GET", upload))
    while (reply := await author.chunk(upload, size, content[size:])).status == 416:  # some may still be taken in
        size = length(reply)
    assert reply.status == 202, reply
    assert (await author.finish(upload, Digest.of(content))).status == 201


async def out_of_order(author: Author, url: str, content: bytes) -> None:
    upload = await author.begin()
    assert (await author.chunk(upload, 0, content[:100_000])).status == 202
    for start in (0, 99_999, 100_001, 150_000):
        refused = await author.chunk(upload, start, content[start:])
        assert (refused.status, length(refused), refused.header("location")) == (416, 100_000, upload)
    assert (await author.finish(upload, Digest.of(content), content[100_000:])).status == 201


async def cancelled_and_begun_again(author: Author, url: str, content: bytes) -> None:
    upload = await author.begin()
    assert (await author.chunk(upload, 0, content[:100_000])).status == 202
    assert (await author.ask("DELETE", upload)).status == 204
    for _ in range(4):
        assert (await author.ask("GET", upload)).code == "BLOB_UPLOAD_UNKNOWN"
    assert (await author.blob(content)).status == 201


WAYS = (at_once, post_and_put, in_chunks, streamed, resumed, out_of_order, cancelled_and_begun_again)


async def test_whatever_replica_each_request_reaches_the_push_goes_on(tmp_path: Path) -> None:
    draw = random.Random(11)
    with (
        three(tmp_path, own={0: {"workers": 2}}) as (_, replicas),
        Balancer([one.host for one in replicas], at_random=draw) as balancer,
    ):
        for name in (HOSTED, THROUGH):
            author, pushed = Author(At(balancer.url), name), []
            for way in WAYS * 3:
                content = draw.randbytes(200_000)
                await way(author, balancer.url, content)
                pushed.append(content)
            for content in pushed:
                for one in authors(replicas, name):
                    assert (await one.ask("GET", f"blobs/{Digest.of(content)}")).body == content
        assert all(count > 20 for count in balancer.passed.values())
        assert balancer.turned_away == 0
        assert not [file for one in replicas for file in (one.data_dir / "uploads").iterdir() if file.name != "lock"]


async def test_a_large_upload_grows_the_memory_of_neither_replica(tmp_path: Path) -> None:
    """Measured: private memory (``/proc/<pid>/smaps_rollup``) of each process, 50 times a second while 64 MiB come,
    against what it was after 4 MiB.
    """
    piece = random.Random(12).randbytes(256 * 1024)
    with three(tmp_path) as (_, replicas):
        one, two = authors(replicas, HOSTED)[:2]
        most: dict[MirrorProcess, int] = {}
        for number in range(2):
            upload = await one.begin()
            before = {mirror: mirror.private_memory() for mirror in replicas}
            sampling = asyncio.create_task(_largest(list(replicas), most))
            async with sending(replicas.urls[1], "PATCH", upload) as request:
                count = 256 if number else 16
                for _ in range(count):
                    await request.send(piece)
                await request.send(b"")
                assert await request.status() == 202
            sampling.cancel()
            assert length(await two.ask("GET", upload)) == count * len(piece)
        grown = [(most[mirror] - before[mirror]) / MIB for mirror in replicas]
        assert max(grown) < 8, f"MiB: {grown}"


async def _largest(mirrors: list[MirrorProcess], most: dict[MirrorProcess, int]) -> None:
    while True:
        for mirror in mirrors:
            most[mirror] = max(most.get(mirror, 0), await asyncio.to_thread(mirror.private_memory))
        await asyncio.sleep(0.02)


async def test_nobody_else_finds_an_upload_through_any_replica(tmp_path: Path) -> None:
    users = users_file(tmp_path, {"anna": "a", "ben": "b"})
    with three(tmp_path, {"auth": {"file": str(users)}}) as (_, replicas):
        for name in (HOSTED, THROUGH):
            annas = authors(replicas, name, basic("anna", "a"))
            upload = await annas[0].begin()
            assert (await annas[1].chunk(upload, 0, b"abc")).status == 202
            for bens in authors(replicas, name, basic("ben", "b")):
                for method in ("GET", "PATCH", "PUT", "DELETE"):
                    reply = await bens.ask(method, upload, {}, b"" if method == "GET" else b"def")
                    assert (reply.status, reply.code) in ((404, "BLOB_UPLOAD_UNKNOWN"), (400, "DIGEST_INVALID"))
            for nobody in authors(replicas, name):
                assert (await nobody.ask("GET", upload)).status == 401
            elsewhere = upload.replace("/team/", "/other/")
            assert (await annas[2].ask("GET", elsewhere)).code == "BLOB_UPLOAD_UNKNOWN"
            assert (await annas[2].finish(upload, Digest.of(b"abc"))).status == 201


async def test_the_authors_own_credentials_go_with_them_where_the_registry_decides(tmp_path: Path) -> None:
    content = random.Random(15).randbytes(300_000)
    settings = {
        "auth": {"mode": "upstream", "allow_plain_http": True},
        "upstreams": {"up": {"push": "through"}},
    }
    with replicated(tmp_path, settings=settings, own={0: {"workers": 2}}) as (up, _, replicas):
        up.take_pushes()
        may: dict[str, dict[str | None, str]] = {"team/plugin": {"anna": "pull,push", "ben": "pull,push"}}
        up.require_bearer(TokenService(users={"anna": "password-of-anna", "ben": "b"}, rights=may))
        annas = authors(replicas, THROUGH, basic("anna", "password-of-anna"))
        upload = await annas[0].begin()
        replicas[0].restart()  # who pushes stood in its memory only
        replicas.wait_joined()
        for number in range(3):
            reply = await annas[1 + number % 2].chunk(upload, number * 100_000, content[number * 100_000 :][:100_000])
            assert reply.status == 202, reply
        assert (await authors(replicas, THROUGH, basic("ben", "b"))[1].ask("GET", upload)).status == 404
        for wrong in (None, basic("anna", "x")):
            for method in ("GET", "PATCH", "DELETE"):
                reply = await authors(replicas, THROUGH, wrong)[1].ask(method, upload)
                assert reply.status in (401, 404), reply
        assert (await annas[2].finish(upload, Digest.of(content))).status == 201
        assert (await annas[2].ask("GET", f"blobs/{Digest.of(content)}")).body == content
        assert not any("password-of-anna" in one.log_text() for one in replicas)


@pytest.mark.shows("the replica that has an upload dies, or hangs")
@pytest.mark.parametrize("name", [HOSTED, THROUGH])
async def test_an_owner_that_is_killed_is_gone_and_clients_begin_again(tmp_path: Path, name: str) -> None:
    content = random.Random(13).randbytes(4 * MIB)
    with three(tmp_path) as (_, replicas):
        one, two, _ = authors(replicas, name)
        upload = await one.begin()
        owner = owner_of(replicas, upload)
        assert owner is replicas[0]
        async with sending(replicas.urls[1], "PATCH", upload) as request:
            await request.send(content[:MIB])
            owner.kill()
            with contextlib.suppress(OSError):
                for _ in range(64):
                    await request.send(content)
            assert await request.status() in (404, 503), "an answer, and not only a cut connection"
        reply = await two.ask("GET", upload)
        assert (reply.status, reply.code) == (404, "BLOB_UPLOAD_UNKNOWN")
        assert (await two.blob(content)).status == 201
        owner.start()
        replicas.wait_joined()
        reply = await two.ask("GET", upload)
        assert reply.status in (204, 404), "what it has of it after that is its own"
        assert (await one.ask("GET", f"blobs/{Digest.of(content)}")).body == content


async def test_an_upload_is_gone_on_with_through_another_replica_after_its_owner_was_started_anew(
    tmp_path: Path,
) -> None:
    content = random.Random(14).randbytes(MIB)
    with three(tmp_path) as (up, replicas):
        names = {HOSTED: authors(replicas, HOSTED), THROUGH: authors(replicas, THROUGH)}
        uploads = {name: await one.begin() for name, (one, _, _) in names.items()}
        for name, (_, two, _) in names.items():
            assert (await two.chunk(uploads[name], 0, content[:700_000])).status == 202
        replicas[0].restart()
        replicas.wait_joined()
        for name, (_, two, another) in names.items():
            assert length(await another.ask("GET", uploads[name])) == 700_000
            assert (await two.finish(uploads[name], Digest.of(content), content[700_000:])).status == 201
        ranges = [request.headers.get("content-range") for request in up.matching(method="PATCH")]
        assert ranges == ["0-699999", None], "what replicas tell one another of a place is not the client's word"


@pytest.mark.shows("the replica that has an upload dies, or hangs")
async def test_an_owner_that_hangs_is_given_up_soon(tmp_path: Path) -> None:
    with three(tmp_path) as (_, replicas):
        one, two, _ = authors(replicas, HOSTED)
        upload = await one.begin()
        replicas.pause(replicas[0])
        try:
            async with asyncio.timeout(15):
                assert (await two.ask("GET", upload)).code == "BLOB_UPLOAD_UNKNOWN"
                assert (await two.chunk(upload, 0, b"abc")).code == "BLOB_UPLOAD_UNKNOWN"
        finally:
            replicas.resume(replicas[0])
        replicas.wait_joined()
        reply: Reply = await eventually(lambda: two.chunk(upload, 0, b"abc"))
        assert reply.status in (202, 416), "the one that hung may have taken in what was sent"
