"""A registry that fails on demand: HTTP/1.1 on a real socket, in a thread and a loop of its own.

::

    with FaultyUpstream() as up:
        digest = up.add_blob("team/plugin", b"…")
        up.inject(Fault(cut_after=1000), path="/blobs/", times=1)
        …                                        # pull from up.url
        assert up.count(method="GET", path="/blobs/") == 2

Everything may be changed from any thread while it serves.
"""

import asyncio
import re
import ssl
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self

from tests.support.contents import Answer, Contents, error
from tests.support.faults import Fault, Rule, combined
from tests.support.ports import ReservedPort, bound_socket
from tests.support.tokens import TokenService, basic
from tests.support.uploads import Uploads
from tests.support.wire import Request, Sending, close, read_body, read_request

_BACKLOG = 1024
_ACTIONS = {"POST": "pull,push", "PATCH": "pull,push", "PUT": "pull,push", "DELETE": "delete"}
_HTML = b"<!DOCTYPE html><html><body><h1>Down for maintenance</h1></body></html>"


class FaultyUpstream(Contents):
    """The registry. What it holds is described at `Contents`, what can go wrong with it at `Fault`.

    ``url`` is where it answers; port and address stay the same while it refuses connections.
    """

    def __init__(self, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self.uploads: Uploads | None = None
        """What takes in pushes; without it they get 405."""
        self.tokens: TokenService | None = None
        """What ``/token`` here answers with; may be shared with another server."""
        self._address = host
        self._tls = tls
        self._bearer: TokenService | None = None
        self._realm: str | None = None
        self._basic: dict[str, str] | None = None
        self._public = False
        self._rules: list[Rule] = []
        self._requests: list[Request] = []
        self._accepted = 0
        self._writers: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._loop = asyncio.SelectorEventLoop()
        self._server: asyncio.Server | None = None
        self._reservation = ReservedPort(host)
        self.port = self._reservation.number
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"upstream:{self.port}", daemon=True)

    @property
    def host(self) -> str:
        """``address:port``"""
        return f"{self._address}:{self.port}"

    @property
    def url(self) -> str:
        """``http://address:port``, or https"""
        return f"{'https' if self._tls else 'http'}://{self.host}"

    # What is to go wrong.

    def inject(
        self,
        fault: Fault,
        *,
        method: str | None = None,
        path: str | None = None,
        times: int | None = None,
        skip: int = 0,
    ) -> Rule:
        """Let requests meet ``fault``: those of this method, whose path has a match of this pattern; after the first
        ``skip`` of them, and at most so many ``times``. Of several rules that a request meets, all count.
        """
        rule = Rule(fault, method, path, times, skip)
        with self._lock:
            self._rules = [*self._rules, rule]
        return rule

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            for rule in self._rules:
                rule.remove()
            self._rules = []

    def refuse(self) -> None:
        """Cut all connections, and refuse new ones until `accept`."""
        self._do(self._stop_listening())

    def accept(self) -> None:
        """Accept connections again, at the same port."""
        self._do(self._listen())

    def cut_connections(self) -> None:
        """Cut all connections that are open now, idle ones too."""
        self._do(self._cut())

    # Who may read.

    def require_bearer(self, tokens: TokenService | None = None, *, realm: str | None = None) -> TokenService:
        """Ask for Bearer tokens of ``tokens``, at ``realm`` (default: ``/token`` here)."""
        self._bearer = tokens or TokenService()
        self.tokens = self._bearer
        self._realm = realm
        return self._bearer

    def require_basic(self, users: dict[str, str], *, public: bool = False) -> None:
        """Ask for Basic credentials: one of these names with its password. ``public``: or none at all."""
        self._basic = users
        self._public = public

    def take_pushes(self) -> Uploads:
        """Take in what is pushed from now on, and delete what is to be deleted."""
        self.uploads = Uploads(self)
        return self.uploads

    # What came.

    @property
    def requests(self) -> list[Request]:
        """All requests so far, those for tokens too."""
        with self._lock:
            return list(self._requests)

    def matching(self, *, method: str | None = None, path: str = "", status: int | None = None) -> list[Request]:
        """The requests of this method, whose path has a match of this pattern, that got this status."""
        return [
            request
            for request in self.requests
            if (method is None or request.method == method)
            and re.search(path, request.path)
            and (status is None or request.status == status)
        ]

    def count(self, *, method: str | None = None, path: str = "", status: int | None = None) -> int:
        """How many requests were `matching`."""
        return len(self.matching(method=method, path=path, status=status))

    def reset(self) -> None:
        """Forget the requests that came, and all faults; what is held stays."""
        self.clear()
        with self._lock:
            self._requests = []

    @property
    def accepted_connections(self) -> int:
        """How many connections were ever accepted."""
        return self._accepted

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return len(self._writers)

    # Its life.

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._listen())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._stop_listening())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._reservation.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(
                self._serve, sock=bound_socket(self._address, self.port), ssl=self._tls, backlog=_BACKLOG
            )

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _cut(self) -> None:
        tasks = list(self._writers.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # an aborted transport closes its socket in the loop's next round

    # One connection.

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._writers[writer] = task
        self._accepted += 1
        number = self._accepted
        writer.transport.set_write_buffer_limits(high=1, low=0)  # with high=0 a TLS transport pauses for ever
        try:
            while await self._exchange(reader, writer, number):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            writer.close()
            del self._writers[writer]

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> bool:
        """Answer one request; whether the connection may serve another."""
        request = await read_request(reader, connection)
        with self._lock:
            self._requests.append(request)
            rules = self._rules
        fault = combined([rule.fault for rule in rules if rule.met_by(request.method, request.path)])
        whole = await read_body(reader, request, fault)
        await asyncio.sleep(fault.delay)
        if fault.hold is not None:
            await fault.hold.pass_through()
        if fault.hang:
            await reader.read()  # until the client closes
            return False
        if fault.drop:
            close(writer, fault)
            return False
        answer = _other_answer(request, fault) or self._right_answer(request)
        sending = Sending(request, answer, fault)
        writer.write(sending.head())
        await writer.drain()
        if not whole:
            await sending.body(reader, writer)
            writer.write_eof()
            while await reader.read(_BACKLOG):  # as servers linger, so that the answer is not lost to a reset
                pass
            return False
        if request.method == "HEAD":
            return request.headers.get("connection") != "close"
        return await sending.body(reader, writer) and request.headers.get("connection") != "close"

    def _right_answer(self, request: Request) -> Answer:
        if request.path == "/token" and self.tokens is not None:
            credentials = request.headers.get("authorization", "")
            return self.tokens.answer(request.method, request.query, credentials, bytes(request.body))
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        if self.uploads is not None:
            taken = self.uploads.answer(
                request.method, request.path, request.query, request.headers, bytes(request.body)
            )
            if taken is not None:
                return taken
        if request.method not in ("GET", "HEAD"):
            return error(405, "UNSUPPORTED")
        return self.answer(request.path, request.query)

    def _refusal(self, request: Request) -> Answer | None:
        """The challenge, if this request may not be answered."""
        authorization = request.headers.get("authorization", "")
        repository = self.repository_of(request.path)
        if self.uploads is not None:
            repository = self.uploads.repository_of(request.path) or repository
        if self._basic is not None:
            user, password = basic(authorization)
            if (authorization or not self._public) and (user is None or self._basic.get(user) != password):
                return _challenge('Basic realm="fake registry"')
        actions = _ACTIONS.get(request.method, "pull")
        if self._bearer is not None and not self._bearer.allows(authorization, repository, actions):
            scope = f',scope="repository:{repository}:{actions}"' if repository else ""
            realm = self._realm or f"{self.url}/token"
            return _challenge(f'Bearer realm="{realm}",service="{self._bearer.service}"{scope}')
        return None


def _challenge(challenge: str) -> Answer:
    answer = error(401, "UNAUTHORIZED")
    answer.headers["www-authenticate"] = challenge
    return answer


def _other_answer(request: Request, fault: Fault) -> Answer | None:
    """The answer that ``fault`` puts in the place of the right one."""
    if fault.redirect is not None:
        location = fault.redirect.replace("{path}", request.path)
        return Answer(fault.status or 307, {"location": location})
    if fault.html:
        return Answer(fault.status or 200, {"content-type": "text/html; charset=utf-8"}, _HTML)
    if fault.status is not None:
        return error(fault.status, fault.code)
    return None
