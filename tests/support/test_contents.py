"""The fake registry's right answers: content, tags, referrers, and who may read."""

import httpx
import pytest

from mirror.digest import Digest
from mirror.oci import OCI_MANIFEST
from tests.support.artifacts import publish, raw, wasm_module
from tests.support.upstream import FaultyUpstream

CONTENT = bytes(range(256)) * 400  # 102,400 bytes
REPOSITORY = "team/plugin"


def blob_url(up: FaultyUpstream) -> str:
    return f"{up.url}/v2/{REPOSITORY}/blobs/{up.add_blob(REPOSITORY, CONTENT)}"


def test_a_published_artifact_can_be_pulled() -> None:
    artifact = raw(wasm_module(5000))
    with FaultyUpstream() as up, httpx.Client(base_url=f"{up.url}/v2/{REPOSITORY}") as client:
        publish(up, REPOSITORY, "1", artifact)
        by_tag, by_digest = client.get("/manifests/1"), client.get(f"/manifests/{artifact.digest}")
        assert by_tag.content == by_digest.content == artifact.body
        assert by_tag.headers["content-type"] == OCI_MANIFEST
        assert by_tag.headers["docker-content-digest"] == str(artifact.digest)
        head = client.head("/manifests/1")
        assert (head.headers["content-length"], head.content) == (str(len(artifact.body)), b"")
        for digest, content in artifact.blobs.items():
            assert client.get(f"/blobs/{digest}").content == content
        assert up.accepted_connections == 1


def test_what_is_not_held_is_404_with_its_code() -> None:
    with FaultyUpstream() as up:
        up.add_manifest(REPOSITORY, {"schemaVersion": 2}, tag="1")
        absent = Digest.of(b"absent")
        for path, code in [
            (f"{REPOSITORY}/manifests/2", "MANIFEST_UNKNOWN"),
            (f"{REPOSITORY}/blobs/{absent}", "BLOB_UNKNOWN"),
            ("other/manifests/1", "NAME_UNKNOWN"),
        ]:
            answer = httpx.get(f"{up.url}/v2/{path}")
            assert (answer.status_code, answer.json()["errors"][0]["code"]) == (404, code)
        up.delete_tag(REPOSITORY, "1")
        assert httpx.get(f"{up.url}/v2/{REPOSITORY}/manifests/1").status_code == 404


@pytest.mark.parametrize(
    ("asked", "status", "expected", "content_range"),
    [
        ("bytes=100-199", 206, CONTENT[100:200], "bytes 100-199/102400"),
        ("bytes=102000-", 206, CONTENT[102000:], "bytes 102000-102399/102400"),
        ("bytes=-10", 206, CONTENT[-10:], "bytes 102390-102399/102400"),
        ("bytes=102400-", 416, b"", "bytes */102400"),
        ("bytes=0-1,5-6", 200, CONTENT, None),
    ],
)
def test_a_range_is_answered(asked: str, status: int, expected: bytes, content_range: str | None) -> None:
    with FaultyUpstream() as up:
        answer = httpx.get(blob_url(up), headers={"range": asked})
        assert (answer.status_code, answer.content) == (status, expected)
        assert answer.headers.get("content-range") == content_range


def test_requests_are_recorded_and_counted() -> None:
    with FaultyUpstream() as up:
        url = blob_url(up)
        httpx.get(url, params={"ns": "ghcr.io"}, headers={"X-Token": "a"})
        httpx.head(f"{up.url}/v2/")
        first = up.requests[0]
        assert (first.method, first.path, first.query) == ("GET", httpx.URL(url).path, {"ns": "ghcr.io"})
        assert (first.headers["x-token"], first.status, first.sent) == ("a", 200, len(CONTENT))
        assert (up.count(), up.count(method="HEAD"), up.count(path="/blobs/", status=200)) == (2, 1, 1)
        up.reset()
        assert up.count() == 0


def test_tags_are_listed_in_pages() -> None:
    with FaultyUpstream() as up, httpx.Client(base_url=up.url) as client:
        digest = up.add_manifest(REPOSITORY, {"schemaVersion": 2})
        for tag in ("c", "a", "d", "b", "e"):
            up.tag(REPOSITORY, tag, digest)
        address: str | None = f"/v2/{REPOSITORY}/tags/list?n=2"
        pages = []
        while address:
            answer = client.get(address)
            pages.append(answer.json()["tags"])
            address = answer.links["next"]["url"] if "link" in answer.headers else None
        assert pages == [["a", "b"], ["c", "d"], ["e"]]
        assert client.get(f"/v2/{REPOSITORY}/tags/list").json() == {"name": REPOSITORY, "tags": list("abcde")}
        up.page_size = 3
        assert client.get(f"/v2/{REPOSITORY}/tags/list").json()["tags"] == ["a", "b", "c"]


