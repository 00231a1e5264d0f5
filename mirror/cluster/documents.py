"""What replicas tell one another of tags and links, as JSON objects. What they are about stands in the question.

They carry a version, ``v``. Unknown fields are passed over; a document of a later version says nothing to this one.
"""

from collections.abc import Mapping
from typing import Any

from mirror import members
from mirror.digest import Digest
from mirror.metadata.base import MAX_SERIAL, Dropped, Link, LinkEntry, TagEntry, TagRecord, Tombstone

_VERSION = 1
_DROPPED = 2  # the version of a link that was dropped, of which the release before knows nothing


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
        return Tombstone(upstream, repository, tag, members.time(fields, "deleted_at"), serial)
    return TagRecord(
        upstream,
        repository,
        tag,
        members.digest(fields, "digest"),
        members.text(fields, "media_type"),
        members.number(fields, "size", least=0),
        members.time(fields, "fetched_at"),
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
        return Dropped(upstream, repository, digest, members.time(fields, "dropped_at"), serial)
    return Link(
        upstream,
        repository,
        digest,
        members.text(fields, "media_type"),
        members.number(fields, "size", least=-1),
        serial,
    )


def _is_later(fields: Mapping[str, Any], known: int = _VERSION) -> bool:
    return members.number(fields, "v", least=1) > known


def _serial(fields: Mapping[str, Any]) -> int:
    serial = members.number(fields, "serial", least=0)
    if serial > MAX_SERIAL:
        raise members.malformed("serial")
    return serial
