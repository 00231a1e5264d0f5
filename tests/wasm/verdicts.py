"""Artifacts of every kind, with what agents say to each: the real agent is held against the same table as our verdicts.

Sources: Istio's ``pkg/wasm`` and go-containerregistry 0.21.6.
"""

import hashlib
import json
import random
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace

from mirror.digest import Digest
from mirror.oci import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Manifest
from mirror.wasm.agents import MAX_SIZE
from mirror.wasm.artifact import for_agents
from mirror.wasm.description import Description
from mirror.wasm.examine import examine
from tests.support.artifacts import (
    CNCF_LAYER,
    DOCKER_CONFIG,
    DOCKER_LAYER,
    END_OF_TAR,
    OCI_CONFIG,
    OCI_LAYER,
    RAW_CONFIG,
    RAW_LAYER,
    Artifact,
    cncf,
    compat,
    descriptor,
    docker,
    docker_list,
    entry,
    gz,
    image,
    index,
    raw,
    tar_gz,
    wasm_module,
)
from tests.wasm.modules import custom, plugin

NOISE = random.Random(0).randbytes(100_000)
MODULE = plugin(customs=[custom("pad", NOISE[:30_000])])
OTHER = plugin(customs=[custom("pad", NOISE[30_000:60_000])])
LIMIT = 1024 * 1024
"""``ISTIO_WASM_MAX_BINARY_SIZE_BYTES`` of the agents that are given what is ``large``, in the place of 256 MiB."""

PLUGIN = tar_gz({"plugin.wasm": MODULE})
RUNTIME = (RAW_CONFIG, b'{"type":"envoy_proxy"}')
TAR = "application/vnd.oci.image.layer.v1.tar"
ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"


@dataclass(frozen=True)
class Case:
    """An artifact; the ``module`` that agents take of it, or None, and then what we ``say``, and what ``they_say``."""

    name: str
    artifact: Artifact
    module: bytes | None = None
    say: str = ""
    they_say: str = ""
    large: bool = False

    @property
    def sha256(self) -> str:
        """Of the module that agents take."""
        return hashlib.sha256(self.module).hexdigest() if self.module is not None else ""


def parsed(artifact: Artifact) -> Manifest:
    """As the mirror has it."""
    return Manifest.parse(artifact.body, artifact.media_type, artifact.digest)


def archive(*entries: bytes) -> bytes:
    """A tar.gz of these entries."""
    return gz(b"".join(entries) + END_OF_TAR)


def of_docker(*layers: tuple[str, bytes], **extra: object) -> Artifact:
    """An image of Docker's."""
    return image(list(layers), config=(DOCKER_CONFIG, b"{}"), media_type=DOCKER_MANIFEST, extra=extra)


def in_tar(*entries: bytes) -> Artifact:
    """The compatible layout, with these entries in the archive."""
    return image([(OCI_LAYER, archive(*entries))])


def with_sha512() -> Artifact:
    """The raw layout, with the module named by another algorithm."""
    digest = Digest.of(MODULE, "sha512")
    layers = [{**descriptor(RAW_LAYER, MODULE), "digest": str(digest)}, descriptor(*RUNTIME)]
    plain = raw(MODULE, {"layers": layers})
    blobs = {digest: MODULE, Digest.of(RUNTIME[1]): RUNTIME[1], Digest.of(b"{}"): b"{}"}
    return replace(plain, blobs=blobs)


def damaged_behind(layer: bytes) -> bytes:
    """A gzip stream whose checksum is wrong."""
    return layer[:-8] + bytes(4) + layer[-4:]


def entered_as(child: Artifact, media_type: str) -> Artifact:
    """An index that gives its child another type than the child has."""
    return Artifact(index_of([descriptor(media_type, child.body)]), OCI_INDEX, children=(child,))


def index_of(entries: list[dict[str, object]]) -> bytes:
    """An index with these entries, as they are."""
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()


