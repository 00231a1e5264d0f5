"""What passes between replicas for an upload: who may ask, what a repetition does, who is believed, who is asked."""

import itertools
import random
import re
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlencode

import pytest
from starlette.types import Receive, Scope, Send

from mirror.digest import Digest
from mirror.errors import UpstreamInvalid
from mirror.passing import Question
from mirror.passing import Reply as Said
from mirror.store.uploads import name_of, replica_in
from tests.cluster.replica import saying, secret_in, serving
from tests.edge.ends import End, ends
from tests.support.asking import Reply, ask
from tests.support.pushing import Author

CONTENT = random.Random(6).randbytes(10_000)
DIGEST = Digest.of(CONTENT)
NAME = "hosted/team/plugin"


def question(location: str, method: str = "GET", query: str = "", principal: str = "") -> Question:
    """What a replica asks the owner of the upload at ``location``."""
    return Question(method, location.rpartition("/")[2], principal, location, query, "127.0.0.1")


def said(end: End, proof: str, reply: Reply) -> Said:
    """What the owner has told the one who signed, in a document that is signed too."""
    nonce = re.search(r"n=([0-9a-f]{32})", proof)
    assert nonce is not None
    assert reply.status == 200, reply
    assert end.secret.vouches_for(reply.header("x-signature"), nonce[1], reply.body)
    return Said.read(reply.body)


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_a_body_that_is_sent_again_is_not_taken_in_twice(tmp_path: Path, method: str) -> None:
    """Overheard is a request whose bytes' place only the replica has said that passed it on."""
    async with ends(tmp_path) as (one, _):
        upload = await Author(one, NAME).begin()
        query = f"digest={Digest.of(CONTENT * 2)}" if method == "PUT" else ""
        overheard = replace(question(upload, method, query), start=0)
        target, proof = one.sign(overheard)
        first = said(one, proof, await one.repeated(method, target, proof, CONTENT))
        if method == "PATCH":
            assert (first.status, one.size_of(upload)) == (202, len(CONTENT))
        else:  # of another digest: the upload is over
            assert first.status == 400
        for body in (CONTENT, b"other", b""):
            again = said(one, proof, await one.repeated(method, target, proof, body))
            assert again.status == (416 if method == "PATCH" else 404)
        if method == "PATCH":
            assert one.size_of(upload) == len(CONTENT)
            assert (await Author(one, NAME).finish(upload, DIGEST)).status == 201
            assert said(one, proof, await one.repeated(method, target, proof, CONTENT)).status == 404


async def test_the_replica_that_passes_a_body_on_says_where_it_begins(tmp_path: Path) -> None:
    async with ends(tmp_path) as (one, two):
        upload = await Author(one, NAME).begin()
        for number in range(3):
            assert (await Author(two, NAME).ask("PATCH", upload, {}, CONTENT)).status == 202
            assert f"start={number * len(CONTENT)}" in one.queries[-1]
        span = f"{3 * len(CONTENT)}-{4 * len(CONTENT) - 1}"
        before = len(one.asked)
        assert (await Author(two, NAME).ask("PATCH", upload, {"Content-Range": span}, CONTENT)).status == 202
        assert f"span={span}" in one.queries[-1], "signed, as all that decides"
        assert len(one.asked) == before + 1, "whose client says it itself is not asked about before"


async def test_an_end_that_is_sent_again_does_no_harm(tmp_path: Path) -> None:
    async with ends(tmp_path) as (one, _):
        for method, query in (("PUT", f"digest={DIGEST}"), ("DELETE", "")):
            upload = await Author(one, NAME).begin()
            assert (await Author(one, NAME).chunk(upload, 0, CONTENT)).status == 202
            target, proof = one.sign(question(upload, method, query))
            assert said(one, proof, await one.repeated(method, target, proof)).status in (201, 204)
            assert said(one, proof, await one.repeated(method, target, proof)).status == 404
        assert one.held(DIGEST) == CONTENT


CHANGED = {
    "principal": "ben",
    "path": "/v2/hosted/other/blobs/uploads/{upload}",
    "query": f"digest={DIGEST}",
    "host": "registry.example",
    "span": "0-9",
    "start": "1",
    "only": "proof",
}