def test_referrers_are_filtered_or_not_offered() -> None:
    with FaultyUpstream() as up, httpx.Client(base_url=up.url) as client:
        subject = publish(up, REPOSITORY, "1", raw(wasm_module()))
        pointer = {"subject": {"mediaType": OCI_MANIFEST, "digest": str(subject), "size": 1}}
        signature = up.add_manifest(REPOSITORY, {"schemaVersion": 2, "artifactType": "a/signature", **pointer})
        up.add_manifest(REPOSITORY, {"schemaVersion": 2, "artifactType": "a/sbom", **pointer})
        address = f"/v2/{REPOSITORY}/referrers/{subject}"
        assert len(client.get(address).json()["manifests"]) == 2
        answer = client.get(address, params={"artifactType": "a/signature"})
        assert [found["digest"] for found in answer.json()["manifests"]] == [str(signature)]
        assert answer.headers["oci-filters-applied"] == "artifactType"
        up.page_size = 1
        assert client.get(client.get(address).links["next"]["url"]).json()["manifests"][0]["artifactType"] == "a/sbom"
        up.referrers_api = False
        assert client.get(address).status_code == 404


def test_basic_credentials_are_asked_for() -> None:
    with FaultyUpstream() as up:
        url = blob_url(up)
        up.require_basic({"robot": "secret"})
        assert httpx.get(url).headers["www-authenticate"] == 'Basic realm="fake registry"'
        assert httpx.get(url, auth=("robot", "wrong")).status_code == 401
        assert httpx.get(url, auth=("robot", "secret")).status_code == 200


def test_bearer_tokens_are_asked_for_and_issued() -> None:
    with FaultyUpstream() as up, FaultyUpstream() as login:
        url = blob_url(up)
        tokens = up.require_bearer(realm=f"{login.url}/token")
        tokens.users["robot"] = "secret"
        login.tokens = tokens
        challenge = httpx.get(url).headers["www-authenticate"]
        assert challenge == (
            f'Bearer realm="{login.url}/token",service="fake-registry",scope="repository:{REPOSITORY}:pull"'
        )
        scope = {"service": "fake-registry", "scope": f"repository:{REPOSITORY}:pull"}

        def status(token: str) -> int:
            return httpx.get(url, headers={"authorization": f"Bearer {token}"}).status_code

        anonymous = httpx.get(f"{login.url}/token", params=scope).json()
        assert anonymous["expires_in"] == 300
        assert status(anonymous["token"]) == 200
        assert status("made up") == 401
        other = httpx.get(f"{login.url}/token", params={"scope": "repository:team/other:pull"}).json()
        assert status(other["token"]) == 401
        tokens.anonymous = False
        assert httpx.get(f"{login.url}/token", params=scope).status_code == 401
        assert httpx.get(f"{login.url}/token", params=scope, auth=("robot", "wrong")).status_code == 401
        tokens.token_field = "access_token"
        known = httpx.get(f"{login.url}/token", params=scope, auth=("robot", "secret")).json()
        assert status(known["access_token"]) == 200
        assert tokens.issued[-1].user == "robot"
        tokens.revoke()
        assert status(known["access_token"]) == 401
        assert login.count(path="^/token$") == 5
        assert up.count(path="^/token$") == 0


def test_tokens_are_issued_for_refresh_tokens_and_passwords() -> None:
    with FaultyUpstream() as up:
        tokens = up.require_bearer()
        tokens.users["robot"] = "secret"
        tokens.refresh_token = "for ever"
        address = f"{up.url}/token"
        form = {"service": "fake-registry", "scope": f"repository:{REPOSITORY}:pull", "client_id": "test"}
        good = httpx.post(address, data={"grant_type": "refresh_token", "refresh_token": "for ever", **form})
        assert (good.status_code, good.json()["refresh_token"]) == (200, "for ever")
        bad = httpx.post(address, data={"grant_type": "refresh_token", "refresh_token": "no", **form})
        assert bad.status_code == 401
        login = httpx.post(address, data={"grant_type": "password", "username": "robot", "password": "secret", **form})
        assert login.status_code == 200
        tokens.accepts_post = False
        assert httpx.post(address, data={"grant_type": "password"}).status_code == 405
