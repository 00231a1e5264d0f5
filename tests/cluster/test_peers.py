"""Asking the other replicas: whoever has it is found, whoever fails costs little time, and no lie is believed."""

import asyncio
import contextlib
import dataclasses
import json
import random
import tracemalloc
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mirror import peers as peers_module
from mirror.digest import Digest
from mirror.errors import (
    BlobUnknown,
    UpstreamCutShort,
    UpstreamError,
    UpstreamInvalid,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from mirror.metadata.base import Dropped, Link, TagEntry, TagRecord, Tombstone
from mirror.peers import Peers
from tests.cluster.replica import Clock, Fake, Replica, altering, asking, replicas, saying, serving
from tests.support.certificates import self_signed
from tests.support.ports import ReservedPort
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
CONTENT = random.Random(4).randbytes(200_000)
DIGEST = Digest.of(CONTENT)
OTHER = b"something else"
NAME = ("ghcr.io", "team/plugin", "v1")
RECORD = TagRecord(*NAME, DIGEST, "application/json", 7, 1000.5, 3)
LINK = Link("ghcr.io", "team/plugin", DIGEST, "application/wasm", 200_000)
ENTRY = {
    "v": 1,
    "digest": str(DIGEST),
    "media_type": "application/json",
    "size": 7,
    "fetched_at": 1000.5,
    "serial": 3,
    "moving": False,
}


def soon(seconds: float = 10.0) -> float:
    """A deadline."""
    return asyncio.get_running_loop().time() + seconds


async def whole(peers: Peers, address: str, digest: Digest, offset: int = 0) -> bytes:
    """All that comes of a blob that is held there."""
    stream = await peers.open_blob(address, digest, offset=offset, held=True, deadline=soon())
    try:
        assert stream.offset == offset
        return b"".join([chunk async for chunk in stream])
    finally:
        await stream.aclose()


async def taking(work: Coroutine[Any, Any, object]) -> float:
    """The seconds that it takes."""
    time = asyncio.get_running_loop().time
    began = time()
    await work
    return time() - began


# Bytes.


async def test_a_blob_comes_from_any_byte_on(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (one,), asking(tmp_path, one) as peers:
        one.put(CONTENT)
        for offset in (0, 1, 199_999):
            assert await whole(peers, one.url, DIGEST, offset) == CONTENT[offset:]
        stream = await peers.open_blob(one.url, DIGEST, offset=5, held=True, deadline=soon())
        assert (stream.size, stream.endpoint) == (len(CONTENT), one.url.removeprefix("http://"))
        await stream.aclose()


async def test_a_blob_that_is_not_there_is_unknown(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (one,), asking(tmp_path, one) as peers:
        for held in (True, False):
            with pytest.raises(BlobUnknown):
                await peers.open_blob(one.url, DIGEST, offset=0, held=held, deadline=soon())
        one.fill(CONTENT, size=len(CONTENT))
        with pytest.raises(BlobUnknown):
            await peers.open_blob(one.url, DIGEST, offset=0, held=True, deadline=soon())


async def test_a_blob_comes_over_tls_from_whom_we_trust_only(tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    one = Replica(tmp_path / "one")
    one.put(CONTENT)
    async with serving(one, certificate.for_servers) as url:
        one.url = url
        async with asking(tmp_path, url, tls=certificate.for_clients) as peers:
            assert await peers.find(DIGEST, []) == url
            assert await whole(peers, url, DIGEST) == CONTENT
        async with asking(tmp_path, url) as peers:
            with pytest.raises(UpstreamUnavailable, match="certificate that is not trusted"):
                await peers.open_blob(url, DIGEST, offset=0, held=True, deadline=soon())


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (saying(307, location="http://127.0.0.1:9/peer/v1/x"), UpstreamInvalid, "answers 307"),
        (saying(206, b"x", content_range="bytes 0-0/5"), UpstreamInvalid, "sends others"),
        (saying(200, b"x", content_encoding="gzip"), UpstreamInvalid, "Content-Encoding"),
        (saying(200, b"<p>log in", content_type="text/html"), UpstreamInvalid, "HTML"),
        (saying(416), UpstreamInvalid, "416"),
        (saying(401), UpstreamUnavailable, "does not take our signature"),
        (saying(500), UpstreamUnavailable, "answers 500"),
        (saying(503, retry_after="7"), UpstreamUnavailable, "answers 503"),
    ],
)
async def test_an_answer_that_is_no_blob_is_an_error(
    tmp_path: Path, answer: ASGIApp, kind: type[UpstreamError], words: str
) -> None:
    async with serving(answer) as url, asking(tmp_path, url) as peers:
        with pytest.raises(kind, match=words) as caught:
            await peers.open_blob(url, DIGEST, offset=7, held=False, deadline=soon())
        assert url.removeprefix("http://") in caught.value.message


async def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    target = Fake(saying(200, CONTENT))
    async with (
        serving(target) as there,
        serving(saying(307, location=f"{there}/x")) as here,
        asking(tmp_path, here) as peers,
    ):
        assert await peers.find(DIGEST, []) is None
        assert await peers.content(DIGEST, MIB) is None
    assert target.asked == 0


async def test_a_replica_that_cannot_be_reached_is_an_error_at_once(tmp_path: Path) -> None:
    with ReservedPort() as port:
        url = f"http://127.0.0.1:{port.number}"
        async with asking(tmp_path, url) as peers:
            with pytest.raises(UpstreamUnavailable, match="refuses connections"):
                await peers.open_blob(url, DIGEST, offset=0, held=False, deadline=soon())


@pytest.mark.parametrize("held", [True, False])
async def test_a_replica_that_hangs_is_waited_for_until_the_deadline(tmp_path: Path, held: bool) -> None:
    fake = Fake()
    async with serving(fake) as url, asking(tmp_path, url) as peers:
        with pytest.raises(UpstreamTimeout):
            await peers.open_blob(url, DIGEST, offset=0, held=held, deadline=soon(0.1))
        await eventually(lambda: fake.left == 1)


async def test_a_replica_that_holds_a_blob_has_no_reason_to_be_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_module, "_BEGINS_WITHIN", 0.1)
    async with serving(Fake()) as url, asking(tmp_path, url) as peers:
        with pytest.raises(UpstreamTimeout, match="in time"):
            await peers.open_blob(url, DIGEST, offset=0, held=True, deadline=soon(60))


async def test_a_body_that_ends_early_is_noticed(tmp_path: Path) -> None:
    async def cut(scope: Scope, receive: Receive, send: Send) -> None:
        fields = [(b"content-length", b"200000")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": CONTENT[:1000], "more_body": True})

    async with serving(cut) as url, asking(tmp_path, url) as peers:
        with pytest.raises(UpstreamCutShort):
            await whole(peers, url, DIGEST)


async def test_a_body_that_nobody_takes_costs_little_memory(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (one,), asking(tmp_path, one) as peers:
        digest = one.put(bytes(64 * MIB))
        tracemalloc.start()
        try:
            streams = [await peers.open_blob(one.url, digest, offset=0, held=True, deadline=soon()) for _ in range(5)]
            assert len(await whole(peers, one.url, digest)) == 64 * MIB
            del streams[0]
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        assert held < 16 * MIB


# Finding.


async def test_whoever_holds_it_is_found_hint_or_not(tmp_path: Path) -> None:
    async with replicas(tmp_path, 3) as (one, two, three), asking(tmp_path, one, two, three) as peers:
        assert await peers.find(DIGEST, []) is None
        two.put(CONTENT)
        three.fill(CONTENT, size=len(CONTENT)).come()
        for hints in ([], [two.url], [one.url], [one.url, two.url], ["http://127.0.0.1:9"]):
            assert await peers.find(DIGEST, hints) == two.url
        assert await peers.find(DIGEST, [], without=[two.url]) is None


async def test_a_hint_that_is_right_spares_the_others(tmp_path: Path) -> None:
    async with replicas(tmp_path, 3) as (one, two, three), asking(tmp_path, one, two, three) as peers:
        for replica in (one, two, three):
            replica.put(CONTENT)
        assert await peers.find(DIGEST, [two.url]) == two.url
        assert [len(replica.asked) for replica in (one, two, three)] == [0, 1, 0]


async def test_a_hint_is_only_good_for_replicas_that_live(tmp_path: Path) -> None:
    async with replicas(tmp_path, 2) as (one, two), asking(tmp_path, one) as peers:
        two.put(CONTENT)
        assert await peers.find(DIGEST, [two.url]) is None
        assert two.asked == []


async def test_a_replica_does_not_ask_itself(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (one,), asking(tmp_path, one, own=one.url) as peers:
        one.put(CONTENT)
        one.knows.tags.append(RECORD)
        one.knows.links.append(LINK)
        assert await peers.find(DIGEST, [one.url]) is None
        assert await peers.content(DIGEST, MIB) is None
        assert await peers.tag(*NAME) is None
        assert await peers.link(LINK.upstream, LINK.repository, DIGEST) is None
        assert one.asked == []


async def test_that_nobody_holds_it_is_said_only_when_all_who_are_alive_have_said_so(tmp_path: Path) -> None:
    clock = Clock()
    async with (
        replicas(tmp_path) as (one,),
        serving(saying(404)) as lacking,
        serving(saying(503)) as busy,
        serving(Fake()) as hanging,
    ):
        for others, holds in (((lacking,), False), ((lacking, busy), None), ((lacking, hanging), None), ((), False)):
            async with asking(tmp_path, *others, clock=clock) as peers:
                for _ in range(2):  # also of one that was silent a moment ago
                    assert await peers.holds(DIGEST) is holds
        async with asking(tmp_path, one, lacking, busy, hanging) as peers:
            assert await peers.holds(DIGEST) is None
            one.put(CONTENT)
            assert await peers.holds(DIGEST) is True
            peers.cool_down(one.url.removeprefix("http://"), DIGEST)
            assert await peers.holds(DIGEST) is None, "it has other bytes"


async def test_a_hinted_replica_that_hangs_holds_up_the_others_for_a_moment_only(tmp_path: Path) -> None:
    fake = Fake()
    async with replicas(tmp_path) as (one,), serving(fake) as hanging, asking(tmp_path, hanging, one) as peers:
        one.put(CONTENT)
        assert await peers.find(DIGEST, [hanging]) == one.url
        await eventually(lambda: fake.left == 1, what="the one that hangs is left")


async def test_all_are_asked_at_once(tmp_path: Path) -> None:
    """Whoever answers is waiting for the others to be asked."""
    count = 0
    everybody = asyncio.Event()

    async def patient(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal count
        count += 1
        if count == 3:
            everybody.set()
        await everybody.wait()
        await saying(404)(scope, receive, send)

    async with contextlib.AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(serving(patient)) for _ in range(3)]
        peers = await stack.enter_async_context(asking(tmp_path, *urls))
        assert await peers.find(DIGEST, []) is None
        assert everybody.is_set()


@pytest.mark.shows("replicas cannot reach one another")
async def test_replicas_that_hang_cost_half_a_second_once(tmp_path: Path) -> None:
    clock, fakes = Clock(), [Fake(), Fake()]
    async with (
        serving(fakes[0]) as first,
        serving(fakes[1]) as second,
        replicas(tmp_path) as (one,),
        asking(tmp_path, first, second, one, clock=clock) as peers,
    ):
        one.knows.tags.append(RECORD)
        assert 0.4 < await taking(peers.find(DIGEST, [])) < 2.0
        assert [fake.asked for fake in fakes] == [1, 1]
        for _ in range(3):  # whatever is asked next is not held up
            assert await peers.find(DIGEST, []) is None
            assert await peers.content(DIGEST, MIB) is None
            assert await peers.tag(*NAME) == RECORD
        assert [fake.asked for fake in fakes] == [1, 1]
        clock.seconds += 2.0
        assert await peers.tag(*NAME) == RECORD, "those that answer are heard in spite of those that hang"
        assert [fake.asked for fake in fakes] == [2, 2]
        assert await peers.find(DIGEST, [first]) is None
        assert [fake.asked for fake in fakes] == [3, 2], "who is said to hold it is asked all the same"


@pytest.mark.shows("replicas cannot reach one another")
async def test_a_replica_that_refuses_connections_is_left_alone_for_two_seconds(tmp_path: Path) -> None:
    clock = Clock()
    dialled = Fake(saying(404))
    with ReservedPort() as port:
        url = f"http://127.0.0.1:{port.number}"
        async with asking(tmp_path, url, clock=clock) as peers:
            assert peers.heard() == {url: True}, "it was not asked yet"
            assert await peers.find(DIGEST, []) is None
            assert peers.heard() == {url: False}
            async with serving(dialled, port=port.number):
                assert await peers.find(DIGEST, []) is None
                assert dialled.asked == 0
                clock.seconds += 2.0
                assert await peers.find(DIGEST, []) is None
                assert dialled.asked == 1
                assert peers.heard() == {url: True}


NO_ADDRESSES = ("", "nonsense", "http://[", "http://h:x", "http://h:99999999", "ftp://127.0.0.1", "http://a@127.0.0.1")


async def test_an_address_that_is_none_is_passed_over(tmp_path: Path) -> None:
    async with replicas(tmp_path) as (one,), asking(tmp_path, *NO_ADDRESSES, one) as peers:
        one.put(CONTENT)
        one.knows.tags.append(RECORD)
        assert await peers.find(DIGEST, ["http://["]) == one.url
        assert await peers.tag(*NAME) == RECORD
        for address in NO_ADDRESSES:
            with pytest.raises(UpstreamInvalid, match="not the address of a replica"):
                await peers.open_blob(address, DIGEST, offset=0, held=True, deadline=soon())


async def test_an_address_that_no_replica_can_have_is_not_dialled(tmp_path: Path) -> None:
    """Whatever stands in Redis: this machine, seen from a replica that is elsewhere, or the metadata of a cloud."""
    elsewhere = "http://10.0.0.1:8080"
    async with replicas(tmp_path) as (one,):
        one.put(CONTENT)
        named = one.url.replace("127.0.0.1", "localhost")
        async with asking(tmp_path, one, named, "http://169.254.169.254", own=elsewhere) as peers:
            for address in (one.url, named, "http://169.254.169.254", "http://[fe80::1]", "http://2130706433"):
                with pytest.raises(UpstreamError):
                    await peers.open_blob(address, DIGEST, offset=0, held=True, deadline=soon())
            assert await peers.find(DIGEST, [one.url]) is None
            assert await peers.content(DIGEST, 1 << 20, [one.url]) is None
            assert await peers.tag(*NAME) is None
        assert one.asked == []


async def test_an_address_is_not_repeated_without_end(tmp_path: Path) -> None:
    async with asking(tmp_path) as peers:
        for address in ("x" * 1_000_000, "http://" + "a." * 100_000, "http://a:" + "9" * 100_000):
            with pytest.raises(UpstreamInvalid) as raised:
                await peers.open_blob(address, DIGEST, offset=0, held=True, deadline=soon())
            assert len(str(raised.value)) < 200


async def test_however_many_say_that_they_are_replicas_few_are_asked(tmp_path: Path) -> None:
    """The one that is said to hold it is among them."""
    crowd = [f"http://127.0.{number // 250}.{number % 250 + 2}:1" for number in range(2000)]
    async with replicas(tmp_path) as (one,), asking(tmp_path, *crowd, one) as peers:
        one.put(CONTENT)
        assert len(peers._others()) <= 64
        assert await peers.find(DIGEST, [one.url]) == one.url


# Content.


async def test_content_comes_from_whoever_holds_it(tmp_path: Path) -> None:
    async with replicas(tmp_path, 3) as (one, two, three), asking(tmp_path, one, two, three) as peers:
        assert await peers.content(DIGEST, MIB) is None
        three.put(CONTENT)
        assert await peers.content(DIGEST, MIB) == CONTENT
        assert await peers.content(DIGEST, len(CONTENT)) == CONTENT
        assert await peers.content(DIGEST, len(CONTENT) - 1) is None
        sha512 = Digest.of(CONTENT, "sha512")
        two.store.put(sha512, CONTENT)
        assert await peers.content(sha512, MIB) == CONTENT


async def test_wrong_bytes_are_not_believed_and_not_asked_for_again(tmp_path: Path) -> None:
    clock, liar = Clock(), Fake(saying(200, b"wrong"))
    async with serving(liar) as lying, asking(tmp_path, lying, clock=clock) as peers:
        assert await peers.content(DIGEST, MIB) is None
        assert liar.asked == 2  # HEAD and GET
        assert await peers.content(DIGEST, MIB) is None
        assert await peers.find(DIGEST, [lying]) is None
        assert liar.asked == 2
        assert await peers.find(Digest.of(OTHER), []) == lying, "what else it holds may be right"
        clock.seconds += 300
        assert await peers.find(DIGEST, []) == lying


async def test_whoever_lies_does_not_keep_us_from_those_who_do_not(tmp_path: Path) -> None:
    for answer in (saying(200, b"wrong"), saying(200, bytes(2 * MIB)), _yes_then(saying(404)), _yes_then(saying(500))):
        async with replicas(tmp_path) as (one,), serving(answer) as lying, asking(tmp_path, lying, one) as peers:
            one.put(CONTENT)
            assert await peers.content(DIGEST, MIB, [lying]) == CONTENT


async def test_content_that_trickles_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_module, "_BEGINS_WITHIN", 0.3)

    async def trickle(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"200000")]})
        if scope["method"] == "GET":
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await Fake()(scope, receive, send)
        await send({"type": "http.response.body"})

    async with serving(trickle) as url, asking(tmp_path, url) as peers:
        assert await taking(peers.content(DIGEST, MIB)) < 2.0
        assert await peers.find(DIGEST, []) is None, "it is left alone"