async def test_what_decides_cannot_be_changed_on_the_way(tmp_path: Path) -> None:
    async with ends(tmp_path) as (one, _):
        upload = await Author(one, NAME).begin()
        asked = replace(question(upload, "PATCH"), principal="anna", start=0)
        target, proof = one.sign(asked)
        path, _, query = target.partition("?")
        for name, value in CHANGED.items():
            fields = dict(field.split("=") for field in query.split("&"))
            fields[name] = urlencode({"": value.format(upload=asked.upload)})[1:]
            changed = f"{path}?" + "&".join(f"{key}={text}" for key, text in fields.items())
            assert changed != target
            reply = await one.repeated("PATCH", changed, proof, CONTENT)
            assert (reply.status, reply.header("www-authenticate")) == (401, "WasmMirror"), name
        for other in ("PUT", "DELETE"):
            assert (await one.repeated(other, target, proof)).status == 401
        assert one.size_of(upload) == 0


async def test_who_does_not_sign_is_told_nothing(tmp_path: Path) -> None:
    async with ends(tmp_path) as (one, _):
        upload = await Author(one, NAME).begin()
        target = f"/peer/v1/{question(upload).target}"
        stranger = secret_in(tmp_path / "stranger", b"another secret than that")
        for method in ("GET", "HEAD", "PATCH", "PUT", "DELETE", "POST"):
            proof = stranger.sign(method, one.own + target, time.time()).header
            for headers in ({}, {"Authorization": proof}):
                assert (await ask(one.address, target, method=method, headers=headers, body=b"abc")).status == 401
        assert one.size_of(upload) == 0


NONSENSE: list[dict[str, str]] = [
    {"path": "/v2/hosted/team/plugin/blobs/uploads/"},
    {"path": "/v2/hosted/team/plugin/blobs/uploads/{other}"},
    {"path": "/v2/hosted/team/plugin/manifests/v1"},
    {"path": "/v2/"},
    {"path": "/peer/v1/uploads/{upload}"},
    {"path": "/v2/hosted/../plugin/blobs/uploads/{upload}"},
    {"path": "/v2/hosted/other/blobs/uploads/{upload}"},
    {"path": "/v2/nowhere.example/team/plugin/blobs/uploads/{upload}"},
    {"principal": "ben"},
    {"query": "ns=nowhere.example"},
    {"query": "&" * 50},
    {"method": "POST"},
    {"upload": "a" * 55},
]


async def test_a_replica_that_asks_for_nonsense_gets_an_error(tmp_path: Path) -> None:
    async with ends(tmp_path) as (one, two):
        upload, other = await Author(one, NAME).begin(), await Author(one, NAME).begin()
        ids = {"upload": upload.rpartition("/")[2], "other": other.rpartition("/")[2]}
        for change, only in itertools.product(NONSENSE, ("size", "")):
            asked = replace(question(upload), only=only)
            fields = {name: getattr(asked, name) for name in Question.__slots__}
            fields |= {name: value.format(**ids) for name, value in change.items()}
            target, proof = one.sign(odd := Question(**fields))
            reply = said(one, proof, await one.repeated(odd.method, target, proof))
            assert 400 <= reply.status < 500, change
            assert reply.size is None, change
        assert two.asked == []


async def test_a_request_that_was_passed_on_is_never_passed_on_again(tmp_path: Path) -> None:
    async with ends(tmp_path) as (one, two):
        upload = await Author(one, NAME).begin()
        target, proof = two.sign(question(upload))
        assert said(two, proof, await two.repeated("GET", target, proof)).status == 404
        assert one.asked == [f"POST {upload.rpartition('/')[0]}/"]


async def test_replicas_that_go_by_one_address_do_not_ask_in_circles(tmp_path: Path) -> None:
    async with ends(tmp_path, own="http://127.0.0.1:9") as (one, two):
        upload = await Author(one, NAME).begin()
        assert (await Author(two, NAME).ask("GET", upload)).code == "BLOB_UPLOAD_UNKNOWN"
        assert (await Author(one, NAME).ask("GET", upload)).status == 204
        assert two.asked == [f"GET {upload}"]


async def test_a_replica_that_was_renamed_goes_on_with_what_it_has(tmp_path: Path) -> None:
    async with ends(tmp_path) as (one, two):
        upload = await Author(one, NAME).begin()
        one.alive.remove(one.own)
        one.own = "http://127.0.0.1:9"
        one.open(one.url, one.own, None)
        assert (await Author(one, NAME).chunk(upload, 0, CONTENT)).status == 202
        assert (await Author(two, NAME).ask("GET", upload)).code == "BLOB_UPLOAD_UNKNOWN"