EVERYTHING = {
    "artifactType": "application/vnd.example",
    "annotations": {"a": "b"},
    "subject": {
        **descriptor(OCI_MANIFEST, b"{}"),
        "data": "e30=",
        "urls": ["https://example.com/", None],
        "annotations": {"a": None},
        "artifactType": None,
        "platform": {"os": "linux", "architecture": "amd64", "os.features": [], "variant": "v2"},
    },
    "unknown": [1],
}
"""Fields that a manifest may have."""


def accepted() -> Iterator[Case]:
    """What agents take."""
    other = compat(OTHER)
    of_artifacts = {
        "raw": raw(MODULE),
        "raw, the module second": image([RUNTIME, (RAW_LAYER, MODULE)], config=(RAW_CONFIG, b"{}")),
        "raw, any second layer": image([(RAW_LAYER, MODULE), ("text/plain", b"read me")]),
        "an image, and a raw module": image([(RAW_LAYER, OTHER), (OCI_LAYER, PLUGIN)]),
        "with all that OCI has": compat(MODULE, EVERYTHING),
        "raw behind an image that has none": image([(RAW_LAYER, MODULE), (OCI_LAYER, tar_gz({"README": b"none"}))]),
        "compat": compat(MODULE),
        "compat, deep": image([(OCI_LAYER, tar_gz({"./opt/wasm/plugin.wasm": MODULE}))]),
        "compat, after other files": image([(OCI_LAYER, tar_gz({"a.wasm": OTHER, "b": b"", "plugin.wasm": MODULE}))]),
        "compat, the last of three": image(
            [(OCI_LAYER, tar_gz({"plugin.wasm": OTHER})), (TAR, b"-"), (OCI_LAYER, PLUGIN)]
        ),
        "compat, the first of two files": image(
            [(OCI_LAYER, tar_gz({"first/plugin.wasm": MODULE, "plugin.wasm": OTHER}))]
        ),
        "compat, gzipped in two members": image([(OCI_LAYER, gz(entry("plugin.wasm", MODULE)) + gz(END_OF_TAR))]),
        "compat, damaged behind the module": image([(OCI_LAYER, damaged_behind(PLUGIN))]),
        "compat, without the end of a tar": image([(OCI_LAYER, gz(entry("plugin.wasm", MODULE)))]),
        "compat, without a media type": compat(MODULE, {"mediaType": None}),
        "docker": docker(MODULE),
        "docker, the last of two": of_docker((DOCKER_LAYER, tar_gz({"bin/sh": b"#!"})), (DOCKER_LAYER, PLUGIN)),
        "an index": index(compat(MODULE)),
        "an index, the second child": index(other, compat(MODULE), platforms=("linux/arm64", "linux/amd64")),
        "an index, a child without platform": index(raw(MODULE), other, platforms=(None, "linux/amd64")),
        "an index of an index": index(index(docker(MODULE))),
        "an index that calls the child something": entered_as(raw(MODULE), "application/octet-stream"),
        "a list of Docker's": docker_list(docker(MODULE)),
    }
    for name, artifact in of_artifacts.items():
        yield Case(name, artifact, MODULE)
    for name, module in {
        "a module with nothing in it": b"\0asm\x01\0\0\0",
        "a module that is cut short": MODULE[:-100],
        "a component": b"\0asm\x0d\0\x01\0",
    }.items():
        yield Case(name, raw(module), module)
    docker_like = of_docker((OCI_LAYER, PLUGIN), mediaType=None)
    yield Case("an image of Docker's by its Content-Type alone", docker_like, MODULE)
    yield Case("raw, as large as agents read", raw(fits := wasm_module(LIMIT)), fits, large=True)
    yield Case(
        "compat, as large as agents read",
        in_tar(entry("plugin.wasm", fits := wasm_module(LIMIT - 512))),
        fits,
        large=True,
    )


