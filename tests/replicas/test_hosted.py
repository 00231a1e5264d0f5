"""What is pushed at one replica is there at all of them: mirrors in one process, with a disk each, on one Redis."""

import asyncio
import functools
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mirror import replicated
from mirror.cluster.beat import ALIVE_FOR
from mirror.copies import Copies
from mirror.digest import Digest
from mirror.edge.peerhosted import HostedRoom
from mirror.shared import keys
from tests.auth.support import basic, users_file
from tests.support.artifacts import cncf, descriptor, image, publish, raw, wasm_module
from tests.support.ports import ReservedPort
from tests.support.process import merged
from tests.support.pushing import At, Author, whole
from tests.support.redis import RedisServer
from tests.support.replicas import replicated as replicated_processes
from tests.support.running import Running, running
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually
from tests.wasm.modules import plugin

pytestmark = [pytest.mark.integration, pytest.mark.needs("redis-server")]

NAME = "hosted/team/plugin"
PLUGIN = raw(wasm_module(200_000, seed=1))
MODULE = PLUGIN.layers[0]
CONTENT = PLUGIN.blobs[MODULE]
VERSIONS = [raw(wasm_module(2_000, seed=number)) for number in range(4)]
ONE_DISK: dict[str, Any] = {"hosted": {"replicas": 1}}


@dataclass(frozen=True, slots=True)
class Town:
    """Replicas that know of one another, and their Redis; ``stack`` ends them."""

    redis: RedisServer
    replicas: list[Running]
    folder: Path
    settings: Mapping[str, object]
    up: str
    stack: AsyncExitStack
    ends: dict[str, AsyncExitStack] = field(default_factory=dict)

    def authors(self, repository: str = NAME) -> list[Author]:
        """Who pushes to each."""
        return [Author(mirror, repository) for mirror in self.replicas]

    def holding(self, digest: Digest) -> list[Running]:
        """Those that have the bytes on their disks."""
        return [mirror for mirror in self.replicas if mirror.holds(digest)]

    def lacking(self, digest: Digest) -> list[Running]:
        """Those that have not."""
        return [mirror for mirror in self.replicas if not mirror.holds(digest)]

    async def start(self) -> Running:
        """One more replica, which serves; whether it knows of the others yet is its own business."""
        number = len(self.replicas)
        port = self.stack.enter_context(ReservedPort())
        own: Mapping[str, object] = {
            "listen": f"127.0.0.1:{port.number}",
            "metadata": {"url": self.redis.url},
            "cluster": {
                "advertise": f"http://127.0.0.1:{port.number}",
                "secret_file": str(self.folder / "secret"),
            },
        }
        starting = running(self.folder / str(number), {"up": self.up}, merged(own, self.settings))
        stack = await self.stack.enter_async_context(AsyncExitStack())
        mirror = await stack.enter_async_context(starting)
        self.replicas.append(mirror)
        self.ends[mirror.host] = stack
        return mirror

    async def stop(self, mirror: Running) -> None:
        """Have one leave in order."""
        self.replicas.remove(mirror)
        await self.ends[mirror.host].aclose()

    async def pretend(self, *, for_seconds: float) -> None:
        """Have a replica be known to all at an address where nobody is, and be alive for so long, as it seems."""
        now = time.time()
        address = f"http://127.0.0.1:{self.stack.enter_context(ReservedPort()).number}"
        with self.redis.client() as client:
            client.hset(keys.members(), "dead/1/00", f"{(now + for_seconds - ALIVE_FOR) * 1000:.0f} 0 {address}")
            await eventually(lambda: _all_have_beaten(client.hgetall(keys.members()), now), what="all know of it")


@asynccontextmanager
async def town(folder: Path, n: int = 2, up: str = "http://127.0.0.1:9", **settings: object) -> AsyncIterator[Town]:
    """``n`` replicas that are ready; they mirror the registry ``up``, too."""
    secret = folder / "secret"
    secret.write_text("one secret for all of them")
    secret.chmod(0o600)
    async with AsyncExitStack() as stack:
        here = Town(stack.enter_context(RedisServer(folder / "redis")), [], folder, settings, up, stack)
        for _ in range(n):
            await here.start()
        for mirror in here.replicas:
            await _until_ready(mirror)
        await eventually(lambda: _all_know_all(here), what="all know of one another")
        yield here


