"""An upload that one replica has and another is asked about: clients see no difference, and nothing is held back."""

import asyncio
import random
import time
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.errors import NotNow
from mirror.passing import Passing, Question
from tests.auth.support import basic, users_file
from tests.edge.ends import End, ends, sending
from tests.store.uploading import pieces
from tests.support.asking import Reply
from tests.support.certificates import self_signed
from tests.support.pushing import OCTETS, Author
from tests.support.waiting import eventually

CONTENT = random.Random(5).randbytes(300_000)
DIGEST = Digest.of(CONTENT)
NAME = "hosted/team/plugin"
MIB = 1024 * 1024


def authors(found: list[End], name: str = NAME, headers: Mapping[str, str] | None = None) -> list[Author]:
    """Somebody who pushes, as each replica sees them."""
    return [Author(end, name, headers) for end in found]


def length(reply: Reply) -> int:
    """How far an upload is, as it was told."""
    return int((reply.header("range") or "").partition("-")[2]) + 1


async def test_any_replica_answers_all_requests_of_an_upload(tmp_path: Path) -> None:
    async with ends(tmp_path) as found:
        one, two = authors(found)
        upload = await one.begin()
        assert (await two.ask("PATCH", upload, OCTETS, CONTENT[:100_000])).status == 202
        assert length(await one.ask("GET", upload)) == length(await two.ask("HEAD", upload)) == 100_000
        assert length(await two.chunk(upload, 100_000, CONTENT[100_000:200_000])) == 200_000
        reply = await two.finish(upload, DIGEST, CONTENT[200_000:])
        assert (reply.status, reply.header("location")) == (201, f"{two.root}/blobs/{DIGEST}")
        assert reply.header("docker-content-digest") == str(DIGEST)
        assert [end.held(DIGEST) == CONTENT for end in found] == [True, False]
        assert [end.files for end in found] == [[], []]
        cancelled = await two.begin()
        assert (await one.ask("DELETE", cancelled)).status == 204
        assert (await two.ask("GET", cancelled)).code == "BLOB_UPLOAD_UNKNOWN"


def plain(reply: Reply, upload: str) -> object:
    """An answer, but for the time of day and the upload's own id."""
    secret = upload.partition("?")[0].rpartition("/")[2]
    headers = [(name, value.replace(secret, "ID")) for name, value in reply.headers if name != "date"]
    return reply.status, sorted(headers), reply.body.replace(secret.encode(), b"ID")


REQUESTS: list[tuple[str, str, dict[str, str], bytes]] = [
    ("GET", "", {}, b""),
    ("HEAD", "", {}, b""),
    ("DELETE", "", {}, b""),
    ("PATCH", "", {}, b""),
    ("PATCH", "", {}, b"more"),
    ("PATCH", "", {"Content-Range": "10-13"}, b"more"),
    ("PATCH", "", {"Content-Range": "11-14"}, b"more"),
    ("PATCH", "", {"Content-Range": "10-12"}, b"more"),
    ("PATCH", "", {"Content-Range": "x"}, b"more"),
    ("PATCH", "", {}, b"m" * 1000),
    ("PUT", "", {}, b""),
    ("PUT", "digest=sha256:0", {}, b""),
    ("PUT", f"digest={DIGEST}", {}, b"more"),
    ("PUT", f"digest={Digest.of(b'0123456789')}", {}, b""),
    ("PUT", f"digest={Digest.of(b'0123456789more')}", {}, b"more"),
    ("PUT", f"digest={Digest.of(b'0123456789more', 'sha512')}", {"Content-Range": "10-13"}, b"more"),
    ("POST", "", {}, b""),
]


async def test_the_answer_is_the_same_at_both(tmp_path: Path) -> None:
    async with ends(tmp_path, limit=500) as found:
        for method, query, headers, body in REQUESTS:
            answers = []
            for author in authors(found):
                upload = await author.begin()
                assert (await author.chunk(upload, 0, b"0123456789")).status == 202
                reply = await authors(found)[0].ask(method, f"{upload}?{query}" if query else upload, headers, body)
                answers.append(plain(reply, upload))
                await author.ask("DELETE", upload)
            assert answers[0] == answers[1], (method, query, headers, body)


@pytest.mark.parametrize(
    ("root", "query", "headers"),
    [
        ("/v2/registry.example/team/plugin", "", {}),
        ("/v2/team/plugin", "?ns=registry.example", {}),
        ("/v2/team/plugin", "", {"Host": "registry.example"}),
        ("/v2/hosted/team/plugin", "", {"Host": "localhost:1234"}),
    ],
)
async def test_the_location_is_under_the_name_that_the_client_uses(
    tmp_path: Path, root: str, query: str, headers: dict[str, str]
) -> None:
    with_users = {"auth": {"file": str(users_file(tmp_path, {"anna": "a"}))}}
    headers |= basic("anna", "a")
    async with ends(tmp_path, with_users, with_users) as (one, two):
        location = (await one.ask("POST", f"{root}/blobs/uploads/{query}", headers)).header("location")
        for end in (two, one, two):
            assert location is not None
            reply = await end.ask("PATCH", location, headers, b"abc")
            assert (reply.status, reply.header("location")) == (202, location), reply
            assert reply.header("oci-namespace") == ("registry.example" if query else None)
        assert location is not None
        joint = "&" if query else "?"
        reply = await two.ask("PUT", f"{location}{joint}digest={Digest.of(b'abc' * 3)}", headers)
        assert reply.status == 201
        assert (reply.header("location") or "").startswith(f"{root}/blobs/sha256:")


