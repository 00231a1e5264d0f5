"""A registry that sends as fast as it is told to, and no slower: a process of its own, a thread for each connection.

`tests.support.upstream` is for faults; this one is for speed. It makes the bytes of its layers while it sends them, and
notes of each request when the first byte of the body left. Addresses under ``/bench/`` say what it holds and how fast
it is; see `tests.bench.lab.Upstream`, which starts it.
"""

import contextlib
import json
import socket
import sys
import threading
import time
from dataclasses import dataclass
from urllib.parse import parse_qsl

from mirror.digest import Digest
from mirror.oci import OCI_MANIFEST
from tests.bench.content import CONFIG, RUNTIME, Layer, manifest

_PIECE = 1024 * 1024
_STEPS = 250
"""Pieces a second into which a bandwidth is cut."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds before each answer, and bytes a second on each connection; 0 for as many as it can."""

    delay: float = 0.0
    bandwidth: float = 0.0


@dataclass(frozen=True, slots=True)
class Request:
    """A request's method and path, parsed."""

    method: str
    path: str
    query: dict[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, a media type, a digest where there is one, and a body."""

    status: int
    media_type: str
    body: bytes | Layer
    digest: Digest | None = None


class Registry:
    """What is held, how fast it is sent, and what was asked for. One for all connections."""

    def __init__(self) -> None:
        self.pace = Pace()
        self.seen: list[dict[str, object]] = []
        self._bodies: dict[str, Answer] = {}

    def answer(self, request: Request) -> Answer:
        """The answer to any request."""
        if request.path.startswith("/bench/"):
            return _json(self._controlled(request.path.removeprefix("/bench/"), request.query))
        if request.path == "/v2/":
            return _json({})
        return self._bodies.get(request.path) or Answer(404, "application/json", b'{"errors":[]}')

    def _controlled(self, command: str, query: dict[str, str]) -> object:
        if command == "publish":
            layer = Layer(int(query["seed"]), int(query["size"]))
            return self._publish(query["repository"], query["tag"], layer)
        if command == "pace":
            self.pace = Pace(float(query["delay"]), float(query["bandwidth"]))
        if command == "forget":
            self.seen = []
        return self.seen

    def _publish(self, repository: str, tag: str, layer: Layer) -> dict[str, str]:
        body = manifest(layer)
        digest = Digest.of(body)
        for blob in (CONFIG, RUNTIME, layer):
            name = blob.digest if isinstance(blob, Layer) else Digest.of(blob)
            self._bodies[f"/v2/{repository}/blobs/{name}"] = Answer(200, "application/octet-stream", blob, name)
        for target in (tag, str(digest)):
            self._bodies[f"/v2/{repository}/manifests/{target}"] = Answer(200, OCI_MANIFEST, body, digest)
        return {"layer": str(layer.digest), "manifest": str(digest)}


def _json(value: object) -> Answer:
    return Answer(200, "application/json", json.dumps(value).encode())


def _serve(registry: Registry, connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection, contextlib.suppress(ConnectionError):
        while (request := _read(connection)) is not None:
            answer, pace = registry.answer(request), registry.pace
            size = answer.body.size if isinstance(answer.body, Layer) else len(answer.body)
            head = f"HTTP/1.1 {answer.status} -\r\ncontent-type: {answer.media_type}\r\ncontent-length: {size}\r\n"
            if answer.digest is not None:
                head += f"docker-content-digest: {answer.digest}\r\n"
            seen: dict[str, object] = {"method": request.method, "path": request.path, "first_byte_at": None}
            if request.path.startswith("/v2/"):
                time.sleep(pace.delay)
                registry.seen.append(seen)
            connection.sendall(f"{head}\r\n".encode())
            if request.method != "HEAD":
                seen["first_byte_at"] = time.monotonic()
                _send(connection, answer.body, pace.bandwidth)


def _read(connection: socket.socket) -> Request | None:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        received = connection.recv(65536)
        if not received:
            return None
        head += received
    method, target, _ = head.split(b" ", 2)
    path, _, query = target.decode().partition("?")
    return Request(method.decode(), path, dict(parse_qsl(query)))


def _send(connection: socket.socket, body: bytes | Layer, bandwidth: float) -> None:
    if isinstance(body, bytes):
        connection.sendall(body)
        return
    step = min(_PIECE, max(4096, int(bandwidth / _STEPS))) if bandwidth else _PIECE
    began, sent = time.monotonic(), 0
    while sent < body.size:
        piece = body.piece(sent, step)
        connection.sendall(piece)
        sent += len(piece)
        if bandwidth:
            time.sleep(max(0.0, began + sent / bandwidth - time.monotonic()))


def main() -> None:
    """Serve at the port of 127.0.0.1 that the command line names, until killed."""
    registry = Registry()
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=1024) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_serve, args=(registry, connection), daemon=True).start()


if __name__ == "__main__":
    main()