async def _until_ready(mirror: Running) -> None:
    async def is_ready() -> bool:
        return (await mirror.get("/readyz")).status == 200

    ready: Callable[[], bool | Awaitable[bool]] = is_ready
    await eventually(ready, what="it is ready")


def _all_have_beaten(members: Mapping[object, object], since: float) -> bool:
    """Whether each that lives has, and so knows of all that were there."""
    beats = [str(beat).split(" ")[0] for name, beat in members.items() if not str(name).startswith("dead/")]
    return all(int(at) > since * 1000 + 1 for at in beats)


def _all_know_all(here: Town) -> bool:
    """Whether each has beaten since the last of them came: then it knows of all."""
    with here.redis.client() as client:
        beats = [str(beat).split(" ") for beat in client.hvals(keys.members())]
    return len(beats) == len(here.replicas) and len({seen for _, seen, _ in beats}) == 1


def asked_of_peers(caplog: pytest.LogCaptureFixture, method: str, digest: Digest) -> int:
    """How often replicas have asked one another for a blob."""
    return sum(f"{method} /peer/v1/blobs/{digest} " in record.getMessage() for record in caplog.records)


async def test_what_is_pushed_at_one_is_pulled_from_every_other_at_once(tmp_path: Path) -> None:
    subject = descriptor(PLUGIN.media_type, PLUGIN.body)
    signature = image([], extra={"subject": subject, "artifactType": "a/signature"})
    async with town(tmp_path, 3) as here:
        author = here.authors()[0]
        assert (await author.push(PLUGIN, "v1")).status == 201
        assert (await author.push(signature, None)).status == 201
        for mirror in reversed(here.replicas):
            for target in ("v1", str(PLUGIN.digest)):
                reply = await mirror.get(f"/v2/{NAME}/manifests/{target}")
                assert (reply.status, reply.body) == (200, PLUGIN.body)
            assert (await mirror.get(f"/v2/{NAME}/tags/list")).json["tags"] == ["v1"]
            referrers = (await mirror.get(f"/v2/{NAME}/referrers/{PLUGIN.digest}")).json["manifests"]
            assert [one["digest"] for one in referrers] == [str(signature.digest)]
            module = await mirror.get(f"/modules/{NAME}:v1")
            assert (module.status, module.body) == (200, CONTENT)
            for digest, content in PLUGIN.blobs.items():
                reply = await mirror.get(f"/v2/{NAME}/blobs/{digest}")
                assert (reply.status, reply.body) == (200, content)


async def test_bytes_on_another_disk_flow_through_for_all_who_read_them_and_are_asked_for_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mirror.access")
    target = f"/v2/{NAME}/blobs/{MODULE}"
    async with town(tmp_path, **ONE_DISK, log={"access": "all"}) as here:
        assert (await here.authors()[0].push(PLUGIN, "v1")).status == 201
        reader = here.replicas[1]
        assert not reader.holds(MODULE)
        head = await reader.head(target)
        assert (head.status, head.header("content-length")) == (200, str(len(CONTENT)))
        assert not reader.holds(MODULE)
        replies = await asyncio.gather(
            *(reader.get(target) for _ in range(48)),
            reader.get(target, {"range": "bytes=1000-150000"}),
            reader.get(f"/modules/{NAME}:v1"),
        )
        assert {reply.status for reply in replies} == {200, 206}
        assert {reply.body for reply in replies} == {CONTENT, CONTENT[1000:150001]}
        await reader.until_held(MODULE)
        assert asked_of_peers(caplog, "GET", MODULE) == 1


