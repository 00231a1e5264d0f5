"""The archives of the corpus, made: what writers of tars do, what readers differ over, what an attacker would try."""

import io
import tarfile
import zlib
from collections.abc import Iterator, Sequence

from tests.wasm.archives import (
    BLOCK,
    END,
    GNU,
    MODULE,
    V7,
    base256,
    entry,
    header,
    long_name,
    padded,
    pax,
    record,
    stored,
    zipped,
)

PLUGIN = entry(b"plugin.wasm", MODULE)
OTHER = entry(b"README.md", b"A filter.\n")
DEEP = "/".join(["a-folder-with-a-long-name"] * 8) + "/plugin.wasm"
NEGATIVE, HUGE = base256(-1), base256((1 << 63) - 1)


def cases() -> Iterator[tuple[str, bytes]]:
    """Each with its name."""
    for name, tar in _tars():
        yield name, zipped(tar)
    yield from _streams()


def _tars() -> Iterator[tuple[str, bytes]]:
    for group in (_names(), _kinds(), _numbers(), _ends(), _extended(), _sparse()):
        for name, tar in group:
            yield name, tar
    for form, name in ((tarfile.USTAR_FORMAT, "ustar"), (tarfile.GNU_FORMAT, "gnu"), (tarfile.PAX_FORMAT, "pax")):
        yield f"written-as-{name}", _written(form, ["bin/", "README.md", "bin/plugin.wasm"])
    yield "written-as-gnu-deep", _written(tarfile.GNU_FORMAT, [f"x/{DEEP}"])
    yield "written-as-pax-deep", _written(tarfile.PAX_FORMAT, [f"x/{DEEP}", "ü/plugin.wasm"])


def _names() -> Iterator[tuple[str, bytes]]:
    for name in (b"./plugin.wasm", b"/plugin.wasm", b"../../plugin.wasm", b"a/b/plugin.wasm", b"plugin.wasm/"):
        yield f"name-{name.decode().replace('/', '_')}", entry(name, MODULE) + END
    for name in (b"plugin.wasm~", b"Plugin.wasm", b"plugin.wasm/x", b"plugin.wasm.d/", b"xplugin.wasm", b"//", b""):
        yield f"other-name-{name.decode().replace('/', '_')}", entry(name, MODULE) + END
    yield "name-latin1", entry(b"caf\xe9/plugin.wasm", MODULE) + END
    yield "name-control", entry(b"a\x1b[31m\n/plugin.wasm", MODULE) + END
    yield "name-full", entry(b"a" * 88 + b"/plugin.wasm", MODULE) + END
    yield "name-prefix", entry(b"plugin.wasm", MODULE, prefix=b"a/folder") + END
    yield "name-prefix-full", entry(b"plugin.wasm", MODULE, prefix=b"p" * 155) + END
    yield "name-behind-zero", entry(b"x\0/plugin.wasm", MODULE) + END
    yield "v7", entry(b"plugin.wasm", MODULE, magic=V7) + END
    yield "v7-prefix-is-none", entry(b"plugin.wasm", MODULE, magic=V7, prefix=b"a/folder") + END
    yield "gnu", entry(b"plugin.wasm", MODULE, magic=GNU) + END
    yield "gnu-times", entry(b"plugin.wasm", MODULE, magic=GNU, prefix=b"00000000000\00000000000000\0") + END
    yield "gnu-old-go-prefix", entry(b"plugin.wasm", MODULE, magic=GNU, prefix=b"folder/of/old/go/writers") + END
    yield (
        "gnu-old-go-prefix-latin1",
        entry(b"plugin.wasm", MODULE, magic=GNU, prefix=b"\x20older\xe9/of/old/go/ws") + END,
    )
    star = {508: b"tar\0", 476: b"00000000000\0", 488: b"00000000000\0"}
    yield "star", entry(b"plugin.wasm", MODULE, prefix=b"star", fields=star) + END
    yield "star-times-broken", entry(b"plugin.wasm", MODULE, prefix=b"star", fields={**star, 476: b"not a time"}) + END
    yield "ustar-without-version", entry(b"plugin.wasm", MODULE, magic=b"ustar\0\0\0", prefix=b"p") + END
    yield "magic-unknown", entry(b"plugin.wasm", MODULE, magic=b"ustar  x", prefix=b"p") + END


