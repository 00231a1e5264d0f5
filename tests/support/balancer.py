"""A small TCP load balancer that stands for a Kubernetes Service: it follows ``/readyz``, late.

::

    with Balancer([first.host, second.host]) as balancer:
        …                                        # pull from balancer.url
"""

import asyncio
import contextlib
import itertools
import random
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self

_BACKLOG = 1024
_POLL_EVERY = 0.05  # seconds
_ANSWER_WITHIN = 1.0  # seconds, as a Kubernetes probe has it
_CONNECT_WITHIN = 5.0
_PIECE = 262144  # bytes
_HANDSHAKE = b"\x16"  # the first byte of a client that speaks TLS: RFC 8446, section 5.1
_CONNECTION = re.compile(rb"(?im)^(connection|keep-alive):.*\r\n")


class Delayed:
    """What was seen of a thing, ``follows`` seconds later; what was seen first counts from the beginning. Pure."""

    def __init__(self, first: bool, *, follows: float) -> None:
        self._follows = follows
        self._now = first
        self._latest = first
        self._changes: list[tuple[float, bool]] = []

    def see(self, value: bool, now: float) -> None:
        """At ``now`` (seconds of any clock) it is ``value``."""
        if value != self._latest:
            self._latest = value
            self._changes.append((now + self._follows, value))

    def at(self, now: float) -> bool:
        """What counts at ``now``, which never goes back."""
        while self._changes and self._changes[0][0] <= now:
            _, self._now = self._changes.pop(0)
        return self._now


class Balancer:
    """Passes connections on to those of ``backends`` (``host:port``) that are ready, by turns.

    With ``at_random`` each goes to whichever that draws. With ``each_request`` the answer to the first request of a
    connection ends it, and the client, which has to ask over a new one, may find itself at another backend.

    A change of readiness counts ``follows`` seconds after it was seen, whatever happens in between: a connection that
    is passed on to a backend which has died meanwhile is reset, as is one that comes while no backend is ready. Those
    that stand are never closed here. It runs in a thread and a loop of its own.
    """

    def __init__(
        self,
        backends: Sequence[str],
        *,
        follows: float = 2.0,
        clock: Callable[[], float] | None = None,
        at_random: random.Random | None = None,
        each_request: bool = False,
    ) -> None:
        self._backends = tuple(backends)
        self._follows = follows
        self._random = at_random
        self._each_request = each_request
        self._loop = asyncio.SelectorEventLoop()
        self._clock = clock or self._loop.time
        self._ready: dict[str, Delayed] = {}
        self._turn = itertools.count()
        self._passed: Counter[str] = Counter()
        self._reset = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self.host = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.url = f"http://{self.host}"
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"balancer:{self.host}", daemon=True)

    @property
    def targets(self) -> list[str]:
        """The backends to which a new connection may go now."""
        now = self._clock()
        return [backend for backend in self._backends if backend in self._ready and self._ready[backend].at(now)]

    @property
    def passed(self) -> Counter[str]:
        """How many connections each backend got so far."""
        return Counter(self._passed)

    @property
    def turned_away(self) -> int:
        """How many connections were reset: no backend was ready, or the one whose turn it was did not take it."""
        return self._reset

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _start(self) -> None:
        seen = await asyncio.gather(*map(_is_ready, self._backends))
        for backend, ready in zip(self._backends, seen, strict=True):
            self._ready[backend] = Delayed(ready, follows=self._follows)
            self._begin(self._watch(backend))
        self._server = await asyncio.start_server(self._serve, sock=self._socket, limit=_PIECE)

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # an aborted transport closes its socket in the loop's next round

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self, backend: str) -> None:
        while True:
            await asyncio.sleep(_POLL_EVERY)
            self._ready[backend].see(await _is_ready(backend), self._clock())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._pass_on(reader, writer)
        except asyncio.CancelledError:  # the balancer is closed; asyncio would complain of a cancelled handler
            writer.transport.abort()
        finally:
            self._tasks.discard(task)

    def _chosen(self, targets: Sequence[str]) -> str | None:
        if not targets:
            return None
        return self._random.choice(targets) if self._random else targets[next(self._turn) % len(targets)]

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connect to the backend whose turn it is, and carry bytes both ways until both sides have ended."""
        backend = self._chosen(self.targets)
        try:
            if backend is None:
                raise ConnectionError("no backend is ready")
            async with asyncio.timeout(_CONNECT_WITHIN):
                far_reader, far_writer = await asyncio.open_connection(*_address(backend), limit=_PIECE)
        except OSError:  # a time-out is one, too
            self._reset += 1
            _reset(writer)
            return
        self._passed[backend] += 1
        try:
            if self._each_request:
                far_writer.write(await _only(reader))
            await asyncio.gather(_carry(reader, far_writer), _carry(far_reader, writer))
        except OSError:  # one side was reset, and so is the other
            _reset(writer)
            _reset(far_writer)
        finally:
            for one in (writer, far_writer):
                one.close()


async def _only(reader: asyncio.StreamReader) -> bytes:
    """The head of a request, so that its answer is the connection's last; whatever came, where no head came.

    Of TLS, which no head stands in front of, it is the first byte: clients try it before they speak plain HTTP.
    """
    try:
        head = await reader.readexactly(1)
        if head == _HANDSHAKE:
            return head
        head += await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError as error:
        raise ConnectionError("the head of the request has no end") from error
    return _CONNECTION.sub(b"", head).removesuffix(b"\r\n") + b"Connection: close\r\n\r\n"


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """All bytes of one direction, and its end."""
    while piece := await reader.read(_PIECE):
        writer.write(piece)
        await writer.drain()
    if writer.can_write_eof():
        with contextlib.suppress(OSError):  # the other side has ended already
            writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST: to the client it is no orderly end."""
    with contextlib.suppress(OSError):
        end = writer.get_extra_info("socket")
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


async def _is_ready(backend: str) -> bool:
    """Whether ``/readyz`` there answers 200 within `_ANSWER_WITHIN`."""
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(_ANSWER_WITHIN):
            reader, writer = await asyncio.open_connection(*_address(backend))
            writer.write(f"GET /readyz HTTP/1.1\r\nHost: {backend}\r\nConnection: close\r\n\r\n".encode())
            return (await reader.readline()).split()[1:2] == [b"200"]
    except OSError:
        return False
    finally:
        if writer is not None:
            writer.transport.abort()


def _address(backend: str) -> tuple[str, int]:
    host, _, port = backend.rpartition(":")
    return host, int(port)
