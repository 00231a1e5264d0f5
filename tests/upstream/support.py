"""Upstreams as the settings would make them, in front of fake registries, and what tests ask of them."""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from pydantic import SecretStr

from mirror.config import Credentials, Defaults, EndpointSettings, UpstreamSettings
from mirror.digest import Digest
from mirror.oci import OCI_MANIFEST
from mirror.upstream.blob import BlobStream
from mirror.upstream.failover import Upstream
from mirror.upstream.transport import Transport
from tests.support.certificates import Certificate
from tests.support.tokens import TokenService
from tests.support.upstream import FaultyUpstream

REPOSITORY = "team/plugin"
BLOB = bytes(range(256)) * 1000  # 256,000 bytes
BLOB_DIGEST = Digest.of(BLOB)
PASSWORD = "correct horse battery staple"
IDENTITY_TOKEN = "an-identity-token-that-opens-everything"
SECRETS = (PASSWORD, base64.b64encode(f"robot:{PASSWORD}".encode()).decode(), IDENTITY_TOKEN)
LOGIN = Credentials(username="robot", password=SecretStr(PASSWORD))


@asynccontextmanager
async def pulling_from(
    *endpoints: FaultyUpstream | EndpointSettings,
    credentials: Credentials | None = None,
    transport: Transport | None = None,
    wiring: dict[str, Any] | None = None,
    **settings: Any,
) -> AsyncIterator[Upstream]:
    """The upstream ``corp``. ``wiring`` goes to `Upstream.of`, ``settings`` are those of an upstream."""
    written = UpstreamSettings(
        endpoints=tuple(EndpointSettings(url=one.url) if isinstance(one, FaultyUpstream) else one for one in endpoints),
        credentials=credentials,
        **settings,
    )
    upstream = Upstream.of("corp", written.effective("corp", Defaults()), transport=transport, **(wiring or {}))
    try:
        yield upstream
    finally:
        await upstream.aclose()


def within(seconds: float = 20.0) -> float:
    """The deadline that lies so many seconds ahead."""
    return asyncio.get_running_loop().time() + seconds


def manifest(**fields: object) -> dict[str, object]:
    """An image manifest without layers."""
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": str(Digest.of(b"{}")), "size": 2}
    return {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [], **fields}


MANIFEST = json.dumps(manifest()).encode()
MANIFEST_DIGEST = Digest.of(MANIFEST)


def holding(up: FaultyUpstream) -> FaultyUpstream:
    """``up``, with `MANIFEST` under the tag ``v1`` and `BLOB` in `REPOSITORY`."""
    up.add_manifest(REPOSITORY, MANIFEST, tag="v1")
    up.add_blob(REPOSITORY, BLOB)
    return up


def private(up: FaultyUpstream) -> FaultyUpstream:
    """`holding` ``up``, which asks for the tokens of `LOGIN` or `IDENTITY_TOKEN`."""
    holding(up).require_bearer(TokenService({"robot": PASSWORD}, anonymous=False, refresh_token=IDENTITY_TOKEN))
    return up


async def content(stream: BlobStream) -> bytes:
    """All that comes, and close."""
    try:
        return b"".join([chunk async for chunk in stream])
    finally:
        await stream.aclose()


class Resolver:
    """A DNS of a few names. ``asked`` are the hosts in the order of the questions."""

    def __init__(self, **hosts: Sequence[str]) -> None:
        self.hosts: dict[str, Sequence[str]] = dict(hosts)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self.hosts.get(host, [host])


class Naps:
    """A sleep that only notes how long; and a random that gives what it is set to."""

    def __init__(self) -> None:
        self.taken: list[float] = []
        self.chance = 1.0

    async def sleep(self, seconds: float) -> None:
        self.taken.append(seconds)
        await asyncio.sleep(0)

    def random(self) -> float:
        return self.chance


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class RecordingProxy:
    """A proxy on a real socket, for TLS and without: it tunnels, forwards, and notes the ``heads`` that came.

    ``routes`` says which port of this machine stands for a ``host:port``. With ``credentials`` (``user:password``) it
    answers 407 to others; ``answer`` is sent in the place of any other answer.
    """

    def __init__(
        self,
        routes: Mapping[str, int],
        *,
        tls: ssl.SSLContext | None = None,
        credentials: str | None = None,
        answer: bytes | None = None,
    ) -> None:
        self.heads: list[str] = []
        self.port = 0
        self._routes = routes
        self._tls = tls
        self._credentials = credentials
        self._answer = answer
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def asked(self) -> list[str]:
        """The first lines of what came, without the version."""
        return [head.partition(" HTTP/")[0] for head in self.heads]

    def url(self, credentials: str = "") -> str:
        """Its URL, as the environment has it."""
        return f"{'https' if self._tls else 'http'}://{credentials and credentials + '@'}127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.heads.append(head)
        answer = self._answer
        if self._credentials is not None:
            expected = base64.b64encode(self._credentials.encode()).decode()
            if f"proxy-authorization: basic {expected}\r\n".lower() not in head.lower():
                answer = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n"
        if answer is not None:
            writer.write(answer)
            await writer.drain()
            await reader.read()
            return
        method, target, _ = head.split(" ", 2)
        host = target if method == "CONNECT" else target.removeprefix("http://").partition("/")[0]
        there, out = await asyncio.open_connection("127.0.0.1", self._routes[host])
        try:
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                lines = head.replace(f"http://{host}", "", 1).removesuffix("\r\n\r\n").split("\r\n")
                kept = [line for line in lines if not line.lower().startswith(("proxy-", "connection:"))]
                out.write("\r\n".join([*kept, "connection: close", "", ""]).encode("latin-1"))
            await asyncio.gather(_pump(reader, out), _pump(there, writer))
        finally:
            out.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()
    writer.transport.abort() if writer.get_extra_info("ssl_object") else writer.write_eof()


def helper(folder: Path, name: str, script: str) -> dict[str, str]:
    """Make the program ``docker-credential-<name>`` of a shell ``script``; the environment in which it is found."""
    folder.mkdir(exist_ok=True)
    program = folder / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


def says(username: str, secret: str) -> str:
    """A script that prints this login."""
    return f"cat > /dev/null; echo '{json.dumps({'ServerURL': 'x', 'Username': username, 'Secret': secret})}'"


def showing(certificate: Certificate, *, to: Certificate | None = None) -> ssl.SSLContext:
    """For a server that shows ``certificate``, and wants to see that of a client."""
    context = certificate.for_servers
    if to is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(to.certificate)
    return context