def _kinds() -> Iterator[tuple[str, bytes]]:
    for kind in b"1234567":
        link = header(b"plugin.wasm", 0, bytes([kind]), fields={157: b"target"})
        yield f"kind-{chr(kind)}-first", link + PLUGIN + END
    for kind in b"AZDMNVXI":
        yield f"kind-{chr(kind)}", entry(b"plugin.wasm", MODULE, bytes([kind])) + END
    yield "kind-zero", entry(b"plugin.wasm", MODULE, b"\0") + END
    yield "kind-zero-folder", entry(b"plugin.wasm/", b"", b"\0") + PLUGIN + END
    yield "kind-zero-folder-with-size", header(b"a/", 8, b"\0") + PLUGIN + END
    yield "kind-space", entry(b"plugin.wasm", MODULE, b" ") + END
    yield "folder-with-size", header(b"a/", 5000, b"5") + PLUGIN + END
    yield "link-with-size", header(b"a", 5000, b"2") + PLUGIN + END
    yield "plugin-folder-with-size", header(b"plugin.wasm", 5000, b"5") + PLUGIN + END
    yield "two", PLUGIN + entry(b"b/plugin.wasm", MODULE + b"second") + END
    yield "none", OTHER + END
    yield "other-module", OTHER + entry(b"filter.wasm", MODULE) + END
    yield "both", entry(b"filter.wasm", MODULE + b"other") + PLUGIN + END
    yield "plugin-is-empty", entry(b"plugin.wasm") + END
    yield "plugin-is-text", entry(b"plugin.wasm", b"#!/bin/sh\n") + END
    yield "plugin-is-short", entry(b"plugin.wasm", b"\0as") + END
    yield "plugin-is-gzipped", entry(b"plugin.wasm", zipped(MODULE)) + END
    yield "many", b"".join(entry(b"modules/%d.wasm" % number, MODULE) for number in range(40)) + PLUGIN + END


def _numbers() -> Iterator[tuple[str, bytes]]:
    sizes = {
        "base256": base256(len(MODULE)),
        "base256-huge": HUGE,
        "base256-too-large": b"\x80" + b"\xff" * 11,
        "base256-negative": NEGATIVE,
        "base256-least": base256(-(1 << 63)),
        "octal-largest": b"777777777777",
        "octal-8g": b"100000000000",
        "octal-full": b"000000000010",
        "octal-blanks": b"        10 \0",
        "octal-blanks-only": b" " * 12,
        "octal-zeros-first": b"\0\0" + b"000000010 ",
        "octal-junk-behind": b"10\0garbage\0\0",
        "octal-blank-behind": b"10 \0garbage\0",
        "octal-sign": b"-0000000010\0",
        "octal-nine": b"00000000018\0",
        "octal-prefix": b"0o000000010\0",
        "octal-underscore": b"0000_000010\0",
        "nothing": bytes(12),
    }
    for name, size in sizes.items():
        yield f"size-{name}", header(b"plugin.wasm", size) + padded(MODULE) + END
        yield f"size-{name}-of-folder", header(b"plugin.wasm", size, b"5") + PLUGIN + END
    for at in (100, 108, 116, 136, 329, 337):
        yield f"number-broken-at-{at}", entry(b"plugin.wasm", MODULE, fields={at: b"x"}) + END
    yield "numbers-broken-where-v7-has-none", entry(b"plugin.wasm", MODULE, magic=V7, fields={329: b"x"}) + END
    yield "numbers-negative", entry(b"plugin.wasm", MODULE, fields={136: NEGATIVE, 108: base256(-5, 8)}) + END
    for name, time in (("largest", HUGE), ("too-large", base256(1 << 63)), ("far-too-large", b"\x80" + b"\xff" * 11)):
        yield f"time-{name}", entry(b"plugin.wasm", MODULE, fields={136: time}) + END
    yield "checksum-signed", entry(b"\xe9/plugin.wasm", MODULE, signed=True) + END
    yield "checksum-wrong", PLUGIN[:148] + b"0000001\0" + PLUGIN[156:] + END
    yield "checksum-missing", PLUGIN[:148] + bytes(8) + PLUGIN[156:] + END
    yield "checksum-of-second-wrong", PLUGIN + OTHER[:50] + b"!" + OTHER[51:] + END


