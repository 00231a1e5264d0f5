"""A tar archive, read forwards and bounded, as Go's ``archive/tar`` reads it: agents and Envoy Gateway read with that.

Where Go would allocate what a header claims, or readers are known to disagree (sparse files), the archive is refused.
Sources: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; GNU tar manual, "Basic Tar Format".
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mirror.wasm.inflate import Broken, Limits

_BLOCK = 512
_ZEROS = bytes(_BLOCK)

_OLD_FILE, _FOLDER, _SPARSE = b"\0", b"5", b"S"
_PAX, _GLOBAL, _LONG_NAME, _LONG_LINK = b"x", b"g", b"L", b"K"
_SPECIAL = frozenset({_PAX, _GLOBAL, _LONG_NAME, _LONG_LINK})
_WITHOUT_CONTENT = frozenset({b"1", b"2", b"3", b"4", _FOLDER, b"6"})
"""Links, devices, folders, pipes: they have no content, whatever size their headers say."""

_TEXTS = frozenset({b"path", b"linkpath", b"uname", b"gname"})
_NUMBERS = frozenset({b"size", b"uid", b"gid"})
_TIMES = frozenset({b"atime", b"mtime", b"ctime"})
_READ = _TEXTS | _NUMBERS | _TIMES
_SPARSE_KEYS = b"GNU.sparse."
_ASCII = bytes(range(0x80))
_DECIMAL = re.compile(rb"[+-]?[0-9]{1,32}")
_FRACTION = re.compile(rb"[0-9]*")
_OCTAL = re.compile(rb"[0-7]{1,22}")


@dataclass(frozen=True, slots=True)
class Header:
    """An entry: its whole name, its size in bytes, and its type flag."""

    name: bytes
    size: int
    kind: bytes

    @property
    def regular(self) -> bool:
        """Whether it is a file with content; POSIX has types that nobody knows read as such."""
        return self.kind not in _WITHOUT_CONTENT and self.kind != _GLOBAL

    @property
    def base(self) -> bytes:
        """The last part of its name."""
        return self.name.rstrip(b"/").rpartition(b"/")[2]


class Tar:
    """The entries of an archive, one after the other; whatever of an entry was not read is passed over.

    Methods raise `Broken`.
    """

    def __init__(self, pieces: Iterator[bytes], limits: Limits) -> None:
        self._stream = _Stream(pieces)
        self._limits = limits
        self._left = 0
        self._padding = 0
        self._headers = 0
        self._blocks = 0

    def next(self) -> Header | None:
        """The next entry; None at the end of the archive."""
        records: Mapping[bytes, bytes] = {}
        long_name = b""
        while (block := self._next_block()) is not None:
            self._blocks += 1
            if self._blocks > self._limits.entries:
                raise Broken(f"it has more than {self._limits.entries:,} entries")
            name, size, kind = _parse(block)
            if kind not in _SPECIAL:
                _check_size(size if kind not in _WITHOUT_CONTENT else 0)  # also where a pax header says another one
                return self._entry(long_name or records.get(b"path") or name, records, size, kind)
            content = self._special(size)
            if kind == _LONG_NAME:
                long_name = _text(content)
            elif kind in (_PAX, _GLOBAL):
                records = _records(content)
            if kind == _GLOBAL:
                return Header(self._bounded(records.get(b"path") or name), 0, kind)
        return None

    def read(self, most: int) -> bytes:
        """The next bytes of the entry's content, ``most`` at most; none at its end."""
        found = self._stream.take(min(most, self._left))
        if not found and self._left and most:
            raise _cut_short()
        self._left -= len(found)
        return found

    def _entry(self, name: bytes, records: Mapping[bytes, bytes], size: int, kind: bytes) -> Header:
        size = int(records.get(b"size") or size)
        if kind == _OLD_FILE and name.endswith(b"/"):
            kind = _FOLDER
        if kind == _SPARSE or _SPARSE_KEYS in records:
            raise Broken("it holds a sparse file, which not all readers read alike")
        header = Header(self._bounded(name), size, kind)
        self._begin(size, content=kind not in _WITHOUT_CONTENT)
        return header

    def _begin(self, size: int, *, content: bool = True) -> None:
        """Stand before the content of an entry."""
        _check_size(size)
        if size > self._limits.output:
            raise Broken(
                f"it holds an entry that claims to have {size:,} bytes; at most {self._limits.output:,} are read"
            )
        self._left = size if content else 0
        self._padding = -self._left % _BLOCK

    def _special(self, size: int) -> bytes:
        """The content of a header that says more about the next entry."""
        self._begin(size)
        self._headers += size
        if size > self._limits.header:
            raise Broken(f"it holds a header of {size:,} bytes; at most {self._limits.header:,} are read")
        if self._headers > self._limits.headers:
            raise Broken(f"its headers have more than {self._limits.headers:,} bytes")
        content = self._stream.exactly(size)
        if len(content) < size:
            raise _cut_short()
        self._stream.more()  # Go reads a header until there is no more: a fault right behind it is met with it
        self._left = 0
        return content

    def _bounded(self, name: bytes) -> bytes:
        if len(name) > self._limits.path:
            raise Broken(f"it holds a name of {len(name):,} bytes; at most {self._limits.path:,} are read")
        return name

    def _next_block(self) -> bytes | None:
        """The next header, past what is left of the entry before; None at the end.

        The end is two blocks of zeros, or one, or none, where no more bytes come; also where the padding of the last
        entry is missing.
        """
        while self.read(_BLOCK * _BLOCK):
            pass
        if len(self._stream.exactly(self._padding)) < self._padding:
            return None
        self._padding = 0
        block = self._block()
        if block != _ZEROS:
            return block
        block = self._block()
        if block is not None and block != _ZEROS:
            raise Broken("its tar archive is damaged: something follows a block of zeros")
        return None

    def _block(self) -> bytes | None:
        block = self._stream.exactly(_BLOCK)
        if 0 < len(block) < _BLOCK:
            raise _cut_short()
        return block or None


