"""A client as plain as an agent: a connection for each request, and every cut seen for what it is."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx

from mirror.digest import Digest
from tests.support.artifacts import Artifact

_LIMIT = 256 * 1024


@dataclass(frozen=True, slots=True)
class Got:
    """What came: ``status`` is 0 when the connection ended before a status line, ``whole`` tells whether the body did.

    ``seconds`` is the time to the status line.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    whole: bool
    seconds: float

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def cache_status(self) -> str:
        """What the mirror says of where it came from."""
        return self.headers.get("cache-status", "").removeprefix("wasm-mirror; ")

    @property
    def error(self) -> tuple[str, str]:
        """Code and message of an OCI error body."""
        (only,) = self.json["errors"]
        return only["code"], only["message"]


class Exchange:
    """A request whose answer is read bit by bit."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str) -> None:
        self._reader = reader
        self._writer = writer
        self._method = method
        self._began = time.monotonic()
        self._left: int | None = 0
        self.port: int = writer.get_extra_info("sockname")[1]
        """The client's port, by which the server knows the connection."""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.seconds = 0.0

    async def head(self) -> None:
        """Wait for the status line and the header; without them ``status`` stays 0."""
        try:
            lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            self.seconds = time.monotonic() - self._began
        self.status = int(lines[0].split(" ")[1])
        for line in lines[1:-2]:
            name, _, value = line.partition(": ")
            self.headers[name.lower()] = value
        if self._method == "HEAD" or self.status in (204, 304):
            return
        self._left = int(self.headers["content-length"]) if "content-length" in self.headers else None
        assert self._left is not None or self.headers.get("transfer-encoding") == "chunked", self.headers

    async def read(self, most: int = _LIMIT) -> bytes:
        """The next bytes of the body; ``b""`` at its end or at a cut, which `whole` tells apart."""
        if self._left is None:
            return await self._read_chunk()
        try:
            data = await self._reader.read(min(most, self._left)) if self._left else b""
        except OSError:
            return b""
        self._left -= len(data)
        return data

    async def _read_chunk(self) -> bytes:
        try:
            size = int(await self._reader.readline(), 16)
            data = await self._reader.readexactly(size + 2)
        except (OSError, ValueError, asyncio.IncompleteReadError):
            return b""
        if size == 0:
            self._left = 0
        return data[:-2]

    @property
    def whole(self) -> bool:
        """Whether all of the body has been read."""
        return self.status != 0 and self._left == 0

    async def rest(self) -> Got:
        """Read on to the end, or to a cut."""
        parts = []
        while data := await self.read():
            parts.append(data)
        return Got(self.status, self.headers, b"".join(parts), self.whole, self.seconds)


@asynccontextmanager
async def ask(
    url: str,
    path: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Exchange]:
    """Send a request to the server at ``url`` on a connection of its own, which is closed at the end."""
    at = httpx.URL(url)
    reader, writer = await asyncio.open_connection(at.host, at.port, limit=_LIMIT, ssl=tls)
    try:
        lines = [f"{method} {path} HTTP/1.1", f"host: {at.host}:{at.port}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        exchange = Exchange(reader, writer, method)
        writer.write("\r\n".join([*lines, "", ""]).encode())
        yield exchange
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


async def get(
    url: str,
    path: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> Got:
    """The answer to one request, as much of it as came."""
    async with ask(url, path, method=method, headers=headers, tls=tls) as exchange:
        await exchange.head()
        return await exchange.rest()


async def manifest(url: str, repository: str, target: object, **more: Any) -> Got:
    """The manifest with this tag or digest."""
    return await get(url, f"/v2/{repository}/manifests/{target}", **more)


async def blob(url: str, repository: str, digest: object, **more: Any) -> Got:
    """The blob with this digest."""
    return await get(url, f"/v2/{repository}/blobs/{digest}", **more)


@dataclass(frozen=True, slots=True)
class Pulled:
    """What an agent's pull got: the manifest, and the layers that it names, in their order."""

    manifest: Got
    layers: tuple[Got, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether everything came with status 200 and the right digest."""
        if self.manifest.status != 200 or not self.manifest.whole:
            return False
        named = [layer["digest"] for layer in self.manifest.json["layers"]]
        got = [str(Digest.of(layer.body)) for layer in self.layers if layer.status == 200 and layer.whole]
        return named == got and self.manifest.headers["docker-content-digest"] == str(Digest.of(self.manifest.body))


async def pull(url: str, repository: str, target: object) -> Pulled:
    """Ping, manifest, then all layers at once."""
    await get(url, "/v2/")
    found = await manifest(url, repository, target)
    if found.status != 200 or not found.whole:
        return Pulled(found)
    layers = await asyncio.gather(*(blob(url, repository, layer["digest"]) for layer in found.json["layers"]))
    return Pulled(found, tuple(layers))


async def settled(url: str) -> None:
    """Wait until the server has read every request that was sent to it before, on whatever connection."""
    for _ in range(3):
        assert (await get(url, "/healthz")).status == 200


async def until(request: Callable[[], Awaitable[Got]], met: Callable[[Got], bool], *, within: float = 10.0) -> Got:
    """Make a request again and again, until its answer is as wanted."""
    deadline = time.monotonic() + within
    while not met(got := await request()):
        assert time.monotonic() < deadline, f"after {within:g} s this still comes: {got}"
        await asyncio.sleep(0.01)
    return got


def serves(version: Artifact) -> Callable[[Got], bool]:
    """Whether an answer is this version's manifest."""
    return lambda got: got.body == version.body
