"""The bytes of a gzip stream, bounded, and as Go's ``compress/gzip`` gives them out: agents read with that.

What can be had before the stream turns out to be damaged or cut short is given out; then `Broken` is raised. Sources:
RFC 1951 (deflate), RFC 1952 (gzip).
"""

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

PIECE = 256 * 1024
"""Bytes that come out at a time, at most."""

_TAKEN = 64 * 1024
_MAGIC = b"\x1f\x8b\x08"
_HEADER_CRC, _EXTRA, _NAME, _COMMENT = 0x02, 0x04, 0x08, 0x10
_LONGEST_TEXT = 512
"""Bytes of a file's name or of a comment in a gzip header, with the zero at its end: what Go takes."""


class Broken(Exception):
    """What is read is no archive, is damaged or is over a limit; the message is one sentence, without a full stop."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of an archive is read. Sizes in bytes.

    ``output``: what it unpacks to; agents read 256 MiB. ``ratio``: how many times its size it unpacks to, where that is
    more than ``ratio_from`` bytes. ``members``: of the gzip stream. ``entries``: of the tar, with the headers that say
    more about one. ``header``: one such, as in Go; ``headers``: all of them. ``path``: a name. ``modules``: how many
    files are told that are named plugin.wasm, and how many others.
    """

    output: int = 256 << 20
    ratio: int = 200
    ratio_from: int = 64 << 20
    members: int = 50_000
    entries: int = 50_000
    header: int = 1 << 20
    headers: int = 4 << 20
    path: int = 4096
    modules: int = 16


LIMITS = Limits()


def inflated(chunks: Iterable[bytes | memoryview], limits: Limits) -> Iterator[bytes]:
    """What a gzip stream of any number of members holds, in pieces of `PIECE` bytes at most. Raises `Broken`."""
    source = _Source(chunks)
    if not source.more():
        raise Broken("it is empty")
    unpacked = members = 0
    while source.more():
        members += 1
        if members > limits.members:
            raise Broken(f"its gzip stream has more than {limits.members:,} members")
        if not _read_header(source):
            raise Broken("bytes that are no gzip stream follow the first one" if unpacked else "it is not gzipped")
        for piece in _member(source):
            room = limits.output - unpacked
            if len(piece) > room:
                yield piece[:room]
                raise Broken(f"it unpacks to more than {limits.output:,} bytes")
            unpacked += len(piece)
            if unpacked > limits.ratio_from and unpacked > limits.ratio * source.taken:
                raise Broken(f"it unpacks to more than {limits.ratio} times its size")
            yield piece


class _Source:
    """The compressed bytes. ``taken`` is how many were taken and not given back."""

    def __init__(self, chunks: Iterable[bytes | memoryview]) -> None:
        self._chunks = iter(chunks)
        self._chunk = memoryview(b"")
        self._at = 0
        self.taken = 0

    def more(self) -> bool:
        """Whether any byte is left."""
        while self._at == len(self._chunk):
            chunk = next(self._chunks, None)
            if chunk is None:
                return False
            self._chunk, self._at = memoryview(chunk), 0
        return True

    def piece(self, most: int = _TAKEN) -> memoryview:
        """The next bytes, ``most`` at most; none at the end."""
        self.more()
        piece = self._chunk[self._at : self._at + most]
        self._at += len(piece)
        self.taken += len(piece)
        return piece

    def give_back(self, count: int) -> None:
        """Undo the end of the last `piece`."""
        self._at -= count
        self.taken -= count

    def exactly(self, count: int) -> bytes:
        """The next ``count`` bytes. Raises `Broken` where they are not there."""
        found = b""
        while len(found) < count:
            piece = self.piece(count - len(found))
            if not piece:
                raise _cut_short()
            found += piece
        return found

    def text(self) -> bytes | None:
        """The bytes up to a zero, with it; None where that is too far away."""
        found = b""
        while len(found) < _LONGEST_TEXT:
            piece = bytes(self.piece(_LONGEST_TEXT - len(found)))
            if not piece:
                raise _cut_short()
            text, zero, rest = piece.partition(b"\0")
            found += text + zero
            if zero:
                self.give_back(len(rest))
                return found
        return None


def _read_header(source: _Source) -> bool:
    """Read over the header of a member; False: it is none. Raises `Broken` when it is cut short."""
    header = source.exactly(10)
    flags = header[3]
    if not header.startswith(_MAGIC):
        return False
    if flags & _EXTRA:
        length = source.exactly(2)
        header += length + source.exactly(int.from_bytes(length, "little"))
    for flag in (_NAME, _COMMENT):
        if flags & flag:
            text = source.text()
            if text is None:
                return False
            header += text
    return not flags & _HEADER_CRC or int.from_bytes(source.exactly(2), "little") == zlib.crc32(header) & 0xFFFF


def _member(source: _Source) -> Iterator[bytes]:
    """The content of a member whose header was read. Its checksum is compared once all was given out, as Go does."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    checksum = size = 0
    while not inflater.eof:
        piece = source.piece()
        before = inflater.copy()
        try:
            content = inflater.decompress(piece, PIECE)
        except zlib.error as error:
            yield _up_to_the_damage(before, piece)
            raise Broken("its gzip stream is damaged") from error
        source.give_back(len(inflater.unused_data if inflater.eof else inflater.unconsumed_tail))
        if content:
            checksum = zlib.crc32(content, checksum)
            size += len(content)
            yield content
        elif not piece and not inflater.eof:
            raise _cut_short()
    if source.exactly(8) != checksum.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little"):
        raise Broken("its gzip stream is damaged: the checksum is wrong")


def _up_to_the_damage(inflater: "zlib._Decompress", piece: memoryview) -> bytes:
    """What comes out of a piece before its damage: zlib keeps that to itself when it meets it in one call."""
    found = bytearray()
    try:
        for at in range(len(piece)):
            found += inflater.decompress(piece[at : at + 1])
    except zlib.error:
        pass
    return bytes(found)


def _cut_short() -> Broken:
    return Broken("its gzip stream is cut short")
