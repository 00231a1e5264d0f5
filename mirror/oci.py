"""References, descriptors and manifests: what the mirror's requests name, parsed once into frozen values.

Sources: OCI distribution specification 1.1, "Pulling manifests"; OCI image specification 1.1, manifest.md,
image-index.md and descriptor.md; Docker image manifest version 2, schema 2.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Self

from mirror.digest import Digest
from mirror.errors import DigestInvalid, NameInvalid, NotFound, TagInvalid, UploadUnknown, UpstreamInvalid

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
IMAGES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEXES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFEST_TYPES = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST)

MAX_MANIFEST_SIZE = 4 * 1024 * 1024
MAX_JSON_DEPTH = 64

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_UPLOAD = re.compile(r"[a-zA-Z0-9_-]{1,256}")
_PORT = re.compile(r"[^/:]+:\d+/")
_MAX_NAME = 255


def parse_name(text: str) -> str:
    """The repository name ``text``, unchanged; raise `NameInvalid` when it is outside the grammar or too long."""
    if len(text) > _MAX_NAME or not _NAME.fullmatch(text):
        hint = "; a registry with a port needs an alias under `upstreams`" if _PORT.match(text) else ""
        raise NameInvalid(
            f"{_shown(text)} is not a repository name: components of lower-case letters, digits and single . _ __ - "
            f"between them, joined by /, {_MAX_NAME} characters at most{hint}"
        )
    return text


def parse_tag(text: str) -> str:
    """The tag ``text``, unchanged; raise `TagInvalid` when it is outside the grammar."""
    if not _TAG.fullmatch(text):
        raise TagInvalid(
            f"{_shown(text)} is not a tag: up to 128 letters, digits, dots, dashes and underscores, "
            "not starting with a dot or dash"
        )
    return text


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:80] + "…")


@dataclass(frozen=True, slots=True)
class Reference:
    """A tag or a digest in a repository of an upstream. Exactly one of ``tag`` and ``digest`` is set."""

    upstream: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @property
    def target(self) -> str:
        """The tag or the digest, as it stands in a URL."""
        return self.tag if self.tag is not None else str(self.digest)

    def at(self, digest: Digest) -> "Reference":
        """Other content of the same repository."""
        return Reference(self.upstream, self.repository, digest=digest)

    def __str__(self) -> str:
        joint = ":" if self.tag is not None else "@"
        return f"{self.upstream}/{self.repository}{joint}{self.target}"


class Resource(Enum):
    """What a path under ``/v2/`` asks for."""

    BASE = "base"
    MANIFEST = "manifests"
    BLOB = "blobs"
    TAGS = "tags"
    REFERRERS = "referrers"
    UPLOAD = "uploads"


@dataclass(frozen=True, slots=True)
class RegistryPath:
    """A path under ``/v2/``, parsed: the whole name, not yet split into upstream and repository.

    ``upload`` is the id of an upload; a `Resource.UPLOAD` without one is where uploads begin.
    """

    resource: Resource
    name: str = ""
    tag: str | None = None
    digest: Digest | None = None
    upload: str | None = None


_BASE = RegistryPath(Resource.BASE)


def parse_path(path: str) -> RegistryPath:
    """Parse a decoded request path, ``/v2/<name>/(manifests|blobs|tags|referrers)/…``.

    Raises `NameInvalid`, `TagInvalid`, `DigestInvalid` or `UploadUnknown` for a malformed part, `NotFound` where no
    route exists.
    Source: OCI distribution specification 1.1, "Endpoints".
    """
    if path in ("/v2/", "/v2"):
        return _BASE
    if not path.startswith("/v2/"):
        raise NotFound("there is nothing at this address; the registry is under /v2/")
    head, _, last = path[4:].rpartition("/")
    name, _, kind = head.rpartition("/")
    if kind == "manifests" and name:
        if ":" in last:
            return RegistryPath(Resource.MANIFEST, parse_name(name), digest=Digest.parse(last))
        return RegistryPath(Resource.MANIFEST, parse_name(name), tag=parse_tag(last))
    if kind == "blobs" and name:
        if last == "uploads":
            return RegistryPath(Resource.UPLOAD, parse_name(name))
        return RegistryPath(Resource.BLOB, parse_name(name), digest=Digest.parse(last))
    if kind == "tags" and name and last == "list":
        return RegistryPath(Resource.TAGS, parse_name(name))
    if kind == "referrers" and name:
        return RegistryPath(Resource.REFERRERS, parse_name(name), digest=Digest.parse(last))
    if kind == "uploads" and name.endswith("/blobs"):
        return RegistryPath(Resource.UPLOAD, parse_name(name.removesuffix("/blobs")), upload=_upload(last))
    raise NotFound(
        "there is nothing at this address; the registry answers /v2/<name>/manifests/<reference>, "
        "/v2/<name>/blobs/<digest>, /v2/<name>/tags/list and /v2/<name>/referrers/<digest>"
    )


def _upload(text: str) -> str | None:
    if text and not _UPLOAD.fullmatch(text):
        raise UploadUnknown(f"{_shown(text)} is not an upload of this registry; begin a new one")
    return text or None


@dataclass(frozen=True, slots=True)
class NamedReference:
    """A whole name, not yet split into upstream and repository, with a tag or a digest; exactly one is set."""

    name: str
    tag: str | None = None
    digest: Digest | None = None


def parse_reference(text: str) -> NamedReference:
    """Parse ``<name>:<tag>``, ``<name>@<digest>``, or ``<name>``, which means the tag ``latest`` as it does to agents.

    ``<name>:<tag>@<digest>`` means the digest, as it does to them. Raises `NameInvalid`, `TagInvalid`, `DigestInvalid`.
    """
    rest, at, digest = text.partition("@")
    name, colon, tag = rest.partition(":")
    named = parse_name(rest if _PORT.match(rest) else name)
    if colon:
        parse_tag(tag)
    if at:
        return NamedReference(named, digest=Digest.parse(digest))
    return NamedReference(named, tag=tag if colon else "latest")


@dataclass(frozen=True, slots=True)
class Platform:
    """What an index says that a child runs on."""

    os: str
    architecture: str


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A pointer from a manifest to content: its digest, its size in bytes, its media type."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A verified manifest or index: the exact bytes, their exact media type, and what they name.

    An index has ``manifests`` and neither ``config`` nor ``layers``; an image has no ``manifests``.
    """

    body: bytes
    media_type: str
    digest: Digest
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()
    annotations: tuple[tuple[str, str], ...] = ()

    @property
    def named(self) -> tuple[Descriptor, ...]:
        """All that it names in its own repository."""
        return (*((self.config,) if self.config else ()), *self.layers, *self.manifests)

    @classmethod
    def parse(cls, body: bytes, media_type: str, digest: Digest) -> Self:
        """Parse bytes that were already held against ``digest``.

        ``media_type`` is upstream's ``Content-Type``; where it is missing or says nothing (``application/json``,
        ``application/octet-stream``, ``text/plain``), the body decides. Raises `UpstreamInvalid` with what is wrong.
        """
        fields = parse_object(body, "the manifest")
        kind = _media_type(fields, media_type)
        _refuse_mixture(fields, kind)
        annotations = fields.get("annotations")
        if annotations is None:
            annotations = {}
        if not isinstance(annotations, dict) or not all(isinstance(value, str) for value in annotations.values()):
            raise UpstreamInvalid("the manifest's annotations are not a map of strings")
        notes = tuple(annotations.items())
        if kind in INDEXES:
            return cls(body, kind, digest, manifests=_descriptors(fields, "manifests"), annotations=notes)
        return cls(
            body,
            kind,
            digest,
            config=parse_descriptor(fields.get("config"), "config"),
            layers=_descriptors(fields, "layers"),
            annotations=notes,
        )