async def test_a_stream_that_was_wrong_is_told_by_its_endpoint(tmp_path: Path) -> None:
    async with replicas(tmp_path, 2) as (one, two), asking(tmp_path, one, two) as peers:
        one.put(CONTENT)
        two.put(CONTENT)
        stream = await peers.open_blob(one.url, DIGEST, offset=0, held=True, deadline=soon())
        await stream.aclose()
        peers.cool_down(stream.endpoint, DIGEST)
        assert await peers.find(DIGEST, [one.url]) == two.url


def _yes_then(answer: ASGIApp) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (saying(200, b"x") if scope["method"] == "HEAD" else answer)(scope, receive, send)

    return app


# What they know.


async def test_of_all_answers_the_latest_counts(tmp_path: Path) -> None:
    older = dataclasses.replace(RECORD, serial=2, fetched_at=9999.0)
    later = dataclasses.replace(RECORD, fetched_at=1001.0)
    deleted = Tombstone(*NAME, deleted_at=5.0, serial=4)
    cases: list[tuple[list[TagEntry], TagEntry]] = [
        ([older], older),
        ([RECORD, older], RECORD),
        ([older, later, RECORD], later),
        ([deleted, older, later], deleted),
    ]
    async with replicas(tmp_path, 3) as three, asking(tmp_path, *three) as peers:
        assert await peers.tag(*NAME) is None
        for entries, latest in cases:
            for replica in three:
                replica.knows.tags.clear()
            for replica, entry in zip(three, entries, strict=False):
                replica.knows.tags.append(entry)
            assert await peers.tag(*NAME) == latest


