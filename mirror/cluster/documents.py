"""What replicas tell one another of tags and links, as JSON objects. What they are about stands in the question.

They carry a version, ``v``. Unknown fields are passed over; a document of a later version says nothing to this one.
"""

from collections.abc import Mapping
from typing import Any

from mirror.digest import Digest
from mirror.errors import DigestInvalid, UpstreamInvalid
from mirror.metadata.base import MAX_SERIAL, Dropped, Link, LinkEntry, TagEntry, TagRecord, Tombstone

_VERSION = 1
_DROPPED = 2  # the version of a link that was dropped, of which the release before knows nothing
_MAX_TEXT = 255
_MAX_NUMBER = 1 << 62


def of_tag(entry: TagEntry) -> dict[str, object]:
    """The entry of a tag."""
    if isinstance(entry, Tombstone):
        return {"v": _VERSION, "deleted_at": entry.deleted_at, "serial": entry.serial}
    return {
        "v": _VERSION,
        "digest": str(entry.digest),
        "media_type": entry.media_type,
        "size": entry.size,
        "fetched_at": entry.fetched_at,
        "serial": entry.serial,
        "moving": entry.moving,
    }


def to_tag(fields: Mapping[str, Any], upstream: str, repository: str, tag: str) -> TagEntry | None:
    """The entry that `of_tag` has written; None when a later version has. Raises `UpstreamInvalid`."""
    if _is_later(fields):
        return None
    serial = _serial(fields)
    if "deleted_at" in fields:
        return Tombstone(upstream, repository, tag, _time(fields, "deleted_at"), serial)
    return TagRecord(
        upstream,
        repository,
        tag,
        _digest(fields, "digest"),
        _text(fields, "media_type"),
        _number(fields, "size", least=0),
        _time(fields, "fetched_at"),
        serial,
        fields.get("moving") is True,
    )


def of_link(entry: LinkEntry) -> dict[str, object]:
    """What stands of the link of a repository to a digest."""
    if isinstance(entry, Dropped):
        return {"v": _DROPPED, "dropped_at": entry.dropped_at, "serial": entry.serial}
    return {"v": _VERSION, "media_type": entry.media_type, "size": entry.size, "serial": entry.serial}


def to_link(fields: Mapping[str, Any], upstream: str, repository: str, digest: Digest) -> LinkEntry | None:
    """What `of_link` has written; None when a later version has. Raises `UpstreamInvalid`."""
    if _is_later(fields, _DROPPED if "dropped_at" in fields else _VERSION):
        return None
    serial = _serial(fields) if "serial" in fields else 0
    if "dropped_at" in fields:
        return Dropped(upstream, repository, digest, _time(fields, "dropped_at"), serial)
    return Link(upstream, repository, digest, _text(fields, "media_type"), _number(fields, "size", least=-1), serial)


def _is_later(fields: Mapping[str, Any], known: int = _VERSION) -> bool:
    return _number(fields, "v", least=1) > known


def _serial(fields: Mapping[str, Any]) -> int:
    serial = _number(fields, "serial", least=0)
    if serial > MAX_SERIAL:
        raise _malformed("serial")
    return serial


def _number(fields: Mapping[str, Any], name: str, *, least: int) -> int:
    value = fields.get(name)
    if type(value) is not int or not least <= value < _MAX_NUMBER:
        raise _malformed(name)
    return value


def _time(fields: Mapping[str, Any], name: str) -> float:
    value = fields.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _MAX_NUMBER:
        raise _malformed(name)
    return float(value)


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or len(value) > _MAX_TEXT or not value.isascii() or not (value + "_").isprintable():
        raise _malformed(name)
    return value


def _digest(fields: Mapping[str, Any], name: str) -> Digest:
    try:
        return Digest.parse(_text(fields, name))
    except DigestInvalid as error:
        raise _malformed(name) from error


def _malformed(name: str) -> UpstreamInvalid:
    return UpstreamInvalid(f"what a replica tells has no valid {name!r}")