def _ends() -> Iterator[tuple[str, bytes]]:
    yield "end-missing", PLUGIN
    yield "end-one-block", PLUGIN + bytes(BLOCK)
    yield "end-one-block-and-a-half", PLUGIN + bytes(BLOCK + 100)
    yield "end-half-a-block", PLUGIN + bytes(100)
    yield "end-then-more", PLUGIN + bytes(BLOCK) + OTHER + END
    yield "end-then-garbage", PLUGIN + END + b"garbage" * 100
    yield "end-then-another-tar", OTHER + END + PLUGIN + END
    yield "end-in-the-padding", PLUGIN[:-100]
    yield "end-behind-the-content", PLUGIN[: BLOCK + len(MODULE)]
    yield "end-in-the-content", PLUGIN[: BLOCK + len(MODULE) - 1]
    yield "end-in-a-header", PLUGIN + OTHER[:300]
    yield "end-in-the-padding-of-another", OTHER + OTHER[:-10]
    yield "nothing-but-the-end", END
    yield "one-block-of-zeros", bytes(BLOCK)
    yield "nothing", b""
    yield "text", b"This is no archive. " * 100


def _extended() -> Iterator[tuple[str, bytes]]:
    name = {"path": "deep/plugin.wasm"}
    x = entry(b"x", MODULE)
    yield "pax-path", pax(name) + x + END
    yield "pax-path-elsewhere", pax({"path": "elsewhere"}) + PLUGIN + END
    yield "pax-path-empty", pax({"path": ""}) + PLUGIN + END
    yield "pax-path-twice", pax([record("path", "y"), record("path", "plugin.wasm")]) + x + END
    yield "pax-path-then-empty", pax([record("path", "y"), record("path", "")]) + PLUGIN + END
    yield "pax-path-with-zero", pax([record("path", "a\0/plugin.wasm")]) + x + END
    yield "pax-path-slash", pax({"path": "plugin.wasm/"}) + entry(b"x", MODULE, b"\0") + END
    yield "pax-path-long", pax({"path": "a/" * 3000 + "plugin.wasm"}) + x + END
    yield "pax-for-the-next-only", pax(name) + x + entry(b"y", MODULE) + END
    yield "pax-twice", pax({"path": "lost"}) + pax({"mtime": "1"}) + PLUGIN + END
    yield "pax-none-behind", PLUGIN + pax(name) + END
    yield "pax-then-end", PLUGIN + pax(name)
    yield (
        "pax-all",
        pax({"mtime": "1.5", "atime": "-3.25", "ctime": "7.", "uid": "7", "gid": "-7", "uname": "ü"}) + PLUGIN + END,
    )
    yield (
        "pax-xattr",
        pax({"SCHILY.xattr.user.x": "\0\n=", "LIBARCHIVE.creationtime": "x", "comment": "= ="}) + PLUGIN + END,
    )
    yield "pax-size", pax({"size": "8"}) + header(b"plugin.wasm", 0) + padded(MODULE) + END
    yield "pax-size-over-negative", pax({"size": "8"}) + header(b"plugin.wasm", NEGATIVE) + padded(MODULE) + END
    yield "pax-size-over-negative-of-folder", pax({"size": "8"}) + header(b"a/", NEGATIVE, b"5") + PLUGIN + END
    yield "pax-size-smaller", pax({"size": "4"}) + PLUGIN + END
    for size in (
        "-1",
        "9223372036854775807",
        "9223372036854775808",
        "0x8",
        "8 ",
        "+8",
        "1_0",
        "08",
        "٨",
        "0" * 40 + "8",
    ):
        yield f"pax-size-is-{size.strip().encode().hex()}", pax({"size": size}) + PLUGIN + END
    for key in ("uid", "gid", "mtime", "atime", "ctime"):
        yield f"pax-{key}-broken", pax({key: "x"}) + PLUGIN + END
    yield "pax-mtime-broken-fraction", pax({"mtime": "1.x"}) + PLUGIN + END
    for name_, lines in _malformed_records():
        yield f"pax-malformed-{name_}", pax([lines]) + PLUGIN + END
        yield f"pax-malformed-{name_}-global", pax([lines], b"g") + PLUGIN + END
    yield "pax-size-negative-of-header", header(b"x", NEGATIVE, b"x") + PLUGIN + END
    yield "pax-header-of-2m", pax({"comment": "x" * (2 << 20)}) + PLUGIN + END
    yield "pax-header-of-1m", pax([record("comment", "x" * ((1 << 20) - 18))]) + PLUGIN + END
    yield "pax-header-claims-8g", header(b"x", b"100000000000", b"x") + PLUGIN + END
    yield "global", pax({"comment": "of a commit"}, b"g") + PLUGIN + END
    yield "global-path-is-for-itself", pax({"path": "plugin.wasm"}, b"g") + x + END
    yield "global-size-is-not-for-others", pax({"size": "4"}, b"g") + PLUGIN + END
    yield "global-forgets-the-one-before", pax({"path": "plugin.wasm"}) + pax({"comment": "x"}, b"g") + x + END
    yield "global-broken-number", pax({"mtime": "x"}, b"g") + PLUGIN + END
    yield "long-name", long_name(b"a/" * 60 + b"plugin.wasm") + x + END
    yield "long-name-empty", long_name(b"") + PLUGIN + END
    yield "long-name-twice", long_name(b"lost") + long_name(b"plugin.wasm") + x + END
    yield "long-name-over-pax", long_name(b"plugin.wasm") + pax({"path": "lost"}) + x + END
    yield "long-name-slash", long_name(b"plugin.wasm/") + entry(b"x", MODULE, b"\0") + END
    yield "long-name-of-a-link", long_name(b"plugin.wasm", b"K") + x + END
    yield "long-name-zero-inside", long_name(b"plugin.wasm\0/x") + x + END
    yield "long-name-of-5000", long_name(b"a" * 5000) + x + END
    yield "long-name-cut", long_name(b"plugin.wasm")[:-100]


