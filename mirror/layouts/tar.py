"""A tar archive, read forwards, strictly, and bounded: whatever two readers could take for two things is refused.

Files and folders are taken, with names that lead nowhere else; links, devices, sparse files, names that stand twice,
and an archive that does not end as one should are not. Whether names mean anything is for `mirror.layouts.layout`.
Sources: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar manual, "Basic Tar Format".
"""

import re
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from hashlib import blake2b

from mirror.errors import ArchiveInvalid
from mirror.layouts.source import PIECE, Limits, Source

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_FILES = frozenset({b"0", b"\0"})
_FOLDER, _PAX, _GLOBAL, _LONG_NAME = b"5", b"x", b"g", b"L"
_REFUSED = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"K": "a link",
    b"S": "a sparse file",
}
_MAX_HEADER = 64 * 1024
_SHOWN = 200  # characters of a name
_OCTAL = re.compile(rb"[0-7]{1,22}")
_DECIMAL = re.compile(rb"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or a folder: its name, without ``./`` before it or ``/`` behind it, and its size in bytes."""

    name: str
    size: int
    folder: bool


class Tar:
    """The entries of an archive, one after the other; whatever of an entry was not read is passed over.

    Methods raise `ArchiveInvalid`, and what the source raises.
    """

    def __init__(self, source: Source, limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._left = 0
        self._padding = 0
        self._blocks = 0
        self._total = 0
        self._names: set[bytes] = set()

    async def next(self) -> Entry | None:
        """The next entry; None at the end of the archive, behind which nothing comes but zeros."""
        async for _ in self.content():
            pass
        await self._skip_padding()
        records: Mapping[str, bytes] = {}
        long_name: bytes | None = None
        while (block := await self._header()) is not None:
            name, size, kind = _parse(block)
            if kind == _LONG_NAME:
                long_name = (await self._special(size)).rstrip(b"\0")
            elif kind == _PAX:
                records = _records(await self._special(size))
            elif kind == _GLOBAL:
                if {"path", "size"} & _records(await self._special(size)).keys():
                    raise ArchiveInvalid(
                        "the archive has a header that names all files alike; write it with another tar"
                    )
            else:
                name = records.get("path", name if long_name is None else long_name)
                return self._entry(name, _decimal(records["size"]) if "size" in records else size, kind)
        if records or long_name is not None:
            raise _cut_short()
        await self._end()
        return None

    async def content(self) -> AsyncGenerator[memoryview]:
        """What is left of the entry's content, in pieces."""
        while self._left:
            piece = await self._source.take(min(self._left, PIECE))
            if not piece:
                raise _cut_short()
            self._left -= len(piece)
            yield piece

    def _entry(self, raw: bytes, size: int, kind: bytes) -> Entry:
        name = self._name(raw)
        shown = name[:_SHOWN]
        if (what := _REFUSED.get(kind)) is not None:
            raise ArchiveInvalid(f"the archive holds {what}, {shown!r}; an OCI image layout has files and folders only")
        if kind not in _FILES and kind != _FOLDER:
            raise ArchiveInvalid(f"the archive's entry {shown!r} is of a kind that not all readers know: {kind!r}")
        folder = kind == _FOLDER or (kind == b"\0" and raw.endswith(b"/"))
        if folder and size:
            raise ArchiveInvalid(f"the archive's folder {shown!r} has content, which not all readers read alike")
        if not folder and (not name or raw.endswith(b"/")):
            raise ArchiveInvalid(f"the archive holds a file with the name of a folder, {shown + '/'!r}")
        self._total += size
        if self._total > self._limits.total:
            raise ArchiveInvalid(
                f"the archive holds more than {self._limits.total:,} bytes, and so more than cache.max_size of the "
                "mirror's settings allows; export fewer references at a time, or raise it"
            )
        mark = blake2b(name.encode(), digest_size=16).digest()
        if not folder and mark in self._names:
            raise ArchiveInvalid(f"the archive holds {shown!r} twice")
        self._names.add(mark)
        self._left, self._padding = size, -size % _BLOCK
        return Entry(name, size, folder)

    def _name(self, raw: bytes) -> str:
        """The name, if it leads to nowhere but a place of its own below the archive's root."""
        if len(raw) > self._limits.name:
            raise ArchiveInvalid(
                f"the archive holds a name of {len(raw):,} bytes; at most {self._limits.name:,} are read"
            )
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            raise ArchiveInvalid(f"the archive holds a name that is not UTF-8: {raw[:_SHOWN]!r}") from error
        if text.startswith("/"):
            raise ArchiveInvalid(f"the archive holds an absolute name, {text[:_SHOWN]!r}; write it with relative ones")
        parts = [part for part in text.split("/") if part not in ("", ".")]
        if ".." in parts or "\0" in text:
            raise ArchiveInvalid(f"the archive holds a name that leads out of it, {text[:_SHOWN]!r}")
        return "/".join(parts)

    async def _header(self) -> bytes | None:
        """The next header; None at the first block of zeros."""
        block = await self._source.exactly(_BLOCK)
        if len(block) < _BLOCK:
            raise _cut_short()
        if block == _ZEROS:
            return None
        self._blocks += 1
        if self._blocks > self._limits.entries:
            raise ArchiveInvalid(f"the archive has more than {self._limits.entries:,} entries")
        return block

    async def _special(self, size: int) -> bytes:
        """The content of a header that says more about the next entry."""
        if size > _MAX_HEADER:
            raise ArchiveInvalid(f"the archive has a header of {size:,} bytes; at most {_MAX_HEADER:,} are read")
        content = await self._source.exactly(size)
        if len(content) < size:
            raise _cut_short()
        self._padding = -size % _BLOCK
        await self._skip_padding()
        return content

    async def _skip_padding(self) -> None:
        if len(await self._source.exactly(self._padding)) < self._padding:
            raise _cut_short()
        self._padding = 0

    async def _end(self) -> None:
        """The second block of zeros, and the zeros with which a last record is filled up."""
        if len(block := await self._source.exactly(_BLOCK)) < _BLOCK:
            raise _cut_short()
        room = self._limits.document
        while block:
            if bytes(block).strip(b"\0"):
                raise ArchiveInvalid("the archive goes on behind its end; write it anew, for it may be damaged")
            room -= len(block)
            if room < 0:
                raise ArchiveInvalid("the archive is followed by zeros without an end")
            block = bytes(await self._source.take(PIECE))


def _parse(block: bytes) -> tuple[bytes, int, bytes]:
    """A header's name, size and kind."""
    magic = block[257:265]
    if magic not in (b"ustar\x0000", b"ustar  \0"):
        raise ArchiveInvalid("this is no tar archive, or a damaged one; send a tar of an OCI image layout")
    if _octal(block[148:156]) != sum(block[:148]) + sum(block[156:]) + 8 * 0x20:
        raise ArchiveInvalid("the archive is damaged: a header has a wrong checksum")
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0] if magic == b"ustar\x0000" else b""
    return prefix + b"/" + name if prefix else name, _number(block[124:136]), block[156:157]


def _number(field: bytes) -> int:
    """A size in octal, or in GNU's base 256."""
    if not field[0] & 0x80:
        return _octal(field)
    value = int.from_bytes(field, "big") & (1 << 8 * len(field) - 1) - 1
    if value >> 62:  # also what is negative
        raise _damaged_number()
    return value


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0")
    if not _OCTAL.fullmatch(digits):
        raise _damaged_number()
    return int(digits, 8)


def _records(content: bytes) -> dict[str, bytes]:
    """The records of a pax header that count here; what is said of times and owners does not."""
    found: dict[str, bytes] = {}
    at = 0
    while at < len(content):
        digits, blank, _ = content[at : at + 20].partition(b" ")
        end = at + (_decimal(digits) if blank else 0)
        key, equals, value = content[at + len(digits) + 1 : end - 1].partition(b"=")
        if end <= at + len(digits) + 2 or end > len(content) or content[end - 1] != 0x0A or not key or not equals:
            raise ArchiveInvalid("the archive is damaged: a pax header is malformed")
        if key.startswith(b"GNU.sparse."):
            raise ArchiveInvalid(
                "the archive holds a sparse file, which not all readers read alike; write it without -S"
            )
        if key in (b"path", b"size"):
            found[key.decode()] = value
        at = end
    return found


def _decimal(text: bytes) -> int:
    if not _DECIMAL.fullmatch(text):
        raise _damaged_number()
    return int(text)


def _damaged_number() -> ArchiveInvalid:
    return ArchiveInvalid("the archive is damaged: a header has a number that is none")


def _cut_short() -> ArchiveInvalid:
    return ArchiveInvalid("the archive is cut short: it ends in the middle; write or send it anew")