def _check_size(size: int) -> None:
    if size < 0:
        raise Broken("it holds an entry of a negative size")


class _Stream:
    """Pieces as a stream."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = b""
        self._at = 0

    def more(self) -> bool:
        """Whether any byte is left."""
        while self._at == len(self._piece):
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self._piece, self._at = piece, 0
        return True

    def take(self, most: int) -> bytes:
        """The next bytes, ``most`` at most; none at the end."""
        if not most or not self.more():
            return b""
        found = self._piece[self._at : self._at + most]
        self._at += len(found)
        return found

    def exactly(self, count: int) -> bytes:
        """The next ``count`` bytes; fewer at the end."""
        found = self.take(count)
        while len(found) < count and (more := self.take(count - len(found))):
            found += more
        return found


def _parse(block: bytes) -> tuple[bytes, int, bytes]:
    """A header's name, size and type flag. All its numbers must be some, as in Go."""
    given = _octal(block[148:156])
    plain = block[:148] + b" " * 8 + block[156:]
    unsigned = sum(plain)
    if given not in (unsigned, unsigned - 256 * len(plain.translate(None, _ASCII))):  # Sun's tar added signed bytes
        raise Broken("its tar archive is damaged: a header has a wrong checksum" if given else "it is no tar archive")
    name, prefix = _text(block[0:100]), b""
    size = _number(block[124:136])
    for start, end in ((100, 108), (108, 116), (116, 124), (136, 148)):
        _number(block[start:end])
    magic = block[257:263]
    if magic == b"ustar\0" or block[257:265] == b"ustar  \0":
        _number(block[329:337])
        _number(block[337:345])
    if magic == b"ustar\0" and block[508:] == b"tar\0":
        prefix = _text(block[345:476])
        _number(block[476:488])
        _number(block[488:500])
    elif magic == b"ustar\0":
        prefix = _text(block[345:500])
    elif block[257:265] == b"ustar  \0":
        prefix = _old_prefix(block)
    return prefix + b"/" + name if prefix else name, size, block[156:157]


def _old_prefix(block: bytes) -> bytes:
    """The prefix that Go before 1.8 wrote where GNU's headers have times; told by that these are no numbers."""
    try:
        for start in (345, 357):
            if block[start]:
                _number(block[start : start + 12])
    except Broken:
        prefix = _text(block[345:500])
        return prefix if prefix.isascii() else b""
    return b""


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    """A number in octal, or in GNU's base 256, in two's complement."""
    if not field[0] & 0x80:
        return _octal(field)
    bits = 8 * len(field)
    value = int.from_bytes(field, "big")
    negative = bool(field[0] & 0x40)
    if negative:
        value ^= (1 << bits) - 1
    value &= (1 << bits - 1) - 1
    if value >> 63:
        raise _damaged_number()
    return ~value if negative else value


def _octal(field: bytes) -> int:
    digits = _text(field.strip(b" \0"))
    if not digits:
        return 0
    if not _OCTAL.fullmatch(digits):
        raise _damaged_number()
    return int(digits, 8)


def _records(content: bytes) -> dict[bytes, bytes]:
    """The records of a pax header that count here; the last one of a name."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(content):
        blank = content.find(b" ", at, at + 33)
        digits = content[at:blank] if blank > 0 else b""
        end = at + (int(digits) if digits.isdigit() else _decimal(digits))
        if end - at < 5 or end > len(content) or end <= blank + 1 or content[end - 1] != 0x0A:
            raise _damaged_header()
        key, equals, value = content[blank + 1 : end - 1].partition(b"=")
        if not key or not equals or b"\0" in (value if key in _TEXTS else key):
            raise _damaged_header()
        if key in _READ:
            found[key] = value
        elif key.startswith(_SPARSE_KEYS):
            found[_SPARSE_KEYS] = value
        at = end
    for key in _NUMBERS & found.keys():
        found[key] = found[key] and str(_decimal(found[key])).encode()
    for key in _TIMES & found.keys():
        seconds, _, fraction = found[key].partition(b".")
        if found[key]:
            _decimal(seconds)
            if not _FRACTION.fullmatch(fraction):
                raise _damaged_header()
    return found


def _decimal(text: bytes) -> int:
    """A decimal number that fits into 64 bits."""
    value = int(text) if _DECIMAL.fullmatch(text) else None
    if value is None or not -(1 << 63) <= value < 1 << 63:
        raise _damaged_header()
    return value


def _damaged_number() -> Broken:
    return Broken("its tar archive is damaged: a header has a number that is none")


def _damaged_header() -> Broken:
    return Broken("its tar archive is damaged: a pax header is malformed")


def _cut_short() -> Broken:
    return Broken("its tar archive is cut short")
