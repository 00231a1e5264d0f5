"""Every way in which a registry can be away that tests know, each as something that begins and ends."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

from tests.support.certificates import Certificate
from tests.support.faults import Fault
from tests.support.ports import bound_socket
from tests.support.upstream import FaultyUpstream

Asked = Callable[[], int]
"""How often upstream has been asked since the outage began: requests, or connections where none can be read."""

Outage = Callable[[FaultyUpstream], AbstractAsyncContextManager[Asked]]

_Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answering(fault: Fault) -> Outage:
    """It takes every request, and answers them all with this fault."""

    @asynccontextmanager
    async def outage(up: FaultyUpstream) -> AsyncIterator[Asked]:
        before = up.count()
        with up.inject(fault):
            yield lambda: up.count() - before

    return outage


@asynccontextmanager
async def refusing(up: FaultyUpstream) -> AsyncIterator[Asked]:
    """Nobody listens at its port any more. Who tries cannot be counted."""
    up.refuse()
    try:
        yield lambda: 0
    finally:
        up.accept()


def replaced_by(connected: _Connected, tls: Certificate | None = None) -> Outage:
    """At its port something else listens, which does this with each connection."""

    @asynccontextmanager
    async def outage(up: FaultyUpstream) -> AsyncIterator[Asked]:
        connections: set[asyncio.StreamWriter] = set()
        asked = 0

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.add(writer)
            with suppress(OSError):
                await connected(reader, writer)
            writer.transport.abort()

        def accepted() -> asyncio.StreamReaderProtocol:
            nonlocal asked
            asked += 1
            return asyncio.StreamReaderProtocol(asyncio.StreamReader(), serve)

        up.refuse()
        context = tls.for_servers if tls else None
        sock = bound_socket("127.0.0.1", up.port)
        server = await asyncio.get_running_loop().create_server(accepted, sock=sock, ssl=context)
        try:
            yield lambda: asked
        finally:
            server.close()
            for writer in connections:
                writer.transport.abort()
            up.accept()

    return outage


async def _silence(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read(-1)


async def _garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"\x15\x03\x01\x00\x02\x02\x46 220 mail.example ESMTP ready\r\n")
    await writer.drain()


@asynccontextmanager
async def swallowing(up: FaultyUpstream) -> AsyncIterator[Asked]:
    """Its port answers no SYN: the queue of connections that wait to be accepted is full, and stays so."""
    up.refuse()
    with bound_socket("127.0.0.1", up.port) as full:
        full.listen(0)
        waiting = [socket.socket() for _ in range(2)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", up.port))
        try:
            yield lambda: 0
        finally:
            for one in waiting:
                one.close()
    up.accept()


silent = replaced_by(_silence)
"""Accepts connections, and says nothing on them, not even a word of TLS."""

OUTAGES: Mapping[str, Outage] = {
    "refuses": refusing,
    "no-syn": swallowing,
    "silent": silent,
    "garbage": replaced_by(_garbage),
    "never-answers": answering(Fault(hang=True)),
    "drops": answering(Fault(drop=True, reset=True)),
    "500": answering(Fault(status=500)),
    "502-html": answering(Fault(status=502, html=True)),
    "503-retry-after": answering(Fault(status=503, retry_after=60)),
    "429": answering(Fault(status=429)),
    "429-retry-after": answering(Fault(status=429, retry_after=60)),
}
"""All that needs no TLS."""
