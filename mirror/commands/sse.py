"""Server-sent events, out of the bytes of a stream. Pure.

Source: WHATWG HTML, section 9.2.6 "Interpreting an event stream".
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from mirror.errors import CommandError

MAX_EVENT: Final = 1024 * 1024
"""Bytes of one event, or of a line, at most."""


@dataclass(frozen=True, slots=True)
class Event:
    """``id`` is that of the last event which had one, this one or an earlier one."""

    kind: str
    data: str
    id: str | None


def events(pieces: Iterable[bytes]) -> Iterator[Event]:
    """The events of a stream as they become whole; one that the end cuts is none. Raises `CommandError`."""
    kind, identity = "message", None
    data: list[str] = []
    length = 0
    for line in _lines(pieces):
        if not line:
            if data:
                yield Event(kind, "\n".join(data), identity)
            kind, data, length = "message", [], 0
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data.append(value)
            length += len(value)
            if length > MAX_EVENT:
                raise _too_long()
        elif name == "event":
            kind = value or "message"
        elif name == "id" and "\0" not in value:
            identity = value


def _lines(pieces: Iterable[bytes]) -> Iterator[str]:
    """Lines that end with LF, CR LF, or CR as long as more follows it in the same piece."""
    rest = b""
    for piece in pieces:
        whole = (rest + piece).replace(b"\r\n", b"\n")
        held = whole.endswith(b"\r")  # its LF may be in the next piece
        *lines, rest = (whole[:-1] if held else whole).replace(b"\r", b"\n").split(b"\n")
        rest += b"\r" if held else b""
        if len(rest) > MAX_EVENT:
            raise _too_long()
        for line in lines:
            yield line.decode("utf-8", "replace")


def _too_long() -> CommandError:
    return CommandError(f"the mirror sent an event of more than {MAX_EVENT:,} bytes; is it a wasm-mirror?")
