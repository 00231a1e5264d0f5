"""An OCI image layout as a tar archive, written as it is sent. The same content gives the same bytes, on any machine.

POSIX.1-2017, pax, "ustar Interchange Format": all files are root's, may be read by all, and are from 1970.
"""

import tarfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from mirror.digest import Digest
from mirror.layouts import layout
from mirror.layouts.layout import Named

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)

Read = Callable[[Digest], AsyncIterator[bytes]]
"""Gives the bytes of a blob, piece by piece, as many as were announced."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What an archive is to hold: what index.json names, and the blobs with their sizes in bytes, in this order."""

    entries: Sequence[Named]
    blobs: Sequence[tuple[Digest, int]]

    def size(self) -> int:
        """Bytes of the whole archive."""
        size = sum(len(content) for content in self._head()) + len(_END)
        return size + sum(len(_header(layout.blob_name(at), one)) + one + -one % _BLOCK for at, one in self.blobs)

    async def written(self, read: Read) -> AsyncGenerator[bytes]:
        """The archive. Raises what ``read`` raises."""
        for content in self._head():
            yield content
        for digest, size in self.blobs:
            yield _header(layout.blob_name(digest), size)
            async for piece in read(digest):
                yield piece
            yield bytes(-size % _BLOCK)
        yield _END

    def _head(self) -> Sequence[bytes]:
        """All before the blobs: so what the archive holds is known before they come."""
        algorithms = sorted({digest.algorithm for digest, _ in self.blobs})
        folders = [layout.BLOBS, *(f"{layout.BLOBS}/{algorithm}" for algorithm in algorithms)]
        return [
            _file(layout.MARK, layout.mark()),
            _file(layout.INDEX, layout.index(self.entries)),
            *(_header(folder, 0, folder=True) for folder in folders),
        ]


def _file(name: str, content: bytes) -> bytes:
    return _header(name, len(content)) + content + bytes(-len(content) % _BLOCK)


def _header(name: str, size: int, *, folder: bool = False) -> bytes:
    """With a pax header before it, where the name or the size are too long for the plain one."""
    info = tarfile.TarInfo(name)
    info.size = size
    if folder:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    return info.tobuf(tarfile.PAX_FORMAT)
