"""Builders of what authors push: modules, and the layouts in which registries hold them.

An `Artifact` is a manifest (or an index) with all that it names; `publish` puts one into a fake registry. The same
arguments give the same bytes.
"""

import gzip
import io
import json
import random
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field

from mirror.digest import Digest
from mirror.oci import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.support.contents import Contents

RAW_CONFIG = "application/vnd.module.wasm.config.v1+json"
RAW_LAYER = "application/vnd.module.wasm.content.layer.v1+wasm"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
CNCF_CONFIG = "application/vnd.wasm.config.v0+json"
CNCF_LAYER = "application/wasm"


@dataclass(frozen=True)
class Artifact:
    """A manifest's bytes and media type, the blobs that it names by digest, and for an index its children."""

    body: bytes
    media_type: str
    blobs: Mapping[Digest, bytes] = field(default_factory=dict)
    children: tuple["Artifact", ...] = ()

    @property
    def digest(self) -> Digest:
        return Digest.of(self.body)

    @property
    def layers(self) -> list[Digest]:
        """The digests of the layers, in the manifest's order."""
        return [Digest.parse(layer["digest"]) for layer in json.loads(self.body).get("layers", [])]


def wasm_module(size: int = 1000, seed: int = 0) -> bytes:
    """A valid module of exactly ``size`` bytes (18 at least), whose bytes do not compress.

    It holds one custom section named ``pad``. Source: WebAssembly core specification, "Binary Format", modules.
    """
    head = b"\0asm\x01\0\0\0"
    name = b"\x03pad"
    content = size - len(head) - 6  # the section's id, and its length in five bytes of LEB128
    if content < len(name):
        raise ValueError(f"a module of {size} bytes cannot be padded; {len(head) + 6 + len(name)} at least")
    length = bytes((content >> shift) & 0x7F | (0x80 if shift < 28 else 0) for shift in range(0, 35, 7))
    return head + b"\0" + length + name + random.Random(seed).randbytes(content - len(name))


def entry(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, size: int | None = None) -> bytes:
    """An entry of a tar: its header and its content. ``size`` is what the header says, whatever is true."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(content) if size is None else size
    if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        info.linkname = "elsewhere"
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % tarfile.BLOCKSIZE)


END_OF_TAR = bytes(2 * tarfile.BLOCKSIZE)


def gz(content: bytes) -> bytes:
    """A gzip stream, always the same."""
    return gzip.compress(content, compresslevel=1, mtime=0)


def tar_gz(files: Mapping[str, bytes]) -> bytes:
    """A gzipped tar of these files, in this order."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return gz(plain.getvalue())


def image(
    layers: list[tuple[str, bytes]],
    *,
    config: tuple[str, bytes] = (OCI_CONFIG, b"{}"),
    media_type: str = OCI_MANIFEST,
    extra: Mapping[str, object] | None = None,
) -> Artifact:
    """A manifest of any layers (media type, bytes).

    ``extra`` are further fields, such as ``subject``, or other values of those above; None: without that one.
    """
    fields: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": descriptor(*config),
        "layers": [descriptor(kind, content) for kind, content in layers],
        **(extra or {}),
    }
    fields = {name: value for name, value in fields.items() if value is not None}
    blobs = {Digest.of(content): content for _, content in [config, *layers]}
    return Artifact(json.dumps(fields).encode(), media_type, blobs)


def descriptor(media_type: str, content: bytes) -> dict[str, object]:
    """A descriptor, as it stands in a manifest."""
    return {"mediaType": media_type, "digest": str(Digest.of(content)), "size": len(content)}


def raw(module: bytes, extra: Mapping[str, object] | None = None) -> Artifact:
    """The layout with raw bytes: exactly two layers, the module and its runtime configuration."""
    runtime = b'{"type":"envoy_proxy","abiVersions":["v0.2.1"],"config":{"rootIds":["root"]}}'
    return image([(RAW_LAYER, module), (RAW_CONFIG, runtime)], config=(RAW_CONFIG, b"{}"), extra=extra)


def compat(module: bytes, extra: Mapping[str, object] | None = None) -> Artifact:
    """The compatible layout: an OCI image whose last layer is a tar.gz with ``plugin.wasm``."""
    return image([(OCI_LAYER, tar_gz({"plugin.wasm": module}))], extra=extra)


def docker(module: bytes, extra: Mapping[str, object] | None = None) -> Artifact:
    """Docker's manifest version 2, schema 2, whose last layer is a tar.gz with ``plugin.wasm``."""
    layer = (DOCKER_LAYER, tar_gz({"plugin.wasm": module}))
    return image([layer], config=(DOCKER_CONFIG, b"{}"), media_type=DOCKER_MANIFEST, extra=extra)


def cncf(module: bytes, extra: Mapping[str, object] | None = None) -> Artifact:
    """The CNCF layout, as ``wkg`` pushes it: one layer ``application/wasm``."""
    config = json.dumps({"architecture": "wasm", "os": "wasip1", "layerDigests": [str(Digest.of(module))]}).encode()
    return image([(CNCF_LAYER, module)], config=(CNCF_CONFIG, config), extra=extra)


def index(
    *children: Artifact, platforms: tuple[str | None, ...] = ("linux/amd64",), media_type: str = OCI_INDEX
) -> Artifact:
    """An index of these children; the last platform stands for all that have none of their own; None: it says none."""
    entries = []
    for number, child in enumerate(children):
        named = descriptor(child.media_type, child.body)
        platform = platforms[min(number, len(platforms) - 1)]
        if platform is not None:
            os, _, architecture = platform.partition("/")
            named["platform"] = {"os": os, "architecture": architecture}
        entries.append(named)
    body = json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": entries}).encode()
    return Artifact(body, media_type, children=children)


def docker_list(*children: Artifact, platforms: tuple[str, ...] = ("linux/amd64",)) -> Artifact:
    """Docker's manifest list of these children."""
    return index(*children, platforms=platforms, media_type=DOCKER_LIST)


def publish(upstream: Contents, repository: str, tag: str | None, artifact: Artifact) -> Digest:
    """Put ``artifact`` with all that it names into a fake registry; gives the manifest's digest."""
    for child in artifact.children:
        publish(upstream, repository, None, child)
    for digest, content in artifact.blobs.items():
        upstream.add_blob(repository, content, digest=digest)
    return upstream.add_manifest(repository, artifact.body, artifact.media_type, tag)
