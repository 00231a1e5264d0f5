"""The OCI distribution specification 1.1 on hosted repositories: uploads, manifests, deletes, as its suite asks."""

import itertools
import json
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.oci import OCI_INDEX, OCI_MANIFEST
from tests.support.artifacts import Artifact, descriptor, image, index, raw, wasm_module
from tests.support.asking import Reply
from tests.support.pushing import OCTETS, Author
from tests.support.running import running

pytestmark = pytest.mark.integration

UP = {"ghcr.io": "http://127.0.0.1:9"}
EMPTY = ("application/vnd.oci.empty.v1+json", b"{}")
EXAMPLE = "application/vnd.example.config.v1+json"

Way = Callable[[Author, Digest, bytes], Awaitable[Reply]]


def some(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


async def post_only(author: Author, digest: Digest, content: bytes) -> Reply:
    return await author.ask("POST", f"blobs/uploads/?digest={digest}", OCTETS, content)


async def post_then_put(author: Author, digest: Digest, content: bytes) -> Reply:
    return await author.finish(await author.begin(), digest, content)


async def announced(author: Author, digest: Digest, content: bytes) -> Reply:
    return await author.finish(await author.begin(f"?digest-algorithm={digest.algorithm}"), digest, content)


async def one_chunk(author: Author, digest: Digest, content: bytes) -> Reply:
    upload = await author.begin()
    if content:
        assert (await author.chunk(upload, 0, content)).status == 202
    return await author.finish(upload, digest)


async def chunks(author: Author, digest: Digest, content: bytes) -> Reply:
    upload = await author.begin()
    for start in range(0, len(content), 500):
        reply = await author.chunk(upload, start, piece := content[start : start + 500])
        assert (reply.status, reply.header("range")) == (202, f"0-{start + len(piece) - 1}")
        upload = reply.header("location") or ""
    return await author.finish(upload, digest)


async def last_by_put(author: Author, digest: Digest, content: bytes) -> Reply:
    upload = await author.begin()
    cut = len(content) // 2
    if cut:
        assert (await author.chunk(upload, 0, content[:cut])).status == 202
    span = {"Content-Range": f"{cut}-{len(content) - 1}"} if content else {}
    return await author.finish(upload, digest, content[cut:], span)


async def streamed(author: Author, digest: Digest, content: bytes) -> Reply:
    upload = await author.begin()
    for piece in (content[:700], content[700:]):
        if piece:
            assert (await author.ask("PATCH", upload, OCTETS, piece)).status == 202
    return await author.finish(upload, digest)


WAYS = [post_only, post_then_put, announced, one_chunk, chunks, last_by_put, streamed]


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_a_blob_goes_up_in_every_way_and_comes_back(tmp_path: Path, algorithm: str) -> None:
    async with running(tmp_path, UP) as mirror:
        author = Author(mirror)
        for number, way in enumerate(WAYS):
            for content in (some(1337, number), *((b"", b"{}") if algorithm == "sha256" else ())):
                digest = Digest.of(content, algorithm)
                reply = await way(author, digest, content)
                assert (reply.status, reply.body) == (201, b""), (way.__name__, reply)
                assert reply.header("docker-content-digest") == str(digest)
                location = reply.header("location")
                assert location == f"{author.root}/blobs/{digest}"
                there = await mirror.get(location)
                assert (there.status, there.body) == (200, content)
                head = await mirror.head(location)
                assert (head.status, head.header("content-length")) == (200, str(len(content)))
                assert (await author.ask("DELETE", location)).status == 202
                assert (await mirror.head(location)).status == 404
                again = await author.ask("DELETE", location)
                assert (again.status, again.code) == (404, "BLOB_UNKNOWN")


async def test_a_blob_has_the_digest_that_is_said_or_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, UP) as mirror:
        author = Author(mirror)
        for number, way in enumerate(WAYS):
            for algorithm in ("sha256", "sha512"):
                content = some(1337, number)
                wrong = Digest.of(b"something else", algorithm)
                reply = await way(author, wrong, content)
                assert (reply.status, reply.code) == (400, "DIGEST_INVALID"), (way.__name__, reply)
                for digest in (wrong, Digest.of(content, algorithm)):
                    assert (await mirror.head(f"{author.root}/blobs/{digest}")).status == 404
        assert not mirror.files()


