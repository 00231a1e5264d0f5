"""A client that costs as little as it can: one blocking socket, one buffer, nothing kept."""

import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from mirror.oci import MANIFEST_TYPES

ACCEPT = ", ".join(MANIFEST_TYPES)
_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Got:
    """What came of one GET; times in seconds of the monotonic clock, which all processes share."""

    size: int
    headers: dict[str, str]
    first_byte_at: float
    done_at: float


class Client:
    """One connection, used for one request after the other. ``base`` is a registry's URL with any first components.

    ``receive_buffer``: the kernel's, in bytes; small for a client that is to be slow.
    """

    def __init__(self, base: str, *, buffer: int = 1024 * 1024, receive_buffer: int | None = None) -> None:
        address, _, prefix = base.removeprefix("http://").partition("/")
        host, _, port = address.partition(":")
        self._address = address
        self._prefix = f"{prefix}/" if prefix else ""
        self._buffer = memoryview(bytearray(buffer))
        self._socket = socket.socket()
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(_TIMEOUT)
        self._socket.connect((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ping(self) -> Got:
        """GET ``/v2/``."""
        return self._get("/v2/")

    def manifest(self, repository: str, tag: str) -> str:
        """GET a manifest by tag; the digest of its first layer."""
        body = bytearray()
        self.get(f"{repository}/manifests/{tag}", body.extend)
        return str(json.loads(body)["layers"][0]["digest"])

    def blob(self, repository: str, digest: str, take: Callable[[memoryview], object] | None = None) -> Got:
        """GET a blob; ``take`` is called with each piece as it comes."""
        return self.get(f"{repository}/blobs/{digest}", take)

    def get(self, tail: str, take: Callable[[memoryview], object] | None = None) -> Got:
        """GET ``<repository>/manifests/…`` or ``…/blobs/…``."""
        return self._get(f"/v2/{self._prefix}{tail}", take)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def _get(self, path: str, take: Callable[[memoryview], object] | None = None) -> Got:
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nhost: {self._address}\r\naccept: {ACCEPT}\r\n\r\n".encode())
        filled, end = 0, -1
        while end < 0:
            filled += self._received(self._socket.recv_into(self._buffer[filled:]), path)
            end = bytes(self._buffer[:filled]).find(b"\r\n\r\n")
        status, headers = _parse(bytes(self._buffer[:end]))
        if status != 200:
            raise AssertionError(f"{path} was answered with {status}: {bytes(self._buffer[end:filled])!r}")
        size, start = int(headers["content-length"]), end + 4
        first_byte_at = time.monotonic()
        got = filled - start
        if take is not None and got:
            take(self._buffer[start:filled])
        while got < size:
            received = self._received(self._socket.recv_into(self._buffer), path)
            if got == 0:
                first_byte_at = time.monotonic()
            if take is not None:
                take(self._buffer[:received])
            got += received
        return Got(size, headers, first_byte_at, time.monotonic())

    def _received(self, count: int, path: str) -> int:
        if count == 0:
            raise AssertionError(f"{path} was cut")
        return count


def _parse(head: bytes) -> tuple[int, dict[str, str]]:
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(first.split(" ")[1]), {name.lower(): value.strip() for name, _, value in pairs}


@dataclass(frozen=True, slots=True)
class Pulled:
    """A pull as agents make it: how long it took in seconds, and how its layer came."""

    seconds: float
    layer: Got


def pull(base: str, repository: str, tag: str, *, buffer: int = 1024 * 1024) -> Pulled:
    """Pull as an agent does: a new connection, ``/v2/``, the manifest by tag, one layer."""
    began = time.monotonic()
    with Client(base, buffer=buffer) as client:
        client.ping()
        layer = client.blob(repository, client.manifest(repository, tag))
    return Pulled(layer.done_at - began, layer)


def check(base: str, repository: str, tag: str) -> None:
    """Pull, and assert that the layer has the digest that names it."""
    digest = hashlib.sha256()
    with Client(base) as client:
        expected = client.manifest(repository, tag)
        client.blob(repository, expected, digest.update)
    assert f"sha256:{digest.hexdigest()}" == expected, f"{base} sent wrong bytes for {expected}"


def herd(clients: int, bases: Sequence[str], repository: str, tag: str) -> float:
    """So many agents' pulls at the same time, through ``bases`` by turns; seconds until the last one is done."""
    start = threading.Barrier(clients + 1)
    done: list[float] = []

    def one(base: str) -> None:
        start.wait()
        pull(base, repository, tag, buffer=64 * 1024)
        done.append(time.monotonic())

    threads = [threading.Thread(target=one, args=(bases[n % len(bases)],)) for n in range(clients)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.monotonic()
    for thread in threads:
        thread.join()
    assert len(done) == clients, f"{clients - len(done)} of {clients} pulls failed"
    return max(done) - began
