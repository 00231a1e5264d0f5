"""The builders build what clients accept, down to the byte."""

import gzip
import io
import json
import tarfile

import pytest

from mirror.digest import Digest
from mirror.oci import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Manifest
from tests.support.artifacts import (
    DOCKER_LAYER,
    OCI_LAYER,
    RAW_CONFIG,
    RAW_LAYER,
    Artifact,
    cncf,
    compat,
    docker,
    docker_list,
    index,
    raw,
    tar_gz,
    wasm_module,
)


@pytest.mark.parametrize("size", [18, 19, 1000, 65536, 5_000_000])
def test_a_module_is_one_custom_section_of_exactly_its_size(size: int) -> None:
    module = wasm_module(size)
    assert len(module) == size
    assert module[:9] == b"\0asm\x01\0\0\0\0"
    length = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(module[9:14]))
    assert length == size - 14
    assert module[14:18] == b"\x03pad"


def test_a_module_depends_on_its_seed_alone() -> None:
    assert wasm_module(1000, seed=1) == wasm_module(1000, seed=1) != wasm_module(1000, seed=2)


def test_a_module_too_small_to_be_one_is_refused() -> None:
    with pytest.raises(ValueError, match="18 at least"):
        wasm_module(17)


@pytest.mark.parametrize(
    ("artifact", "media_type", "layer_types"),
    [
        (raw(wasm_module()), OCI_MANIFEST, [RAW_LAYER, RAW_CONFIG]),
        (compat(wasm_module()), OCI_MANIFEST, [OCI_LAYER]),
        (docker(wasm_module()), DOCKER_MANIFEST, [DOCKER_LAYER]),
        (cncf(wasm_module()), OCI_MANIFEST, ["application/wasm"]),
    ],
)
def test_a_manifest_names_the_blobs_that_come_with_it(
    artifact: Artifact, media_type: str, layer_types: list[str]
) -> None:
    manifest = Manifest.parse(artifact.body, media_type, artifact.digest)
    assert artifact.media_type == media_type
    assert [layer.media_type for layer in manifest.layers] == layer_types
    assert artifact.layers == [layer.digest for layer in manifest.layers]
    assert {named.digest: named.size for named in manifest.named} == {
        digest: len(content) for digest, content in artifact.blobs.items()
    }
    assert all(Digest.of(content) == digest for digest, content in artifact.blobs.items())


def test_a_layer_in_tar_gz_holds_the_module() -> None:
    module = wasm_module(70_000)
    layer = compat(module).blobs[compat(module).layers[0]]
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(layer))) as archive:
        file = archive.extractfile("plugin.wasm")
        assert file is not None
        assert file.read() == module
    assert tar_gz({"plugin.wasm": module}) == layer


def test_an_index_names_its_children_with_their_platforms() -> None:
    children = (raw(wasm_module()), compat(wasm_module()))
    for artifact, media_type in [
        (index(*children, platforms=("wasi/wasm", "linux/amd64")), OCI_INDEX),
        (docker_list(*children, platforms=("wasi/wasm", "linux/amd64")), DOCKER_LIST),
    ]:
        manifest = Manifest.parse(artifact.body, media_type, artifact.digest)
        assert [named.digest for named in manifest.manifests] == [child.digest for child in children]
        platforms = [entry["platform"] for entry in json.loads(artifact.body)["manifests"]]
        assert platforms == [{"os": "wasi", "architecture": "wasm"}, {"os": "linux", "architecture": "amd64"}]
