"""Connections on asyncio's and uvloop's transports, plain and with TLS."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpcore
import pytest
import uvloop

from mirror.upstream.stream import Stream
from tests.support.certificates import self_signed
from tests.support.waiting import eventually

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Run = Callable[[Coroutine[Any, Any, None]], None]

both_loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
BODY = bytes(range(256)) * 32768  # 8 MiB


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server whose every connection is over when the block is left."""
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await handler(reader, writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]
    await asyncio.gather(*connections)


async def send_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(5)
    writer.write(BODY)
    await writer.drain()


async def received(stream: Stream) -> bytes:
    chunks = []
    while chunk := await stream.read(65536, timeout=5):
        chunks.append(chunk)
    return b"".join(chunks)


@both_loops
def test_all_bytes_come_in_their_order(run: Run) -> None:
    async def test() -> None:
        async with serving(send_body) as port:
            stream = await Stream.connect("127.0.0.1", port)
            await stream.write(b"hello", timeout=5)
            assert await received(stream) == BODY
            await stream.aclose()

    run(test())


@both_loops
def test_all_bytes_come_through_tls(run: Run, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)

    async def test() -> None:
        async with serving(send_body, certificate.for_servers) as port:
            plain = await Stream.connect("127.0.0.1", port)
            stream = await plain.start_tls(certificate.for_clients, "localhost", timeout=5)
            assert stream.get_extra_info("ssl_object") is not None
            await stream.write(b"hello", timeout=5)
            assert await received(stream) == BODY
            await stream.aclose()

    run(test())


@both_loops
def test_a_certificate_of_another_is_refused(run: Run, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)

    async def test() -> None:
        async with serving(send_body, certificate.for_servers) as port:
            for context, name in (
                (certificate.for_clients, "other.example"),
                (ssl.create_default_context(), "localhost"),
            ):
                stream = await Stream.connect("127.0.0.1", port)
                with pytest.raises(httpcore.ConnectError) as refused:
                    await stream.start_tls(context, name, timeout=5)
                assert isinstance(refused.value.args[0], ssl.SSLCertVerificationError)

    run(test())


@both_loops
def test_who_never_shakes_hands_is_given_up(run: Run) -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def test() -> None:
        async with serving(mute) as port:
            stream = await Stream.connect("127.0.0.1", port)
            with pytest.raises(httpcore.ConnectTimeout):
                await stream.start_tls(ssl.create_default_context(), "localhost", timeout=0.05)

    run(test())


@both_loops
def test_who_reads_slowly_holds_up_the_sender_and_not_the_memory(run: Run) -> None:
    total = 64 * 1024 * 1024
    sent = 0

    async def send(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while sent < total:
            writer.write(bytes(65536))
            await writer.drain()
            sent += 65536

    async def test() -> None:
        async with serving(send) as port:
            stream = await Stream.connect("127.0.0.1", port)
            before = -1
            while sent != before:  # until the sender comes no further
                before = sent
                await asyncio.sleep(0.1)
            assert sent < 16 * 1024 * 1024
            assert len(await received(stream)) == total
            await stream.aclose()

    run(test())


@both_loops
def test_silence_is_a_timeout_and_a_reset_is_an_error(run: Run) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(5)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER of 0 s: close with RST
        writer.transport.abort()

    async def test() -> None:
        async with serving(reset) as port:
            stream = await Stream.connect("127.0.0.1", port)
            with pytest.raises(httpcore.ReadTimeout, match=r"sends nothing for 0\.05 s"):
                await stream.read(65536, timeout=0.05)
            await stream.write(b"hello", timeout=5)
            with pytest.raises(httpcore.ReadError):
                await stream.read(65536, timeout=5)
            with pytest.raises(httpcore.WriteError):
                await stream.write(b"hello", timeout=5)
            await stream.aclose()

    run(test())


@both_loops
def test_an_idle_connection_knows_that_the_peer_has_left(run: Run) -> None:
    async def leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(5)

    async def test() -> None:
        async with serving(leave) as port:
            stream = await Stream.connect("127.0.0.1", port)
            assert not stream.get_extra_info("is_readable")
            await stream.write(b"hello", timeout=5)
            await eventually(lambda: stream.get_extra_info("is_readable"))
            await stream.aclose()

    run(test())


async def pour(stream: Stream, piece: bytes) -> None:
    """Send for ever."""
    while True:
        await stream.write(piece, timeout=5)


@both_loops
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_who_takes_in_slowly_holds_up_what_is_sent(run: Run, tls: bool, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path) if tls else None
    go_on, taken = asyncio.Event(), 0

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        await go_on.wait()
        while piece := await reader.read(1 << 20):
            taken += len(piece)

    async def send(stream: Stream) -> int:
        """How many MiB went."""
        for number in range(64):
            try:
                await stream.write(bytes(1 << 20), timeout=0.2)
            except httpcore.WriteTimeout:
                return number
        return 64

    async def test() -> None:
        async with serving(take, certificate.for_servers if certificate else None) as port:
            stream = await Stream.connect("127.0.0.1", port)
            if certificate is not None:
                stream = await stream.start_tls(certificate.for_clients, "localhost", timeout=5)
            gone = await send(stream)
            assert gone < 16, "the memory held it"
            go_on.set()
            await stream.write(b"the rest", timeout=5)
            await eventually(lambda: taken == (gone + 1 << 20) + 8)
            await stream.aclose()

    run(test())


@both_loops
def test_who_is_answered_early_or_cut_off_sends_no_more(run: Run) -> None:
    ended = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(5)
        writer.write(b"too large")
        await writer.drain()
        await ended.wait()
        writer.transport.abort()

    async def test() -> None:
        async with serving(answer) as port:
            stream = await Stream.connect("127.0.0.1", port)
            for _ in range(2):  # answered, cut off
                with pytest.raises(httpcore.WriteError):
                    await pour(stream, bytes(1 << 20))
                ended.set()
            assert await stream.read(65536, timeout=5) == b"too large"
            await stream.aclose()

    run(test())


@both_loops
def test_who_never_waits_hears_of_a_reset(run: Run) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(5)
        writer.transport.abort()

    async def test() -> None:
        async with serving(reset) as port:
            stream = await Stream.connect("127.0.0.1", port)
            with pytest.raises(httpcore.WriteError):
                await pour(stream, bytes(4096))
            await stream.aclose()

    run(test())