async def test_a_digest_that_is_none_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, UP) as mirror:
        author = Author(mirror)
        upload = await author.begin()
        for digest in ("sha256:baddigeststring", "md5:" + "0" * 32, "", "sha256", "sha256:" + "A" * 64):
            for reply in (
                await author.ask("POST", f"blobs/uploads/?digest={digest}", OCTETS, b"x"),
                await author.ask("POST", f"blobs/uploads/?mount={digest}&from=hosted/other"),
                await author.ask("PUT", f"{upload}?digest={digest}", OCTETS, b"x"),
            ):
                assert (reply.status, reply.code) == (400, "DIGEST_INVALID"), digest
        assert (await author.ask("GET", upload)).status == 204
        without = await author.ask("PUT", upload, OCTETS, b"x")
        assert (without.status, without.code) == (400, "DIGEST_INVALID")
        assert "?digest=" in without.message
        assert (await author.ask("POST", "blobs/uploads/?digest-algorithm=md5")).code == "DIGEST_INVALID"


async def test_a_chunk_out_of_order_is_refused_and_the_upload_goes_on(tmp_path: Path) -> None:
    content = some(1500)
    async with running(tmp_path, UP) as mirror:
        author = Author(mirror)
        upload = await author.begin()
        told = await author.ask("GET", upload)
        assert (told.status, told.header("range"), told.header("location")) == (204, "0-0", upload)
        for start in (0, 500, 1000):
            for wrong in {0, 500, 1000} - {start}:
                reply = await author.chunk(upload, wrong, content[wrong : wrong + 500])
                assert (reply.status, reply.code) == (416, "BLOB_UPLOAD_INVALID")
                assert reply.header("range") == f"0-{max(start - 1, 0)}"
                assert reply.header("location") == upload
                span = {"Content-Range": f"{wrong}-{wrong + 499}"}
                reply = await author.finish(upload, Digest.of(content), content[wrong : wrong + 500], span)
                assert (reply.status, reply.header("location")) == (416, upload)
            told = await author.ask("GET", upload)
            assert (told.status, told.header("range"), told.body) == (204, f"0-{max(start - 1, 0)}", b"")
            assert told.header("docker-upload-uuid") == upload.rpartition("/")[2]
            assert (await author.chunk(upload, start, content[start : start + 500])).status == 202
        assert (await author.finish(upload, Digest.of(content))).status == 201


async def test_a_range_that_contradicts_its_chunk_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, UP) as mirror:
        author = Author(mirror)
        upload = await author.begin()
        for span, words in (
            ("5-2", "ends before"),
            ("0-10", "Content-Length is 3"),
            ("a-b", "must be"),
            ("0", "must be"),
            ("0-1,2-3", "must be"),
        ):
            for method, query in (("PATCH", ""), ("PUT", f"?digest={Digest.of(b'abc')}")):
                reply = await author.ask(method, upload + query, {"Content-Range": span}, b"abc")
                assert (reply.status, reply.code) == (400, "BLOB_UPLOAD_INVALID"), span
                assert words in reply.message
        assert (await author.chunk(upload, 0, b"abc")).status == 202


async def test_an_upload_that_is_cancelled_or_finished_is_over(tmp_path: Path) -> None:
    content = some(100)
    async with running(tmp_path, UP) as mirror:
        author = Author(mirror)
        cancelled, finished = await author.begin(), await author.begin()
        assert (await author.chunk(cancelled, 0, content)).status == 202
        reply = await author.ask("DELETE", cancelled)
        assert (reply.status, reply.body) == (204, b"")
        assert (await author.finish(finished, Digest.of(content), content)).status == 201
        for upload in (cancelled, finished, *(f"{author.root}/blobs/uploads/{name}" for name in ("A" * 43, "a.b"))):
            for method, query in (
                ("GET", ""),
                ("PATCH", ""),
                ("DELETE", ""),
                ("PUT", f"?digest={Digest.of(content)}"),
            ):
                reply = await author.ask(method, upload + query, body=content if method in ("PATCH", "PUT") else b"")
                assert (reply.status, reply.code) == (404, "BLOB_UPLOAD_UNKNOWN"), method


async def test_an_upload_belongs_to_its_repository(tmp_path: Path) -> None:
    async with running(tmp_path, UP) as mirror:
        upload = await Author(mirror, "hosted/team/one").begin()
        other = upload.replace("team/one", "team/two")
        for method in ("GET", "PATCH", "DELETE"):
            reply = await mirror.ask(method, other, body=b"x" if method == "PATCH" else b"")
            assert (reply.status, reply.code) == (404, "BLOB_UPLOAD_UNKNOWN")
        assert (await mirror.get(upload)).status == 204