async def test_the_owner_is_asked_over_tls_where_it_serves_that(tmp_path: Path) -> None:
    async with ends(tmp_path, tls=self_signed(tmp_path)) as (one, two):
        session = await one.uploads.begin("team/plugin", "")
        address = f"/v2/{NAME}/blobs/uploads/{session.id}"
        question = Question("PATCH", session.id, "", address, host="127.0.0.1")
        assert (await two.passing.ask(one.own, question, pieces(CONTENT))).status == 202
        assert (await two.passing.size(one.own, question)).size == len(CONTENT)
        clock = asyncio.get_running_loop().time
        distrustful = Passing(lambda: [one.own], two.own, two.secret, None, clock, time.time)
        with pytest.raises(NotNow):
            await distrustful.size(one.own, question)


async def test_a_body_is_passed_on_as_it_comes_and_no_faster_than_it_is_taken_in(tmp_path: Path) -> None:
    async with ends(tmp_path) as found:
        one, two = found
        upload = await authors(found)[0].begin()
        one.publisher.gate.clear()
        piece, count = bytes(64 * 1024), 1024
        sent = 0

        async def send() -> None:
            nonlocal sent
            for _ in range(count):
                await request.send(piece)
                sent += len(piece)
            await request.end()

        tracemalloc.start()
        try:
            async with sending(two, "PATCH", upload) as request:
                client = asyncio.create_task(send())
                before = -1
                while sent != before:
                    before = sent
                    await asyncio.sleep(0.2)  # for bytes that must not be taken in
                assert 0 < sent < 32 * MIB, "what the sockets of the kernel hold, twice"
                one.publisher.gate.set()
                assert await request.status() == 202
                await client
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert length(await authors(found)[1].ask("GET", upload)) == count * len(piece) == 64 * MIB
        # Of both ends and the client together: a piece and a buffer for each of the sockets.
        assert peak < 8 * MIB, f"{peak / MIB:.1f} MiB"


async def test_a_client_that_leaves_goes_on_through_any_replica_where_the_upload_is(tmp_path: Path) -> None:
    async with ends(tmp_path) as found:
        one, two = authors(found)
        upload = await one.begin()
        async with sending(found[1], "PATCH", upload) as request:
            await request.send(CONTENT[:100_000])
            await eventually(lambda: (found[0].size_of(upload) or 0) > 0)
        size = length(await two.ask("GET", upload))
        while (reply := await two.chunk(upload, size, CONTENT[size:])).status == 416:
            size = length(reply)
        assert (reply.status, 0 < size <= 100_000) == (202, True)
        assert (await one.finish(upload, DIGEST)).status == 201
        assert found[0].held(DIGEST) == CONTENT


@pytest.mark.parametrize("status", [413, 404])
async def test_what_the_owner_refuses_is_heard_in_the_middle_of_the_body(tmp_path: Path, status: int) -> None:
    async with ends(tmp_path, limit=1000) as found:
        upload = await authors(found)[0].begin()
        if status == 404:
            assert (await authors(found)[0].ask("DELETE", upload)).status == 204
        async with sending(found[1], "PATCH", upload) as request:
            await request.send(CONTENT[:2000])
            assert await request.status() == status, "though the client has not ended"


async def test_an_owner_that_drains_goes_on_answering(tmp_path: Path) -> None:
    async with ends(tmp_path) as found:
        one, two = authors(found)
        upload = await one.begin()
        found[0].draining = True
        assert (await two.chunk(upload, 0, CONTENT)).status == 202
        assert (await two.finish(upload, DIGEST)).status == 201


async def test_the_rules_of_both_replicas_count(tmp_path: Path) -> None:
    users = {"file": str(users_file(tmp_path, {"anna": "a", "ben": "b"}))}
    for_all = {"auth": {**users, "rules": [{"who": ["*"], "repositories": ["hosted/**"], "may": ["push"]}]}}
    for_ben = {"auth": {**users, "rules": [{"who": ["ben"], "repositories": ["hosted/**"], "may": ["push"]}]}}
    async with ends(tmp_path, for_all, for_ben, for_all) as found:
        anna, ben = (authors(found, headers=basic(*who)) for who in (("anna", "a"), ("ben", "b")))
        upload = await anna[0].begin()
        assert (await anna[2].chunk(upload, 0, b"abc")).status == 202
        assert (await anna[1].ask("GET", upload)).code == "DENIED", "where it comes in"
        assert (await ben[1].ask("GET", upload)).code == "BLOB_UPLOAD_UNKNOWN", "it is another's"
        assert (await ben[1].ask("DELETE", upload)).code == "BLOB_UPLOAD_UNKNOWN"
        bens = await ben[1].begin()
        assert (await ben[0].chunk(bens, 0, b"abc")).status == 202
        asked = len(found[0].asked)
        for wrong in (None, basic("anna", "x"), basic("eve", "a")):
            reply = await authors(found, headers=wrong)[2].ask("GET", upload)
            assert (reply.status, reply.header("www-authenticate")) == (401, "Basic realm=wasm-mirror")
        assert len(found[0].asked) == asked, "who has not proved who it is reaches no owner"


async def test_what_the_rules_at_the_owner_refuse_is_heard(tmp_path: Path) -> None:
    users = {"file": str(users_file(tmp_path, {"anna": "a"}))}
    revoked = {"auth": {**users, "rules": [{"who": ["*"], "repositories": ["other/**"], "may": ["push"]}]}}
    async with ends(tmp_path, revoked, {"auth": users}) as found:
        session = await found[0].uploads.begin("team/plugin", "anna")
        upload = f"/v2/{NAME}/blobs/uploads/{session.id}"
        for method, body in (("GET", b""), ("PATCH", b"abc"), ("PUT", b""), ("DELETE", b"")):
            reply = await authors(found, headers=basic("anna", "a"))[1].ask(method, upload, {}, body)
            assert (reply.status, reply.code) == (403, "DENIED"), method
        assert found[0].size_of(upload) == 0
