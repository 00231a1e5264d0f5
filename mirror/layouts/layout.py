"""What lies where in an OCI image layout, and what its index.json says.

Sources: OCI image specification 1.1, image-layout.md; annotations.md, "Pre-Defined Annotation Keys".
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from mirror.digest import Digest
from mirror.errors import ArchiveInvalid, DigestInvalid, UpstreamInvalid
from mirror.oci import OCI_INDEX, Descriptor, parse_descriptor, parse_object

MARK = "oci-layout"
INDEX = "index.json"
BLOBS = "blobs"

REF_NAME = "org.opencontainers.image.ref.name"
"""What an artifact is called: a whole reference, or only a tag, as skopeo and regctl write it."""

CONTAINERD_NAME = "io.containerd.image.name"
"""The same, a whole reference in any case: containerd and Docker write it, beside the tag."""

_VERSION = "1.0.0"
_MOST = 10_000
_LONGEST_NAME = 512
_DOCKERS = frozenset({"manifest.json", "repositories"})


@dataclass(frozen=True, slots=True)
class Named:
    """An entry of index.json: ``name`` is what `CONTAINERD_NAME` or else `REF_NAME` says, "" where neither does."""

    descriptor: Descriptor
    name: str


def blob_name(digest: Digest) -> str:
    """Where a layout has a blob."""
    return f"{BLOBS}/{digest.algorithm}/{digest.hex}"


def blob_in(name: str) -> Digest | None:
    """The digest of the blob that lies under ``name``; None for what is no blob's name."""
    folder, _, rest = name.partition("/")
    algorithm, _, digits = rest.partition("/")
    if folder != BLOBS:
        return None
    try:
        return Digest.parse(f"{algorithm}:{digits}")
    except DigestInvalid:
        return None


def mark() -> bytes:
    """The content of `MARK`."""
    return json.dumps({"imageLayoutVersion": _VERSION}, separators=(",", ":")).encode()


def index(entries: Sequence[Named]) -> bytes:
    """The content of `INDEX`; each entry has its name in both annotations, so that containerd finds it too."""
    manifests = [
        {
            "mediaType": entry.descriptor.media_type,
            "digest": str(entry.descriptor.digest),
            "size": entry.descriptor.size,
            "annotations": {CONTAINERD_NAME: entry.name, REF_NAME: entry.name},
        }
        for entry in entries
    ]
    whole = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
    return json.dumps(whole, separators=(",", ":")).encode()


def check_mark(content: bytes | None, others: Sequence[str]) -> None:
    """Raise `ArchiveInvalid` where ``content``, that of `MARK`, does not say that this is an image layout.

    ``others`` are the names that the archive has beside those of a layout.
    """
    if content is None and _DOCKERS & set(others):
        raise ArchiveInvalid(
            "this is an archive as docker save writes it, not an OCI image layout; turn it into one with "
            "skopeo copy docker-archive:FILE oci-archive:NEW:REFERENCE"
        )
    if content is None:
        raise ArchiveInvalid(f"the archive has no file {MARK}, so it is no OCI image layout")
    version = _object(content, MARK).get("imageLayoutVersion")
    if version != _VERSION:
        raise ArchiveInvalid(f"the archive's {MARK} says version {str(version)[:80]!r}; this mirror reads {_VERSION}")


def parse_index(content: bytes | None) -> Sequence[Named]:
    """What `INDEX` names. Raises `ArchiveInvalid`."""
    if content is None:
        raise ArchiveInvalid(f"the archive has no file {INDEX}, so nothing says what it holds")
    fields = _object(content, INDEX)
    manifests = fields.get("manifests")
    if fields.get("schemaVersion") != 2 or fields.get("mediaType", OCI_INDEX) != OCI_INDEX:
        raise ArchiveInvalid(f"the archive's {INDEX} is no OCI image index")
    if not isinstance(manifests, list):
        raise ArchiveInvalid(f"the archive's {INDEX} has no list of manifests")
    if len(manifests) > _MOST:
        raise ArchiveInvalid(f"the archive's {INDEX} names {len(manifests):,} artifacts; at most {_MOST:,} are read")
    if not manifests:
        raise ArchiveInvalid(f"the archive's {INDEX} names nothing that could be imported")
    try:
        return [Named(parse_descriptor(one, f"manifests[{at}]"), _name(one)) for at, one in enumerate(manifests)]
    except UpstreamInvalid as error:
        raise ArchiveInvalid(f"the archive's {INDEX} cannot be read: {error.message}") from error


def _name(entry: dict[str, object]) -> str:
    notes = entry.get("annotations")
    if not isinstance(notes, dict):
        return ""
    name = notes.get(CONTAINERD_NAME) or notes.get(REF_NAME) or ""
    if not isinstance(name, str):
        return ""
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"  # which is no reference, and is told so


def _object(content: bytes, name: str) -> dict[str, object]:
    try:
        return parse_object(content, f"the archive's {name}")
    except UpstreamInvalid as error:
        raise ArchiveInvalid(error.message) from error