async def test_a_blob_is_mounted_from_where_it_is(tmp_path: Path) -> None:
    async with running(tmp_path, UP) as mirror:
        author, other = Author(mirror, "hosted/team/one"), Author(mirror, "hosted/team/two")
        for number, source in enumerate(("&from=hosted/team/two", "")):
            content = some(512, number)
            digest = Digest.of(content)
            assert (await other.blob(content)).status == 201
            reply = await author.ask("POST", f"blobs/uploads/?mount={digest}{source}")
            assert (reply.status, reply.body) == (201, b"")
            assert reply.header("location") == f"{author.root}/blobs/{digest}"
            assert reply.header("docker-content-digest") == str(digest)
            assert (await other.ask("DELETE", f"blobs/{digest}")).status == 202
            assert (await author.ask("GET", f"blobs/{digest}")).body == content


async def test_what_cannot_be_mounted_is_uploaded(tmp_path: Path) -> None:
    async with running(tmp_path, UP) as mirror:
        author = Author(mirror, "hosted/team/one")
        assert (await Author(mirror, "hosted/team/two").blob(b"something else")).status == 201
        for number, name in enumerate(("hosted/team/two", "", "hosted/team/three", "ghcr.io/x/y", "A!", "nowhere/x")):
            content = some(512, number)
            upload = await author.begin(f"?mount={Digest.of(content)}" + (f"&from={name}" if name else ""))
            assert (await author.finish(upload, Digest.of(content), content)).status == 201


def artifacts() -> dict[str, Artifact]:
    """What the specification's suite pushes."""
    plain = raw(wasm_module())
    subject = descriptor(plain.media_type, plain.body)
    foreign = {
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "digest": str(Digest.of(b"never pushed")),
        "size": 12,
        "urls": ["https://example.com/never"],
    }
    nested = index(index(plain), index(plain))
    return {
        "image": plain,
        "large": raw(wasm_module(), {"annotations": {"large": "x" * (4 * 1024 * 1024 - 5000)}}),
        "index": index(plain, image([EMPTY]), platforms=("linux/amd64", "linux/arm64")),
        "nested": nested,
        "empty-index": index(),
        "artifact": image([(EXAMPLE, b"data")], config=EMPTY, extra={"artifactType": EXAMPLE}),
        "no-layers": image([]),
        "without-layers": image([EMPTY], config=EMPTY, extra={"artifactType": EXAMPLE}),
        "missing-subject": image([EMPTY], config=EMPTY, extra={"artifactType": EXAMPLE, "subject": subject}),
        "data-field": image([EMPTY], config=EMPTY, extra={"layers": [{**descriptor(*EMPTY), "data": "e30="}]}),
        "custom-fields": image([EMPTY], extra={"org.example.custom": {"a": [1, None]}, "extra": "x"}),
        "foreign": image([], extra={"layers": [foreign]}),
    }


async def test_every_kind_of_manifest_goes_up_by_tag_and_by_digest(tmp_path: Path) -> None:
    async with running(tmp_path, UP) as mirror:
        for (name, artifact), target in itertools.product(artifacts().items(), (None, "v1")):
            author = Author(mirror, f"hosted/team/{name}")
            reply = await (author.push(artifact, None) if target is None else author.manifest(artifact, target))
            assert (reply.status, reply.body) == (201, b""), reply
            assert reply.header("docker-content-digest") == str(artifact.digest)
            assert reply.header("location") == f"{author.root}/manifests/{artifact.digest}"
            subject = json.loads(artifact.body).get("subject")
            assert reply.header("oci-subject") == (subject and subject["digest"])
            there = await author.ask("GET", f"manifests/{target or artifact.digest}")
            assert (there.status, there.body) == (200, artifact.body)
            assert there.header("content-type") == artifact.media_type
            assert there.header("docker-content-digest") == str(artifact.digest)
            assert (await author.ask("HEAD", f"manifests/{artifact.digest}")).status == 200


async def test_tags_that_come_along_are_told_and_listed(tmp_path: Path) -> None:
    artifact = raw(wasm_module())
    tags = [f"v1.{number}" for number in range(12)]
    async with running(tmp_path, UP) as mirror:
        author = Author(mirror)
        await author.push(artifact, None)
        asked = "&".join(f"tag={tag}" for tag in [*tags, tags[0]])
        reply = await author.manifest(artifact, f"{artifact.digest}?{asked}")
        assert (reply.status, reply.header("oci-tag")) == (201, ", ".join(tags))
        for tag in tags:
            assert (await author.ask("GET", f"manifests/{tag}")).body == artifact.body
        listed = await author.ask("GET", "tags/list")
        assert listed.json == {"name": "hosted/team/plugin", "tags": sorted(tags)}
        bad = await author.manifest(artifact, f"{artifact.digest}?tag=good&tag=-bad")
        assert (bad.status, bad.code) == (400, "TAG_INVALID")
        assert (await author.ask("GET", "manifests/good")).status == 404


