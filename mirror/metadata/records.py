"""Records as they stand in Redis: hashes of text, with a version.

Fields that are not known are passed over, so that a release may add one. A record with a greater ``v`` than `VERSION`,
or one that makes no sense, is taken to be absent: all of it can be had again. A new version is written only by the
release after the one that can read it.

Redis may be written to by others, so nothing is taken that could not stand in a header, in the database of this
replica, or in the arithmetic of what comes after.
"""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from mirror.digest import Digest
from mirror.errors import DigestInvalid, UpstreamInvalid
from mirror.metadata.base import (
    MAX_SERIAL,
    BlobRecord,
    Dropped,
    KeptAnswer,
    Link,
    LinkEntry,
    TagEntry,
    TagRecord,
    Tombstone,
)
from mirror.oci import MAX_MANIFEST_SIZE, parse_object

VERSION = 1

_WHOLE = re.compile(rb"[0-9]{1,15}")
_HEX = re.compile(rb"[0-9a-f]{64}")
_HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
_LINE = re.compile(r"[\t\x20-\x7e\xa0-\xff]{0,8192}")
_MAX_TEXT = 255
_MAX_TIME = 1e12
_MAX_BODY = 2 * MAX_MANIFEST_SIZE

Fields = Mapping[str, bytes]
T = TypeVar("T")


def fields_of(answer: Sequence[bytes]) -> Fields:
    """What HGETALL has answered: names and values by turns."""
    return {name.decode(errors="replace"): value for name, value in zip(answer[::2], answer[1::2], strict=True)}


def tag_arguments(entry: TagEntry) -> list[str]:
    """Digest, media type, size, time, serial and moving; of a tombstone the first three are empty."""
    if isinstance(entry, Tombstone):
        return ["", "", "", repr(float(entry.deleted_at)), str(entry.serial), "0"]
    return [
        str(entry.digest),
        entry.media_type,
        str(entry.size),
        repr(float(entry.fetched_at)),
        str(entry.serial),
        str(int(entry.moving)),
    ]


def parse_tag(upstream: str, repository: str, tag: str, answer: Sequence[bytes]) -> TagEntry | None:
    """The entry of a tag, or None."""

    def parse(fields: Fields) -> TagEntry:
        serial = _serial(fields["serial"])
        if "deleted_at" in fields:
            return Tombstone(upstream, repository, tag, parse_time(fields["deleted_at"]), serial)
        return TagRecord(
            upstream,
            repository,
            tag,
            Digest.parse(_text(fields["digest"])),
            _text(fields["media_type"]),
            _number(fields["size"]),
            parse_time(fields["fetched_at"]),
            serial,
            moving=fields.get("moving") == b"1",
        )

    return _parsed(answer, parse)


def link_arguments(entry: LinkEntry) -> list[str]:
    """Media type, size, serial and the time at which it was dropped; empty is what is not known, or has not been."""
    if isinstance(entry, Dropped):
        return ["", "", str(entry.serial), repr(float(entry.dropped_at))]
    return [entry.media_type, "" if entry.size == -1 else str(entry.size), str(entry.serial), ""]


def parse_link(upstream: str, repository: str, digest: Digest, answer: Sequence[bytes]) -> LinkEntry | None:
    """What stands of a link, or None; what is not known of it does not stand there."""

    def parse(fields: Fields) -> LinkEntry:
        serial = _serial(fields.get("serial", b"0"))
        if "dropped_at" in fields:
            return Dropped(upstream, repository, digest, parse_time(fields["dropped_at"]), serial)
        size = fields.get("size", b"-1")
        media_type = _text(fields.get("media_type", b""))
        return Link(upstream, repository, digest, media_type, -1 if size == b"-1" else _number(size), serial)

    return _parsed(answer, parse)


def kept_fields(answer: KeptAnswer) -> list[str | bytes]:
    """Names and values by turns."""
    headers = json.dumps(dict(answer.headers))
    return ["body", answer.body, "headers", headers, "fetched_at", repr(float(answer.fetched_at))]


def parse_kept(answer: Sequence[bytes]) -> KeptAnswer | None:
    """A kept answer, or None."""

    def parse(fields: Fields) -> KeptAnswer:
        headers = parse_object(fields["headers"], "what is kept")
        if not all(_HEADER_NAME.fullmatch(name) and _is_line(value) for name, value in headers.items()):
            raise ValueError("headers are names and lines of text")
        if len(fields["body"]) > _MAX_BODY:
            raise ValueError("it is too long")
        return KeptAnswer(fields["body"], headers, parse_time(fields["fetched_at"]))

    return _parsed(answer, parse)


def blob_fields(record: BlobRecord) -> list[str | bytes]:
    """Names and values by turns."""
    return ["size", str(record.size), "blake3", record.blake3, "stored_at", repr(float(record.stored_at))]


def parse_blob(digest: Digest, answer: Sequence[bytes]) -> BlobRecord | None:
    """What was noted of a blob, or None."""

    def parse(fields: Fields) -> BlobRecord:
        if not _HEX.fullmatch(fields["blake3"]):
            raise ValueError("it has no blake3")
        size, stored_at = _number(fields["size"]), parse_time(fields["stored_at"])
        return BlobRecord(digest, size, fields["blake3"].decode(), stored_at)

    return _parsed(answer, parse)


def parse_time(text: bytes) -> float:
    """Seconds since the epoch; raises `ValueError` for what is none."""
    seconds = float(text)
    if not math.isfinite(seconds) or not 0 <= seconds < _MAX_TIME:
        raise ValueError("that is no time")
    return seconds


def _number(text: bytes) -> int:
    if not _WHOLE.fullmatch(text):
        raise ValueError("that is no whole number, or a very large one")
    return int(text)


def _serial(text: bytes) -> int:
    serial = _number(text)
    if serial > MAX_SERIAL:
        raise ValueError("nothing changes so often")
    return serial


def _text(value: bytes) -> str:
    text = value.decode("ascii")
    if len(text) > _MAX_TEXT or not text.isprintable():
        raise ValueError("that cannot stand in a header")
    return text


def _is_line(value: object) -> bool:
    """Whether it can be a header's value: no control characters, nor what a header cannot hold."""
    return isinstance(value, str) and _LINE.fullmatch(value) is not None


def _parsed(answer: Sequence[bytes], parse: Callable[[Fields], T]) -> T | None:
    if not answer:
        return None
    try:
        fields = fields_of(answer)
        return parse(fields) if _number(fields["v"]) <= VERSION else None
    except (KeyError, ValueError, DigestInvalid, UpstreamInvalid):
        return None
