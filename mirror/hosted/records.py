"""Records of hosted content, and what of a pushed manifest stands in them.

Times are seconds since the epoch; sizes are bytes. A repository is named without the prefix of hosted content.
Sources: OCI image specification 1.1, manifest.md and image-index.md; OCI distribution specification 1.1, "Referrers".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from mirror.digest import Digest
from mirror.errors import ManifestInvalid, UpstreamInvalid
from mirror.oci import INDEXES, Descriptor, Manifest, parse_descriptor, parse_object

FOREIGN = frozenset(
    {
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    }
)
"""Layers that a manifest names and that no registry needs to have."""


@dataclass(frozen=True, slots=True)
class BlobLink:
    """That a repository has a blob. ``touched_at``: when it was last pushed, mounted or confirmed there."""

    digest: Digest
    size: int
    touched_at: float


@dataclass(frozen=True, slots=True)
class ManifestRecord:
    """A manifest of a repository, and when it was last pushed there. ``artifact_type`` is empty where there is none."""

    digest: Digest
    media_type: str
    size: int
    subject: Digest | None
    artifact_type: str
    annotations: tuple[tuple[str, str], ...]
    pushed_at: float


@dataclass(frozen=True, slots=True)
class HostedTag:
    """What a tag names. ``serial`` counts its moves."""

    tag: str
    digest: Digest
    moved_at: float
    serial: int


class Tagged(NamedTuple):
    """A tag of a repository, and the manifest that it names; its digest as text."""

    repository: str
    tag: str
    digest: str
    media_type: str
    moved_at: float


@dataclass(frozen=True, slots=True)
class Described:
    """A manifest that is pushed, with what only a registry that hosts it needs to know.

    ``artifact_type`` is what referrers are listed and filtered by: the manifest's own, or else its config's media type.
    """

    manifest: Manifest
    subject: Descriptor | None
    artifact_type: str

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """Raises `ManifestInvalid` where ``subject`` is no descriptor or ``artifactType`` no media type."""
        try:
            fields = parse_object(manifest.body, "the manifest")
            subject = fields.get("subject")
            described = parse_descriptor(subject, "subject") if subject is not None else None
        except UpstreamInvalid as error:
            raise ManifestInvalid(error.message) from error
        own = fields.get("artifactType") or ""
        if not isinstance(own, str) or not own.isascii() or not own.isprintable():
            raise ManifestInvalid("the manifest's artifactType is not a media type")
        config = manifest.config.media_type if manifest.config is not None else ""
        return cls(manifest, described, own or config)

    @property
    def blobs(self) -> Sequence[Descriptor]:
        """What must be a blob of its repository."""
        manifest = self.manifest
        layers = tuple(layer for layer in manifest.layers if layer.media_type not in FOREIGN)
        return (manifest.config, *layers) if manifest.config is not None else layers

    @property
    def children(self) -> Sequence[Descriptor]:
        """What must be a manifest of its repository."""
        return self.manifest.manifests if self.manifest.media_type in INDEXES else ()