async def test_a_sha512_manifest_is_kept_under_its_digest(tmp_path: Path) -> None:
    artifact = raw(wasm_module())
    digest = Digest.of(artifact.body, "sha512")
    async with running(tmp_path, UP) as mirror:
        author = Author(mirror)
        await author.push(artifact, None)
        reply = await author.manifest(artifact, f"{digest}?tag=v512")
        assert (reply.status, reply.header("docker-content-digest")) == (201, str(digest))
        for target in (digest, "v512"):
            there = await author.ask("GET", f"manifests/{target}")
            assert (there.body, there.header("docker-content-digest")) == (artifact.body, str(digest))


NO_MANIFESTS = {
    "no JSON": b"{",
    "nothing": b"",
    "a list": b"[]",
    "two kinds": json.dumps({"schemaVersion": 2, "manifests": [], "layers": []}).encode(),
    "no layers": json.dumps({"schemaVersion": 2, "config": descriptor(*EMPTY)}).encode(),
    "twice": b'{"schemaVersion":2,"schemaVersion":2}',
    "another type": json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode(),
    "a subject that is none": image([EMPTY], extra={"subject": {"digest": "x"}}).body,
    "a size that is wrong": image([EMPTY], extra={"layers": [{**descriptor(*EMPTY), "size": 3}]}).body,
    "schema 1": json.dumps({"schemaVersion": 1}).encode(),
}


async def test_what_is_no_manifest_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, UP) as mirror:
        author = Author(mirror)
        assert (await author.blob(b"{}")).status == 201
        assert (await author.blob(b"")).status == 201
        assert (await author.push(image([EMPTY]), "before")).status == 201
        for (name, body), by in itertools.product(NO_MANIFESTS.items(), ("tag", "digest")):
            target = "v1" if by == "tag" else str(Digest.of(body))
            reply = await author.ask("PUT", f"manifests/{target}", {"Content-Type": OCI_MANIFEST}, body)
            assert (reply.status, reply.code) == (400, "MANIFEST_INVALID"), name
            assert (await author.ask("GET", f"manifests/{target}")).status == 404
        assert (await author.ask("GET", "tags/list")).json["tags"] == ["before"]


async def test_a_manifest_whose_address_or_type_contradicts_it_is_refused(tmp_path: Path) -> None:
    artifact = raw(wasm_module())
    async with running(tmp_path, UP) as mirror:
        author = Author(mirror)
        await author.push(artifact, "v1")
        other = Digest.of(b"other")
        reply = await author.manifest(artifact, str(other))
        assert (reply.status, reply.code) == (400, "DIGEST_INVALID")
        assert (await author.ask("GET", f"manifests/{other}")).status == 404
        reply = await author.manifest(artifact, "sha256:baddigeststring")
        assert (reply.status, reply.code) == (400, "DIGEST_INVALID")
        assert (await author.ask("GET", "manifests/sha256:baddigeststring")).status == 400
        for wrong in (OCI_INDEX, "application/x-www-form-urlencoded", "text/html"):
            reply = await author.ask("PUT", "manifests/v2", {"Content-Type": wrong}, artifact.body)
            assert (reply.status, reply.code) == (400, "MANIFEST_INVALID"), wrong
        for right in (f"{OCI_MANIFEST}; charset=utf-8", "application/json", None):
            headers = {"Content-Type": right} if right is not None else {}
            assert (await author.ask("PUT", "manifests/v2", headers, artifact.body)).status == 201, right


async def test_a_manifest_without_what_it_names_is_refused(tmp_path: Path) -> None:
    artifact = raw(wasm_module())
    both = index(artifact)
    async with running(tmp_path, UP) as mirror:
        author = Author(mirror)
        await Author(mirror, "hosted/team/other").push(artifact, "v1")  # in another repository is not here
        for missing in artifact.blobs:
            for digest, content in artifact.blobs.items():
                if digest != missing:
                    await author.blob(content)
            reply = await author.manifest(artifact, "v1")
            assert (reply.status, reply.code) == (404, "MANIFEST_BLOB_UNKNOWN")
            assert str(missing) in reply.message
            assert (await author.ask("GET", f"manifests/{artifact.digest}")).status == 404
            for digest in artifact.blobs:
                await author.ask("DELETE", f"blobs/{digest}")
        reply = await author.manifest(both, "v1")
        assert (reply.status, reply.code) == (404, "MANIFEST_BLOB_UNKNOWN")
        assert (await author.ask("GET", "manifests/v1")).status == 404


