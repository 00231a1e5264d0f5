"""The modules in a gzipped tar: which there are, and the bytes of one. Streamed and bounded; blocks.

An agent takes the first entry whose base name is ``plugin.wasm``, of whatever type, and looks no further; so all such
entries are told. Other files that begin as Wasm does are told too, for the words of a verdict.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mirror.wasm.inflate import LIMITS, Broken, Limits, inflated
from mirror.wasm.tar import Header, Tar

__all__ = ["LIMITS", "ArchiveError", "Entry", "Limits", "extract", "modules_in"]

PLUGIN = b"plugin.wasm"
_MAGIC = b"\0asm"
_PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry that is named plugin.wasm, or a file that begins as Wasm does (``magic``).

    ``index`` counts all entries of the archive, from 0; ``name`` is the whole path, what is no UTF-8 in it escaped;
    ``size`` in bytes. Not ``regular``: a link, a folder or a device, which has no content.
    """

    index: int
    name: str
    size: int
    magic: bool
    regular: bool = True

    @property
    def named(self) -> bool:
        """Whether agents look for it."""
        return self.name.rstrip("/").rpartition("/")[2] == PLUGIN.decode()


class ArchiveError(Exception):
    """An archive that cannot be read to its end; the message is one sentence.

    ``found`` is what stood before the fault, whole: agents, which stop at the first plugin.wasm, may never meet it.
    """

    def __init__(self, message: str, found: tuple[Entry, ...] = ()) -> None:
        super().__init__(message)
        self.found = found


def modules_in(chunks: Iterable[bytes | memoryview], limits: Limits = LIMITS) -> list[Entry]:
    """The modules of an archive, in its order: `Limits.modules` with the name and as many others, the first ones.

    Raises `ArchiveError`.
    """
    named: list[Entry] = []
    others: list[Entry] = []
    tar = Tar(inflated(chunks, limits), limits)
    try:
        for index, header in _entries(tar):
            is_named = header.base == PLUGIN
            kept = named if is_named else others
            if len(kept) < limits.modules and (is_named or header.regular):
                magic = _begins_as_wasm(tar, header)
                if magic or is_named:
                    _read_over(tar)
                    kept.append(Entry(index, _text(header.name), header.size, magic, header.regular))
    except Broken as error:
        raise ArchiveError(_sentence(error), tuple(_in_order(named, others))) from error
    return _in_order(named, others)


def extract(chunks: Iterable[bytes | memoryview], entry: Entry, limits: Limits = LIMITS) -> Iterator[bytes]:
    """The bytes of an entry, in pieces of a megabyte at most; no more of the archive is read than that takes.

    Raises `ArchiveError`, also where no such entry is there.
    """
    tar = Tar(inflated(chunks, limits), limits)
    try:
        for index, header in _entries(tar):
            if index == entry.index:
                if (_text(header.name), header.size, header.regular) != (entry.name, entry.size, True):
                    break
                while piece := tar.read(_PIECE):
                    yield piece
                return
    except Broken as error:
        raise ArchiveError(_sentence(error)) from error
    raise ArchiveError(f"the archive holds no file {entry.name!r} of {entry.size:,} bytes as its entry {entry.index}")


def _entries(tar: Tar) -> Iterator[tuple[int, Header]]:
    index = 0
    while (header := tar.next()) is not None:
        yield index, header
        index += 1


def _begins_as_wasm(tar: Tar, header: Header) -> bool:
    if not header.regular:
        return False
    head = b""
    while len(head) < len(_MAGIC) and (more := tar.read(len(_MAGIC) - len(head))):
        head += more
    return head == _MAGIC


def _read_over(tar: Tar) -> None:
    """Read an entry to its end: only what is there whole counts."""
    while tar.read(_PIECE):
        pass


def _in_order(named: list[Entry], others: list[Entry]) -> list[Entry]:
    return sorted(named + others, key=lambda entry: entry.index)


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


def _sentence(error: Broken) -> str:
    return f"the archive cannot be read: {error}"
