"""Replicas as far as uploads go: each with a disk, all that answers pushes, and the way to the others."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from mirror.config import Settings
from mirror.digest import Digest
from mirror.edge.app import App
from mirror.edge.auth import Gate, send_refusal
from mirror.edge.forward import Forward
from mirror.edge.peers import PeerApp
from mirror.edge.peeruploads import PeerUploads
from mirror.edge.push import Pushes
from mirror.edge.respond import query
from mirror.errors import MirrorError
from mirror.metrics import Metrics
from mirror.names import Names, Place
from mirror.oci import Manifest, parse_path
from mirror.passing import ROOM, Passing, Question
from mirror.publish import Chunk, Pushed
from mirror.store.blobs import BlobStore
from mirror.store.session import Session
from mirror.store.uploads import Uploads
from mirror.upstream.trust import OneTrust
from tests.cluster.replica import Known, secret_in, serving
from tests.store.disk import data_in
from tests.support.asking import Headers, Reply, ask
from tests.support.certificates import Certificate

UPSTREAM = "registry.example"
LIMIT = 100_000_000


class Taken:
    """An `Upload` on a disk. While ``gate`` is closed, it takes in nothing."""

    min_chunk = 0

    def __init__(self, session: Session, store: BlobStore, limit: int, gate: asyncio.Event) -> None:
        self._session = session
        self._store = store
        self._limit = limit
        self._gate = gate

    @property
    def id(self) -> str:
        return self._session.id

    @property
    def size(self) -> int:
        return self._session.size

    async def append(self, chunk: Chunk) -> int:
        return await self._session.append(self._gated(chunk.content), start=chunk.start, limit=self._limit)

    async def finish(self, digest: Digest, last: Chunk | None) -> None:
        if last is not None:
            await self.append(last)
        await self._gate.wait()
        await self._session.finish(digest, self._store)

    async def cancel(self) -> None:
        await self._session.cancel()

    async def _gated(self, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in content:
            await self._gate.wait()
            yield piece


class Taking:
    """A `Publisher` of blobs; nobody asks it for more here."""

    def __init__(self, uploads: Uploads, store: BlobStore, limit: int) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self._uploads = uploads
        self._store = store
        self._limit = limit

    async def begin(self, place: Place, principal: str, *, algorithm: str) -> Taken:
        return self._taken(await self._uploads.begin(place.repository, principal, algorithm=algorithm))

    async def find(self, place: Place, principal: str, upload: str) -> Taken:
        return self._taken(await self._uploads.find(place.repository, principal, upload))

    def _taken(self, session: Session) -> Taken:
        return Taken(session, self._store, self._limit, self.gate)

    async def mount(
        self, place: Place, principal: str, digest: Digest, source: Place | None, readable: Callable[[Place], bool]
    ) -> bool:
        raise NotImplementedError

    async def put_manifest(
        self, place: Place, principal: str, manifest: Manifest, tags: Sequence[str], *, overwrite: bool
    ) -> Pushed:
        raise NotImplementedError

    async def delete_tag(self, place: Place, principal: str, tag: str) -> None:
        raise NotImplementedError

    async def delete_manifest(self, place: Place, principal: str, digest: Digest) -> None:
        raise NotImplementedError

    async def delete_blob(self, place: Place, principal: str, digest: Digest) -> None:
        raise NotImplementedError


class End:
    """One replica. ``alive`` are the addresses of all, as the beat tells.

    ``asked`` is what came, as ``METHOD path``, and ``queries`` with which query.
    """

    def __init__(self, folder: Path, settings: Mapping[str, object], alive: list[str], limit: int) -> None:
        self.settings = Settings.model_validate({"listen": "127.0.0.1:0", "upstreams": {UPSTREAM: {}}, **settings})
        self.url = ""
        self.own = ""
        """The address that it goes by; `url` unless a test says otherwise."""
        self.alive = alive
        self.asked: list[str] = []
        self.queries: list[str] = []
        self.draining = False
        self._directory = data_in(folder / "data")
        self.store = BlobStore(self._directory)
        self.secret = secret_in(folder / "secret")
        self._limit = limit
        self._app: ASGIApp | None = None

    def open(self, url: str, own: str, tls: Certificate | None) -> None:
        """Be at ``url``, by the name of ``own``."""
        self.url, self.own = url, own
        trust = OneTrust(tls.for_clients) if tls is not None else None
        clock = asyncio.get_running_loop().time
        self.passing = Passing(lambda: self.alive, own, self.secret, trust, clock, time.time)
        self.uploads = Uploads(self._directory, time.time, expires=3600, max_uploads=9, replica=self.passing.name)
        self.publisher = Taking(self.uploads, self.store, self._limit)
        self.gate = Gate(self.settings)
        publishers = {"hosted": self.publisher, UPSTREAM: self.publisher}
        forward = Forward(self.passing, with_credentials=False)
        pushes = Pushes(Names(self.settings), publishers, self.gate, Metrics(), self.settings.hosted, forward)
        rooms = {ROOM: PeerUploads(self.secret, pushes)}
        peers = PeerApp(self.secret, self.store, lambda _: None, Known(), own, rooms=rooms)
        self._app = App({"/v2": _Door(pushes), "/peer/": peers}, lambda: self.draining, log_access=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(f"{scope['method']} {scope['path']}")
        self.queries.append(scope["query_string"].decode())
        assert self._app is not None
        await self._app(scope, receive, send)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.url.partition("://")[2].partition(":")
        return host, int(port)

    @property
    def files(self) -> list[str]:
        """What lies here of uploads."""
        folder = self._directory.uploads
        return sorted(file.name for file in folder.iterdir() if file.name != "lock") if folder.exists() else []

    def held(self, digest: Digest) -> bytes | None:
        """The blob, if it is here."""
        blob = self.store.open(digest)
        return None if blob is None else bytes(blob.read(0, blob.size))

    def size_of(self, location: str) -> int | None:
        """Bytes on this disk of the upload at an address."""
        found = list(self._directory.uploads.glob(f"*.{location.partition('?')[0].rpartition('/')[2]}"))
        return found[0].stat().st_size if found else None

    async def ask(self, method: str, target: str, headers: Headers = (), body: bytes = b"") -> Reply:
        """The answer to a client's request."""
        return await ask(self.address, target, method=method, headers=headers, body=body)

    async def signed(self, question: Question, body: bytes = b"") -> Reply:
        """The answer to a request that another replica passes on, as it comes."""
        return await self.repeated(question.method, *self.sign(question), body)

    def sign(self, question: Question) -> tuple[str, str]:
        """Target and proof of a request that is passed on to this one."""
        target = f"/peer/v1/{question.target}"
        return target, self.secret.sign(question.method, self.own + target, time.time()).header

    async def repeated(self, method: str, target: str, proof: str, body: bytes = b"") -> Reply:
        """The answer to a request that somebody may have overheard."""
        return await ask(self.address, target, method=method, headers={"Authorization": proof}, body=body)


