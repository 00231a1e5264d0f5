"""What of an archive makes an artifact: whole, or not at all, and of indexes what is whole."""

import json

import pytest

from mirror.digest import Digest
from mirror.layouts.assembly import Assembly, Incomplete
from mirror.oci import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Descriptor
from tests.support.artifacts import Artifact, compat, image, index, raw, wasm_module
from tests.support.layouts import contents

ONE, OTHER = raw(wasm_module(seed=1)), compat(wasm_module(seed=2))
BOTH = index(ONE, OTHER, platforms=("linux/amd64", "linux/arm64"))


class Content(dict[Digest, bytes]):
    """What is there, as a `There`."""

    def __init__(self, *artifacts: Artifact) -> None:
        super().__init__(pair for artifact in artifacts for pair in contents(artifact))
        self.faults: dict[Digest, str] = {}

    def size(self, digest: Digest) -> int | None:
        return len(self[digest]) if digest in self else None

    def read(self, digest: Digest) -> bytes:
        return self[digest]

    def fault(self, digest: Digest) -> str | None:
        return self.faults.get(digest)


def of(artifact: Artifact) -> Descriptor:
    return Descriptor(artifact.media_type, artifact.digest, len(artifact.body))


def why(there: Content, named: Descriptor) -> str:
    with pytest.raises(Incomplete) as refused:
        Assembly(there).artifact(named)
    return str(refused.value)


def test_an_image_has_all_that_it_names() -> None:
    found = Assembly(Content(ONE)).artifact(of(ONE))
    assert found.named.digest == ONE.digest
    assert set(found.digests()) == {digest for digest, _ in contents(ONE)}
    assert list(found.digests())[-1] == ONE.digest, "manifests come behind what they name"


def test_a_blob_that_is_missing_is_named() -> None:
    for digest in ONE.blobs:
        there = Content(ONE)
        del there[digest]
        assert why(there, of(ONE)) == f"{digest} is neither in the archive nor held here"
        there.faults[digest] = "it lies"
        assert why(there, of(ONE)) == "it lies"


def test_a_layer_that_registries_need_not_have_is_not_missed() -> None:
    foreign = image([("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", b"licensed")])
    there = Content(foreign)
    del there[Digest.of(b"licensed")]
    assert Assembly(there).artifact(of(foreign)).named.digest == foreign.digest


def test_an_index_comes_with_those_of_its_children_that_are_whole() -> None:
    found = Assembly(Content(BOTH)).artifact(of(BOTH))
    assert (found.children, found.absent) == (2, 0)
    assert found.named.digest == BOTH.digest
    there = Content(BOTH)
    del there[OTHER.layers[0]]
    found = Assembly(there).artifact(of(BOTH))
    assert (found.children, found.absent) == (2, 1)
    assert [one.digest for one in found.manifests] == [ONE.digest, BOTH.digest]
    assert set(found.digests()) == {BOTH.digest, *(digest for digest, _ in contents(ONE))}


def test_an_index_without_a_whole_child_is_none() -> None:
    there = Content(BOTH)
    del there[ONE.digest], there[OTHER.digest]
    assert f"none of the 2 manifests in its index is whole: {ONE.digest} is neither" in why(there, of(BOTH))


def test_an_empty_index_is_whole() -> None:
    assert Assembly(Content(index())).artifact(of(index())).children == 0


def test_indexes_are_followed_so_far_and_no_further() -> None:
    nested = ONE
    for _ in range(4):
        nested = index(nested)
    assert len(Assembly(Content(nested)).artifact(of(nested)).manifests) == 5
    deeper = index(nested)
    assert "leads to more than 4 others" in why(Content(deeper), of(deeper))


def test_many_ways_to_one_child_are_one() -> None:
    wide, there = ONE, Content(ONE)
    for _ in range(4):
        wide = index(*[wide] * 300)
        there[wide.digest] = wide.body
    assert len(Assembly(there).artifact(of(wide)).manifests) == 5


def test_no_artifact_leads_to_more_manifests_than_are_read() -> None:
    module = wasm_module()
    many = index(*(raw(module, {"annotations": {"n": str(number)}}) for number in range(501)))
    found = Assembly(Content(many)).artifact(of(many))
    assert (found.children, found.absent) == (501, 2), "the index itself is one"


@pytest.mark.parametrize(
    ("named", "words"),
    [
        (Descriptor("text/plain", ONE.digest, len(ONE.body)), "not that of a manifest"),
        (Descriptor(DOCKER_MANIFEST, ONE.digest, len(ONE.body)), "was sent as"),
        (Descriptor(OCI_INDEX, ONE.digest, len(ONE.body)), "was sent as"),
        (Descriptor(OCI_MANIFEST, ONE.digest, len(ONE.body) + 1), "and what names it says"),
        (Descriptor(OCI_MANIFEST, ONE.digest, 5 << 20), "5,242,880 bytes, more than"),
        (Descriptor(OCI_MANIFEST, next(iter(ONE.blobs)), 2), "no manifest that agents could take"),
    ],
)
def test_what_is_named_as_something_else_is_refused(named: Descriptor, words: str) -> None:
    assert words in why(Content(ONE), named)


def test_a_manifest_that_says_another_size_than_its_blob_has_is_refused() -> None:
    fields = json.loads(ONE.body)
    fields["layers"][0]["size"] += 1
    lying = Artifact(json.dumps(fields).encode(), ONE.media_type, ONE.blobs)
    assert "and what names it says" in why(Content(lying), of(lying))