def _malformed_records() -> Iterator[tuple[str, bytes]]:
    yield "no-blank", b"12345678"
    yield "no-equals", b"8 path\n\n"[:8]
    yield "no-newline", b"15 path=plugin."
    yield "too-long", b"99 path=x\n"
    yield "too-short", b"4 a\n"
    yield "zero", b"0 a=b\n"
    yield "negative", b"-9 a=bcd\n"
    yield "plus", b"+8 a=bc\n"
    yield "leading-zeros", b"008 a=b\n"
    yield "no-key", b"6 =bc\n"
    yield "key-with-zero", b"8 a\0b=c\n"
    yield "blanks-first", b"  8 a=b\n"
    yield "only-its-length", b"00005 "
    yield "zeros-behind", record("comment", "x") + bytes(8)


def _sparse() -> Iterator[tuple[str, bytes]]:
    fields = {386: b"00000000000\00000000000010\0", 483: b"00000000010\0"}
    yield "sparse-gnu", entry(b"plugin.wasm", MODULE, b"S", magic=GNU, fields=fields) + END
    yield (
        "sparse-pax-1.0",
        pax(
            {
                "GNU.sparse.major": "1",
                "GNU.sparse.minor": "0",
                "GNU.sparse.name": "plugin.wasm",
                "GNU.sparse.realsize": "8",
            }
        )
        + entry(b"x", padded(b"1\n0\n8\n") + MODULE)
        + END,
    )
    yield (
        "sparse-pax-0.1",
        pax({"GNU.sparse.map": "0,8", "GNU.sparse.numblocks": "1", "GNU.sparse.size": "8"}) + PLUGIN + END,
    )


