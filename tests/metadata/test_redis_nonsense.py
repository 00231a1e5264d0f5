"""Servers that say what no Redis says: the client takes it for an outage, and goes on."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator

import pytest

from mirror.config.models import MetadataSettings
from mirror.errors import StoreError
from mirror.shared.client import RedisClient
from tests.metadata.redis_stores import probe


@contextlib.asynccontextmanager
async def saying(answers: dict[bytes, bytes]) -> AsyncIterator[int]:
    """A server that answers each command by its first word, others with OK; gives its port."""
    tasks: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError), contextlib.closing(writer):
            while True:
                count = int((await reader.readuntil(b"\r\n"))[1:])
                words = []
                for _ in range(count):
                    size = int((await reader.readuntil(b"\r\n"))[1:])
                    words.append((await reader.readexactly(size + 2))[:-2])
                port = writer.get_extra_info("sockname")[1]
                answer = answers.get(words[0].upper(), b"+OK\r\n")
                writer.write(answer.replace(b"PORT", b"%d" % port))
                await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def client_of(url: str) -> AsyncIterator[RedisClient]:
    client = RedisClient.of(MetadataSettings(url=url))
    try:
        yield client
    finally:
        await client.aclose()


@pytest.mark.parametrize("host", [b"$-1", b"$0\r\n", b"$1\r\n?"])
async def test_a_server_of_a_cluster_that_does_not_know_its_host_is_where_it_was_asked(host: bytes) -> None:
    """As it is behind `cluster-preferred-endpoint-type unknown-endpoint`."""
    slots = b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n" + host + b"\r\n:PORT\r\n"
    async with saying({b"CLUSTER": slots}) as port, client_of(f"redis+cluster://127.0.0.1:{port}") as client:
        assert await probe(client)


@pytest.mark.parametrize(
    "slots",
    [
        b"+OK\r\n", b":5\r\n", b"*1\r\n:5\r\n", b"*1\r\n*1\r\n:5\r\n", b"*0\r\n", b"$-1\r\n",
        b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$1\r\nh\r\n:99999999\r\n",
        b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$1\r\n\xff\r\n:6379\r\n",
        b"*1\r\n*3\r\n:0\r\n:999999999999\r\n*2\r\n:5\r\n:6379\r\n",
        b"*1\r\n*3\r\n$1\r\n0\r\n$1\r\n5\r\n*2\r\n$1\r\nh\r\n:6379\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n", b":abc\r\n", b"*1\r\n" * 3000,
    ],
)  # fmt: skip
async def test_a_cluster_that_says_nonsense_is_not_there(slots: bytes) -> None:
    async with saying({b"CLUSTER": slots}) as port, client_of(f"redis+cluster://127.0.0.1:{port}") as client:
        assert not await probe(client)
        with pytest.raises(StoreError):
            await client.call("GET", "key")


@pytest.mark.parametrize(
    "answer",
    [
        b"+OK\r\n", b"*0\r\n", b"*1\r\n$1\r\nh\r\n", b"*2\r\n$1\r\nh\r\n$1\r\nx\r\n", b"*2\r\n:1\r\n:1\r\n",
        b"*2\r\n$1\r\n\xff\r\n$4\r\n6379\r\n", b"*2\r\n$1\r\nh\r\n$8\r\n99999999\r\n", b"$-1\r\n", b"*-1\r\n",
    ],
)  # fmt: skip
async def test_sentinels_that_say_nonsense_name_nobody(answer: bytes) -> None:
    async with saying({b"SENTINEL": answer}) as port, client_of(f"redis+sentinel://127.0.0.1:{port}/main") as client:
        assert not await probe(client)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b":abc\r\n", b"\xff\xfe\r\n", b"$99\r\n"])
async def test_a_server_that_speaks_something_else_is_not_there(
    answer: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with saying({b"EVALSHA": answer}) as port, client_of(f"redis://127.0.0.1:{port}") as client:
        assert not await probe(client)
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]
