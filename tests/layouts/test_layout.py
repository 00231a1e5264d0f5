"""What an archive says of itself: index.json and oci-layout, and names of blobs."""

import json

import pytest

from mirror.digest import Digest
from mirror.errors import ArchiveInvalid
from mirror.layouts import layout
from tests.support.artifacts import descriptor, raw, wasm_module
from tests.support.layouts import MARK, index_of

ARTIFACT = raw(wasm_module())


def test_blobs_are_found_by_their_names() -> None:
    for digest in (Digest.of(b"x"), Digest.of(b"x", "sha512")):
        assert layout.blob_in(layout.blob_name(digest)) == digest
    for name in (
        "blobs/sha256/abc",
        "blobs/md5/" + "a" * 32,
        "blobs/sha256/" + "A" * 64,
        "sha256/" + "a" * 64,
        "blobs",
    ):
        assert layout.blob_in(name) is None


@pytest.mark.parametrize(
    ("content", "others", "words"),
    [
        (None, ["manifest.json", "repositories"], "skopeo copy docker-archive:FILE"),
        (None, [], "no file oci-layout"),
        (b"{", [], "is not valid JSON"),
        (b"[]", [], "is not a JSON object"),
        (b'{"imageLayoutVersion": "2.0.0"}', [], "version '2.0.0'"),
        (b"{}", [], "version 'None'"),
    ],
)
def test_what_is_no_layout_is_refused(content: bytes | None, others: list[str], words: str) -> None:
    layout.check_mark(MARK, [])
    with pytest.raises(ArchiveInvalid) as refused:
        layout.check_mark(content, others)
    assert words in refused.value.message


def test_an_artifact_is_called_what_containerd_or_else_what_the_specification_says() -> None:
    one = descriptor(ARTIFACT.media_type, ARTIFACT.body)
    both = {layout.CONTAINERD_NAME: "ghcr.io/a/b:1", layout.REF_NAME: "1"}
    entries = [
        {**one, "annotations": both},
        {**one, "annotations": {layout.REF_NAME: "1"}},
        {**one, "annotations": None},
    ]
    found = layout.parse_index(json.dumps({"schemaVersion": 2, "manifests": [*entries, one]}).encode())
    assert [named.name for named in found] == ["ghcr.io/a/b:1", "1", "", ""]
    assert {named.descriptor.digest for named in found} == {ARTIFACT.digest}


@pytest.mark.parametrize(
    ("index", "words"),
    [
        (None, "no file index.json"),
        (b"{", "is not valid JSON"),
        (b'{"schemaVersion": 2, "schemaVersion": 2, "manifests": []}', "stands twice"),
        (b'{"schemaVersion": 1, "manifests": [{}]}', "no OCI image index"),
        (b'{"schemaVersion": 2, "mediaType": "text/plain", "manifests": [{}]}', "no OCI image index"),
        (b'{"schemaVersion": 2}', "no list of manifests"),
        (b'{"schemaVersion": 2, "manifests": []}', "names nothing"),
        (b'{"schemaVersion": 2, "manifests": [{"mediaType": "a"}]}', "manifests[0] has no digest"),
        (b'{"schemaVersion": 2, "manifests": ["a"]}', "manifests[0] is not a descriptor"),
        (index_of((None, ARTIFACT)).replace(b"sha256:", b"md5:"), "is not a digest"),
        (b'{"schemaVersion": 2, "manifests": [' + b"0," * 10_000 + b"0]}", "names 10,001 artifacts"),
        (b"[" * 100_000, "nested deeper"),
    ],
)
def test_an_index_that_cannot_be_read_is_refused(index: bytes | None, words: str) -> None:
    with pytest.raises(ArchiveInvalid) as refused:
        layout.parse_index(index)
    assert words in refused.value.message
