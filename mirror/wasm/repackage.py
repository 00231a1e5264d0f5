"""The same module in a layout that agents take: which artifacts that helps, and the manifest that is made for it.

Pure, and determined by the artifact alone, so that all replicas make the same bytes. Source of the layout: the Wasm
image specification of Solo.io, "Format" (two layers: the module, and the configuration of its runtime).
"""

import json

from mirror.digest import Digest
from mirror.errors import DigestInvalid
from mirror.oci import OCI_MANIFEST, Descriptor, Manifest, Platform
from mirror.wasm.artifact import RAW_CONFIG, RAW_LAYER, for_agents
from mirror.wasm.description import Description

CONFIG = b"{}"
"""The configuration of a manifest that is made, and its second layer: it says nothing."""

_SOURCE = "org.opencontainers.image.base.digest"
"""The annotation with the digest of the manifest whose module it is. OCI image specification 1.1, annotations.md."""


def original_tag(tag: str, suffix: str) -> str | None:
    """The tag whose artifact is meant by ``tag``, if that one ends as the setting says."""
    return tag.removesuffix(suffix) if tag.endswith(suffix) and tag != suffix else None


def repackaged(source: Digest, module: Digest, size: int) -> Manifest:
    """The manifest of a module of ``size`` bytes, out of the artifact ``source``: the same bytes at all times."""
    config = {"mediaType": RAW_CONFIG, "digest": str(Digest.of(CONFIG)), "size": len(CONFIG)}
    fields = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config,
        "layers": [{"mediaType": RAW_LAYER, "digest": str(module), "size": size}, config],
        "annotations": {_SOURCE: str(source)},
    }
    body = json.dumps(fields, separators=(",", ":")).encode()
    return Manifest.parse(body, OCI_MANIFEST, Digest.of(body))


def source_of(manifest: Manifest) -> Digest | None:
    """The artifact of which ``manifest`` was made, if it was, byte for byte; None for what anybody else has made."""
    source = dict(manifest.annotations).get(_SOURCE)
    if source is None or len(manifest.layers) != 2:
        return None
    try:
        digest = Digest.parse(source)
    except DigestInvalid:
        return None
    module = manifest.layers[0]
    return digest if repackaged(digest, module.digest, module.size).body == manifest.body else None


def chosen_child(index: Manifest) -> Descriptor | None:
    """The child of an index that is repackaged: the one that agents take, or else the only one there is.

    What only attests to other children (a platform ``unknown/unknown``) does not count.
    """
    images = [child for child in index.manifests if child.platform != Platform("unknown", "unknown")]
    return for_agents(index) or (images[0] if len(images) == 1 else None)


def in_the_way(described: Description) -> str | None:
    """Why an artifact that agents refuse is not repackaged, and what to change; None: nothing stands in the way."""
    if not described.complete:
        return "not all of its layers could be looked at"
    if described.chosen is None or described.module is None:
        what = described.problem or described.agent.reason
        return f"it does not hold exactly one good module: {_with(what, described.envoy.remedy)}"
    if described.module.component:
        return f"its module is none for Envoy: {_with(described.envoy.reason, described.envoy.remedy)}"
    return None


def _with(reason: str, remedy: str) -> str:
    return f"{reason}; {remedy}" if remedy else reason
