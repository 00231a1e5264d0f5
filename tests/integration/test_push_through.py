"""Write-through: what is pushed to an upstream goes on to it, and what it takes in is held here."""

import asyncio
import contextlib
import functools
import random
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from mirror.digest import Digest
from mirror.errors import StoreError
from mirror.store.session import Session
from mirror.tagging import Tagging
from tests.auth.support import basic, users_file
from tests.support.artifacts import cncf, compat, publish, raw, wasm_module
from tests.support.asking import Headers, Reply, ask
from tests.support.faults import Fault, Gate
from tests.support.process import MirrorProcess
from tests.support.pushing import OCTETS, Author
from tests.support.registry import DockerRegistry
from tests.support.running import Running, running
from tests.support.scrape import Scrape
from tests.support.tokens import TokenService
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

PASSWORD = "the mirror's own password"
LOGIN = {"username": "robot", "password": PASSWORD}
BLOB = random.Random(6).randbytes(300_000)
DIGEST = Digest.of(BLOB)
NAME = "up/team/plugin"
LONG = {"fresh_for": "1h"}


@contextlib.asynccontextmanager
async def through(
    folder: Path, up: FaultyUpstream, upstream: Mapping[str, object] | None = None, **settings: object
) -> AsyncIterator[tuple[Running, Author]]:
    """A mirror that pushes through to ``up``; ``upstream`` are settings of it."""
    up.take_pushes()
    async with again(folder, up, upstream, **settings) as found:
        yield found


@contextlib.asynccontextmanager
async def again(
    folder: Path, up: FaultyUpstream, upstream: Mapping[str, object] | None = None, **settings: object
) -> AsyncIterator[tuple[Running, Author]]:
    """The same with what an earlier one has left in ``folder``."""
    of = {"endpoints": [up.url], "push": "through", "credentials": LOGIN, **(upstream or {})}
    async with running(folder, {"up": of}, settings) as mirror:
        yield mirror, Author(mirror, NAME)


