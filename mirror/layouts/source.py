"""The bytes of an archive on their way: a stream that is read in portions of one's own, and what a gzip stream holds.

Sources: RFC 1952 (gzip); image-layout.md of the OCI image specification 1.1 leaves compression to whoever transports.
"""

import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from mirror.errors import ArchiveInvalid

PIECE = 256 * 1024
"""Bytes that come out at a time, at most."""

_GZIP = b"\x1f\x8b"
_OTHERS = {b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"PK\x03\x04": "zip"}
_MAX_MEMBERS = 10_000


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of an archive is read. Sizes in bytes.

    ``total``: all its files, unpacked. ``ratio``: how many times its size a gzipped one unpacks to, where that is more
    than ``ratio_from``. ``entries``: of the tar. ``document``: index.json; ``name``: an entry's.
    """

    total: int
    ratio: int = 200
    ratio_from: int = 64 << 20
    entries: int = 100_000
    document: int = 4 << 20
    name: int = 4096


class Source:
    """A stream, read in portions. ``taken`` is the number of bytes that were."""

    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        self._stream = stream
        self._piece = memoryview(b"")
        self.taken = 0

    async def take(self, most: int) -> memoryview:
        """The next bytes, ``most`` at most; none at the end."""
        while not self._piece:
            piece = await anext(self._stream, None)
            if piece is None:
                return memoryview(b"")
            self._piece = memoryview(piece)
        found, self._piece = self._piece[:most], self._piece[most:]
        self.taken += len(found)
        return found

    async def exactly(self, count: int) -> bytes:
        """The next ``count`` bytes; fewer at the end. For small numbers."""
        found = bytes(await self.take(count))
        while len(found) < count and (more := await self.take(count - len(found))):
            found += more
        return found

    def give_back(self, data: bytes | memoryview) -> None:
        """Undo the end of what was taken."""
        self._piece = memoryview(bytes(data) + bytes(self._piece))
        self.taken -= len(data)


async def opened(stream: AsyncIterator[bytes], limits: Limits) -> Source:
    """The archive in ``stream``, which may be gzipped. Raises `ArchiveInvalid` for other compression, and for nothing.

    The source itself raises it where the gzip stream is damaged, cut short, or unpacks to far more than its size.
    """
    source = Source(stream)
    head = await source.exactly(6)
    source.give_back(head)
    if not head:
        raise ArchiveInvalid("the archive is empty; send a tar of an OCI image layout")
    for magic, name in _OTHERS.items():
        if head.startswith(magic):
            raise ArchiveInvalid(f"the archive is compressed with {name}; send a plain tar, or a gzipped one")
    return Source(_inflated(source, limits)) if head.startswith(_GZIP) else source


async def _inflated(source: Source, limits: Limits) -> AsyncIterator[bytes]:
    """What a gzip stream of any number of members holds, in pieces of `PIECE` bytes at most."""
    unpacked = members = 0
    while pending := bytes(await source.take(PIECE)):
        members += 1
        if members > _MAX_MEMBERS:
            raise ArchiveInvalid(f"the archive's gzip stream has more than {_MAX_MEMBERS:,} members")
        inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
        while not inflater.eof:
            try:
                content = inflater.decompress(pending, PIECE)
            except zlib.error as error:
                words = "bytes that are no gzip stream follow the first one" if members > 1 else "it is damaged"
                raise ArchiveInvalid(f"the archive's gzip stream cannot be read: {words}") from error
            pending = inflater.unconsumed_tail
            if content:
                unpacked += len(content)
                if unpacked > limits.ratio_from and unpacked > limits.ratio * source.taken:
                    raise ArchiveInvalid(
                        f"the archive unpacks to more than {limits.ratio} times its size; send it plain"
                    )
                yield content
            elif not inflater.eof and not pending:
                pending = bytes(await source.take(PIECE))
                if not pending:
                    raise ArchiveInvalid("the archive is cut short: its gzip stream ends in the middle")
        source.give_back(inflater.unused_data)