async def test_an_id_that_somebody_made_up_is_not_there_and_nobody_else_is_asked(tmp_path: Path) -> None:
    async with ends(tmp_path) as (one, two):
        for upload in ("0" * 12 + "a" * 43, "a" * 43, "x", "-" * 256, one.passing.name + "a" * 43):
            reply = await one.ask("GET", f"/v2/{NAME}/blobs/uploads/{upload}")
            assert (reply.status, reply.code) == (404, "BLOB_UPLOAD_UNKNOWN"), upload
        assert two.asked == []
        assert (await one.ask("GET", f"/v2/{NAME}/blobs/uploads/{two.passing.name}{'a' * 43}")).status == 404
        assert two.asked == ["GET /peer/v1/uploads/", f"GET /peer/v1/uploads/{two.passing.name}{'a' * 43}"]


async def test_what_a_stranger_at_the_owners_address_says_is_not_passed_on(tmp_path: Path) -> None:
    status = 200

    heard: dict[str, set[str]] = {}

    async def stranger(scope: Scope, receive: Receive, send: Send) -> None:
        path = f"{scope['method']} {scope['path']}"
        heard.setdefault(path, set()).add(parse_qs(scope["query_string"].decode()).get("path", [""])[0])
        document = Said(status, (("location", "http://evil.example/"), ("set-cookie", "a=b"))).document()
        signature = f"v=1,s={'0' * 64}"
        app = saying(status, document, content_type="application/json", x_signature=signature, location="/evil")
        await app(scope, receive, send)

    async with ends(tmp_path) as (_, two), serving(stranger) as url:
        two.alive.append(url)
        upload = f"/v2/{NAME}/blobs/uploads/{name_of(url)}{'a' * 43}"
        for status in (200, 201, 302, 401, 404, 500):
            for method, body in (("GET", b""), ("PATCH", b"abc"), ("PUT", b""), ("DELETE", b"")):
                reply = await Author(two, NAME).ask(method, upload, {}, body)
                assert (reply.status, reply.code) == (503, "UNAVAILABLE"), status
                assert heard == {"GET /peer/v1/uploads/": {""}}, "neither who asks for what, nor a body"
                assert reply.header("retry-after") == "1"
                assert b"evil" not in reply.body
                assert reply.header("location") is None


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"{}",
        b'{"status":200}',
        b'{"status":99,"headers":[]}',
        b'{"status":200,"headers":[1]}',
        b'{"status":200,"headers":[["a"]]}',
        b'{"status":200,"headers":[],"body":7}',
        b'{"status":200,"headers":[],"body":"?"}',
        b'{"status":200,"headers":[],"body":"","size":-1}',
    ],
)
def test_a_malformed_document_is_no_answer(document: bytes) -> None:
    with pytest.raises(UpstreamInvalid):
        Said.read(document)


@pytest.mark.parametrize("size", [None, 0, 1 << 40])
def test_a_document_says_what_was_answered(size: int | None) -> None:
    reply = Said(202, (("range", "0-9"), ("warning", '299 - "é"')), b'{"a":"\xff"}', size)
    assert Said.read(reply.document()) == reply


def test_an_id_names_its_replica_and_another_one_names_none() -> None:
    name = name_of("http://10.0.0.5:8080")
    assert re.fullmatch("[0-9a-f]{12}", name)
    assert name != name_of("http://10.0.0.6:8080")
    assert replica_in(name + "a" * 43) == name
    for other in ("a" * 43, "a" * 54, "a" * 56, name.upper() + "a" * 43, "", name):
        assert replica_in(other) is None


def test_a_mirror_that_is_alone_loads_nothing_of_it() -> None:
    root = Path(__file__).parents[2]
    ours = re.compile(r"^\s*(?:from|import) mirror\.(?:passing|upstream\.duplex|edge\.(?:forward|peeruploads))\b", re.M)
    users = {file.relative_to(root).as_posix() for file in root.glob("mirror/**/*.py") if ours.search(file.read_text())}
    assert users == {
        "mirror/passing.py",
        "mirror/edge/forward.py",
        "mirror/edge/peeruploads.py",
        "mirror/replicated.py",
    }
    assert "from mirror.replicated import replicated  # with" in (root / "mirror/wiring/ground.py").read_text()
