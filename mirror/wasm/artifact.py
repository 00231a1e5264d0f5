"""Which manifests are Wasm artifacts, in which layout, and which of their layers may hold a module.

Some of these layers must not be sent before they are verified whole.
"""

from dataclasses import dataclass
from enum import Enum

from mirror.oci import DOCKER_MANIFEST, IMAGES, INDEXES, Descriptor, Manifest

RAW_LAYER = "application/vnd.module.wasm.content.layer.v1+wasm"
RAW_CONFIG = "application/vnd.module.wasm.config.v1+json"
CNCF_LAYER = "application/wasm"
CNCF_CONFIG = "application/vnd.wasm.config.v0+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"

FILE_NAME = "plugin.wasm"
"""The base name of the file that agents look for in an archive."""

_MODULE_TYPES = frozenset({RAW_LAYER, CNCF_LAYER})
_CONFIG_TYPES = frozenset({RAW_CONFIG, CNCF_CONFIG})
_COMPAT_LAYERS = 4
"""A module in an image layout comes with a few files beside it at most; an image with more layers is a container."""


class Layout(Enum):
    """The ways in which registries hold modules; the values are what people read."""

    DOCKER = "docker"  # Docker's schema 2, the last layer a tar.gz
    COMPAT = "oci tar+gzip"  # an OCI image, the last layer a tar+gzip
    RAW = "oci raw"  # exactly two layers, one of them the module's bytes
    CNCF = "cncf"  # one layer application/wasm, as wkg pushes it
    INDEX = "index"  # an index of which no child is known
    FILE = "file"  # a bare .wasm, in no registry
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Found:
    """A module, or what is called one, in the ``layer``-th layer (from 0) of an artifact.

    ``name`` is its path in the layer's archive; None: the layer's bytes are the module. ``size`` in bytes. ``magic``:
    it begins as Wasm does. ``entry`` is its position among the archive's entries, by which it is extracted.
    ``regular``: it is a file, and no link or folder.
    """

    layer: int
    name: str | None
    size: int
    magic: bool
    entry: int = 0
    regular: bool = True

    @property
    def file_name(self) -> str:
        """The last part of its path."""
        return (self.name or "").rstrip("/").rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether somebody would take an artifact; if not, ``reason`` is one sentence and ``remedy`` what to change."""

    accepted: bool
    reason: str = ""
    remedy: str = ""


def is_module(found: Found) -> bool:
    """Whether it begins as a module does: the magic number and a version; agents want to see no more."""
    return found.magic and found.size >= 8


def is_archive(media_type: str) -> bool:
    """Whether a layer is a gzipped tar, of which agents read only as far as ``plugin.wasm``, without its digest."""
    return media_type.endswith((".tar.gzip", ".tar+gzip"))


def layout_of(manifest: Manifest) -> Layout:
    """The layout that ``manifest`` is meant to have, whether or not anyone takes it as it is."""
    if manifest.media_type in INDEXES:
        return Layout.INDEX
    named = {layer.media_type for layer in manifest.layers}
    config = manifest.config.media_type if manifest.config is not None else ""
    if RAW_LAYER in named:
        return Layout.RAW
    if CNCF_LAYER in named or config == CNCF_CONFIG:
        return Layout.CNCF
    if any(map(is_archive, named)):
        return Layout.DOCKER if manifest.media_type == DOCKER_MANIFEST else Layout.COMPAT
    return Layout.RAW if config == RAW_CONFIG else Layout.OTHER


def modules(manifest: Manifest, max_module_size: int) -> tuple[Descriptor, ...]:
    """The layers that an agent may ask for next; empty when this is no Wasm artifact.

    Nothing in an image tells a module in the image layout from a small container, so small images count: at most
    `_COMPAT_LAYERS` gzipped tars of at most ``max_module_size`` bytes together.
    """
    if manifest.media_type not in IMAGES:
        return ()
    named = {layer.media_type for layer in manifest.layers}
    if named & _MODULE_TYPES or (manifest.config is not None and manifest.config.media_type in _CONFIG_TYPES):
        return manifest.layers
    archives = [layer for layer in manifest.layers if is_archive(layer.media_type)]
    if 0 < len(manifest.layers) <= _COMPAT_LAYERS and len(archives) == len(manifest.layers):
        return manifest.layers if sum(layer.size for layer in archives) <= max_module_size else ()
    return ()


def layers_to_open(manifest: Manifest, max_module_size: int) -> tuple[int, ...]:
    """The numbers of the layers that may hold a module, in the manifest's order; those that are too large are not.

    Of an image with many layers, which is a container, the first few of those that say that they are modules, and the
    last, the only one that agents read.
    """
    layers = manifest.layers
    last = len(layers) - 1
    likely = [
        number for number, layer in enumerate(layers) if last < _COMPAT_LAYERS or layer.media_type in _MODULE_TYPES
    ]
    return tuple(
        number
        for number in dict.fromkeys((*likely[:_COMPAT_LAYERS], *range(max(last, 0), last + 1)))
        if layers[number].size <= max_module_size and may_hold_module(layers[number].media_type)
    )


def may_hold_module(media_type: str) -> bool:
    """Whether a layer of this type can be a module, or an archive that can be opened; text and JSON are neither."""
    essence = media_type.partition(";")[0].strip().lower()
    if essence.startswith("text/") or essence.endswith(("json", "yaml", "xml")):
        return False
    return not essence.endswith((".tar", "+zstd", ".zstd"))


def for_agents(index: Manifest) -> Descriptor | None:
    """The child of an index that an agent takes: linux/amd64, or one without a platform."""
    for child in index.manifests:
        if child.platform is None or (child.platform.os, child.platform.architecture) == ("linux", "amd64"):
            return child
    return None
