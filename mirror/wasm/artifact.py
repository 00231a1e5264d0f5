"""Which manifests are Wasm artifacts, and which of their layers must not be sent before they are verified whole."""

from dataclasses import dataclass
from enum import Enum

from mirror.oci import IMAGES, Descriptor, Manifest

_MODULE_TYPES = frozenset({"application/vnd.module.wasm.content.layer.v1+wasm", "application/wasm"})
_CONFIG_TYPES = frozenset({"application/vnd.module.wasm.config.v1+json", "application/vnd.wasm.config.v0+json"})
_COMPAT_LAYERS = 4
"""A module in an image layout comes with a few files beside it at most; an image with more layers is a container."""


class Layout(Enum):
    """The ways in which registries hold modules; the values are what people read."""

    DOCKER = "docker"  # Docker's schema 2, the last layer a tar.gz
    COMPAT = "oci tar+gzip"  # an OCI image, the last layer a tar+gzip
    RAW = "oci raw"  # exactly two layers, one of them the module's bytes
    CNCF = "cncf"  # one layer application/wasm, as wkg pushes it
    FILE = "file"  # a bare .wasm, in no registry
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Found:
    """A module, or what is called one, in the ``layer``-th layer (from 0) of an artifact.

    ``name`` is its path in the layer's archive; None: the layer's bytes are the module. ``size`` in bytes. ``magic``:
    it begins as Wasm does. ``entry`` is its position among the archive's entries, by which it is extracted.
    """

    layer: int
    name: str | None
    size: int
    magic: bool
    entry: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether somebody would take an artifact; if not, ``reason`` is one sentence and ``remedy`` what to change."""

    accepted: bool
    reason: str = ""
    remedy: str = ""


def is_archive(media_type: str) -> bool:
    """Whether a layer is a gzipped tar, of which agents read only as far as ``plugin.wasm``, without its digest."""
    return media_type.endswith((".tar.gzip", ".tar+gzip"))


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


def for_agents(index: Manifest) -> Descriptor | None:
    """The child of an index that an agent takes: linux/amd64, or one without a platform."""
    for child in index.manifests:
        if child.platform is None or (child.platform.os, child.platform.architecture) == ("linux", "amd64"):
            return child
    return None
