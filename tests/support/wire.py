"""HTTP/1.1 as the fake registry speaks it: reading a request, and sending an answer with all that goes wrong."""

import asyncio
import re
import socket
import struct
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from tests.support.contents import Answer
from tests.support.faults import Content, Fault, spoilt

_CHUNK = 262144
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(slots=True)
class Request:
    """A request as it came. ``status`` and ``sent`` (bytes of the body) are filled in while it is answered."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    """Names in lower case."""
    body: bytearray
    """As much of it as has come."""
    connection: int
    """Which connection it came on: 1 for the first."""
    status: int | None = None
    sent: int = 0


async def read_request(reader: asyncio.StreamReader, connection: int) -> Request:
    """The head of a connection's next request; raises `ConnectionError` for what is not HTTP."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        method, target, _ = first.split(" ")
    except (ValueError, asyncio.LimitOverrunError) as problem:
        raise ConnectionError("this is not HTTP") from problem
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    path, _, query = target.partition("?")
    return Request(method, unquote(path), dict(parse_qsl(query)), headers, bytearray(), connection)


async def read_body(reader: asyncio.StreamReader, request: Request, fault: Fault) -> bool:
    """Read the rest of a request, as ``fault`` has it; whether all of it has come."""
    chunked = "chunked" in request.headers.get("transfer-encoding", "")
    left = None if chunked else int(request.headers.get("content-length", "0"))
    while left != 0:
        if left is None or (chunked and left < 0):
            left = int(await reader.readline(), 16)
            if left == 0:
                await reader.readline()
                return True
        if fault.body_gate is not None and len(request.body) >= fault.body_gate_at:
            await fault.body_gate.pass_through()
        stop = fault.body_until
        if stop is not None and len(request.body) >= stop:
            return False
        piece = await reader.read(min(left, _CHUNK))
        if not piece:
            raise ConnectionError("the client left in the middle")
        request.body += piece
        left -= len(piece)
        if chunked and left == 0:
            await reader.readline()
            left = -1
    return True


def close(writer: asyncio.StreamWriter, fault: Fault) -> None:
    """Close the connection as ``fault`` has it: with RST at once, or later, by the caller, with FIN."""
    if fault.reset:
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()


class Sending:
    """One answer on its way, with all that its fault does to it."""

    def __init__(self, request: Request, answer: Answer, fault: Fault) -> None:
        self._request = request
        self._fault = fault
        self._content: Content = spoilt(answer.content, fault)
        self._start, self._stop = 0, self._content.size
        self._status = answer.status
        self._headers: dict[str, str] = dict(answer.headers)
        if answer.ranges and answer.status == 200 and not fault.ignore_range:
            self._apply_range(request.headers.get("range", ""))
        request.status = self._status

    def _apply_range(self, asked: str) -> None:
        match = _RANGE.fullmatch(asked)
        if match is None or asked == "bytes=-":
            return
        size = self._content.size
        first = int(match[1]) if match[1] else max(0, size - int(match[2]))
        last = min(int(match[2]), size - 1) if match[1] and match[2] else size - 1
        if first >= size or last < first:
            self._status, self._start, self._stop = 416, 0, 0
            self._headers["content-range"] = f"bytes */{size}"
            return
        self._status, self._start, self._stop = 206, first, last + 1
        self._headers["content-range"] = f"bytes {first}-{last}/{size}"

    def head(self) -> bytes:
        """Status line and header."""
        fault, headers = self._fault, self._headers
        if fault.framing == "chunked":
            headers["transfer-encoding"] = "chunked"
        elif fault.framing == "length":
            headers["content-length"] = str(self._stop - self._start + fault.length_off_by)
        if fault.framing == "close" or fault.length_off_by:
            headers["connection"] = "close"
        if fault.gzip:
            headers["content-encoding"] = "gzip"
        if fault.retry_after is not None:
            headers["retry-after"] = str(fault.retry_after)
        merged: dict[str, str | None] = {**headers, **fault.headers}
        lines = [f"{name}: {value}\r\n" for name, value in merged.items() if value is not None]
        return f"HTTP/1.1 {self._status} Fake\r\n{''.join(lines)}\r\n".encode("latin-1")

    async def body(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Send the body; whether the connection may serve another request."""
        fault, sent, total = self._fault, 0, self._stop - self._start
        clock = asyncio.get_running_loop().time
        began = clock()
        while True:
            if fault.gate is not None and sent == min(fault.gate_at, total):
                await fault.gate.pass_through()
            if sent == fault.stall_after:
                await reader.read()  # until the client closes
                return False
            if sent == fault.cut_after:
                close(writer, fault)
                return False
            if sent == total:
                break
            piece = self._content.piece(self._start + sent, self._start + self._next_stop(sent, total))
            await self._write(writer, piece)
            sent += len(piece)
            self._request.sent = sent
            if fault.bandwidth is not None:
                await asyncio.sleep(max(0.0, began + sent / fault.bandwidth - clock()))
        if fault.framing == "chunked":
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        return fault.framing != "close" and not fault.length_off_by

    def _next_stop(self, sent: int, total: int) -> int:
        """How far the next piece may reach: to the next place where something happens."""
        fault = self._fault
        size = _CHUNK if fault.bandwidth is None else max(1, min(_CHUNK, int(fault.bandwidth / 50)))
        places = [place for place in (fault.gate_at, fault.stall_after, fault.cut_after, total) if place is not None]
        return min([sent + size, *(place for place in places if place > sent)])

    async def _write(self, writer: asyncio.StreamWriter, piece: memoryview) -> None:
        if self._fault.framing == "chunked":
            writer.write(b"%x\r\n" % len(piece))
            writer.write(piece)
            writer.write(b"\r\n")
        else:
            writer.write(piece)
        await writer.drain()