@pytest.mark.shows("Redis is away while something is pushed to `hosted/`, or deleted")
async def test_without_redis_pushes_and_deletes_are_put_off_and_pulls_go_on(tmp_path: Path) -> None:
    async with town(tmp_path, **ONE_DISK) as here:
        author = here.authors()[0]
        assert (await author.push(PLUGIN, "v1")).status == 201
        loose = b"a blob that no manifest names"
        assert (await author.blob(loose)).status == 201
        upload = await author.begin()
        here.redis.kill()
        for mirror, other in zip(here.replicas, here.authors(), strict=True):
            for refused in (
                await other.ask("POST", "blobs/uploads/"),
                await other.ask("POST", f"blobs/uploads/?mount={MODULE}&from=hosted/elsewhere"),
                await other.ask("PATCH", upload, body=b"more"),
                await other.finish(upload, Digest.of(b"")),
                await other.manifest(VERSIONS[0], "v1"),
                await other.ask("DELETE", "manifests/v1"),
                await other.ask("DELETE", f"manifests/{PLUGIN.digest}"),
                await other.ask("DELETE", f"blobs/{Digest.of(loose)}"),
            ):
                assert (refused.status, refused.code) == (503, "UNAVAILABLE"), refused
                assert refused.header("retry-after")
            assert (await mirror.get(f"/v2/{NAME}/manifests/v1")).body == PLUGIN.body
            assert (await mirror.get(f"/v2/{NAME}/tags/list")).json["tags"] == ["v1"]
            assert (await mirror.head(f"/v2/{NAME}/blobs/{MODULE}")).status == 200
            assert (await mirror.get(f"/v2/{NAME}/blobs/{MODULE}")).body == CONTENT
        assert (await author.ask("GET", upload)).status == 204
        assert (await author.ask("DELETE", upload)).status == 204


async def test_of_two_pushes_of_a_tag_at_once_one_wins_whole_and_everywhere(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        authors = here.authors()
        for author, version in zip([*authors] * 2, VERSIONS, strict=True):
            assert (await author.push(version, None)).status == 201
        for pair in zip(VERSIONS[::2], VERSIONS[1::2], strict=True):
            pushed = await asyncio.gather(
                *(author.manifest(version, "v1") for author, version in zip(authors, pair, strict=True))
            )
            assert [reply.status for reply in pushed] == [201, 201]
            named = {(await mirror.get(f"/v2/{NAME}/manifests/v1")).body for mirror in here.replicas * 2}
            assert len(named) == 1
            assert named <= {version.body for version in pair}


async def test_a_tag_that_may_not_be_overwritten_may_not_at_any_replica(tmp_path: Path) -> None:
    users = users_file(tmp_path, {"anna": "hunter2"})
    auth = {"file": str(users), "rules": [{"who": ["anna"], "repositories": ["hosted/**"], "may": ["pull", "push"]}]}
    async with town(tmp_path, auth=auth) as here:
        authors = [Author(mirror, NAME, basic("anna", "hunter2")) for mirror in here.replicas]
        for author, version in zip([*authors] * 2, VERSIONS, strict=True):
            assert (await author.push(version, None)).status == 201
        for number in range(2):
            pushed = await asyncio.gather(
                *(
                    author.manifest(version, f"v{number}")
                    for author, version in zip(authors, VERSIONS[2 * number :], strict=False)
                )
            )
            assert sorted(reply.status for reply in pushed) == [201, 403]
            winner = [reply.status for reply in pushed].index(201)
            again = await authors[1 - winner].manifest(VERSIONS[2 * number + 1 - winner], f"v{number}")
            assert (again.status, again.code) == (403, "DENIED")


async def test_what_is_deleted_at_one_is_gone_at_all_at_once(tmp_path: Path) -> None:
    version = VERSIONS[0]
    async with town(tmp_path) as here:
        first, second = here.authors()
        assert (await first.push(version, "v1")).status == 201
        assert (await first.manifest(version, "other")).status == 201
        for target in ("manifests/v1", f"manifests/{version.digest}", *(f"blobs/{digest}" for digest in version.blobs)):
            assert (await second.ask("GET", target)).status == 200
            assert (await first.ask("DELETE", target)).status == 202
            for author in (second, first):
                assert (await author.ask("GET", target)).status == 404
            first, second = second, first
        assert (await second.ask("GET", "manifests/other")).status == 404


async def test_what_a_manifest_names_is_looked_for_at_all_replicas_and_looked_into(tmp_path: Path) -> None:
    accepted, refused = raw(plugin()), cncf(plugin())
    async with town(tmp_path, **ONE_DISK, wasm={"check": "enforce"}) as here:
        first, second = here.authors()
        for artifact, status, code in ((accepted, 201, None), (refused, 400, "MANIFEST_INVALID")):
            for content in artifact.blobs.values():
                assert (await first.blob(content)).status == 201
            reply = await second.manifest(artifact, "v1")
            assert reply.status == status, reply
            assert code is None or reply.code == code
        assert (await first.ask("GET", "manifests/v1")).body == accepted.body
        unknown = await second.manifest(VERSIONS[0], "v2")
        assert (unknown.status, unknown.code) == (404, "MANIFEST_BLOB_UNKNOWN")


async def test_a_blob_is_mounted_from_a_repository_whose_bytes_lie_on_another_disk(tmp_path: Path) -> None:
    async with town(tmp_path, **ONE_DISK) as here:
        assert (await here.authors()[0].blob(CONTENT)).status == 201
        other = here.authors("hosted/team/other")
        for query in (f"?mount={MODULE}&from={NAME}", f"?mount={MODULE}"):
            reply = await other[1].ask("POST", f"blobs/uploads/{query}")
            assert (reply.status, reply.header("docker-content-digest")) == (201, str(MODULE))
        assert here.replicas[1].holds(MODULE)
        assert (await other[0].ask("GET", f"blobs/{MODULE}")).body == CONTENT
        absent = await other[1].ask("POST", f"blobs/uploads/?mount={VERSIONS[0].layers[0]}&from={NAME}")
        assert absent.status == 202


@pytest.mark.shows("the file of something hosted is damaged, or gone")
async def test_what_one_disk_has_lost_comes_from_another(tmp_path: Path) -> None:
    async with town(tmp_path, hosted={"ack": "all"}) as here:
        assert (await here.authors()[0].push(PLUGIN, "v1")).status == 201
        loser = here.replicas[0]
        for digest in (PLUGIN.digest, MODULE):
            assert here.lacking(digest) == []
            loser.directory.blob(digest).unlink()
        assert (await loser.get(f"/v2/{NAME}/manifests/v1")).body == PLUGIN.body
        assert (await loser.head(f"/v2/{NAME}/blobs/{MODULE}")).status == 200
        assert (await loser.get(f"/v2/{NAME}/blobs/{MODULE}")).body == CONTENT
        await loser.until_held(MODULE)
        assert here.lacking(PLUGIN.digest) == []


@pytest.mark.shows("a replica that is away has hosted content")
async def test_what_a_replica_that_is_away_holds_comes_from_another_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicated, "Copies", functools.partial(Copies, hold_for=0.5))
    target = f"/v2/{NAME}/blobs/{MODULE}"
    async with town(tmp_path, 3, hosted={"ack": "all"}) as here:
        assert (await here.authors()[0].push(PLUGIN, "v1")).status == 201
        first, second = here.holding(MODULE)
        await here.stop(first)
        for mirror in here.replicas:
            assert (await mirror.get(f"/v2/{NAME}/manifests/v1")).body == PLUGIN.body
            assert (await mirror.get(target)).body == CONTENT
        await here.stop(second)
        (last,) = here.replicas
        await last.until_held(MODULE)
        last.directory.blob(MODULE).unlink()
        away = await last.get(target)
        assert (away.status, away.code) == (503, "UPSTREAM_UNAVAILABLE")
        assert away.header("retry-after")