class Slow:
    """A client that sends a body piece by piece, in chunks, or of an announced length."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, chunked: bool) -> None:
        self._reader = reader
        self._writer = writer
        self._chunked = chunked

    @classmethod
    async def begin(cls, mirror: Running, method: str, target: str, headers: str = "") -> "Slow":
        reader, writer = await asyncio.open_connection(*mirror.address)
        chunked = "content-length" not in headers
        framing = "transfer-encoding: chunked\r\n" if chunked else ""
        writer.write(f"{method} {target} HTTP/1.1\r\nhost: {mirror.host}\r\n{framing}{headers}\r\n".encode())
        return cls(reader, writer, chunked)

    async def send(self, piece: bytes) -> None:
        self._writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece)
        await self._writer.drain()

    async def end(self) -> int:
        """The status of the answer."""
        if self._chunked:
            self._writer.write(b"0\r\n\r\n")
        line = await self._reader.readline()
        self.cut()
        return int(line.split()[1])

    def cut(self) -> None:
        self._writer.close()


async def failing(self: Session, chunks: AsyncIterator[bytes], **_: object) -> int:
    """`Session.append` on a disk that fails after some bytes."""
    async for _chunk in chunks:
        break
    raise StoreError("the disk fails")


def received(up: FaultyUpstream) -> int:
    """Bytes of the blob that upstream has read so far."""
    return sum(len(request.body) for request in up.matching(method="PATCH"))


def has_received(up: FaultyUpstream, size: int) -> bool:
    return received(up) == size


async def test_what_was_pushed_is_upstream_and_here_and_is_not_asked_for_again(tmp_path: Path) -> None:
    artifact = compat(wasm_module(200_000))
    with FaultyUpstream() as up:
        async with through(tmp_path, up, LONG) as (mirror, author):
            reply = await author.push(artifact, "1.0")
            assert (reply.status, reply.header("docker-content-digest")) == (201, str(artifact.digest))
            assert up.answer("/v2/team/plugin/manifests/1.0", {}).content == artifact.body
            up.refuse()
            reply = await mirror.get(f"/v2/{NAME}/manifests/1.0")
            assert (reply.status, reply.body) == (200, artifact.body)
            for digest, content in artifact.blobs.items():
                reply = await mirror.get(f"/v2/{NAME}/blobs/{digest}")
                assert (reply.status, reply.body) == (200, content)
            reply = await mirror.get(f"/modules/{NAME}:1.0")
            assert (reply.status, reply.body) == (200, wasm_module(200_000))


@pytest.mark.parametrize("ranged", [True, False], ids=["with ranges", "streamed"])
async def test_a_blob_goes_up_chunk_by_chunk(tmp_path: Path, ranged: bool) -> None:
    with FaultyUpstream() as up:
        async with through(tmp_path, up) as (mirror, author):
            upload = await author.begin()
            for start in range(0, len(BLOB), 100_000):
                piece = BLOB[start : start + 100_000]
                if ranged:
                    reply = await author.chunk(upload, start, piece)
                else:
                    reply = await author.ask("PATCH", upload, OCTETS, piece)
                assert (reply.status, reply.header("range")) == (202, f"0-{start + len(piece) - 1}")
                assert (await author.ask("GET", upload)).header("range") == reply.header("range")
            assert (await author.chunk(upload, 7, b"late")).status == 416
            assert (await author.finish(upload, DIGEST)).status == 201
            assert up.answer(f"/v2/team/plugin/blobs/{DIGEST}", {}).content == BLOB
            assert mirror.holds(DIGEST)
            told = [request.headers.get("content-range") for request in up.matching(method="PATCH")]
            assert told == (["0-99999", "100000-199999", "200000-299999"] if ranged else [None] * 3)


@pytest.mark.parametrize("content", [b"", b"x", BLOB], ids=["empty", "one byte", "more"])
async def test_a_blob_goes_up_with_its_first_request(tmp_path: Path, content: bytes) -> None:
    with FaultyUpstream() as up:
        async with through(tmp_path, up) as (mirror, author):
            digest = Digest.of(content, "sha512")
            assert (await author.ask("POST", f"blobs/uploads/?digest={digest}", OCTETS, content)).status == 201
            assert up.answer(f"/v2/team/plugin/blobs/{digest}", {}).content == content
            up.refuse()
            assert (await mirror.get(f"/v2/{NAME}/blobs/{digest}")).body == content


async def test_the_first_byte_is_upstream_before_the_second_is_sent(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        async with through(tmp_path, up) as (mirror, author):
            upload = await author.begin()
            client = await Slow.begin(mirror, "PATCH", upload)
            for number in range(1, 4):
                await client.send(b"x")
                await eventually(functools.partial(has_received, up, number))
            assert await client.end() == 202
            assert (await author.finish(upload, Digest.of(b"xxx"))).status == 201


async def test_a_client_sends_no_faster_than_upstream_takes(tmp_path: Path) -> None:
    gate = Gate()
    with FaultyUpstream() as up:
        async with through(tmp_path, up) as (mirror, author):
            up.inject(Fault(body_gate=gate, body_gate_at=1), method="PATCH")
            client = await Slow.begin(mirror, "PATCH", await author.begin())
            sent = 0
            with contextlib.suppress(TimeoutError):
                while sent < 64:
                    async with asyncio.timeout(0.5):
                        await client.send(bytes(1 << 20))
                    sent += 1
            assert sent < 32, "what upstream does not take was taken by the mirror"
            gate.release()
            client.cut()


@pytest.mark.shows("a registry fails, or refuses, while something is pushed through to it")
async def test_upstreams_refusal_reaches_the_author_in_its_own_words(tmp_path: Path) -> None:
    artifact = raw(wasm_module())
    with FaultyUpstream() as up:
        async with through(tmp_path, up) as (mirror, author):
            for digest, content in artifact.blobs.items():
                await author.blob(content, digest)
            up.inject(Fault(status=409, code="DENIED"), method="PUT", path="/manifests/")
            reply = await author.manifest(artifact, "1.0")
            assert (reply.status, reply.code) == (409, "DENIED")
            assert "the fake registry says so" in reply.message
            assert (await mirror.get(f"/v2/{NAME}/manifests/1.0")).status == 404
            assert (await mirror.get(f"/v2/{NAME}/manifests/{artifact.digest}")).status == 404
            up.inject(Fault(status=413, code="SIZE_INVALID"), method="PATCH")
            reply = await author.blob(BLOB)
            assert (reply.status, reply.code) == (413, "SIZE_INVALID")
            assert (await mirror.get(f"/v2/{NAME}/blobs/{DIGEST}")).status == 404
            up.inject(Fault(status=403, code="DENIED"), method="POST")
            reply = await author.ask("POST", "blobs/uploads/")
            assert (reply.status, reply.code) == (403, "DENIED")
            assert "upstreams.up.credentials" in reply.message
            assert "the fake registry says so" in reply.message


async def test_a_blob_that_upstream_does_not_take_is_not_readable(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        async with through(tmp_path, up) as (mirror, author):
            up.inject(Fault(status=400, code="DIGEST_INVALID"), method="PUT")
            assert (await author.blob(BLOB)).status == 400
            assert (await mirror.get(f"/v2/{NAME}/blobs/{DIGEST}")).status == 404


@pytest.mark.shows("a registry fails, or refuses, while something is pushed through to it")
async def test_an_upstream_that_fails_in_the_middle_ends_the_upload_and_the_client_begins_again(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        async with through(tmp_path, up) as (mirror, author):
            upload = await author.begin()
            client = await Slow.begin(mirror, "PATCH", upload)
            await client.send(BLOB[:1000])
            await eventually(lambda: received(up) == 1000)
            up.cut_connections()
            with contextlib.suppress(ConnectionError):  # which the answer may overtake
                await client.send(BLOB[1000:])
            assert await client.end() == 503
            reply = await author.ask("GET", upload)
            assert (reply.status, reply.code) == (404, "BLOB_UPLOAD_UNKNOWN")
            up.refuse()
            reply = await author.ask("POST", "blobs/uploads/")
            assert (reply.status, reply.code) == (503, "UPSTREAM_UNAVAILABLE")
            up.accept()
            assert (await author.blob(BLOB)).status == 201


async def test_a_client_that_was_cut_off_goes_on_where_upstream_stands(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        async with through(tmp_path, up) as (mirror, author):
            upload = await author.begin()
            client = await Slow.begin(mirror, "PATCH", upload)
            await client.send(BLOB[:1000])
            await eventually(lambda: received(up) == 1000)
            client.cut()
            await eventually(lambda: up.count(method="PATCH", status=202) == 1)
            assert (await author.ask("GET", upload)).header("range") == "0-999"
            assert (await author.chunk(upload, 1000, BLOB[1000:])).status == 202
            assert (await author.finish(upload, DIGEST)).status == 201
            assert up.answer(f"/v2/team/plugin/blobs/{DIGEST}", {}).content == BLOB
            assert mirror.holds(DIGEST)


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "not kept"])
async def test_after_a_chunk_that_was_cut_short_upstream_is_asked_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    if not kept:
        monkeypatch.setattr(Session, "append", failing)
    with FaultyUpstream() as up:
        async with through(tmp_path, up) as (mirror, author):
            upload = await author.begin()
            assert (await author.chunk(upload, 0, BLOB[:1000])).status == 202
            rest = f"content-range: 1000-{len(BLOB) - 1}\r\ncontent-length: {len(BLOB) - 1000}\r\n"
            client = await Slow.begin(mirror, "PATCH", upload, rest)
            await client.send(BLOB[1000:5000])
            await eventually(lambda: received(up) == 5000)
            client.cut()
            while not up.count(method="GET", path="/uploads/"):  # until the mirror has noticed
                assert (await author.ask("GET", upload)).header("range") == "0-999"
            assert (await author.chunk(upload, 1000, BLOB[1000:])).status == 202
            assert (await author.finish(upload, DIGEST)).status == 201
            assert (await mirror.get(f"/v2/{NAME}/blobs/{DIGEST}")).body == BLOB


async def test_an_upload_survives_a_restart(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        up.require_bearer(TokenService({"robot": PASSWORD}, anonymous=False))
        async with through(tmp_path, up) as (_, author):
            upload = await author.begin()
            assert (await author.chunk(upload, 0, BLOB[:1000])).status == 202
        async with again(tmp_path, up) as (mirror, author):
            assert (await author.chunk(upload, 1000, BLOB[1000:])).status == 202
            assert (await author.finish(upload, DIGEST)).status == 201
            assert mirror.holds(DIGEST)


async def test_a_cancelled_upload_is_cancelled_upstream(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        async with through(tmp_path, up) as (_, author):
            upload = await author.begin()
            assert (await author.ask("DELETE", upload)).status == 204
            assert up.uploads is not None
            assert not up.uploads.open
            assert (await author.ask("GET", upload)).status == 404


async def test_other_bytes_than_the_digest_says_are_refused_and_cancelled(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        async with through(tmp_path, up) as (_, author):
            reply = await author.blob(BLOB, Digest.of(b"other"))
            assert (reply.status, reply.code) == (400, "DIGEST_INVALID")
            assert up.uploads is not None
            assert not up.uploads.open


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "not kept"])
async def test_a_blob_above_the_limit_is_refused_and_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    if not kept:
        monkeypatch.setattr(Session, "append", failing)
    with FaultyUpstream() as up:
        async with through(tmp_path, up, hosted={"max_blob_size": 1000}) as (_, author):
            reply = await author.blob(BLOB)
            assert (reply.status, reply.code) == (413, "SIZE_INVALID")
            assert "hosted.max_blob_size" in reply.message
            assert up.uploads is not None
            assert not up.uploads.open


async def test_a_failing_disk_costs_the_copy_and_not_the_push(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "append", failing)
    with FaultyUpstream() as up:
        async with through(tmp_path, up) as (mirror, author):
            assert (await author.blob(BLOB)).status == 201
            assert not mirror.holds(DIGEST)
            assert (await mirror.get(f"/v2/{NAME}/blobs/{DIGEST}")).body == BLOB


async def test_without_credentials_nothing_is_pushed_and_the_setting_is_named(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        async with through(tmp_path, up, {"credentials": None}) as (_, author):
            for method, target in (("POST", "blobs/uploads/"), ("DELETE", "manifests/1.0")):
                reply = await author.ask(method, target)
                assert (reply.status, reply.code) == (403, "DENIED")
                assert "upstreams.up.credentials" in reply.message
            reply = await author.manifest(raw(wasm_module()), "1.0")
            assert (reply.status, reply.code) == (403, "DENIED")
        assert up.count() == 0


async def test_what_may_not_be_pulled_may_not_be_pushed(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        async with through(tmp_path, up, {"allow": ["other/*"]}) as (_, author):
            reply = await author.ask("POST", "blobs/uploads/")
            assert (reply.status, reply.code) == (404, "NAME_UNKNOWN")
            assert "upstreams.up.allow" in reply.message
        async with again(tmp_path, up, {"offline": True}) as (_, author):
            assert (await author.ask("POST", "blobs/uploads/")).status == 405
        async with again(tmp_path, up, {"push": "deny"}) as (_, author):
            assert (await author.ask("POST", "blobs/uploads/")).status == 405
        assert up.count() == 0


async def test_only_the_origin_is_pushed_to(tmp_path: Path) -> None:
    with FaultyUpstream() as near, FaultyUpstream() as up:
        near.take_pushes()
        async with through(tmp_path, up, {"endpoints": [near.url, up.url]}) as (_, author):
            assert (await author.push(raw(wasm_module()), "1.0")).status == 201
        assert near.count() == 0


async def test_a_tag_that_was_pushed_is_served_at_once_however_fresh_the_one_before_it(tmp_path: Path) -> None:
    old, new = raw(wasm_module(seed=1)), raw(wasm_module(seed=2))
    with FaultyUpstream() as up:
        async with through(tmp_path, up, LONG) as (mirror, author):
            assert (await mirror.get(f"/v2/{NAME}/manifests/1.0")).status == 404
            for artifact in (old, new, old):
                assert (await author.push(artifact, "1.0")).status == 201
                assert (await mirror.get(f"/v2/{NAME}/manifests/1.0")).body == artifact.body
        assert up.count(method="GET", path="/manifests/1.0") == 1


async def test_of_two_pushes_of_a_tag_one_wins_there_and_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ones = [raw(wasm_module(seed=seed)) for seed in range(3)]
    second, renewed, renew = asyncio.Event(), 0, Tagging._renew

    async def first_is_slow(self: Tagging, *what: Any) -> None:
        nonlocal renewed
        renewed += 1
        if renewed == 1:  # a push that overtakes this one must not come first in the records
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(second.wait(), 0.3)
        await renew(self, *what)
        second.set()

    monkeypatch.setattr(Tagging, "_renew", first_is_slow)
    with FaultyUpstream() as up:
        async with through(tmp_path, up, LONG) as (mirror, author):
            for one in ones:
                await author.push(one, None)
            replies = await asyncio.gather(*(author.manifest(one, "1.0") for one in ones))
            assert [reply.status for reply in replies] == [201] * 3
            here = (await mirror.get(f"/v2/{NAME}/manifests/1.0")).body
            assert here == up.answer("/v2/team/plugin/manifests/1.0", {}).content


async def test_who_may_not_overwrite_makes_new_tags_only_whatever_is_known_here(tmp_path: Path) -> None:
    old, new = raw(wasm_module(seed=1)), raw(wasm_module(seed=2))
    anna = {"who": ["anna"], "repositories": ["up/**"], "may": ["pull", "push"]}
    auth = {"mode": "htpasswd", "file": str(users_file(tmp_path, {"anna": "hunter2"})), "rules": [anna]}
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1.0", old)
        async with through(tmp_path, up, auth=auth) as (mirror, _):
            author = Author(mirror, NAME, basic("anna", "hunter2"))
            reply = await author.push(new, "1.0")
            assert (reply.status, reply.code) == (403, "DENIED")
            assert up.answer("/v2/team/plugin/manifests/1.0", {}).content == old.body
            assert (await author.push(new, "1.1")).status == 201
            assert (await author.push(new, "1.1")).status == 201
            assert (await author.push(old, "1.0")).status == 201
            assert (await author.ask("DELETE", "manifests/1.0")).status == 403
            assert (await Author(mirror, "up/team/plugin").ask("POST", "blobs/uploads/")).status == 401
            assert up.count(method="DELETE") == 0


async def test_a_blob_of_the_same_upstream_is_mounted_there(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        async with through(tmp_path, up) as (mirror, author):
            up.add_blob("team/base", BLOB)
            reply = await author.ask("POST", f"blobs/uploads/?mount={DIGEST}&from=up/team/base")
            assert (reply.status, reply.header("docker-content-digest")) == (201, str(DIGEST))
            assert up.answer(f"/v2/team/plugin/blobs/{DIGEST}", {}).content == BLOB
            (asked,) = up.matching(method="POST")
            assert asked.query == {"mount": str(DIGEST), "from": "team/base"}
            assert (await mirror.get(f"/v2/{NAME}/blobs/{DIGEST}")).body == BLOB


async def test_where_upstream_does_not_mount_the_upload_that_it_began_is_used(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        async with through(tmp_path, up) as (_, author):
            upload = await author.begin(f"?mount={DIGEST}&from=up/team/base")
            assert (await author.finish(upload, DIGEST, BLOB)).status == 201
            assert up.count(method="POST") == 1
            await author.begin()
            assert up.count(method="POST") == 2


async def test_deletes_are_passed_on(tmp_path: Path) -> None:
    artifact = raw(wasm_module())
    with FaultyUpstream() as up:
        up.require_bearer(TokenService({"robot": PASSWORD}, anonymous=False))
        async with through(tmp_path, up, LONG, wasm={"check": "off"}) as (mirror, author):
            for tag in ("1.0", "1.1", "1.2"):
                assert (await author.push(artifact, tag)).status == 201
            rights = await author.ask("DELETE", "manifests/1.0")
            assert rights.status == 202, rights
            assert (await mirror.get(f"/v2/{NAME}/manifests/1.0")).status == 404
            assert (await mirror.get(f"/v2/{NAME}/manifests/1.1")).status == 200
            assert (await author.ask("DELETE", f"manifests/{artifact.digest}")).status == 202
            assert (await mirror.get(f"/v2/{NAME}/manifests/1.1")).status == 404
            assert (await mirror.get(f"/v2/{NAME}/manifests/1.2")).status == 404
            reply = await author.ask("DELETE", f"manifests/{artifact.digest}")
            assert (reply.status, reply.code) == (404, "MANIFEST_UNKNOWN")
            blob = next(iter(artifact.blobs))
            assert (await author.ask("DELETE", f"blobs/{blob}")).status == 202
            assert up.answer(f"/v2/team/plugin/blobs/{blob}", {}).status == 404


async def test_a_push_is_one_of_the_requests_that_may_be_under_way_and_is_counted(tmp_path: Path) -> None:
    """One request at a time is enough for a whole push; whoever pulls meanwhile waits for it."""
    artifact = raw(wasm_module())
    with FaultyUpstream() as up:
        async with through(tmp_path, up, {"max_requests": 1}) as (mirror, author):
            assert (await author.push(artifact, "1.0")).status == 201
            before = received(up)
            client = await Slow.begin(mirror, "PATCH", await author.begin())
            await client.send(BLOB[:1000])
            await eventually(functools.partial(has_received, up, before + 1000))
            up.add_blob("team/plugin", b"wanted")
            wanted = f"/v2/{NAME}/blobs/{Digest.of(b'wanted')}"
            pull = asyncio.create_task(mirror.get(wanted))
            done, _ = await asyncio.wait([pull], timeout=0.3)
            assert not done
            assert up.count(path=wanted.removeprefix("/v2/up")) == 0
            assert await client.end() == 202
            assert (await pull).body == b"wanted"
            with up.inject(Fault(status=409, code="DENIED"), method="PUT", path="/manifests/"):
                assert (await author.manifest(artifact, "1.1")).status == 409
            told = Scrape.of((await mirror.get("/metrics")).body)
            assert told.sum("upstream_requests_total", operation="push", result="success") > 5
            assert told.sum("upstream_requests_total", operation="push", result="refused") == 1


async def test_what_was_deleted_is_not_given_out_by_digest_until_it_is_pushed_again(tmp_path: Path) -> None:
    """Not while upstream is away either, and not after a restart."""
    artifact = raw(wasm_module())
    blob = artifact.layers[0]
    manifest, layer = f"/v2/{NAME}/manifests/{artifact.digest}", f"/v2/{NAME}/blobs/{blob}"
    with FaultyUpstream() as up:
        async with through(tmp_path, up) as (mirror, author):
            for _ in range(2):
                assert (await author.push(artifact, "1.0")).status == 201
                for content in (manifest, layer):
                    assert (await mirror.get(content)).status == 200
                assert (await author.ask("DELETE", f"manifests/{artifact.digest}")).status == 202
                assert (await mirror.get(layer)).status == 200, "its manifest alone was deleted"
                assert (await author.ask("DELETE", f"blobs/{blob}")).status == 202
                for content in (manifest, layer):
                    assert (await mirror.get(content)).status == 404
        up.refuse()
        async with again(tmp_path, up, {"hold_for": "100ms"}) as (mirror, _):
            for content in (manifest, layer):
                assert (await mirror.get(content)).status in (404, 503)


async def test_what_upstream_does_not_delete_is_given_out_as_ever(tmp_path: Path) -> None:
    artifact = raw(wasm_module())
    with FaultyUpstream() as up:
        async with through(tmp_path, up) as (mirror, author):
            assert (await author.push(artifact, "1.0")).status == 201
            for status in (403, 405, 503):
                with up.inject(Fault(status=status), method="DELETE"):
                    assert (await author.ask("DELETE", f"manifests/{artifact.digest}")).status >= 400
            up.refuse()
            assert (await mirror.get(f"/v2/{NAME}/manifests/{artifact.digest}")).body == artifact.body


async def test_whether_a_blob_is_there_is_upstreams_to_say(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        async with through(tmp_path, up) as (mirror, author):
            assert (await author.blob(BLOB)).status == 201
            assert (await mirror.head(f"/v2/{NAME}/blobs/{DIGEST}")).status == 200
            up.delete("team/plugin", DIGEST)
            assert (await mirror.head(f"/v2/{NAME}/blobs/{DIGEST}")).status == 404
            assert (await mirror.get(f"/v2/{NAME}/blobs/{DIGEST}")).body == BLOB
            up.refuse()
            assert (await mirror.head(f"/v2/{NAME}/blobs/{DIGEST}")).status == 200


async def test_what_agents_will_refuse_is_told_or_kept_from_upstream(tmp_path: Path) -> None:
    artifact = cncf(wasm_module())
    with FaultyUpstream() as up:
        async with through(tmp_path, up) as (_, author):
            reply = await author.push(artifact, "1.0")
            assert reply.status == 201
            assert "agents will refuse this" in (reply.header("warning") or "")
        up.delete("team/plugin", artifact.digest)
        async with again(tmp_path / "other", up, wasm={"check": "enforce"}) as (_, author):
            reply = await author.manifest(artifact, "1.0")  # whose layer is not held here
            assert (reply.status, reply.code) == (400, "MANIFEST_INVALID")
            assert up.answer("/v2/team/plugin/manifests/1.0", {}).status == 404


async def test_pushes_that_fail_do_not_stop_pulls(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        async with through(tmp_path, up) as (mirror, author):
            for status in (403, 413, 500, 503):
                with up.inject(Fault(status=status), method="POST"):
                    for _ in range(6):
                        assert (await author.ask("POST", "blobs/uploads/")).status >= 400
            up.add_blob("team/plugin", BLOB)
            assert (await mirror.get(f"/v2/{NAME}/blobs/{DIGEST}")).body == BLOB


class Workers:
    """A mirror with several workers: who answers is the kernel's choice."""

    def __init__(self, mirror: MirrorProcess) -> None:
        url = urlsplit(mirror.url)
        self._address = (url.hostname or "", url.port or 0)

    async def ask(self, method: str, target: str, headers: Headers = (), body: bytes = b"") -> Reply:
        return await ask(self._address, target, method=method, headers=headers, body=body)


