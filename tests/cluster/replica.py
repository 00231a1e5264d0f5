"""A replica as the others see it: `PeerApp` behind a real uvicorn in the test's loop, and fakes in its place."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mirror.cluster.secret import Secret
from mirror.digest import Digest
from mirror.edge.peers import PeerApp
from mirror.edge.respond import Cut
from mirror.errors import MirrorError
from mirror.metadata.base import LinkEntry, TagEntry
from mirror.peers import Peers
from mirror.store.blobs import BlobStore
from mirror.store.growing import Growing
from mirror.store.spool import Spool
from mirror.upstream.transport import Transport
from mirror.upstream.trust import OneTrust
from tests.store.disk import data_in
from tests.support.asking import Headers, Reply, ask
from tests.support.ports import bound_socket

SECRET = b"correct horse battery staple"


def secret_in(file: Path, content: bytes = SECRET) -> Secret:
    """The secret in a file that holds ``content``."""
    file.write_bytes(content)
    return Secret(file)


class Replica:
    """One replica. ``asked`` are the requests that came, as ``METHOD target``."""

    def __init__(self, folder: Path, secret: bytes = SECRET) -> None:
        self.directory = data_in(folder / "data")
        self.secret = secret_in(folder / "secret", secret)
        self.store = BlobStore(self.directory)
        self.knows = Known()
        self.growing: dict[Digest, Growing] = {}
        self.asked: list[str] = []
        self.url = ""

    @property
    def app(self) -> PeerApp:
        """What answers at `url`."""
        return PeerApp(self.secret, self.store, self.growing.get, self.knows, self.url)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.url.removeprefix("http://").partition(":")
        return host, int(port)

    def put(self, content: bytes) -> Digest:
        """Hold a blob."""
        digest = Digest.of(content)
        self.store.put(digest, content)
        return digest

    def fill(self, content: bytes, *, size: int | None) -> "Filling":
        """Begin to get a blob; ``size`` is what is known of its size."""
        filling = Filling(self, content, size)
        self.growing[filling.digest] = filling.growing
        return filling

    async def signed(self, method: str, target: str, headers: Headers = ()) -> Reply:
        """The answer to a request that is signed as another replica would."""
        proof = ("Authorization", self.secret.sign(method, self.url + target, time.time()).header)
        fields = headers.items() if isinstance(headers, Mapping) else headers
        return await ask(self.address, target, method=method, headers=[*fields, proof])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = scope["query_string"].decode()
        self.asked.append(f"{scope['method']} {scope['raw_path'].decode()}{'?' if query else ''}{query}")
        await self.app(scope, receive, send)


@dataclass
class Known:
    """What a replica's own database has."""

    tags: list[TagEntry] = field(default_factory=list)
    links: list[LinkEntry] = field(default_factory=list)

    async def tag(self, upstream: str, repository: str, tag: str) -> TagEntry | None:
        key = (upstream, repository, tag)
        return next((one for one in self.tags if (one.upstream, one.repository, one.tag) == key), None)

    async def link(self, upstream: str, repository: str, digest: Digest) -> LinkEntry | None:
        key = (upstream, repository, digest)
        return next((one for one in self.links if (one.upstream, one.repository, one.digest) == key), None)


class Filling:
    """A blob of which more comes only when the test says so."""

    def __init__(self, replica: Replica, content: bytes, size: int | None) -> None:
        self.digest = Digest.of(content)
        self.growing = Growing(self.digest, size)
        self._content = content
        self._replica = replica
        self.spool = Spool.acquire(replica.directory, self.digest)
        self.growing.spool = self.spool

    def come(self, end: int | None = None) -> None:
        """Let the bytes up to ``end`` come, by default all."""
        assert self.spool is not None
        self.spool.append(memoryview(self._content)[self.spool.size : end])
        self.growing.moved()

    def end(self) -> None:
        """All has come, and is what it should be."""
        self.come()
        self.growing.verify()

    def fail(self, failure: MirrorError) -> None:
        """It will not come."""
        self.growing.fail(failure)


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[str]:
    """Serve an application; gives its URL. Its `Cut` cuts the connection, as the mirror's application does."""

    async def cutting(scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(Cut):
            await app(scope, receive, send)

    config = uvicorn.Config(
        cutting,
        http="httptools",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    config.load()
    config.ssl = tls
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    listener = bound_socket("127.0.0.1", port)
    await server.startup(sockets=[listener])
    try:
        yield f"{'https' if tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        await _stop(server, listener)


async def _stop(server: uvicorn.Server, listener: socket.socket) -> None:
    server.force_exit = True
    for task in list(server.server_state.tasks):
        task.cancel()
    await asyncio.gather(*server.server_state.tasks, return_exceptions=True)
    for connection in list(server.server_state.connections):
        connection.transport.abort()
    for one in server.servers:
        one.close()
        await one.wait_closed()
    listener.close()


@contextlib.asynccontextmanager
async def replicas(folder: Path, count: int = 1) -> AsyncIterator[list[Replica]]:
    """So many replicas that share a secret, each with a disk."""
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for number in range(count):
            replica = Replica(folder / str(number))
            replica.url = await stack.enter_async_context(serving(replica))
            found.append(replica)
        yield found


@dataclass
class Clock:
    """A clock that the test moves."""

    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds


@contextlib.asynccontextmanager
async def asking(
    folder: Path,
    *others: Replica | str,
    own: str = "http://127.0.0.1:1",
    secret: bytes = SECRET,
    clock: Callable[[], float] | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Peers]:
    """What one more replica has of those that are alive; the sockets of that one are at ``own``."""
    addresses = [other if isinstance(other, str) else other.url for other in others]
    transport = Transport(trust=OneTrust(tls)) if tls is not None else Transport()
    loop = asyncio.get_running_loop()
    held = secret_in(folder / "own-secret", secret)
    peers = Peers(lambda: [*addresses, own], own, held, transport, clock or loop.time, time.time)
    try:
        yield peers
    finally:
        await peers.aclose()


class Fake:
    """In a replica's place: ``answer`` is an application of its own. ``asked`` counts the requests, ``left`` those
    whose client went away.
    """

    def __init__(self, answer: ASGIApp | None = None) -> None:
        """Without ``answer`` it never answers."""
        self.asked = 0
        self.left = 0
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        if self._answer is not None:
            await self._answer(scope, receive, send)
            return
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left += 1


def saying(status: int, body: bytes = b"", **headers: str) -> ASGIApp:
    """An application that answers everything so."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        if not any(name == b"content-length" for name, _ in fields):
            fields.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return app


def altering(app: ASGIApp, change: Callable[[Message], Message]) -> ASGIApp:
    """``app`` behind somebody on the way who changes what it says."""

    async def altered(scope: Scope, receive: Receive, send: Send) -> None:
        async def changed(message: Message) -> None:
            await send(change(message))

        await app(scope, receive, changed)

    return altered
