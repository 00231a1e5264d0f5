"""Archives of the tests: tars block by block, as no well-behaved writer makes them, and mutations of a corpus.

A corpus case is two files: ``NAME.tar.gz``, and ``NAME.json``, which says what Go's ``archive/tar`` reads of it.
"""

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus" / "archives"
BLOCK = 512
END = bytes(2 * BLOCK)
MODULE = b"\0asm\x01\0\0\0"

USTAR = b"ustar\x0000"
GNU = b"ustar  \x00"
V7 = bytes(8)


def header(
    name: bytes,
    size: int | bytes = 0,
    kind: bytes = b"0",
    *,
    magic: bytes = USTAR,
    prefix: bytes = b"",
    signed: bool = False,
    fields: Mapping[int, bytes] | None = None,
) -> bytes:
    """A header. ``size`` as a number, or as its 12 bytes; ``fields``: bytes at offsets, before the checksum is made."""
    block = bytearray(BLOCK)
    block[: len(name)] = name[:100]
    for at, width in ((100, 8), (108, 8), (116, 8), (136, 12)):
        block[at : at + width] = b"0" * (width - 1) + b"\0"
    block[124:136] = size if isinstance(size, bytes) else b"%011o\0" % size
    block[156:157] = kind
    block[257:265] = magic
    block[345 : 345 + len(prefix)] = prefix
    for at, value in (fields or {}).items():
        block[at : at + len(value)] = value
    return summed(bytes(block), signed=signed)


def summed(block: bytes, *, signed: bool = False) -> bytes:
    """The header with the checksum that it should have."""
    plain = block[:148] + b" " * 8 + block[156:]
    total = sum(plain) - (256 * sum(byte >= 128 for byte in plain) if signed else 0)
    return block[:148] + b"%06o\0 " % total + block[156:]


def padded(content: bytes) -> bytes:
    """Whole blocks."""
    return content + bytes(-len(content) % BLOCK)


def entry(name: bytes, content: bytes = b"", kind: bytes = b"0", **more: object) -> bytes:
    """A header, and content."""
    return header(name, len(content), kind, **more) + padded(content)  # type: ignore[arg-type] # passed on


def pax(records: Mapping[str, str] | Sequence[bytes], kind: bytes = b"x") -> bytes:
    """A pax header for the next entry, or with the kind ``g`` for all that follow."""
    lines = [record(key, value) for key, value in records.items()] if isinstance(records, Mapping) else records
    return entry(b"PaxHeaders/next", b"".join(lines), kind)


def record(key: str, value: str) -> bytes:
    """A record of a pax header."""
    text = f" {key}={value}\n".encode()
    length = len(text) + 1
    while len(b"%d" % length + text) != length:
        length += 1
    return b"%d" % length + text


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    """GNU's header for a long name, of the next entry, or with the kind ``K`` of what it links to."""
    return entry(b"././@LongLink", name + b"\0", kind, magic=GNU)


def base256(value: int, width: int = 12) -> bytes:
    """A number as GNU writes it where it does not fit in octal."""
    number = (value & (1 << 8 * width) - 1).to_bytes(width, "big")
    return bytes([number[0] | 0x80]) + number[1:]


def zipped(tar: bytes) -> bytes:
    """Gzipped, the same each time."""
    return gzip.compress(tar, 6, mtime=0)


def plugin(content: bytes = MODULE, name: bytes = b"plugin.wasm") -> bytes:
    """The archive that agents expect."""
    return zipped(entry(name, content) + END)


def stored(tar: bytes) -> bytes:
    """Gzipped without compression: each byte of the tar stands in it as it is."""
    return gzip.compress(tar, 0, mtime=0)