async def test_referrers_are_listed_and_filtered(tmp_path: Path) -> None:
    subject = raw(wasm_module())
    to = {"subject": descriptor(subject.media_type, subject.body), "annotations": {"a": "b"}}
    first = image([EMPTY], config=EMPTY, extra={**to, "artifactType": "application/vnd.first"})
    second = image([EMPTY], config=(EXAMPLE, b"[]"), extra=to)
    async with running(tmp_path, UP) as mirror:
        author = Author(mirror)
        for artifact in (first, second, subject):  # what refers may come before its subject
            assert (await author.push(artifact, None)).status == 201
        listed = await author.ask("GET", f"referrers/{subject.digest}")
        assert (listed.status, listed.header("content-type")) == (200, OCI_INDEX)
        kinds = {one["digest"]: one["artifactType"] for one in listed.json["manifests"]}
        assert kinds == {str(first.digest): "application/vnd.first", str(second.digest): EXAMPLE}
        assert all(one["annotations"] == {"a": "b"} for one in listed.json["manifests"])
        filtered = await author.ask("GET", f"referrers/{subject.digest}?artifactType=application/vnd.first")
        assert filtered.header("oci-filters-applied") == "artifactType"
        assert [one["digest"] for one in filtered.json["manifests"]] == [str(first.digest)]
        assert (await author.ask("DELETE", f"manifests/{first.digest}")).status == 202
        listed = await author.ask("GET", f"referrers/{subject.digest}")
        assert [one["digest"] for one in listed.json["manifests"]] == [str(second.digest)]
        nothing = await author.ask("GET", f"referrers/{Digest.of(b'nothing')}")
        assert (nothing.status, nothing.json["manifests"]) == (200, [])


async def test_what_is_deleted_is_gone_at_once_and_what_is_not_there_cannot_be(tmp_path: Path) -> None:
    artifact = raw(wasm_module())
    async with running(tmp_path, UP) as mirror:
        author = Author(mirror)
        for tag in ("v1", "v2", "v3"):
            assert (await author.push(artifact, tag)).status == 201
        assert (await author.ask("DELETE", "manifests/v1")).status == 202
        assert (await author.ask("HEAD", "manifests/v1")).status == 404
        assert (await author.ask("HEAD", f"manifests/{artifact.digest}")).status == 200
        assert (await author.ask("GET", "tags/list")).json["tags"] == ["v2", "v3"]
        reply = await author.ask("DELETE", f"manifests/{artifact.digest}")
        assert (reply.status, reply.body) == (202, b"")
        for target in ("v2", "v3", str(artifact.digest)):
            assert (await author.ask("HEAD", f"manifests/{target}")).status == 404
            reply = await author.ask("DELETE", f"manifests/{target}")
            assert (reply.status, reply.code) == (404, "MANIFEST_UNKNOWN")
        assert (await author.push(artifact, "v1")).status == 201  # and may come again


async def test_nothing_is_there_before_it_is_pushed(tmp_path: Path) -> None:
    nothing = Digest.of(b"nothing")
    async with running(tmp_path, UP) as mirror:
        author = Author(mirror)
        for target in (f"manifests/{nothing}", "manifests/v1", f"blobs/{nothing}", "tags/list"):
            assert (await author.ask("GET", target)).status == 404, target
        for target in (f"manifests/{nothing}", "manifests/v1", f"blobs/{nothing}"):
            assert (await author.ask("DELETE", target)).status == 404, target
        assert (await author.ask("GET", f"referrers/{nothing}")).json["manifests"] == []


ADDRESSES = {
    "manifests/v1": "GET, HEAD, PUT, DELETE",
    f"blobs/{Digest.of(b'')}": "GET, HEAD, DELETE",
    "blobs/uploads/": "POST",
    f"blobs/uploads/{'A' * 43}": "GET, HEAD, PATCH, PUT, DELETE",
    "tags/list": "GET, HEAD",
    f"referrers/{Digest.of(b'')}": "GET, HEAD",
}


async def test_an_address_says_what_may_be_done_there(tmp_path: Path) -> None:
    async with running(tmp_path, UP) as mirror:
        author = Author(mirror)
        for tail, methods in ADDRESSES.items():
            for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} - set(methods.split(", ")):
                reply = await author.ask(method, tail)
                assert (reply.status, reply.code, reply.header("allow")) == (405, "UNSUPPORTED", methods), method
