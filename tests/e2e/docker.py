"""Docker's push, request by request, as its code has it."""

from urllib.parse import urljoin

import httpx

from mirror.digest import Digest
from tests.support.artifacts import Artifact


def docker_push(
    http: httpx.Client, repository: str, tag: str, artifact: Artifact, *, known_in: str | None = None
) -> int:
    """The requests that docker's push makes, with its demands on the answers; how many layers were mounted.

    Source: moby, ``distribution/push_v2.go`` and the client of github.com/distribution/distribution. ``known_in`` is a
    repository of this registry in which docker thinks that it has seen the layers.
    """
    http.get("/v2/").raise_for_status()
    layers = artifact.layers
    mounted = 0
    for digest in layers:
        blob = f"/v2/{repository}/blobs/{digest}"
        upload = ""
        if known_in is not None:
            asked = http.post(f"/v2/{repository}/blobs/uploads/", params={"from": known_in, "mount": str(digest)})
            assert asked.status_code in (201, 202), asked.text
            if asked.status_code == 201:
                assert http.head(blob).headers["content-length"] == str(len(artifact.blobs[digest]))
                mounted += 1
                continue
            upload = urljoin(str(asked.url), asked.headers["location"])
        assert http.head(blob).status_code == 404
        _docker_upload(http, repository, digest, artifact.blobs[digest], upload)
    for digest, content in artifact.blobs.items():
        if digest not in layers:
            _docker_upload(http, repository, digest, content)
    put = http.put(
        f"/v2/{repository}/manifests/{tag}", content=artifact.body, headers={"content-type": artifact.media_type}
    )
    assert put.is_success, put.text
    assert put.headers["docker-content-digest"] == str(artifact.digest)
    return mounted


def _docker_upload(http: httpx.Client, repository: str, digest: Digest, content: bytes, upload: str = "") -> None:
    """Without a length before, for docker compresses on the way."""
    if not upload:
        begun = http.post(f"/v2/{repository}/blobs/uploads/")
        assert begun.status_code == 202, begun.text
        upload = urljoin(str(begun.url), begun.headers["location"])
    streamed = http.patch(upload, content=(content[at : at + 32768] for at in range(0, len(content), 32768)))
    assert streamed.is_success, streamed.text
    start, _, end = streamed.headers["range"].partition("-")
    assert int(end) - int(start) + 1 == len(content)
    finished = http.put(
        httpx.URL(urljoin(upload, streamed.headers["location"])).copy_merge_params({"digest": str(digest)})
    )
    assert finished.is_success, finished.text
    known = http.head(f"/v2/{repository}/blobs/{digest}")
    assert (known.status_code, known.headers["content-length"]) == (200, str(len(content)))