_NOT_IN_ARCHIVE = "plugin.wasm not found in the archive"
_INVALID = "is invalid"


def refused_by_layers() -> Iterator[Case]:
    """What agents do not take for the number, the order or the types of the layers."""
    plugin = (OCI_LAYER, PLUGIN)
    oci_type, docker_type = f"(expect {OCI_LAYER})", f"(expect {DOCKER_LAYER})"
    two = "number of layers must be 2 but got"
    yield Case("cncf", cncf(MODULE), None, "the CNCF layout", oci_type)
    yield Case(
        "cncf, two layers", image([(CNCF_LAYER, MODULE), RUNTIME]), None, "the CNCF layout", "could not find the layer"
    )
    yield Case("raw alone", image([(RAW_LAYER, MODULE)]), None, "one layer", f"{two} 1")
    yield Case(
        "raw with three", image([(RAW_LAYER, MODULE), RUNTIME, ("text/plain", b"-")]), None, "3 layers", f"{two} 3"
    )
    yield Case("no layers", image([]), None, "no layers", "number of layers must be greater than zero")
    yield Case("docker without layers", of_docker(), None, "no layers", "number of layers must be greater than zero")
    yield Case(
        "compat, the config last",
        image([plugin, ("text/plain", b"-"), RUNTIME]),
        None,
        "the last of 3 layers is the config",
        f"invalid media type {RAW_CONFIG}",
    )
    empty = (OCI_LAYER, tar_gz({"README": b"none"}))
    three = image([(RAW_LAYER, MODULE), RUNTIME, empty])
    yield Case("raw, and an image that has none behind it", three, None, "no file plugin.wasm", _NOT_IN_ARCHIVE)
    yield Case("compat, not the last", image([plugin, empty]), None, "but layer 1", _NOT_IN_ARCHIVE)
    tar = entry("plugin.wasm", MODULE) + END_OF_TAR
    yield Case("tar", image([(TAR, tar)]), None, f"of type {TAR}", f"invalid media type {TAR} ")
    yield Case("tar+zstd", image([(ZSTD, b"\x28\xb5\x2f\xfd")]), None, f"of type {ZSTD}", f"invalid media type {ZSTD} ")
    yield Case("a layer of Docker's in OCI", image([(DOCKER_LAYER, PLUGIN)]), None, DOCKER_LAYER, oci_type)
    yield Case("a layer of OCI in Docker's", of_docker(plugin), None, OCI_LAYER, docker_type)
    yield Case("raw in Docker's", of_docker((RAW_LAYER, MODULE), RUNTIME), None, "this is a Docker image", docker_type)
    unsaid = of_docker((DOCKER_LAYER, PLUGIN), mediaType=None)
    yield Case("docker without a media type", unsaid, None, "does not say that it is Docker's", oci_type)
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    yield Case("foreign", of_docker((foreign, PLUGIN)), None, foreign, f"invalid media type {foreign}")
    restricted = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    yield Case("not distributable", image([(restricted, PLUGIN)]), None, restricted, f"invalid media type {restricted}")
    for kind in ("application/octet-stream", OCI_LAYER.upper(), f"{OCI_LAYER};q=1", "application/gzip", ""):
        yield Case(
            f"of the type {kind!r}",
            image([(kind, PLUGIN)]),
            None,
            f"of type {kind}" if kind else "of no type",
            "invalid media type",
        )
    same = image([(RAW_LAYER, MODULE), RUNTIME], config=(OCI_CONFIG, MODULE))
    yield Case("the module as config", same, None, "also the config", "could not find the layer of type")
    broken = {
        "sha512": (with_sha512(), "layers[0].digest is no sha256 digest", "unsupported hash"),
        "a subject in sha512": (
            raw(MODULE, {"subject": {"digest": "sha512:00"}}),
            "subject.digest",
            "unsupported hash",
        ),
        "a subject without digest": (raw(MODULE, {"subject": {"digest": None}}), "subject.digest", "cannot parse hash"),
        "a subject that is a text": (raw(MODULE, {"Subject": "x"}), "Subject is no object", "cannot unmarshal string"),
        "a number as type": (compat(MODULE, {"artifactType": 5}), "artifactType is no text", "cannot unmarshal number"),
        "notes that are numbers": (
            compat(MODULE, {"subject": {"annotations": {"a": 1}}}),
            "subject.annotations",
            "cannot unmarshal number",
        ),
        "data that is none": (
            docker(MODULE, {"subject": {"data": "?"}}),
            "subject.data is no base64",
            "illegal base64",
        ),
        "addresses that are no list": (
            docker(MODULE, {"subject": {"urls": "a"}}),
            "subject.urls is no list",
            "cannot unmarshal string",
        ),
        "addresses that are none": (
            docker(MODULE, {"subject": {"urls": ["a", 1]}}),
            "subject.urls[1] is no text",
            "cannot unmarshal number",
        ),
    }
    for name, (artifact, say, they_say) in broken.items():
        yield Case(name, artifact, None, say, they_say)


