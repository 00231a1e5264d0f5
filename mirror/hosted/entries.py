"""What replicas tell one another of hosted content: an entry for each blob, manifest and tag, as a JSON object.

An entry says what became of one key at a ``moment``: a number of microseconds since the epoch, which grows with every
change, whichever replica made it. Of two entries for one key the one with the later moment stands, at every replica.

The documents carry a version, ``v``, and a ``kind``. Unknown fields are passed over; a document of a later version, or
of a kind that is not known, says nothing to this one. Repositories are named without the prefix of hosted content.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mirror import members
from mirror.digest import Digest
from mirror.errors import ManifestInvalid, NameInvalid, TagInvalid, UpstreamInvalid
from mirror.hosted.records import Described
from mirror.oci import MANIFEST_TYPES, Manifest, parse_name, parse_tag

VERSION = 1
"""Of the documents: who has read with an earlier one passed over some, and reads again."""

MAX_MOMENT = 8 * 10**15
"""The year 2255; what is beyond it is damaged, or a lie that would win over all changes to come."""

MAX_BODY = 32 * 1024 * 1024
"""Bytes of a manifest that an entry may carry."""


@dataclass(frozen=True, slots=True)
class OfBlob:
    """Whether a repository has a blob. ``touched_at`` as of `BlobLink`; of all that is known of it the latest counts.

    ``before`` is set where the blob was taken away because nobody had touched it since then: where somebody had, it
    does not stand.
    """

    repository: str
    digest: Digest
    moment: int
    gone: bool
    size: int
    touched_at: float
    before: float | None = None


@dataclass(frozen=True, slots=True)
class OfManifest:
    """A manifest of a repository, with its bytes; ``described`` is None where it was deleted."""

    repository: str
    digest: Digest
    moment: int
    described: Described | None
    pushed_at: float = 0.0

    @property
    def gone(self) -> bool:
        """Whether it was deleted."""
        return self.described is None


@dataclass(frozen=True, slots=True)
class OfTag:
    """What a tag names; ``digest`` is None where it was deleted. ``moved_at`` and ``serial`` as of `HostedTag`."""

    repository: str
    tag: str
    moment: int
    digest: Digest | None
    moved_at: float = 0.0
    serial: int = 0

    @property
    def gone(self) -> bool:
        """Whether it was deleted."""
        return self.digest is None


Entry = OfBlob | OfManifest | OfTag


@dataclass(frozen=True, slots=True)
class Portion:
    """Entries of a replica, in the order in which it learned of them. They go on after ``next``, if there are ``more``.

    ``next`` may be less than what was asked for: the replica was set back, and has begun with its first.
    """

    entries: Sequence[Entry]
    next: int
    more: bool


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far the entries of the records ``of`` an identity are known here, and when they were read from the first on:
    seconds since the epoch.
    """

    of: str
    seq: int
    started_at: float


def of_entry(entry: Entry) -> dict[str, object]:
    """The document of an entry."""
    fields: dict[str, object] = {"v": VERSION, "repository": entry.repository, "moment": entry.moment}
    if entry.gone:
        fields["gone"] = True
    match entry:
        case OfBlob():
            fields |= {
                "kind": "blob",
                "digest": str(entry.digest),
                "size": entry.size,
                "touched_at": entry.touched_at,
            }
            if entry.before is not None:
                fields["before"] = entry.before
        case OfManifest():
            fields |= {"kind": "manifest", "digest": str(entry.digest)}
            if entry.described is not None:
                manifest = entry.described.manifest
                fields |= {
                    "media_type": manifest.media_type,
                    "pushed_at": entry.pushed_at,
                    "body": base64.b64encode(manifest.body).decode("ascii"),
                }
        case OfTag():
            fields |= {"kind": "tag", "tag": entry.tag}
            if entry.digest is not None:
                fields |= {"digest": str(entry.digest), "moved_at": entry.moved_at, "serial": entry.serial}
    return fields


def to_entry(fields: Mapping[str, Any]) -> Entry | None:
    """The entry that `of_entry` has written, with a manifest held against its digest; None when it says nothing to
    this release. Raises `UpstreamInvalid`. Takes a while for a large manifest: for a thread.
    """
    if members.number(fields, "v", least=1) > VERSION:
        return None
    match fields.get("kind"):
        case "blob":
            return _to_blob(fields)
        case "manifest":
            return _to_manifest(fields)
        case "tag":
            return _to_tag(fields)
        case str():
            return None
    raise members.malformed("kind")


def _to_blob(fields: Mapping[str, Any]) -> OfBlob:
    gone = _gone(fields)
    return OfBlob(
        _repository(fields),
        members.digest(fields, "digest"),
        _moment(fields),
        gone,
        members.number(fields, "size", least=0),
        members.time(fields, "touched_at"),
        members.time(fields, "before") if gone and "before" in fields else None,
    )


def _to_manifest(fields: Mapping[str, Any]) -> OfManifest:
    repository, digest, moment = _repository(fields), members.digest(fields, "digest"), _moment(fields)
    if _gone(fields):
        return OfManifest(repository, digest, moment, None)
    media_type = members.text(fields, "media_type")
    if media_type not in MANIFEST_TYPES:
        raise members.malformed("media_type")
    described = described_by(digest, media_type, _body(fields))
    return OfManifest(repository, digest, moment, described, members.time(fields, "pushed_at"))


def described_by(digest: Digest, media_type: str, body: bytes) -> Described:
    """The manifest whose bytes are said to be these. Raises `UpstreamInvalid` where they are not, or are none."""
    if Digest.of(body, digest.algorithm) != digest:
        raise UpstreamInvalid(f"a replica tells of the manifest {digest}, with the bytes of another")
    try:
        return Described.of(Manifest.parse(body, media_type, digest))
    except ManifestInvalid as error:
        raise UpstreamInvalid(f"a replica tells of the manifest {digest}: {error.message}") from error


def _to_tag(fields: Mapping[str, Any]) -> OfTag:
    repository, moment = _repository(fields), _moment(fields)
    try:
        tag = parse_tag(members.text(fields, "tag"))
    except TagInvalid as error:
        raise members.malformed("tag") from error
    if _gone(fields):
        return OfTag(repository, tag, moment, None)
    digest = members.digest(fields, "digest")
    return OfTag(
        repository, tag, moment, digest, members.time(fields, "moved_at"), members.number(fields, "serial", least=1)
    )


def _repository(fields: Mapping[str, Any]) -> str:
    try:
        return parse_name(members.text(fields, "repository"))
    except NameInvalid as error:
        raise members.malformed("repository") from error


def _moment(fields: Mapping[str, Any]) -> int:
    moment = members.number(fields, "moment", least=1)
    if moment > MAX_MOMENT:
        raise members.malformed("moment")
    return moment


def _gone(fields: Mapping[str, Any]) -> bool:
    gone = fields.get("gone", False)
    if type(gone) is not bool:
        raise members.malformed("gone")
    return gone


def _body(fields: Mapping[str, Any]) -> bytes:
    text = members.text(fields, "body", MAX_BODY * 4 // 3 + 4)
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise members.malformed("body") from error
