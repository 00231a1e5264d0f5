"""The documents of entries: what was written is read, and what lies is refused before anything is done with it."""

import base64
import json

import pytest
from pydantic import ValidationError

from mirror.config.hosted import HostedSettings
from mirror.digest import Digest
from mirror.errors import UpstreamInvalid
from mirror.hosted.entries import MAX_BODY, MAX_MOMENT, Entry, OfBlob, OfManifest, OfTag, of_entry, to_entry
from mirror.oci import OCI_INDEX
from tests.hosted.shelf import REPOSITORY, describe
from tests.support.artifacts import OCI_LAYER, image, index

ARTIFACT = image([(OCI_LAYER, b"a layer")])
DIGEST = Digest.of(b"a layer")

ENTRIES: list[Entry] = [
    OfBlob(REPOSITORY, DIGEST, 1, False, 7, 1_000_000.123456),
    OfBlob(REPOSITORY, DIGEST, MAX_MOMENT, True, 0, 0.0),
    OfBlob(REPOSITORY, DIGEST, 2, True, 7, 3.5, before=4.25),
    OfManifest(REPOSITORY, ARTIFACT.digest, 3, describe(ARTIFACT), 12.5),
    OfManifest(REPOSITORY, index().digest, 3, describe(index()), 12.5),
    OfManifest(REPOSITORY, ARTIFACT.digest, 4, None),
    OfTag(REPOSITORY, "1.0", 5, DIGEST, 13.5, 3),
    OfTag(REPOSITORY, "1.0", 6, None),
]
BLOB, GONE, EXPIRED, MANIFEST, INDEX, _, TAG, _ = map(of_entry, ENTRIES)


@pytest.mark.parametrize("entry", ENTRIES)
def test_what_was_written_is_read(entry: Entry) -> None:
    assert to_entry(json.loads(json.dumps(of_entry(entry)))) == entry


@pytest.mark.parametrize("document", [BLOB, MANIFEST, TAG])
def test_unknown_fields_are_passed_over(document: dict[str, object]) -> None:
    assert to_entry({**document, "more": [1]}) == to_entry(document)


@pytest.mark.parametrize("document", [BLOB, MANIFEST, TAG])
def test_what_a_later_release_tells_and_kinds_that_it_has_say_nothing(document: dict[str, object]) -> None:
    assert to_entry({**document, "v": 2, "moment": "of another kind"}) is None
    assert to_entry({"v": 1, "kind": "signature", "repository": 7}) is None


@pytest.mark.parametrize(
    ("document", "field", "values"),
    [
        (BLOB, "v", [None, 0, "1", 1.0, True]),
        (BLOB, "kind", [None, 1, ["blob"]]),
        (BLOB, "repository", [None, "", "../x", "Team/x", "a" * 300, "team//x", 1, "téam"]),
        (BLOB, "digest", [None, "", "sha256:00", "md5:" + "0" * 32, "sha256:" + "A" * 64, 1, "../" * 20]),
        (BLOB, "moment", [None, 0, -1, 1.5, "1", True, MAX_MOMENT + 1, 1 << 80]),
        (BLOB, "gone", [None, 1, "true"]),
        (BLOB, "size", [None, -1, 1.5, "7", True, 1 << 62, 1 << 80]),
        (BLOB, "touched_at", [None, -1, "1", True, float("nan"), float("inf"), 1e30]),
        (EXPIRED, "before", [-1, "1", True, float("nan"), float("inf")]),
        (GONE, "size", [None, -1]),
        (MANIFEST, "media_type", [None, "", OCI_INDEX, "text/html", "application/json", "a" * 300, 1]),
        (MANIFEST, "pushed_at", [None, -1, float("inf")]),
        (MANIFEST, "digest", [None, str(DIGEST), "sha512:" + "0" * 128]),
        (TAG, "tag", [None, "", ".x", "a" * 129, "a/b", 1]),
        (TAG, "digest", [None, "sha256:00"]),
        (TAG, "moved_at", [None, -1]),
        (TAG, "serial", [None, 0, -1, True, 1 << 62]),
    ],
)
def test_a_document_with_a_malformed_field_is_refused(
    document: dict[str, object], field: str, values: list[object]
) -> None:
    for value in values:
        with pytest.raises(UpstreamInvalid):
            to_entry({**document, field: value})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        ARTIFACT.body + b" ",
        ARTIFACT.body.replace(b"{", b'{"layers": [],', 1),
        json.dumps({**json.loads(ARTIFACT.body), "subject": 1}).encode(),
        b"[" * 1_000,
    ],
)
@pytest.mark.parametrize("honest", [True, False])
def test_a_manifest_whose_bytes_are_not_its_own_or_no_manifest_is_refused(body: bytes, honest: bool) -> None:
    digest = Digest.of(body) if honest else ARTIFACT.digest
    document = {**MANIFEST, "digest": str(digest), "body": base64.b64encode(body).decode()}
    if honest and body == ARTIFACT.body + b" ":
        assert to_entry(document) is not None
        return
    with pytest.raises(UpstreamInvalid):
        to_entry(document)


@pytest.mark.parametrize("text", [None, 1, "é", "*" * 8, "A", "QUJD\nQUJD", "A" * (64 << 20)])
def test_bytes_that_are_none_or_too_many_are_refused(text: object) -> None:
    with pytest.raises(UpstreamInvalid):
        to_entry({**MANIFEST, "body": text})


def test_any_manifest_that_may_be_pushed_can_be_told() -> None:
    with pytest.raises(ValidationError, match="max_manifest_size"):
        HostedSettings(max_manifest_size=MAX_BODY + 1)
    assert HostedSettings(max_manifest_size=MAX_BODY).max_manifest_size == MAX_BODY