async def test_a_link_comes_from_whoever_has_it(tmp_path: Path) -> None:
    async with replicas(tmp_path, 3) as three, asking(tmp_path, *three) as peers:
        assert await peers.link(LINK.upstream, LINK.repository, DIGEST) is None
        three[2].knows.links.append(LINK)
        assert await peers.link(LINK.upstream, LINK.repository, DIGEST) == LINK
        gone = Dropped(LINK.upstream, LINK.repository, DIGEST, 2000.0, 0)
        three[0].knows.links.append(gone)
        assert await peers.link(LINK.upstream, LINK.repository, DIGEST) == gone, "by whom it was dropped"
        three[1].knows.links.append(dataclasses.replace(LINK, serial=1))
        assert await peers.link(LINK.upstream, LINK.repository, DIGEST) == dataclasses.replace(LINK, serial=1), "later"


def _told(body: bytes) -> Callable[[Message], Message]:
    def change(message: Message) -> Message:
        if message["type"] == "http.response.start":
            headers = [(name, value) for name, value in message["headers"] if name != b"content-length"]
            return {**message, "headers": [*headers, (b"content-length", str(len(body)).encode())]}
        return {**message, "body": body}

    return change


def _unsigned(message: Message) -> Message:
    if message["type"] != "http.response.start":
        return message
    return {**message, "headers": [(name, value) for name, value in message["headers"] if name != b"x-signature"]}