def refused_by_content() -> Iterator[Case]:
    """What agents do not take for what is in the layer that they read."""
    other_name = image([(OCI_LAYER, tar_gz({"filter.wasm": MODULE}))])
    yield Case("another name", other_name, None, "no file plugin.wasm, but filter.wasm", _NOT_IN_ARCHIVE)
    other_case = image([(OCI_LAYER, tar_gz({"Plugin.wasm": MODULE}))])
    yield Case("a capital letter", other_case, None, "no file plugin.wasm, but Plugin.wasm", _NOT_IN_ARCHIVE)
    yield Case("an archive of nothing", in_tar(), None, "no file plugin.wasm", _NOT_IN_ARCHIVE)
    kinds = {"a link": tarfile.SYMTYPE, "a hard link": tarfile.LNKTYPE, "a pipe": tarfile.FIFOTYPE}
    for name, kind in kinds.items():
        artifact = in_tar(entry("plugin.wasm", kind=kind), entry("elsewhere", MODULE))
        yield Case(name, artifact, None, "is a link, a folder or a device", _INVALID)
    folder = in_tar(entry("plugin.wasm/", kind=tarfile.DIRTYPE), entry("plugin.wasm/plugin.wasm", MODULE))
    yield Case("a folder before the file", folder, None, "is a link, a folder or a device", _INVALID)
    yield Case("an empty file", compat(b""), None, "is empty", _INVALID)
    yield Case("text in the file", docker(b"(module)"), None, "does not begin with \\0asm", _INVALID)
    yield Case("raw text", raw(b"(module)"), None, "does not begin with \\0asm", _INVALID)
    both = image([(RAW_LAYER, MODULE), (OCI_LAYER, tar_gz({"plugin.wasm": b"(module)"}))])
    yield Case("text in an image, and a raw module", both, None, "plugin.wasm in the last", _INVALID)
    neither = image([(RAW_LAYER, b"(module)"), (OCI_LAYER, tar_gz({"README": b"none"}))])
    yield Case("raw text, and an image that has none", neither, None, "layer 1 of 2 is no module", _INVALID)
    yield Case("raw, empty", raw(b""), None, "is empty", _INVALID)
    yield Case("the magic number alone", raw(b"\0asm"), None, "does not begin with \\0asm and a version", _INVALID)
    yield Case("raw, gzipped", raw(gz(MODULE)), None, "does not begin with \\0asm", _INVALID)
    not_gzip = "failed to parse layer as tar.gz"
    yield Case("an empty layer", image([(OCI_LAYER, b"")]), None, "it is empty", f"{not_gzip}: EOF")
    yield Case("no gzip", image([(OCI_LAYER, MODULE)]), None, "it is not gzipped", not_gzip)
    yield Case("no tar", image([(OCI_LAYER, gz(NOISE))]), None, "cannot be read", "archive/tar: invalid tar header")
    cut = image([(OCI_LAYER, PLUGIN[:-1000])])
    yield Case("cut short", cut, None, "its gzip stream is cut short", "unexpected EOF")
    less = image([(OCI_LAYER, gz(entry("plugin.wasm", MODULE, size=300 << 20)))])
    yield Case("an archive cut short", less, None, "cannot be read", "unexpected EOF")
    early = in_tar(entry("big", b"-", size=300 << 20), entry("plugin.wasm", MODULE))
    yield Case("an entry that is not there before it", early, None, "cannot be read", "unexpected EOF")
    yield Case(
        "raw, larger than agents read", raw(wasm_module(LIMIT + 1)), None, "more than 1,048,576", _TRUNCATED, large=True
    )
    most = in_tar(entry("plugin.wasm", wasm_module(LIMIT - 511)))
    yield Case("compat, larger than agents read", most, None, "unpacks to more than", "unexpected EOF", large=True)
    behind = in_tar(entry("model.bin", NOISE * 11), entry("plugin.wasm", MODULE))
    yield Case("behind what agents read", behind, None, "at most 1,048,576 are read", "unexpected EOF", large=True)