@pytest.mark.shows("a replica is gone for good, with its disk")
async def test_what_no_disk_has_any_more_is_asked_for_again_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replicated, "Copies", functools.partial(Copies, hold_for=0.5))
    async with town(tmp_path, hosted={"ack": "all"}) as here:
        author = here.authors()[1]
        assert (await author.push(PLUGIN, "v1")).status == 201
        for mirror in here.replicas:
            mirror.directory.blob(MODULE).unlink()
        for mirror in here.replicas:
            lost = await mirror.get(f"/v2/{NAME}/blobs/{MODULE}")
            assert (lost.status, lost.code) == (503, "UPSTREAM_UNAVAILABLE")
            assert lost.header("retry-after")
            assert "pushed again" in lost.message
            assert (await mirror.head(f"/v2/{NAME}/blobs/{MODULE}")).status == 404
        assert (await author.blob(CONTENT)).status == 201
        for mirror in here.replicas:
            assert (await mirror.get(f"/v2/{NAME}/blobs/{MODULE}")).body == CONTENT


@pytest.mark.shows("a replica dies while something is pushed to `hosted/` at another")
async def test_with_a_dead_replica_ack_all_waits_for_those_that_are_there(tmp_path: Path) -> None:
    async with town(tmp_path, hosted={"replicas": 3, "ack": "all"}) as here:
        first, second = here.authors()
        await here.pretend(for_seconds=ALIVE_FOR)
        assert (await first.push(PLUGIN, "v1")).status == 201
        for digest in (*PLUGIN.blobs, PLUGIN.digest):
            assert here.lacking(digest) == []
        await here.pretend(for_seconds=ALIVE_FOR)
        assert (await first.ask("DELETE", "manifests/v1")).status == 202
        assert (await second.ask("GET", "manifests/v1")).status == 404