async def test_any_worker_goes_on_with_an_upload_and_serves_the_new_tag_at_once(tmp_path: Path) -> None:
    old, new = raw(wasm_module(seed=1)), raw(wasm_module(seed=2))
    with FaultyUpstream() as up:
        up.take_pushes()
        up.require_bearer(TokenService({"robot": PASSWORD}, anonymous=False))
        of = {"endpoints": [up.url], "push": "through", "credentials": LOGIN, **LONG}
        with MirrorProcess(tmp_path, {"up": of}, {"workers": 3}) as mirror:
            author = Author(Workers(mirror), NAME)
            upload = await author.begin()
            for start in range(0, len(BLOB), 20_000):
                assert (await author.chunk(upload, start, BLOB[start : start + 20_000])).status == 202
            assert (await author.finish(upload, DIGEST)).status == 201
            for artifact in (old, new, old):
                assert (await author.push(artifact, "1.0")).status == 201
                replies = [await author.ask("GET", "manifests/1.0") for _ in range(12)]
                assert all(reply.body == artifact.body for reply in replies)
                replies = [await author.ask("GET", f"manifests/{artifact.digest}") for _ in range(12)]
                assert all(reply.body == artifact.body for reply in replies)
                assert (await author.ask("DELETE", f"manifests/{artifact.digest}")).status == 202
                replies = [await author.ask("GET", f"manifests/{artifact.digest}") for _ in range(12)]
                assert {reply.status for reply in replies} == {404}, "each worker had it in memory"