@pytest.mark.parametrize(
    "change",
    [
        _told(json.dumps({**ENTRY, "serial": 9}).encode()),
        _told(json.dumps({"v": 1, "deleted_at": 5.0, "serial": 9}).encode()),
        _unsigned,
    ],
)
async def test_nobody_on_the_way_can_forge_what_a_replica_knows(
    tmp_path: Path, change: Callable[[Message], Message], caplog: pytest.LogCaptureFixture
) -> None:
    one = Replica(tmp_path / "one")
    one.knows.tags.append(RECORD)
    async with serving(altering(one, change)) as url, asking(tmp_path, url) as peers:
        one.url = url
        for _ in range(3):
            assert await peers.tag(*NAME) is None
    (record,) = [record for record in caplog.records if record.name == "mirror.peers"]
    assert "without a valid signature" in record.message


async def test_an_answer_to_another_question_is_not_believed(tmp_path: Path) -> None:
    one = Replica(tmp_path / "one")
    one.knows.tags.append(RECORD)
    kept: list[Message] = []

    async def replaying(scope: Scope, receive: Receive, send: Send) -> None:
        async def keep(message: Message) -> None:
            kept.append(message)
            await send(message)

        if not kept:
            await one(scope, receive, keep)
        else:
            for message in kept:
                await send(message)

    async with serving(replaying) as url, asking(tmp_path, url) as peers:
        one.url = url
        assert await peers.tag(*NAME) == RECORD
        assert await peers.tag("ghcr.io", "team/plugin", "v2") is None
        assert await peers.tag(*NAME) is None


