"""What replicas tell one another of hosted content: to whom, of which records, and what is believed of it."""

import asyncio
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send

from mirror import upkeep
from mirror.cluster.secret import Secret
from mirror.digest import Digest
from mirror.errors import UpstreamInvalid
from mirror.following import Following, document
from mirror.hosted.entries import OfBlob, OfTag, of_entry
from mirror.upkeep import Upkeep
from tests.cluster.hosting import Host, host, hosts
from tests.cluster.replica import Fake, saying, serving
from tests.hosted.shelf import REPOSITORY
from tests.support.artifacts import image
from tests.support.asking import Reply, ask
from tests.support.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.needs("redis-server")]

FIRST, SECOND = (image([("application/vnd.example", b"%d" % n * 50)]) for n in (1, 2))
TARGETS = ("entries?of=&after=0", "sync?from=http://127.0.0.1:1", f"keep?digest={Digest.of(b'')}&from=x", "nothing")


async def told(node: Host, target: str, secret: Secret | None, method: str = "GET") -> Reply:
    """What a replica answers to who signs with ``secret``, or does not sign."""
    address, _, port = node.url.removeprefix("http://").partition(":")
    path = f"/peer/v1/hosted/{target}"
    headers = [("Authorization", secret.sign(method, node.url + path, time.time()).header)] if secret else []
    return await ask((address, int(port)), path, method=method, headers=headers)


def blob(number: int, size: int = 1) -> dict[str, object]:
    """An entry for a blob."""
    return of_entry(OfBlob(REPOSITORY, Digest.of(b"%d" % number), number + 1, False, size, 1.0))


class Teller:
    """In a replica's place: tells of ``entries``, and signs it."""

    def __init__(self, secret: Secret, url: str, entries: Sequence[Mapping[str, object]]) -> None:
        self.secret = secret
        self.url = url
        self.entries = entries
        self.of = "somebody"
        self.next = len(entries)
        self.more = False
        self.asked: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        target = f"{scope['path']}?{scope['query_string'].decode()}"
        self.asked.append(target)
        proof = dict(scope["headers"])[b"authorization"].decode()
        nonce = self.secret.verify(proof, "GET", self.url + target, time.time())
        body = json.dumps(document(self.of, self.entries, self.next, self.more)).encode()
        signature = self.secret.sign_answer(nonce, body)
        await saying(200, body, x_signature=signature)(scope, receive, send)


async def test_who_cannot_sign_hears_nothing_and_moves_nothing(tmp_path: Path) -> None:
    stranger = tmp_path / "stranger"
    stranger.write_bytes(b"another secret of good length")
    async with hosts(tmp_path, 2) as (_, (one, two)):
        await two.push_blob(b"a blob")
        asked = len(two.asked)
        for target in TARGETS:
            for secret in (None, Secret(stranger)):
                reply = await told(one, target, secret)
                assert (reply.status, reply.code) == (401, "UNAUTHORIZED")
                assert b"blob" not in reply.body
        assert len(two.asked) == asked


async def test_nobody_is_asked_who_is_no_replica(tmp_path: Path) -> None:
    async with hosts(tmp_path, 2) as (_, (one, _)):
        elsewhere = Fake()
        async with serving(elsewhere) as url:
            for target in (f"sync?from={url}", f"keep?digest={Digest.of(b'')}&from={url}", f"sync?from={one.url}"):
                reply = await told(one, target, one.secret)
                assert (reply.status, reply.code) == (503, "UNAVAILABLE")
        assert elsewhere.asked == 0


async def test_questions_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    async with hosts(tmp_path, 1) as (_, (one,)):
        for target in ("entries?of=x&after=-1", "entries?of=x&after=1e3", "entries?of=x", "keep?digest=none"):
            assert (await told(one, target, one.secret)).status == 400
        assert (await told(one, "nothing", one.secret)).status == 404
        assert (await told(one, "entries?of=&after=0", one.secret, "DELETE")).status == 405


async def test_other_records_at_the_address_of_a_replica_are_read_from_the_first_on(tmp_path: Path) -> None:
    async with hosts(tmp_path, 2) as (_, (one, two)):
        await two.push(FIRST, "v1")
        await two.push(SECOND, "v2")
        teller = Teller(two.secret, two.url, [blob(1), blob(2)])
        two.front = teller
        assert await one.replication.following.hear(two.url) is None
        assert await one.catalogue.blob(REPOSITORY, Digest.of(b"2")) is not None
        assert [target.rpartition("after=")[2] for target in teller.asked][1:] == ["0"]
        two.front = None
        await two.push_blob(b"more")
        assert await one.catalogue.blob(REPOSITORY, Digest.of(b"more")) is not None


async def test_a_replica_that_was_started_with_a_copy_of_anothers_records_is_another(tmp_path: Path) -> None:
    async with hosts(tmp_path, 2) as (redis, (one, _)):
        async with host(tmp_path / "origin", redis) as origin:
            await one.beat.once()
            await origin.push(FIRST, "v1")
        shutil.copytree(tmp_path / "origin" / "data", tmp_path / "copy" / "data")
        async with host(tmp_path / "origin", redis) as origin, host(tmp_path / "copy", redis) as copy:
            await origin.catalogue.link_blob(REPOSITORY, *put(origin, b"at the origin"))
            await copy.catalogue.link_blob(REPOSITORY, *put(copy, b"at the copy"))
            await one.replication.following.hear(origin.url)
            await one.replication.following.hear(copy.url)
            for content in (b"at the origin", b"at the copy"):
                assert await one.catalogue.blob(REPOSITORY, Digest.of(content)) is not None