_TRUNCATED = ""
"""The agent says nothing: it takes what it read for the module."""


def refused_by_index() -> Iterator[Case]:
    """What agents do not take for the way that leads to the image."""
    no_child = "no child with platform linux/amd64"
    yield Case(
        "no platform of theirs", index(compat(MODULE), platforms=("wasi/wasm",)), None, "it has wasi/wasm", no_child
    )
    yield Case(
        "arm alone", docker_list(docker(MODULE), platforms=("linux/arm64",)), None, "it has linux/arm64", no_child
    )
    yield Case("an empty platform", index(compat(MODULE), platforms=("",)), None, "it has one without a name", no_child)
    child = {**descriptor(OCI_MANIFEST, b"{}"), "digest": str(Digest.of(b"{}", "sha512"))}
    named = {"an index in sha512": (child, "manifests[0].digest is no sha256 digest", "unsupported hash")}
    text = {**child, "digest": str(Digest.of(b"{}")), "platform": "linux/amd64"}
    named["a platform in words"] = (text, "manifests[0].platform is no object", "cannot unmarshal string")
    for name, (one, say, they_say) in named.items():
        yield Case(name, Artifact(index_of([one]), OCI_INDEX), None, say, they_say)
    yield Case("an empty index", index(), None, "the index is empty", no_child)
    yield Case("an index of cncf", index(cncf(MODULE)), None, "the CNCF layout", f"(expect {OCI_LAYER})")
    nested = index(index(compat(MODULE), platforms=("wasi/wasm",)))
    yield Case("nothing in the second index", nested, None, "it has wasi/wasm", no_child)
    wrong = entered_as(compat(MODULE), OCI_INDEX)
    yield Case("a child that is no index", wrong, None, "calls", no_child)


def cases() -> list[Case]:
    """All of them."""
    return [*accepted(), *refused_by_layers(), *refused_by_content(), *refused_by_index()]


def leads_to(artifact: Artifact) -> tuple[Artifact, Artifact | None]:
    """The image that an agent comes to, and the index that named it; or the index that leads nowhere."""
    above = None
    while (child := for_agents(parsed(artifact))) is not None and artifact.children:
        above = artifact
        artifact = next(one for one in artifact.children if one.digest == child.digest)
    return artifact, above


def described(case: Case) -> Description:
    """The description of what agents come to, with all of its layers at hand."""
    artifact, above = leads_to(case.artifact)
    return examine(
        parsed(artifact),
        artifact.blobs,
        index=None if above is None else parsed(above),
        agents_size=LIMIT if case.large else MAX_SIZE,
    )
