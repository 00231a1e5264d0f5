"""Archives of the tests: tars block by block, as no well-behaved writer makes them, and mutations of a corpus.

``corpus/archives/NAME.tar.gz`` are cases; ``listings.json`` beside them says what Go's ``archive/tar`` reads of each.
"""

import functools
import gzip
import random
import zlib
from collections.abc import Callable, Mapping, Sequence
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


@functools.cache
def corpus() -> Mapping[str, bytes]:
    """The cases, by name."""
    return {file.name.removesuffix(".tar.gz"): file.read_bytes() for file in sorted(CORPUS.glob("*.tar.gz"))}


@functools.cache
def _seeds() -> tuple[tuple[bytes, bytes], ...]:
    """Small cases, and the tars in them as far as they can be had."""
    return tuple((case, _unzipped(case)) for case in corpus().values() if len(case) < 8192)


def _unzipped(case: bytes) -> bytes:
    try:
        return zlib.decompressobj(31).decompress(case, 16_384)
    except zlib.error:
        return case


def mutated(seed: int) -> bytes:
    """An archive with faults; for each seed another one, and always the same."""
    chance = random.Random(seed)
    case, tar = chance.choice(_seeds())
    if chance.random() < 0.2:
        return _damaged(chance, case)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        tar = chance.choice(_MUTATIONS)(chance, tar)
    archive = gzip.compress(tar, chance.choice((0, 1, 1)), mtime=0)
    if chance.random() < 0.05:
        at = chance.randrange(len(tar) + 1)
        archive = zipped(tar[:at]) + zipped(tar[at:])
    return _damaged(chance, archive) if chance.random() < 0.1 else archive


def _damaged(chance: random.Random, content: bytes) -> bytes:
    """Bits flipped, bytes taken out, put in or replaced, or the end cut off."""
    at = chance.randrange(len(content) + 1)
    way = chance.randrange(5)
    if way == 0:
        return content[:at]
    if way == 1:
        return content[:at] + chance.randbytes(chance.randrange(1, 9)) + content[at:]
    if way == 2:
        return content[:at] + content[at + chance.randrange(1, 600) :]
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        if changed:
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _in_a_header(chance: random.Random, tar: bytes) -> bytes:
    """A field of a header changed, and its checksum made to fit."""
    at = _some_header(chance, tar)
    block = bytearray(tar[at : at + BLOCK].ljust(BLOCK, b"\0"))
    start, values = chance.choice(_FIELDS)
    value = chance.choice(values)
    block[start : start + len(value)] = value
    for _ in range(chance.choice((0, 0, 1, 3))):
        block[chance.randrange(BLOCK)] = chance.randrange(256)
    return tar[:at] + summed(bytes(block), signed=chance.random() < 0.1) + tar[at + BLOCK :]


def _moved_blocks(chance: random.Random, tar: bytes) -> bytes:
    """A block or more repeated, dropped, zeroed or moved."""
    blocks = [tar[at : at + BLOCK] for at in range(0, len(tar), BLOCK)] or [b""]
    at, count = chance.randrange(len(blocks)), chance.choice((1, 1, 2, 3))
    part = blocks[at : at + count]
    way = chance.randrange(4)
    rest = blocks[:at] + blocks[at + count :]
    if way == 0:
        rest = blocks[:at] + part + blocks[at:]
    elif way == 1:
        rest = blocks[:at] + [bytes(BLOCK)] * count + blocks[at + count :]
    elif way == 2:
        to = chance.randrange(len(rest) + 1)
        rest = rest[:to] + part + rest[to:]
    return b"".join(rest)


def _joined(chance: random.Random, tar: bytes) -> bytes:
    """The blocks of two cases, one behind the other."""
    other = chance.choice(_seeds())[1]
    return tar[: BLOCK * chance.randrange(len(tar) // BLOCK + 1)] + other


def _in_the_content(chance: random.Random, tar: bytes) -> bytes:
    """Bytes of what is no header changed: the records of a pax header, a long name."""
    at = _some_header(chance, tar) + BLOCK
    changed = bytearray(tar)
    for _ in range(chance.choice((1, 2, 4))):
        where = at + chance.randrange(64)
        if where < len(changed):
            changed[where] = (
                chance.choice(b"\0\n =0123456789/apthsize") if chance.random() < 0.7 else chance.randrange(256)
            )
    return bytes(changed)


def _some_header(chance: random.Random, tar: bytes) -> int:
    at = chance.randrange(max(1, len(tar) // BLOCK))
    for block in range(at, -1, -1):
        if tar[BLOCK * block + 257 :].startswith(b"ustar"):
            return BLOCK * block
    return 0


_MUTATIONS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    _in_a_header,
    _in_a_header,
    _in_a_header,
    _moved_blocks,
    _joined,
    _in_the_content,
    _in_the_content,
    _damaged,
)
_SIZES = (
    bytes(12),
    b"00000000010\0",
    b"00000001000\0",
    b"00000001001\0",
    b"00000000777\0",
    b"00010000000\0",
    b"777777777777",
    b"           8",
    base256(-1),
    base256(-512),
    base256(1 << 63),
    base256((1 << 63) - 1),
    base256((1 << 63) - 512),
    base256(600),
    base256(1 << 32),
)
_FIELDS: tuple[tuple[int, tuple[bytes, ...]], ...] = (
    (124, _SIZES),
    (124, _SIZES),
    (156, tuple(bytes([kind]) for kind in b"\x0001234567xgLKSXVDMNAZ \xff")),
    (156, tuple(bytes([kind]) for kind in b"xgLK0")),
    (0, (b"plugin.wasm\0", b"plugin.wasm/\0", b"x/plugin.wasm\0", b"/\0", b"\0", b"\xff" * 100, b"a" * 100)),
    (257, (USTAR, GNU, V7, b"ustar\0\0\0", b"ustar  x")),
    (345, (b"p" * 155, b"\0" * 155, b"prefix\0", b"\x80" + b"\xff" * 11, b"\xe9")),
    (508, (b"tar\0", b"\0\0\0\0")),
    (100, (b"x", b"\x80", b"\xff" * 8, b"00000008", b" \0 \0 \0 \0")),
    (136, (b"x", b"\xff" * 12, b"\x80" * 12)),
    (329, (b"x", b"\xff" * 16)),
)
