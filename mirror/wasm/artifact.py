"""Which manifests are Wasm artifacts, and which of their layers must not be sent before they are verified whole."""

from mirror.oci import IMAGES, Descriptor, Manifest

_MODULE_TYPES = frozenset({"application/vnd.module.wasm.content.layer.v1+wasm", "application/wasm"})
_CONFIG_TYPES = frozenset({"application/vnd.module.wasm.config.v1+json", "application/vnd.wasm.config.v0+json"})
_COMPAT_LAYERS = 4
"""A module in an image layout comes with a few files beside it at most; an image with more layers is a container."""


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