@pytest.mark.needs("docker-registry")
async def test_a_real_registry_takes_what_is_pushed_through(tmp_path: Path) -> None:
    artifact = compat(wasm_module(3_000_000))
    with DockerRegistry(tmp_path / "registry") as registry:
        of = {"endpoints": [registry.url], "push": "through", "credentials": LOGIN, **LONG}
        async with running(tmp_path, {"up": of}) as mirror:
            author = Author(mirror, NAME)
            assert (await author.push(artifact, "1.0")).status == 201
            upload = await author.begin()
            for start in range(0, len(BLOB), 100_000):
                assert (await author.chunk(upload, start, BLOB[start : start + 100_000])).status == 202
            assert (await author.finish(upload, DIGEST)).status == 201
            other = Author(mirror, "up/team/other")
            assert (await other.ask("POST", f"blobs/uploads/?mount={DIGEST}&from={NAME}")).status == 201
            upload = await author.begin()
            client = await Slow.begin(mirror, "PATCH", upload)
            await client.send(BLOB[:1000])
            await client.send(BLOB[1000:])
            assert await client.end() == 202
            assert (await author.ask("GET", upload)).header("range") == f"0-{len(BLOB) - 1}"
            assert (await author.ask("DELETE", upload)).status == 204
            assert (await mirror.get(f"/v2/{NAME}/manifests/1.0")).body == artifact.body
            assert (await author.ask("DELETE", f"manifests/{artifact.digest}")).status == 202
            assert (await mirror.get(f"/v2/{NAME}/manifests/1.0")).status == 404
