"""The owner of an upload fails, hangs, leaves: clients are told soon, and told what they can act on."""

import asyncio
import contextlib
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from mirror import passing
from mirror.cluster.secret import Secret
from mirror.digest import Digest
from mirror.passing import Reply as Said
from mirror.store.uploads import name_of
from mirror.upstream import duplex
from mirror.upstream.stream import Stream
from tests.edge.ends import End, ends, sending
from tests.support.asking import Reply
from tests.support.ports import ReservedPort
from tests.support.pushing import Author
from tests.support.waiting import eventually

CONTENT = random.Random(8).randbytes(300_000)
DIGEST = Digest.of(CONTENT)
NAME = "hosted/team/plugin"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """An owner that is not said to be alive is given up at once."""
    monkeypatch.setattr(passing, "_DOUBTED_AFTER", 0.0)
    monkeypatch.setattr(duplex, "_LOOK_EVERY", 0.01)


@contextlib.asynccontextmanager
async def owner(handler: Handler, secret: Secret) -> AsyncIterator[str]:
    """The URL of something in an owner's place, which can prove that it is one; ``handler`` is called after that."""
    done = asyncio.Event()
    handling: set[asyncio.Task[None]] = set()

    def begun(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handling.add(asyncio.create_task(handled(reader, writer)))

    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answered(reader, writer)
        finally:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"only=proof" in head:
            writer.write(proof(secret, head))
            await writer.drain()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            return
        with contextlib.suppress(OSError):
            await handler(reader, writer)
        if handler is never:
            await done.wait()

    server = await asyncio.start_server(begun, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        done.set()
        server.close()
        await server.wait_closed()
        await asyncio.gather(*handling)  # no connection is left to whoever runs next


def proof(secret: Secret, head: bytes) -> bytes:
    """The answer to whoever wants to know that a replica is asked."""
    nonce = re.search(rb"n=([0-9a-f]{32})", head)
    assert nonce is not None
    document = Said(204).document()
    signature = secret.sign_answer(nonce[1].decode(), document)
    return f"HTTP/1.1 200 OK\r\nx-signature: {signature}\r\ncontent-length: {len(document)}\r\n\r\n".encode() + document


async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes in what comes, and says nothing."""
    while await reader.read(1 << 16):
        pass


def at(url: str) -> str:
    """An upload of the replica at ``url``."""
    return f"/v2/{NAME}/blobs/uploads/{name_of(url)}{'a' * 43}"


def is_unknown(reply: Reply) -> bool:
    return (reply.status, reply.code) == (404, "BLOB_UPLOAD_UNKNOWN")


def is_not_now(reply: Reply) -> bool:
    return (reply.status, reply.code, reply.header("retry-after")) == (503, "UNAVAILABLE", "1")


async def every(end: End, url: str) -> list[Reply]:
    """The answers to each kind of request for an upload there."""
    author, span = Author(end, NAME), {"Content-Range": f"0-{len(CONTENT) - 1}"}
    return [
        await author.ask("GET", at(url)),
        await author.ask("DELETE", at(url)),
        await author.ask("PATCH", at(url), {}, CONTENT),
        await author.ask("PATCH", at(url), span, CONTENT),
        await author.finish(at(url), DIGEST, CONTENT),
        await author.finish(at(url), DIGEST),
    ]


async def test_an_owner_that_nobody_knows_or_finds_has_no_uploads(tmp_path: Path) -> None:
    async with ends(tmp_path) as (_, two):
        with ReservedPort() as port:
            gone = f"http://127.0.0.1:{port.number}"
            assert all(map(is_unknown, await every(two, gone))), "not among those that are alive"
            two.alive.append(gone)
            assert all(map(is_unknown, await every(two, gone))), "refuses connections"
        two.alive += ["", "x", "http://", "http://127.0.0.1:x", "http://user@127.0.0.1", "ftp://127.0.0.1"]
        for address in two.alive[-6:]:
            assert is_unknown(await Author(two, NAME).ask("GET", at(address))), address


async def test_an_owner_that_accepts_no_connection_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(address: str, port: int) -> Stream:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(passing, "_CONNECTS_WITHIN", 0.05)
    monkeypatch.setattr(Stream, "connect", hang)
    async with ends(tmp_path) as (one, two):
        upload = await Author(one, NAME).begin()
        assert is_unknown(await Author(two, NAME).ask("GET", upload))


@pytest.mark.usefixtures("in_a_hurry")
async def test_an_owner_that_falls_silent_is_waited_for_while_it_is_said_to_be_alive(tmp_path: Path) -> None:
    async with ends(tmp_path) as (one, two):
        upload = await Author(one, NAME).begin()
        one.publisher.gate.clear()
        ending = asyncio.create_task(Author(two, NAME).finish(upload, DIGEST, CONTENT))
        await eventually(lambda: f"PUT /peer/v1/uploads/{upload.rpartition('/')[2]}" in one.asked)
        await asyncio.sleep(0.2)  # for an answer that must not come
        assert not ending.done()
        one.publisher.gate.set()
        assert (await ending).status == 201


@pytest.mark.usefixtures("in_a_hurry")
async def test_an_owner_that_falls_silent_and_is_not_said_to_be_alive_is_given_up(tmp_path: Path) -> None:
    async with ends(tmp_path) as (_, two), owner(never, two.secret) as url:
        two.alive.append(url)
        asking = asyncio.create_task(Author(two, NAME).ask("GET", at(url)))
        await asyncio.sleep(0.1)  # for an answer that must not come
        assert not asking.done()
        two.alive.remove(url)
        assert is_unknown(await asking)


@pytest.mark.usefixtures("in_a_hurry")
async def test_an_owner_that_takes_in_nothing_is_given_up_in_the_middle_of_a_body(tmp_path: Path) -> None:
    taking = asyncio.Event()

    async def takes_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await taking.wait()

    async with ends(tmp_path) as (_, two), owner(takes_nothing, two.secret) as url:
        two.alive.append(url)
        piece, sent = bytes(1 << 20), 0
        async with sending(two, "PATCH", at(url), "Content-Range: 0-99999999") as request:

            async def send() -> None:
                nonlocal sent
                while True:
                    await request.send(piece)
                    sent += 1

            client = asyncio.create_task(send())
            before = -1
            while sent != before:
                before = sent
                await asyncio.sleep(0.2)  # for bytes that must not be taken in
            two.alive.remove(url)
            assert await request.status() == 404
            client.cancel()
            await asyncio.gather(client, return_exceptions=True)
        taking.set()


async def test_an_owner_that_says_nothing_for_ever_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passing, "_ANSWERS_WITHIN", 0.05)
    monkeypatch.setattr(duplex, "_LOOK_EVERY", 0.01)
    async with ends(tmp_path) as (_, two), owner(never, two.secret) as url:
        two.alive.append(url)
        assert all(map(is_not_now, await every(two, url)))


async def test_an_owner_that_cuts_the_connection_may_be_asked_again(tmp_path: Path) -> None:
    async def cuts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0)

    async with ends(tmp_path) as (_, two), owner(cuts, two.secret) as url:
        two.alive.append(url)
        assert all(map(is_not_now, await every(two, url)))


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + bytes(1_000_000),
        b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 1_000_000 + b"\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"",
    ],
)
async def test_what_is_no_answer_is_an_error_that_says_what_to_do(tmp_path: Path, answer: bytes) -> None:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    async with ends(tmp_path) as (_, two), owner(answers, two.secret) as url:
        two.alive.append(url)
        assert is_not_now(await Author(two, NAME).ask("GET", at(url)))


async def test_a_client_that_leaves_is_waited_for_by_no_owner(tmp_path: Path) -> None:
    left = asyncio.Event()

    async def until_left(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await never(reader, writer)
        left.set()

    async with ends(tmp_path) as (_, two), owner(until_left, two.secret) as url:
        two.alive.append(url)
        async with sending(two, "PATCH", at(url), "Content-Range: 0-99") as request:
            await request.send(b"abc")
        await asyncio.wait_for(left.wait(), 5)


async def test_an_address_that_is_too_long_is_refused_here(tmp_path: Path) -> None:
    async with ends(tmp_path) as (one, two):
        upload = await Author(one, NAME).begin()
        reply = await two.ask("GET", f"{upload}?x={'y' * 20_000}")
        assert (reply.status, reply.code) == (400, "NAME_INVALID")
        assert one.asked == [f"POST {upload.rpartition('/')[0]}/"]
