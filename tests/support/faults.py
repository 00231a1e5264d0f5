"""What can go wrong with a registry's answer: faults, the rules that say which requests meet them, and gates.

All sizes are in bytes, all times in seconds. Nothing here knows a socket: `upstream` acts on what stands here.
"""

import asyncio
import gzip
import re
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, fields, replace
from types import TracebackType
from typing import Literal, Self


class Gate:
    """A place in an answer where it stops until the test lets it go on; so that no test needs to sleep.

    Thread-safe. Once released it stays open. One gate may hold any number of answers.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arrival = threading.Condition(self._lock)
        self._open = False
        self._arrived = 0
        self._held: list[Future[None]] = []

    @property
    def arrived(self) -> int:
        """How many answers have come to the gate so far."""
        return self._arrived

    def wait(self, arrivals: int = 1, within: float = 10.0) -> None:
        """Block until so many answers have come to the gate. From a coroutine use `reached`."""
        with self._arrival:
            if not self._arrival.wait_for(lambda: self._arrived >= arrivals, within):
                raise TimeoutError(f"{self._arrived} of {arrivals} answers came to the gate within {within} s")

    async def reached(self, arrivals: int = 1, within: float = 10.0) -> None:
        """`wait`, without blocking the loop."""
        await asyncio.to_thread(self.wait, arrivals, within)

    def release(self) -> None:
        """Open the gate, for those that are held and for all that come later."""
        with self._lock:
            self._open = True
            held, self._held = self._held, []
        for future in held:
            if future.set_running_or_notify_cancel():
                future.set_result(None)

    async def pass_through(self) -> None:
        """Called by the server: return when the gate is open."""
        with self._arrival:
            self._arrived += 1
            self._arrival.notify_all()
            if self._open:
                return
            future: Future[None] = Future()
            self._held.append(future)
        await asyncio.wrap_future(future)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with an answer. Fields combine; an empty fault changes nothing.

    "Body" positions (``cut_after``, ``stall_after``, ``gate_at``) count the bytes of this one answer; "content"
    positions (``flip_at``, ``tamper_from``) count from the content's first byte, also when a range is answered, and
    from its end when negative.
    """

    # While the request's body is read.
    body_gate: Gate | None = None
    body_gate_at: int = 0
    """Wait at `body_gate` when so many bytes of the request's body were read."""
    body_until: int | None = None
    """Read no more than about so many bytes of the request's body: then comes the answer, and the connection's end."""

    # Before the status line, in this order.
    delay: float = 0.0
    """Wait before the answer."""
    hold: Gate | None = None
    """Wait at this gate before the answer."""
    drop: bool = False
    """Close the connection without an answer."""
    hang: bool = False
    """Never answer; the connection stays open until the client closes it."""

    # Another answer.
    status: int | None = None
    """Answer with this status and an OCI error body."""
    code: str = "UNKNOWN"
    """The error code of that body."""
    retry_after: str | int | None = None
    html: bool = False
    """Answer with a page of HTML, and with 200 unless `status` says otherwise."""
    redirect: str | None = None
    """Answer 307 with this ``Location``; ``{path}`` in it stands for the request's path. `status` may change 307."""

    # The head.
    headers: Mapping[str, str | None] = field(default_factory=dict)
    """Header fields to set (names in lower case), or to leave out (``None``): ``{"docker-content-digest": None}``."""
    length_off_by: int = 0
    """Added to a right ``Content-Length``; the connection is closed after the body."""
    framing: Literal["length", "chunked", "close"] = "length"
    """How the body's end is told; without ``Content-Length`` for the latter two."""
    ignore_range: bool = False
    """Answer 200 with everything to a request for a range."""

    # The content.
    flip_at: int | None = None
    """Flip one bit of this byte of the content."""
    tamper_from: int | None = None
    """Invert all bytes of the content from this one on."""
    truncate_to: int | None = None
    """The registry holds only so many bytes of the content, and says so in ``Content-Length``."""
    pad_to: int | None = None
    """The content is followed by spaces, up to this size; made while it is sent."""
    gzip: bool = False
    """Send the body with ``Content-Encoding: gzip``, though nobody asked for it."""

    # The body's way.
    bandwidth: float | None = None
    """Bytes per second on each connection."""
    gate: Gate | None = None
    gate_at: int = 0
    """Wait at `gate` when so many bytes of the body were sent."""
    stall_after: int | None = None
    """Send nothing more after so many bytes of the body; the connection stays open until the client closes it."""
    cut_after: int | None = None
    """Close the connection after so many bytes of the body."""
    reset: bool = False
    """Close with RST instead of FIN (for `drop` and `cut_after`)."""


NOTHING = Fault()


class Rule:
    """A fault together with the requests that meet it. Thread-safe; also a context manager that removes it.

    ``hits`` counts the answers that met it.
    """

    def __init__(self, fault: Fault, method: str | None, path: str | None, times: int | None, skip: int) -> None:
        self.fault = fault
        self.hits = 0
        self._method = method
        self._path = re.compile(path) if path is not None else None
        self._times = times
        self._skip = skip
        self._active = True
        self._lock = threading.Lock()

    def remove(self) -> None:
        """From now on no request meets the fault; answers under way keep it."""
        self._active = False

    def met_by(self, method: str, path: str) -> bool:
        """Whether this request meets the fault; each call counts as a request."""
        if not self._active or (self._method is not None and method != self._method):
            return False
        if self._path is not None and not self._path.search(path):
            return False
        with self._lock:
            if self._skip > 0:
                self._skip -= 1
                return False
            if self._times is not None and self.hits >= self._times:
                return False
            self.hits += 1
            return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def combined(faults: list[Fault]) -> Fault:
    """All the faults in one; where two set the same field, the later one counts."""
    result = NOTHING
    for fault in faults:
        changes = {
            item.name: value
            for item in fields(Fault)
            if (value := getattr(fault, item.name)) != getattr(NOTHING, item.name)
        }
        if fault.headers:
            changes["headers"] = {**result.headers, **fault.headers}
        result = replace(result, **changes)
    return result


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes to send: those of ``data``, then so many spaces."""

    data: memoryview
    padding: int = 0

    @property
    def size(self) -> int:
        return len(self.data) + self.padding

    def piece(self, start: int, stop: int) -> memoryview:
        """Some of the bytes from ``start`` on, at least one, and none from ``stop`` on."""
        if start < len(self.data):
            return self.data[start:stop]
        return _SPACES[: stop - start]


_SPACES = memoryview(b" " * 262144)
_INVERTED = bytes(255 - value for value in range(256))


def spoilt(content: bytes, fault: Fault) -> Content:
    """``content`` after all that ``fault`` does to it."""
    if fault.flip_at is not None:
        changed = bytearray(content)
        changed[fault.flip_at] ^= 1
        content = bytes(changed)
    if fault.tamper_from is not None:
        content = content[: fault.tamper_from] + content[fault.tamper_from :].translate(_INVERTED)
    if fault.truncate_to is not None:
        content = content[: fault.truncate_to]
    if fault.gzip:
        content = gzip.compress(content, compresslevel=1, mtime=0)
    return Content(memoryview(content), max(0, (fault.pad_to or 0) - len(content)))
