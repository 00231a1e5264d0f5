"""A few numbers and a line of text about each of some names, which all workers on a disk see without a system call.

The file holds a header and `_SLOTS` slots of `_SLOT` bytes. A name lies in the slot of its hash, or in the next free
one after it. A slot is written whole, by one write under an flock, and has a checksum: a reader that meets one half
written looks again, and passes over one that stays so. What the numbers mean is the business of who writes them; as
they are mostly times of a clock that begins anew with the machine, a file from before the last start is emptied.
"""

import fcntl
import hashlib
import logging
import mmap
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

NUMBERS = 12
"""Numbers that a note can hold."""

TEXT = 128
"""Bytes of text that a note can hold."""

_FORMAT = b"wasm-mirror board 1\n"
_HEADER = 256
_SLOT = 256
_SLOTS = 255
_SIZE = _HEADER + _SLOTS * _SLOT
_KEY = 16
_BODY = struct.Struct(f"={_KEY}s{NUMBERS}dB{TEXT}s")
_CHECKSUM = struct.Struct("=L")
_LOOKS = 100
"""Times that a slot is read before it is taken for damaged; a write takes about as long as one of them."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Note:
    """What stands in a slot."""

    numbers: tuple[float, ...] = (0.0,) * NUMBERS
    text: str = ""


_EMPTY = Note()


class Board:
    """Notes by name. Without a path it works for this process alone, as it does for the names that its file fails.

    It is written by writes, not through the map: a full disk then gives an error, and not a signal that kills.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._fd = -1
        self._here: dict[str, Note] = {}
        self._map: mmap.mmap | None = None
        if path is not None:
            try:
                self._attach(path, _header())
            except OSError as error:
                log.error("%s cannot be used (%s): workers will not learn from one another", path, error.strerror)
                self.close()

    def get(self, name: str) -> Note:
        """What is noted of ``name``; an empty note if nothing is."""
        if self._map is None or name in self._here:
            return self._here.get(name, _EMPTY)
        key = _key(name)
        for offset in _places(key):
            found = self._read(offset)
            if found is None:
                break
            if found[0] == key:
                return found[1]
        return _EMPTY

    def change(self, name: str, step: Callable[[Note], Note]) -> Note:
        """Note what ``step`` makes of what is noted, with nobody's change in between; and return it."""
        if self._map is not None and name not in self._here:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX)
                try:
                    return self._change_file(name, step)
                finally:
                    fcntl.flock(self._fd, fcntl.LOCK_UN)
            except OSError as error:
                log.error("the disk fails (%s): other workers will not learn of %s", error.strerror or error, name)
        note = self._here[name] = step(self.get(name))
        return note

    def close(self) -> None:
        """Let go of the file."""
        if self._map is not None:
            self._map.close()
            self._map = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _attach(self, path: Path, header: bytes) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            if os.pread(self._fd, _HEADER, 0) != header or os.fstat(self._fd).st_size < _SIZE:
                os.pwrite(self._fd, bytes(_SIZE), 0)  # all of it, so that no disk that fills up later stops a write
                os.pwrite(self._fd, header, 0)
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        self._map = mmap.mmap(self._fd, _SIZE, access=mmap.ACCESS_READ)

    def _change_file(self, name: str, step: Callable[[Note], Note]) -> Note:
        key = _key(name)
        free, known = -1, _EMPTY
        for offset in _places(key):
            found = self._read(offset)
            if found is not None and found[0] == key:
                free, known = offset, found[1]
                break
            if free < 0 and (found is None or found[0] == b""):
                free = offset
            if found is None:
                break
        note = step(known)
        if free < 0:  # there are more names than slots
            self._here[name] = note
        elif note != known:
            os.pwrite(self._fd, _slot(key, note), free)
        return note

    def _read(self, offset: int) -> tuple[bytes, Note] | None:
        """The key and the note in a slot, None where nothing was ever written; no key where it is damaged."""
        assert self._map is not None
        for _ in range(_LOOKS):
            slot = self._map[offset : offset + _SLOT]
            body = slot[: _BODY.size]
            if _CHECKSUM.unpack_from(slot, _BODY.size)[0] == zlib.crc32(body):
                key, *numbers, length, text = _BODY.unpack(body)
                return key, Note(tuple(numbers), text[:length].decode(errors="replace"))
            if not any(slot):
                return None
        return b"", _EMPTY


def _slot(key: bytes, note: Note) -> bytes:
    text = note.text.encode()[:TEXT].decode(errors="ignore").encode()
    body = _BODY.pack(key, *note.numbers, len(text), text)
    return (body + _CHECKSUM.pack(zlib.crc32(body))).ljust(_SLOT, b"\0")


def _key(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=_KEY).digest()


def _places(key: bytes) -> Iterator[int]:
    """Where a note may lie, in the order in which that is looked for."""
    first = int.from_bytes(key[:8], "big")
    for step in range(_SLOTS):
        yield _HEADER + (first + step) % _SLOTS * _SLOT


def _header() -> bytes:
    """What a file begins with whose numbers mean something: its format, and when this machine was started."""
    try:
        boot = _BOOT_ID.read_bytes()
    except OSError:
        boot = b"unknown"
    return (_FORMAT + boot[:64]).ljust(_HEADER, b"\0")
