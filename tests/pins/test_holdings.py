"""How much of a manifest is here: all that agents ask for, and bytes that count once."""

import json
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.holdings import Holding, Holdings
from mirror.store.blobs import BlobStore
from mirror.store.directory import DataDirectory
from tests.support.artifacts import OCI_CONFIG, OCI_LAYER, Artifact, image, index, raw, wasm_module

ONE, TWO = (raw(wasm_module(1000, seed=number)) for number in (50, 51))
BOTH = index(ONE, TWO, platforms=("linux/arm64", "linux/amd64"))


def put(folder: Path, *artifacts: Artifact) -> DataDirectory:
    directory = DataDirectory.open(folder)
    store = BlobStore(directory)
    for one in artifacts:
        for digest, content in (*one.blobs.items(), (one.digest, one.body)):
            store.put(digest, content)
    return directory


def size_of(*artifacts: Artifact) -> int:
    contents = {digest: content for one in artifacts for digest, content in one.blobs.items()}
    return sum(map(len, contents.values())) + sum(len(one.body) for one in artifacts)


def test_an_image_is_complete_with_its_config_and_its_layers(tmp_path: Path) -> None:
    directory = put(tmp_path, ONE)
    holdings = Holdings(directory)
    assert holdings.of(ONE.digest) == Holding(complete=True, size=size_of(ONE))
    for digest in ONE.blobs:
        content = directory.blob(digest).read_bytes()
        directory.blob(digest).unlink()
        assert holdings.of(ONE.digest) == Holding(complete=False, size=size_of(ONE) - len(content))
        directory.blob(digest).write_bytes(content)
    directory.blob(ONE.digest).unlink()
    assert not holdings.of(ONE.digest).complete


@pytest.mark.parametrize(("held", "complete"), [((TWO,), True), ((ONE,), False), ((), False), ((ONE, TWO), True)])
def test_an_index_is_complete_with_the_image_that_agents_take(
    tmp_path: Path, held: tuple[Artifact, ...], complete: bool
) -> None:
    found = Holdings(put(tmp_path, BOTH, *held)).of(BOTH.digest)
    assert found == Holding(complete, size_of(BOTH, *held))


def test_what_registries_need_not_have_is_not_missed(tmp_path: Path) -> None:
    foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    artifact = image([(foreign, b"of Windows"), (OCI_LAYER, b"layer")], config=(OCI_CONFIG, b"{}"))
    directory = put(tmp_path, artifact)
    directory.blob(artifact.layers[0]).unlink()
    assert Holdings(directory).of(artifact.digest).complete


def test_bytes_count_once(tmp_path: Path) -> None:
    assert Holdings(put(tmp_path, ONE, TWO, BOTH)).of(BOTH.digest, ONE.digest).size == size_of(BOTH, ONE, TWO)


def test_what_is_no_manifest_is_not_complete(tmp_path: Path) -> None:
    body = json.dumps({"schemaVersion": 1}).encode()
    directory = put(tmp_path)
    BlobStore(directory).put(Digest.of(body), body)
    assert Holdings(directory).of(Digest.of(body)) == Holding(complete=False, size=len(body))