@pytest.mark.shows("replicas cannot reach one another while something is pushed to `hosted/`")
async def test_while_a_replica_cannot_be_asked_nothing_is_changed_that_it_may_have_changed_too(tmp_path: Path) -> None:
    async with town(tmp_path) as here:
        first, second = here.authors()
        assert (await first.push(VERSIONS[0], "v1")).status == 201
        assert (await first.push(VERSIONS[1], None)).status == 201
        await here.pretend(for_seconds=20)
        put, deleted = await asyncio.gather(
            first.manifest(VERSIONS[1], "v1"), second.ask("DELETE", f"manifests/{VERSIONS[1].digest}")
        )
        for refused in (put, deleted):
            assert (refused.status, refused.code) == (503, "UNAVAILABLE")
            assert refused.header("retry-after")
        for author in (first, second):
            assert (await author.ask("GET", "manifests/v1")).body == VERSIONS[0].body
            assert (await author.ask("GET", f"manifests/{VERSIONS[1].digest}")).status == 200


async def test_what_is_hosted_and_cached_has_one_file_which_stays_for_the_one_without_the_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mirror.access")
    cached = f"/v2/up/team/plugin/blobs/{MODULE}"
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", PLUGIN)
        async with town(tmp_path, up=up.url, **ONE_DISK, log={"access": "all"}) as here:
            second = here.replicas[1]
            assert (await second.get("/v2/up/team/plugin/manifests/v1")).status == 200
            assert (await second.get(cached)).body == CONTENT
            await second.until_held(MODULE)
            author = here.authors()[0]
            assert (await author.push(PLUGIN, "v1")).status == 201
            up.refuse()
            assert (await second.get(f"/v2/{NAME}/blobs/{MODULE}")).body == CONTENT
            assert asked_of_peers(caplog, "GET", MODULE) == 0
            for target in (f"manifests/{PLUGIN.digest}", f"blobs/{MODULE}"):
                assert (await author.ask("DELETE", target)).status == 202
            assert (await second.get(f"/v2/{NAME}/blobs/{MODULE}")).status == 404
            assert (await second.get(cached)).body == CONTENT


async def test_workers_of_replicas_are_of_one_mind(tmp_path: Path) -> None:
    with replicated_processes(tmp_path, n=2, settings={"workers": 2, **ONE_DISK}) as (_, _, replicas):
        asked = [At(url) for url in replicas.urls]
        for number, version in enumerate([*VERSIONS, *VERSIONS]):
            assert (await Author(asked[number % 2], NAME).push(version, "v1")).status == 201
            for _ in range(4):  # another connection, another worker
                assert [await whole(mirror, NAME, "v1") for mirror in asked] == [version.body] * 2


@pytest.mark.shows("a replica is replaced by one with an empty disk")
async def test_a_replica_that_starts_knows_what_the_others_know_before_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = HostedRoom.answer

    async def takes_its_time(self: HostedRoom, *asked: Any) -> None:
        await asyncio.sleep(1)  # longer than any pull waits for news
        await told(self, *asked)

    async with town(tmp_path, 1) as here:
        author = here.authors()[0]
        assert (await author.push(PLUGIN, "v1")).status == 201
        monkeypatch.setattr(HostedRoom, "answer", takes_its_time)
        mirror = await here.start()
        for target in (f"/v2/{NAME}/manifests/v1", f"/v2/{NAME}/blobs/{MODULE}", f"/v2/{NAME}/tags/list"):
            assert (await mirror.get(target)).status == 200


async def test_replicas_that_cannot_ask_one_another_host_nothing_and_say_what_is_to_be_set(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as redis:
        async with running(tmp_path, {"up": "http://127.0.0.1:9"}, {"metadata": {"url": redis.url}}) as mirror:
            refused = await mirror.ask("POST", f"/v2/{NAME}/blobs/uploads/")
            assert (refused.status, refused.code) == (405, "UNSUPPORTED")
            pulled = await mirror.get(f"/v2/{NAME}/manifests/v1")
            assert (pulled.status, pulled.code) == (404, "NAME_UNKNOWN")
            for reply in (refused, pulled):
                assert "cluster.advertise" in reply.message
                assert "cluster.secret_file" in reply.message