_TELLS_NOTHING = frozenset({"", "application/json", "application/octet-stream", "text/plain"})


def _media_type(fields: dict[str, Any], header: str) -> str:
    """The one media type on which header, body and shape agree (CVE-2021-41190)."""
    header = header.partition(";")[0].strip().lower()
    own = fields.get("mediaType")
    if own is not None and not isinstance(own, str):
        raise UpstreamInvalid("the manifest's mediaType is not a string")
    if fields.get("schemaVersion") == 1 or header.startswith("application/vnd.docker.distribution.manifest.v1"):
        raise UpstreamInvalid("the manifest is of Docker's schema 1, which is not supported; push the image anew")
    if header in _TELLS_NOTHING:
        header = own or (OCI_INDEX if "manifests" in fields else OCI_MANIFEST)
    if header not in MANIFEST_TYPES:
        raise UpstreamInvalid(f"the answer's media type {_shown(header)} is not that of a manifest")
    if own and own != header:
        raise UpstreamInvalid(f"the manifest calls itself {_shown(own)}, but was sent as {_shown(header)}")
    return header


_MANIFEST_FIELDS = ("schemaVersion", "mediaType", "config", "layers", "manifests", "annotations", "fsLayers")
_DESCRIPTOR_FIELDS = ("mediaType", "digest", "size", "platform")