class _Door:
    """``/v2``, as far as pushes go."""

    def __init__(self, pushes: Pushes) -> None:
        self._pushes = pushes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._pushes.answer(scope, receive, send, parse_path(scope["path"]), query(scope))
        except MirrorError as error:
            await send_refusal(send, scope["method"], error)


@contextlib.asynccontextmanager
async def ends(
    folder: Path,
    *settings: Mapping[str, object],
    limit: int = LIMIT,
    own: str | None = None,
    tls: Certificate | None = None,
) -> AsyncIterator[list[End]]:
    """Replicas with these ``settings``, by default two. ``own``: they all go by this address."""
    alive: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for number, one in enumerate(settings or ({}, {})):
            end = End(folder / str(number), one, alive, limit)
            url = await stack.enter_async_context(serving(end, tls.for_servers if tls else None))
            end.open(url, own or url, tls)
            stack.callback(end.uploads.close)
            stack.push_async_callback(end.gate.aclose)
            alive.append(end.own)
            found.append(end)
        yield found


class Sending:
    """A request whose body is sent piece by piece, and whose answer may come before its end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, *pieces: bytes) -> None:
        """Send pieces, each as a chunk; waits while the other side takes nothing."""
        for piece in pieces:
            self._writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await self._writer.drain()

    async def end(self) -> None:
        """That was all."""
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()

    async def status(self) -> int:
        """That of the answer, when it comes."""
        return int((await self._reader.readline()).split()[1])


@contextlib.asynccontextmanager
async def sending(end: End, method: str, target: str, *headers: str) -> AsyncIterator[Sending]:
    """A request of which the header has been sent."""
    reader, writer = await asyncio.open_connection(*end.address)
    try:
        fields = "".join(f"{one}\r\n" for one in ("Host: 127.0.0.1", "Transfer-Encoding: chunked", *headers))
        writer.write(f"{method} {target} HTTP/1.1\r\n{fields}\r\n".encode())
        yield Sending(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
