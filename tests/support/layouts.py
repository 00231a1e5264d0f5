"""Tar archives of OCI image layouts, as clients write them, and as nobody should."""

import json
from collections.abc import Iterable, Mapping, Sequence

from mirror.digest import Digest
from tests.support.artifacts import END_OF_TAR, Artifact, descriptor, entry

REF_NAME = "org.opencontainers.image.ref.name"
MARK = b'{"imageLayoutVersion": "1.0.0"}'
ZEROS = END_OF_TAR


def contents(artifact: Artifact) -> Iterable[tuple[Digest, bytes]]:
    """All blobs of an artifact, its manifests too."""
    yield artifact.digest, artifact.body
    yield from artifact.blobs.items()
    for child in artifact.children:
        yield from contents(child)


def index_of(*artifacts: tuple[str | None, Artifact]) -> bytes:
    """An index.json of these, each with its name or None."""
    manifests = []
    for name, artifact in artifacts:
        one = descriptor(artifact.media_type, artifact.body)
        manifests.append(one if name is None else {**one, "annotations": {REF_NAME: name}})
    return json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()


def files_of(*artifacts: tuple[str | None, Artifact]) -> dict[str, bytes]:
    """The files of a layout of these, in the order in which skopeo writes them: blobs first."""
    files: dict[str, bytes] = {}
    for _, artifact in artifacts:
        files.update((blob_path(digest), content) for digest, content in contents(artifact))
    return {**files, "index.json": index_of(*artifacts), "oci-layout": MARK}


def blob_path(digest: Digest) -> str:
    """Where a layout has a blob."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def tar_of(files: Mapping[str, bytes] | Sequence[tuple[str, bytes]]) -> bytes:
    """A tar of these files, in this order."""
    pairs = files.items() if isinstance(files, Mapping) else files
    return b"".join(entry(name, content) for name, content in pairs) + ZEROS


def archive(*artifacts: tuple[str | None, Artifact]) -> bytes:
    """The tar of a layout of these."""
    return tar_of(files_of(*artifacts))