def put(node: Host, content: bytes) -> tuple[Digest, int]:
    """Bytes on a disk, of which no record says anything yet."""
    node.store.put(Digest.of(content), content)
    return Digest.of(content), len(content)


async def test_what_makes_no_sense_is_passed_over_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lie = {**blob(7), "moment": 1 << 60}
    wrong = {**of_entry(OfTag(REPOSITORY, "v1", 3, FIRST.digest, 1.0, 1)), "tag": "../../etc"}
    forged = {
        "v": 1,
        "kind": "manifest",
        "repository": REPOSITORY,
        "moment": 9,
        "digest": str(FIRST.digest),
        "media_type": FIRST.media_type,
        "pushed_at": 1.0,
        "body": "e30=",
    }
    async with hosts(tmp_path, 2) as (_, (one, two)):
        teller = Teller(two.secret, two.url, [blob(1), lie, wrong, forged, {"v": 99}, {}, blob(2)])
        two.front = teller
        assert await one.replication.following.hear(two.url) is None
        for number in (1, 2):
            assert await one.catalogue.blob(REPOSITORY, Digest.of(b"%d" % number)) is not None
        assert await one.catalogue.blob(REPOSITORY, Digest.of(b"7")) is None
        assert not one.store.holds(FIRST.digest)
        said = [line for line in caplog.messages if "passed over" in line]
        assert len(said) == 4
        teller.of, teller.next = "somebody else", 99
        assert await one.replication.following.hear(two.url) is None
        assert [line for line in caplog.messages if "passed over" in line] == said


NO_DOCUMENTS: Sequence[Mapping[str, object]] = (
    {},
    {"v": 1, "id": "", "entries": [], "next": 0, "more": False},
    {"v": 1, "id": "x", "entries": {}, "next": 0, "more": False},
    {"v": 1, "id": "x", "entries": [1], "next": 0, "more": False},
    {"v": 1, "id": "x", "entries": [], "next": -1, "more": False},
    {"v": 1, "id": "x", "entries": [], "next": 0, "more": 1},
    {"v": 1, "id": "x", "entries": [], "next": 0, "more": True},  # and so for ever
)


async def test_a_document_that_is_none_is_a_fault_of_its_replica(tmp_path: Path) -> None:
    async with hosts(tmp_path, 1) as (_, (one,)):
        for fields in NO_DOCUMENTS:
            asked = 0

            async def answer(address: str, target: str, limit: int, fields: Mapping[str, object] = fields) -> object:
                nonlocal asked
                asked += 1
                return fields

            one.peers.document = answer  # type: ignore[method-assign,assignment]  # as if it were signed
            failure = await one.replication.following.hear("http://127.0.0.1:1")
            assert isinstance(failure, UpstreamInvalid), fields
            assert asked < 5


async def test_what_nobody_signed_is_not_believed(tmp_path: Path) -> None:
    async with hosts(tmp_path, 2) as (_, (one, two)):
        two.front = saying(200, json.dumps(document("x", [blob(1)], 1, more=False)).encode())
        assert await one.replication.following.hear(two.url) is not None
        assert await one.catalogue.head() == 0


async def test_a_replica_with_damaged_records_has_nothing_to_tell_and_stops_nobody(tmp_path: Path) -> None:
    async with hosts(tmp_path, 2) as (_, (one, two)):
        await one.push(FIRST, "v1")
        two.shelf.database.write_bytes(b"no database" * 1000)
        await two.replication.following.hear(one.url)
        await eventually(lambda: two.catalogue.damage is not None)
        await one.push(SECOND, "v1")
        assert await one.named("v1") == SECOND.digest


async def test_one_worker_of_a_machine_keeps_hosted_content_up_and_another_goes_on_when_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_LEAD_EVERY", 0.01)
    monkeypatch.setattr(upkeep, "_LOOK_EVERY", 0.01)
    monkeypatch.setattr(upkeep, "EVERY", 0.02)
    async with hosts(tmp_path, 1) as (_, (one,)):
        looks = [0, 0]

        class Counting(Following):
            number = 0

            async def glance(self, within: float) -> None:
                looks[self.number] += 1

        def worker(number: int) -> Upkeep:
            following = Counting(one.catalogue, one.store, one.peers)
            following.number = number
            own = one.replication
            clock = asyncio.get_running_loop().time
            return Upkeep(one.catalogue, following, own.spread, one.beat, own._local, clock, time.time)

        first = asyncio.create_task(worker(0).run())
        await eventually(lambda: looks[0] > 2)
        second = asyncio.create_task(worker(1).run())
        before = looks[0]
        await eventually(lambda: looks[0] > before + 5)
        assert looks[1] == 0
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await eventually(lambda: looks[1] > 2)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)


async def test_deletions_are_forgotten_after_three_months(tmp_path: Path) -> None:
    async with hosts(tmp_path, 1) as (_, (one,)):
        await one.push(FIRST, "v1", "v2")
        await one.delete_tag("v1")
        await one.push_blob(b"so that it is not the last entry")
        own = one.replication
        clock = asyncio.get_running_loop().time
        for days, left in ((89, True), (91, False)):
            later = time.time() + days * 86400.0
            now = partial(float, later)
            kept = Upkeep(one.catalogue, own.following, own.spread, one.beat, own._local, clock, now)
            await kept._forget()
            portion = await one.catalogue.entries(0, 1 << 20)
            assert any(isinstance(entry, OfTag) and entry.gone for entry in portion.entries) is left
