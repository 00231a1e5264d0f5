"""A client that says exactly what it is told, and sees exactly what comes: HTTP/1.1 on a socket, one request each.

Other clients correct paths, join headers and hide where a body was cut.
"""

import asyncio
import contextlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Headers = Mapping[str, str] | Iterable[tuple[str, str]]


@dataclass(frozen=True, slots=True, repr=False)
class Reply:
    """An answer. ``headers`` are as they came, with their names in lower case.

    ``whole``: the body ended where its framing says that it ends; False when the connection was cut before that.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    whole: bool

    def __repr__(self) -> str:
        """Short, for failed assertions."""
        return f"<{self.status} {self.headers} {len(self.body)} bytes {self.body[:500]!r} whole={self.whole}>"

    def header(self, name: str) -> str | None:
        """The one field with this name, None without it; raises `AssertionError` when there are several."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) < 2, f"{name} came {len(values)} times"
        return values[0] if values else None

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an OCI error body; raises `AssertionError` for any other body."""
        assert self.header("content-type") == "application/json", self
        (error,) = self.json["errors"]
        assert error.keys() <= {"code", "message", "detail"}, error
        assert isinstance(error["code"], str), error
        assert error["message"], error
        return str(error["code"])

    @property
    def message(self) -> str:
        """The message of an OCI error body."""
        return str(self.json["errors"][0]["message"])

    @property
    def detail(self) -> Any:
        """The detail of an OCI error body, or None."""
        return self.json["errors"][0].get("detail")


async def ask(
    address: tuple[str, int], target: str, *, method: str = "GET", headers: Headers = (), body: bytes = b""
) -> Reply:
    """Send one request, and take in all that comes until the server closes the connection.

    ``target`` goes into the request line as it is. ``Host`` is the address, unless ``headers`` name another.
    """
    fields = list(headers.items() if isinstance(headers, Mapping) else headers)
    if not any(name.lower() == "host" for name, _ in fields):
        fields.append(("Host", f"{address[0]}:{address[1]}"))
    if body:
        fields.append(("Content-Length", str(len(body))))
    lines = "".join(f"{name}: {value}\r\n" for name, value in [*fields, ("Connection", "close")])
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode() + body)
        return await _reply(reader, method)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def held_to_its_word(method: str, target: str, reply: Reply) -> Reply:
    """``reply``; raises `AssertionError` for one of the admin API that is not what its own document says."""
    if target.startswith("/api/v1/"):
        from tests.support.admin import hold  # with a validator that takes a while to load

        hold(method, target, reply.status, reply.headers, reply.body)
    return reply


async def _reply(reader: asyncio.StreamReader, method: str) -> Reply:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    status = int(first.split(" ")[1])
    rest = bytearray()
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(1 << 20):
            rest += piece
    fields = dict(headers)
    if method == "HEAD" or status in (204, 304):
        body, whole = bytes(rest), not rest
    elif fields.get("transfer-encoding") == "chunked":
        body, whole = _unchunked(bytes(rest))
    else:
        body, whole = bytes(rest), len(rest) == int(fields["content-length"])
    return Reply(status, tuple(headers), body, whole)


def _unchunked(rest: bytes) -> tuple[bytes, bool]:
    """The content of as many chunks as came whole, and whether the last one was among them."""
    content = bytearray()
    while (end := rest.find(b"\r\n")) >= 0:
        size = int(rest[:end], 16)
        if size == 0:
            return bytes(content), True
        content += rest[end + 2 : end + 2 + size]
        rest = rest[end + 4 + size :]
    return bytes(content), False
