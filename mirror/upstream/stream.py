"""A connection as httpcore wants it, on asyncio's transports instead of anyio's.

It hands over what the loop has read, up to 256 KiB at a time, where anyio's stops at 64 KiB and copies once more: a
body of 64 MiB from loopback takes a quarter of the time. In the other direction a body that is sent waits for the
peer, and stops when the peer answers before its end.
"""

import asyncio
import ssl
from collections import deque
from typing import Any, Self, cast

import httpcore

_HIGH_WATER = 512 * 1024
_LOW_WATER = 128 * 1024
_UNSENT = 256 * 1024
"""Bytes that may wait to be sent before a writer has to wait too; below a quarter of it, it goes on."""


class Stream(asyncio.Protocol, httpcore.AsyncNetworkStream):
    """One connection, plain or TLS. At most `_HIGH_WATER` bytes and one read of the loop wait in it to be taken."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._received: deque[bytes] = deque()
        self._waiting = 0
        self._paused = False
        self._ended = False
        self._failure: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._full = False
        self._writer: asyncio.Future[None] | None = None

    @classmethod
    async def connect(cls, address: str, port: int) -> Self:
        """Connect to an IP address; raises `OSError`. Time is bounded by the caller."""
        _, stream = await asyncio.get_running_loop().create_connection(cls, address, port)
        return stream

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The loop's transport is ready."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by its methods only
        self._transport.set_write_buffer_limits(_UNSENT, _UNSENT // 4)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self._received.append(data)
        self._waiting += len(data)
        if self._waiting > _HIGH_WATER and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def pause_writing(self) -> None:
        """The peer takes less than it is sent."""
        self._full = True

    def resume_writing(self) -> None:
        """What was to be sent is nearly gone."""
        self._full = False
        self._wake()

    def eof_received(self) -> None:
        """The peer sends no more; the loop closes the transport."""
        self._ended = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        self._ended = True
        self._failure = exc
        self._wake()

    def _wake(self) -> None:
        for waiting in (self._reader, self._writer):
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    # What httpcore calls.

    async def read(
        self,
        max_bytes: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
    ) -> bytes:
        """The next bytes as they came, ``b""`` at the end. ``max_bytes`` is passed over: HTTP/1.1 takes any number."""
        while not self._received and not self._ended:  # what a writer waits for wakes the reader too
            self._reader = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(timeout):
                    await self._reader
            except TimeoutError as error:
                raise httpcore.ReadTimeout(f"sends nothing for {timeout:g} s") from error
            finally:
                self._reader = None
        if not self._received:
            if self._failure is not None:
                raise httpcore.ReadError(self._failure) from self._failure
            return b""
        data = self._received.popleft()
        self._waiting -= len(data)
        if self._paused and self._waiting < _LOW_WATER:
            self._paused = False
            self._transport.resume_reading()
        return data

    async def write(
        self,
        buffer: bytes,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
    ) -> None:
        """Send ``buffer``, and wait while too much is on its way already.

        Who answers before it has been sent everything is not sent the rest: then httpcore, which is told by a
        `WriteError`, reads the answer.
        """
        if not self._ended:
            self._transport.write(buffer)
        if self._transport.is_closing():
            await asyncio.sleep(0)  # to be told why
        while self._full and not self._ended and not self._received:
            await self._until_woken(timeout)
        if self._ended or (self._full and self._received):
            raise httpcore.WriteError(self._failure) from self._failure

    async def _until_woken(self, seconds: float | None) -> None:
        self._writer = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(seconds):
                await self._writer
        except TimeoutError as error:
            raise httpcore.WriteTimeout(f"takes in nothing for {seconds:g} s") from error
        finally:
            self._writer = None

    async def aclose(self) -> None:
        """Close at once: a TLS peer's farewell is not waited for, nor a body's rest."""
        self._transport.abort()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
    ) -> Self:
        """Go on with TLS on this connection, which is closed when the handshake fails."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                transport = await loop.start_tls(self._transport, self, ssl_context, server_hostname=server_hostname)
        except TimeoutError as error:
            self._transport.abort()
            raise httpcore.ConnectTimeout(f"does not agree on TLS within {timeout:g} s") from error
        except OSError as error:  # ssl.SSLError is one
            self._transport.abort()
            raise httpcore.ConnectError(error) from error  # as an argument, for the pool drops causes
        except asyncio.CancelledError:
            self._transport.abort()
            raise
        assert transport is not None
        self._transport = transport
        transport.set_write_buffer_limits(_UNSENT, _UNSENT // 4)
        return self

    def get_extra_info(self, info: str) -> Any:
        """``is_readable``: an idle connection has something to say, so it ends; ``ssl_object``: TLS, if any."""
        if info == "is_readable":
            return self._ended or bool(self._received)
        return self._transport.get_extra_info(info)
