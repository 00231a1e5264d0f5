"""Records as they stand in Redis: hashes of text, with a version.

Fields that are not known are passed over, so that a release may add one. A record with a greater ``v`` than `VERSION`,
or one that makes no sense, is taken to be absent: all of it can be had again. A new version is written only by the
release after the one that can read it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from mirror.digest import Digest
from mirror.errors import DigestInvalid
from mirror.metadata.base import BlobRecord, KeptAnswer, Link, TagEntry, TagRecord, Tombstone

VERSION = 1

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
        serial = int(fields["serial"])
        if "deleted_at" in fields:
            return Tombstone(upstream, repository, tag, float(fields["deleted_at"]), serial)
        return TagRecord(
            upstream,
            repository,
            tag,
            Digest.parse(fields["digest"].decode()),
            fields["media_type"].decode(),
            int(fields["size"]),
            float(fields["fetched_at"]),
            serial,
            moving=fields.get("moving") == b"1",
        )

    return _parsed(answer, parse)


def parse_link(upstream: str, repository: str, digest: Digest, answer: Sequence[bytes]) -> Link | None:
    """A link, or None; what is not known of it does not stand there."""

    def parse(fields: Fields) -> Link:
        media_type, size = fields.get("media_type", b"").decode(), int(fields.get("size", b"-1"))
        return Link(upstream, repository, digest, media_type, size)

    return _parsed(answer, parse)


def kept_fields(answer: KeptAnswer) -> list[str | bytes]:
    """Names and values by turns."""
    headers = json.dumps(dict(answer.headers))
    return ["body", answer.body, "headers", headers, "fetched_at", repr(float(answer.fetched_at))]


def parse_kept(answer: Sequence[bytes]) -> KeptAnswer | None:
    """A kept answer, or None."""

    def parse(fields: Fields) -> KeptAnswer:
        headers = json.loads(fields["headers"])
        if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
            raise ValueError("headers are names and texts")
        return KeptAnswer(fields["body"], headers, float(fields["fetched_at"]))

    return _parsed(answer, parse)


def blob_fields(record: BlobRecord) -> list[str | bytes]:
    """Names and values by turns."""
    return ["size", str(record.size), "blake3", record.blake3, "stored_at", repr(float(record.stored_at))]


def parse_blob(digest: Digest, answer: Sequence[bytes]) -> BlobRecord | None:
    """What was noted of a blob, or None."""

    def parse(fields: Fields) -> BlobRecord:
        return BlobRecord(digest, int(fields["size"]), fields["blake3"].decode(), float(fields["stored_at"]))

    return _parsed(answer, parse)


def _parsed(answer: Sequence[bytes], parse: Callable[[Fields], T]) -> T | None:
    if not answer:
        return None
    try:
        fields = fields_of(answer)
        return parse(fields) if int(fields["v"]) <= VERSION else None
    except (KeyError, ValueError, DigestInvalid):
        return None