async def test_who_has_another_secret_tells_us_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with replicas(tmp_path) as (one,), asking(tmp_path, one, secret=b"a secret of somebody else") as peers:
        one.put(CONTENT)
        one.knows.tags.append(RECORD)
        assert await peers.tag(*NAME) is None
        assert await peers.find(DIGEST, []) is None
        assert await peers.content(DIGEST, MIB) is None
    (record,) = [record for record in caplog.records if record.name == "mirror.peers"]
    assert "does not take our signature" in record.message


def telling(replica: Replica, document: bytes) -> ASGIApp:
    """An application that signs ``document`` with the secret of ``replica``, whatever is asked."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        proof = dict(scope["headers"])[b"authorization"].decode()
        nonce = proof.partition("n=")[2].partition(",")[0]
        await saying(200, document, x_signature=replica.secret.sign_answer(nonce, document))(scope, receive, send)

    return app


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        json.dumps({**ENTRY, "v": "1"}).encode(),
        json.dumps({**ENTRY, "v": 0}).encode(),
        json.dumps({**ENTRY, "digest": "sha256:../../x"}).encode(),
        json.dumps({**ENTRY, "digest": None}).encode(),
        json.dumps({**ENTRY, "size": -1}).encode(),
        json.dumps({**ENTRY, "size": 1 << 70}).encode(),
        json.dumps({**ENTRY, "serial": 1.5}).encode(),
        json.dumps({**ENTRY, "serial": True}).encode(),
        json.dumps({**ENTRY, "fetched_at": "now"}).encode(),
        json.dumps({**ENTRY, "fetched_at": -1.5}).encode(),
        json.dumps({**ENTRY, "fetched_at": 1e300}).encode(),
        json.dumps({**ENTRY, "fetched_at": False}).encode(),
        json.dumps({**ENTRY, "fetched_at": float("nan")}).encode(),
        json.dumps({**ENTRY, "fetched_at": float("inf")}).encode(),
        json.dumps({**ENTRY, "media_type": "a\r\nb"}).encode(),
        json.dumps({**ENTRY, "media_type": "x" * 300}).encode(),
        json.dumps({**ENTRY, "deleted_at": None}).encode(),
        json.dumps({**ENTRY, "x": "x" * 70_000}).encode(),
    ],
)
async def test_what_is_malformed_is_told_once_and_passed_over(
    tmp_path: Path, document: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = Replica(tmp_path / "one"), Replica(tmp_path / "two")
    two.knows.tags.append(RECORD)
    async with serving(telling(one, document)) as wrong, serving(two) as right, asking(tmp_path, wrong, right) as peers:
        two.url = right
        for _ in range(3):
            assert await peers.tag(*NAME) == RECORD
    assert len([record for record in caplog.records if record.name == "mirror.peers"]) == 1


@pytest.mark.parametrize("document", [{**ENTRY, "v": 2}, {"v": 2, "new": {}}, {"v": 99}])
async def test_a_later_version_says_nothing_and_is_no_fault(
    tmp_path: Path, document: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    one = Replica(tmp_path / "one")
    async with serving(telling(one, json.dumps(document).encode())) as url, asking(tmp_path, url) as peers:
        assert await peers.tag(*NAME) is None
        assert await peers.link(LINK.upstream, LINK.repository, DIGEST) is None
    assert caplog.records == []


async def test_unknown_fields_are_passed_over(tmp_path: Path) -> None:
    one = Replica(tmp_path / "one")
    document = json.dumps({**ENTRY, "new": {"a": 1}}).encode()
    async with serving(telling(one, document)) as url, asking(tmp_path, url) as peers:
        assert await peers.tag(*NAME) == RECORD


@pytest.mark.parametrize("document", [{"v": 1}, {"v": 1, "media_type": "a", "size": -2}, {"v": 1, "size": 3}])
async def test_a_malformed_link_is_passed_over(tmp_path: Path, document: dict[str, object]) -> None:
    one = Replica(tmp_path / "one")
    async with serving(telling(one, json.dumps(document).encode())) as url, asking(tmp_path, url) as peers:
        assert await peers.link(LINK.upstream, LINK.repository, DIGEST) is None


async def test_a_replica_that_has_mended_is_complained_of_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answers = [saying(500), saying(500), saying(404), saying(500)]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await answers.pop(0)(scope, receive, send)

    async with serving(app) as url, asking(tmp_path, url) as peers:
        for _ in range(4):
            assert await peers.tag(*NAME) is None
    assert len([record for record in caplog.records if "answers 500" in record.message]) == 2