def _refuse_other_case(fields: dict[str, Any], known: tuple[str, ...], where: str) -> None:
    """Refuse keys such as ``Layers``: clients written in Go take them for ``layers``, and the last one counts there."""
    folded = {name.casefold() for name in known}
    for key in fields:
        if key not in known and key.casefold() in folded:
            raise UpstreamInvalid(f"the {where} has the field {_shown(key)}, which some clients read as another")


def _refuse_mixture(fields: dict[str, Any], kind: str) -> None:
    _refuse_other_case(fields, _MANIFEST_FIELDS, "manifest")
    version = fields.get("schemaVersion")
    if type(version) is not int or version != 2:
        raise UpstreamInvalid("the manifest's schemaVersion is not 2")
    foreign = ("config", "layers", "fsLayers") if kind in INDEXES else ("manifests", "fsLayers")
    for name in foreign:
        if name in fields:
            raise UpstreamInvalid(f"the manifest is sent as {kind}, but has the field {name!r}")


def _descriptors(fields: dict[str, Any], name: str) -> tuple[Descriptor, ...]:
    values = fields.get(name)
    if not isinstance(values, list):
        raise UpstreamInvalid(f"the manifest has no list {name!r}")
    return tuple(parse_descriptor(value, f"{name}[{i}]") for i, value in enumerate(values))


def parse_descriptor(value: object, where: str) -> Descriptor:
    """A descriptor out of parsed JSON; raises `UpstreamInvalid`, which says ``where`` of the manifest it stands."""
    if not isinstance(value, dict):
        raise UpstreamInvalid(f"the manifest's {where} is not a descriptor")
    _refuse_other_case(value, _DESCRIPTOR_FIELDS, f"manifest's {where}")
    media_type, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
    if not isinstance(media_type, str) or not media_type.isascii() or not media_type.isprintable():
        raise UpstreamInvalid(f"the manifest's {where} has no media type")
    if not isinstance(digest, str):
        raise UpstreamInvalid(f"the manifest's {where} has no digest")
    if type(size) is not int or not 0 <= size < 1 << 62:
        raise UpstreamInvalid(f"the manifest's {where} has no size")
    try:
        return Descriptor(media_type, Digest.parse(digest), size, _platform(value.get("platform")))
    except DigestInvalid as error:
        raise UpstreamInvalid(f"the manifest's {where}: {error}") from error


def _platform(value: object) -> Platform | None:
    if not isinstance(value, dict):
        return None
    return Platform(str(value.get("os", "")), str(value.get("architecture", "")))


def parse_object(body: bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object strictly: UTF-8, no duplicate keys, no ``NaN``, no lone surrogates, no depth beyond
    `MAX_JSON_DEPTH`.

    Raises `UpstreamInvalid`, whose message begins with ``what``.
    """
    _refuse_depth(body, what)
    try:
        value = json.loads(body.decode("utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
        if b"\\u" in body:  # half of a surrogate pair could not be written to any file or socket later
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise UpstreamInvalid(f"{what} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise UpstreamInvalid(f"{what} is not a JSON object")
    return value


_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def _refuse_depth(body: bytes, what: str) -> None:
    if body.count(b"[") + body.count(b"{") <= MAX_JSON_DEPTH:
        return
    depth = 0
    for match in _STRUCTURE.finditer(body):
        byte = match[0][0]
        if byte in b"[{":
            depth += 1
            if depth > MAX_JSON_DEPTH:
                raise UpstreamInvalid(f"{what} is nested deeper than {MAX_JSON_DEPTH} levels")
        elif byte in b"]}":
            depth -= 1


def _without_duplicates(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {_shown(key)} stands twice")
        found[key] = value
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