def _streams() -> Iterator[tuple[str, bytes]]:
    tar = OTHER + PLUGIN + END
    good = zipped(tar)
    yield "gzip-stored", stored(tar)
    yield "gzip-members", zipped(tar[:700]) + zipped(tar[700:])
    yield (
        "gzip-members-each-byte",
        b"".join(stored(tar[at : at + 1]) for at in range(len(OTHER), len(OTHER) + 530)) + stored(bytes(2000)),
    )
    yield "gzip-member-empty-first", zipped(b"") + good
    yield "gzip-only-empty-members", zipped(b"") * 3
    yield "gzip-then-zeros", zipped(OTHER + PLUGIN) + bytes(100)
    yield "gzip-then-few-zeros", zipped(OTHER + PLUGIN) + bytes(3)
    yield "gzip-then-garbage-behind-the-end", good + b"garbage of ten bytes and more"
    yield "gzip-then-half-a-header", zipped(OTHER + PLUGIN) + good[:5]
    for name, tail in (("checksum", good[:-8] + bytes(4) + good[-4:]), ("size", good[:-4] + bytes(4))):
        yield f"gzip-{name}-wrong-behind-the-end", tail
    open_ended = zipped(OTHER + PLUGIN)
    yield "gzip-checksum-wrong", open_ended[:-8] + bytes(4) + open_ended[-4:]
    yield "gzip-size-wrong", open_ended[:-4] + bytes(4)
    yield "gzip-trailer-cut", open_ended[:-3]
    yield "gzip-trailer-missing", open_ended[:-8]
    yield "gzip-cut-behind-a-global-header", zipped(pax({"path": "plugin.wasm"}, b"g")[: BLOCK + 20])[:-8]
    yield "gzip-cut", good[: len(good) // 2]
    yield "gzip-empty-file", b""
    yield "gzip-header-only", good[:10]
    yield "gzip-not", tar
    yield "gzip-twice", zipped(good)
    yield "gzip-zlib", zlib.compress(tar)
    yield "gzip-zip", b"PK\x03\x04" + bytes(100)
    yield "gzip-zstd", b"\x28\xb5\x2f\xfd" + bytes(100)
    body = good[10:]
    yield "gzip-method-unknown", good[:2] + b"\x07" + good[3:]
    yield "gzip-flags-unknown", good[:3] + b"\xe1" + good[4:]
    yield "gzip-name", good[:3] + b"\x08" + good[4:10] + b"layer.tar\0" + body
    yield "gzip-name-of-511", good[:3] + b"\x08" + good[4:10] + b"n" * 511 + b"\0" + body
    yield "gzip-name-of-512", good[:3] + b"\x08" + good[4:10] + b"n" * 512 + b"\0" + body
    yield "gzip-name-endless", good[:3] + b"\x18" + good[4:10] + b"n" * 400
    yield "gzip-extra", good[:3] + b"\x04" + good[4:10] + b"\x03\0abc" + body
    yield "gzip-extra-cut", good[:3] + b"\x04" + good[4:10] + b"\xff\xffabc"
    full = good[:3] + b"\x1e" + good[4:10] + b"\x03\0abcname\0comment\0"
    checksum = zlib.crc32(full).to_bytes(4, "little")[:2]
    yield "gzip-header-checksum", full + checksum + body
    yield "gzip-header-checksum-wrong", full + bytes([checksum[0] ^ 1, checksum[1]]) + body
    broken = bytearray(stored(tar))
    broken[10 + 3] ^= 0xFF
    yield "gzip-block-broken-at-once", bytes(broken)
    second = zipped(OTHER + PLUGIN)[:-8] + b"\xff\xff\xff"
    yield "gzip-broken-behind-the-plugin", second
    deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
    start = deflater.compress(OTHER + PLUGIN) + deflater.flush(zlib.Z_SYNC_FLUSH)
    yield "gzip-damaged-behind-the-plugin", good[:10] + start + b"\x07\x07\x07"
    yield "gzip-cut-behind-the-plugin", good[:10] + start


def _written(form: int, names: Sequence[str]) -> bytes:
    """What Python's tarfile writes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name in names:
            info = tarfile.TarInfo(name.rstrip("/"))
            info.mtime = 1.5 if form == tarfile.PAX_FORMAT else 1
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            content = b"" if name.endswith("/") else MODULE + name.encode()
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
