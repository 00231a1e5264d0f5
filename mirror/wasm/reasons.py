"""The words in which agents and Envoy Gateway refuse an artifact for what its manifest says, and what to change."""

from collections.abc import Sequence
from dataclasses import dataclass

from mirror.digest import Digest
from mirror.oci import DOCKER_MANIFEST, INDEXES, Manifest
from mirror.wasm.artifact import (
    CNCF_LAYER,
    DOCKER_LAYER,
    FILE_NAME,
    OCI_LAYER,
    RAW_CONFIG,
    RAW_LAYER,
    Verdict,
    is_archive,
)

PUSH_RAW = f"push it with exactly two layers: the module as {RAW_LAYER}, and a file with {{}} in it as {RAW_CONFIG}"


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads: its name, and whether it takes as much as it reads of a module that is too large."""

    name: str
    plural: bool
    truncates: bool

    def does(self, verb: str) -> str:
        """The beginning of a sentence: "agents read", "Envoy Gateway reads"."""
        return f"{self.name} {verb}{'' if self.plural else 's'}"


AGENTS = Reader("agents", plural=True, truncates=True)
GATEWAY = Reader("Envoy Gateway", plural=False, truncates=False)


def wrong_last(manifest: Manifest, types: Sequence[str], wanted: str, who: Reader) -> Verdict:
    """Why an image is refused whose last layer is not of the type that is ``wanted``.

    ``types`` are those of its layers as ``who`` sees them.
    """
    last, count = types[-1], len(types)
    image = "a Docker image" if wanted == DOCKER_LAYER else "a tar+gzip image"
    if CNCF_LAYER in types:
        reason = f"the module's layer is of type {CNCF_LAYER}, the CNCF layout, which is unknown to {who.name}"
        return Verdict(False, reason, PUSH_RAW)
    if wanted in types:
        return Verdict(
            False,
            f"the last of {count} layers is {_named(last)}; {who.does('read')} only the last layer of {image}",
            f"push the layer that holds {FILE_NAME} as the last one",
        )
    if wanted == OCI_LAYER and manifest.media_type == DOCKER_MANIFEST:
        reason = f"the manifest does not say that it is Docker's, and {who.does('take')} it for one of OCI"
        return Verdict(False, reason, f"push it with {DOCKER_MANIFEST} as its mediaType")
    if RAW_LAYER in types:
        return Verdict(
            False, f"{who.does('take')} a raw module only out of an OCI image, and this is {image}", PUSH_RAW
        )
    if any(layer.media_type == RAW_LAYER for layer in manifest.layers):
        reason = f"the module's layer is also the config or another layer, whose type {who.does('take')} for its own"
        return Verdict(False, reason, PUSH_RAW)
    where = "the last of its layers" if count > 1 else "its layer"
    return Verdict(
        False, f"{where} is {_named(last)}; in {image} {who.does('read')} {wanted} only", _instead(last, wanted)
    )


def misled(index: Manifest, manifest: Manifest) -> Verdict | None:
    """What there is against ``index`` as the way to ``manifest``: clients believe its word on what its children are."""
    for child in index.manifests:
        if child.digest == manifest.digest and (child.media_type in INDEXES) != (manifest.media_type in INDEXES):
            return Verdict(
                False,
                f"the index calls {child.digest} one of type {child.media_type}, and it is {manifest.media_type}",
                "push the index anew, with the media type that its child has",
            )
    return None


def compared(index: Digest, fails: str) -> str:
    """Why who pins the digest of an index does not get what it leads to; who ``fails``, in words."""
    return (
        f"{index} is the digest of an index; {fails} with a checksum mismatch, for it is compared with that of the "
        "child for linux/amd64"
    )


def listed(names: Sequence[str]) -> str:
    """A few of them."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _named(media_type: str) -> str:
    if media_type.endswith("json"):
        return f"the config ({media_type})" if "config" in media_type else f"JSON ({media_type})"
    return f"of type {media_type}" if media_type else "of no type"


def _instead(media_type: str, wanted: str) -> str:
    """What to change about a layer of this type."""
    if is_archive(media_type):
        return f"push the layer as {wanted}, or the image in the format that has such layers"
    if ".tar" in media_type:
        return f"compress the layer with gzip, and push it as {wanted}"
    return PUSH_RAW
