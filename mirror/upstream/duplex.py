"""A request whose answer may come before its body has ended: one, on a connection of its own.

Nothing is sent twice, for a body that comes from a client is there once; so no connection is kept for a next request,
which might find it dead. The other side is not asked to close it: it might do so while more of the body is on its way,
and an answer that is followed by a reset may never be read. Source: RFC 9112, sections 6, 7.1 and 9.6.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass

import httpcore
import httptools
import httpx

from mirror.errors import UpstreamInvalid, UpstreamTimeout, UpstreamUnavailable
from mirror.upstream.origins import host_of
from mirror.upstream.stream import Stream

_LOOK_EVERY = 1.0
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Heard:
    """An answer, whole. ``headers`` have names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request. ``target`` is its path with the query; ``length`` of the ``content`` in bytes, None: not known."""

    method: str
    url: httpx.URL
    target: str
    headers: Iterable[tuple[str, str]]
    content: AsyncIterator[bytes] | None = None
    length: int | None = None

    def head(self) -> bytes:
        """All that goes before the content."""
        own = [("host", host_of(self.url)), *self.headers]
        if self.content is not None:
            own.append(
                ("transfer-encoding", "chunked") if self.length is None else ("content-length", str(self.length))
            )
        lines = "".join(f"{name}: {value}\r\n" for name, value in own)
        return f"{self.method} {self.target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")


async def connected(
    backend: httpcore.AsyncNetworkBackend, url: httpx.URL, tls: ssl.SSLContext | None, within: float
) -> Stream:
    """A connection to the host of ``url``: ``within`` seconds, and as many for TLS.

    Raises `httpcore.ConnectError` and `httpcore.ConnectTimeout` where nobody is there, and `UpstreamUnavailable` when
    there is no agreeing on TLS.
    """
    stream = await backend.connect_tcp(url.host, url.port or _DEFAULT_PORTS[url.scheme], timeout=within)
    assert isinstance(stream, Stream)
    if tls is None:
        return stream
    try:
        return await stream.start_tls(tls, url.host, timeout=within)
    except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
        cause = error.args[0] if error.args else error
        why = getattr(cause, "verify_message", None) or cause
        raise UpstreamUnavailable(f"{host_of(url)} and this mirror do not agree on TLS: {why}") from error


class Duplex:
    """The exchange of one request and its answer on ``stream``, which is closed with it. ``clock`` gives seconds."""

    def __init__(self, stream: Stream, outgoing: Outgoing, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._outgoing = outgoing
        self._clock = clock
        self._host = host_of(outgoing.url)
        self._owed_since: float | None = None

    async def exchange(self, limit: int, gives_up: Callable[[float], bool]) -> Heard:
        """Send the request as its content comes, no faster than it is taken in, until the answer is there.

        ``gives_up`` is asked each second while the other side takes in nothing and says nothing, with the seconds for
        which it has done so. Raises what the content raises, which cuts the connection; `UpstreamTimeout` when it is
        given up, `UpstreamUnavailable` when the other side cuts it, and `UpstreamInvalid` for what is no answer, or one
        of more than ``limit`` bytes.
        """
        sending = asyncio.create_task(self._send())
        hearing = asyncio.create_task(self._hear(limit))
        waiting: set[asyncio.Task[None] | asyncio.Task[Heard]] = {sending, hearing}
        try:
            while hearing in waiting:
                _, waiting = await asyncio.wait(waiting, timeout=_LOOK_EVERY, return_when=asyncio.FIRST_COMPLETED)
                if sending.done() and (failure := sending.exception()) is not None:
                    raise failure
                silent = 0.0 if self._owed_since is None else self._clock() - self._owed_since
                if hearing in waiting and silent and gives_up(silent):
                    raise UpstreamTimeout(
                        f"{self._host} says nothing for {silent:.0f} s", detail={"endpoint": self._host}
                    )
            return hearing.result()
        finally:
            for task in (sending, hearing):
                task.cancel()
            await self._stream.aclose()
            await asyncio.gather(sending, hearing, return_exceptions=True)

    async def _send(self) -> None:
        """The request. Where the other side takes no more of it, its answer says why."""
        with contextlib.suppress(httpcore.WriteError):
            await self._write(self._outgoing.head())
            if (content := self._outgoing.content) is not None:
                chunked = self._outgoing.length is None
                async for piece in content:
                    if piece:
                        await self._write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                if chunked:
                    await self._write(b"0\r\n\r\n")
        self._owed_since = self._clock()

    async def _write(self, data: bytes) -> None:
        self._owed_since = self._clock()
        await self._stream.write(data)
        self._owed_since = None

    async def _hear(self, limit: int) -> Heard:
        answer = _Answer(limit)
        parser = httptools.HttpResponseParser(answer)
        try:
            while not answer.ended:
                data = await self._stream.read(limit)
                if not data:
                    raise self._cut()
                parser.feed_data(data)
        except httpcore.ReadError as error:
            raise self._cut() from error
        except httptools.HttpParserError as error:
            raise UpstreamInvalid(
                f"{self._host} does not answer as a replica", detail={"endpoint": self._host}
            ) from error
        return Heard(parser.get_status_code(), answer.headers, bytes(answer.body))

    def _cut(self) -> UpstreamUnavailable:
        return UpstreamUnavailable(f"{self._host} cut the connection", detail={"endpoint": self._host})


class _Answer:
    """What `httptools.HttpResponseParser` finds."""

    def __init__(self, limit: int) -> None:
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.ended = False
        self._left = limit

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header has come."""
        self._count(name + value)
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """Some of the body has come."""
        self._count(body)
        self.body += body

    def on_message_complete(self) -> None:
        """That was all."""
        self.ended = True

    def _count(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            raise httptools.HttpParserError("too much")
