"""One run: everything fails at random under load; then all is brought up, and held to what was promised."""

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.clients import Client, Witness
from tests.chaos.library import TAG, Library
from tests.chaos.replica import Replica
from tests.chaos.troubles import Say, of_authors, of_redis, of_replicas, of_upstream, stir
from tests.support.artifacts import Artifact
from tests.support.faults import Fault
from tests.support.process import MirrorProcess
from tests.support.redis import RedisServer
from tests.support.replicas import Replicas
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

CLIENTS = 10
SETTLE_WITHIN = 90.0
"""Seconds after which all is as it should be again: more than a breaker stays open after short outages."""
NORMALLY = 5.0
"""Seconds for the pull of what is held, once all is up; much, for machines that are busy with other things."""

_SETTINGS = {
    "stop_within": "8s",
    "defaults": {"fresh_for": "300ms", "hold_for": "3s", "revalidate_for": "500ms"},
}


@dataclass(frozen=True)
class Summary:
    """What came of it."""

    seconds: float
    events: int
    witness: Witness

    def __str__(self) -> str:
        seen = ", ".join(f"{count} × {what}" for what, count in self.witness.outcomes.most_common())
        wrongs = "\n".join(f"WRONG: {what}" for what in self.witness.wrongs)
        slowest, what = self.witness.slowest_held
        return (
            f"{self.events} events in {self.seconds:.0f} s; clients saw {seen}.\n"
            f"The slowest answer from what was held began after {slowest:.2f} s: {what}\n{wrongs}"
        ).rstrip()


class Log:
    """Lines with the time; printed at once, as well, where somebody watches."""

    def __init__(self, *, watched: bool) -> None:
        self.lines: list[str] = []
        self._watched = watched
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def say(self, what: str) -> None:
        self.lines.append(f"{self.seconds:7.2f}  {what}")
        if self._watched:
            print(self.lines[-1], flush=True)


async def told(folder: Path, *, seed: int, seconds: float, log: Log, replicas: int = 3) -> Summary:
    """Run it. With one replica there is no Redis. Raises `AssertionError` when not all is right at the end."""
    with ExitStack() as stack:
        endpoints = [stack.enter_context(FaultyUpstream()) for _ in range(2)]
        for up in endpoints:
            up.inject(Fault(bandwidth=4e6), path="/blobs/")
        upstreams = {"up": {"endpoints": [up.url for up in endpoints]}}
        redis = stack.enter_context(RedisServer(folder / "redis")) if replicas > 1 else None
        mirrors: Sequence[MirrorProcess]
        if redis is not None:
            group = stack.enter_context(Replicas(folder, upstreams, redis, n=replicas, settings=_SETTINGS))
            mirrors = list(group)
        else:
            mirrors = [stack.enter_context(MirrorProcess(folder, upstreams, _SETTINGS))]
        story = _Story(endpoints, redis, mirrors, seed, log)
        await story.all_fails(seconds)
        log.say("all is brought up")
        await story.all_is_right()
        log.say("all is right")
    for mirror in mirrors:
        assert "Traceback" not in mirror.log_text(), f"there is a traceback in {mirror.log}"
    return Summary(log.seconds, len(log.lines), story.witness)


class _Story:
    def __init__(
        self,
        endpoints: Sequence[FaultyUpstream],
        redis: RedisServer | None,
        mirrors: Sequence[MirrorProcess],
        seed: int,
        log: Log,
    ) -> None:
        self.witness = Witness()
        self._log = log
        self._seed = seed
        self._endpoints = endpoints
        self._redis = redis
        self._replicas = [Replica(f"replica {number}", mirror) for number, mirror in enumerate(mirrors)]
        self._library = Library(endpoints, self._chance("library"))

    def _chance(self, part: str) -> random.Random:
        """Each part has its own, so that what it does depends on the seed alone and not on the others' pace."""
        return random.Random(f"{self._seed} {part}")

    def _client(self, number: int) -> Client:
        return Client(self._library, self._replicas, self.witness, self._chance(f"client {number}"))

    async def all_fails(self, seconds: float) -> None:
        """Troubles and clients, for so long."""
        self._say("all is up")
        over, say = asyncio.Event(), self._say
        parts = {
            "authors": (of_authors(self._library), 0.7),
            "upstream": (of_upstream(self._endpoints), 0.5),
            "replicas": (of_replicas(self._replicas), 1.0),
            "more replicas": (of_replicas(self._replicas), 4.0),
        }
        if self._redis is not None:
            parts["Redis"] = (of_redis(self._redis), 1.5)
        async with asyncio.TaskGroup() as tasks:
            for number in range(CLIENTS):
                tasks.create_task(self._client(number).pull_until(over))
            for name, (draw, pause) in parts.items():
                tasks.create_task(stir(draw, self._chance(name), pause, over, say))
            await asyncio.sleep(seconds)
            over.set()

    @property
    def _say(self) -> Say:
        return self._log.say

    async def all_is_right(self) -> None:
        """Every version comes from every replica, tags agree with upstream, and nothing is locked or left over."""
        await asyncio.gather(*(self._serves_all(replica) for replica in self._replicas))
        await asyncio.gather(*(self._agrees(replica) for replica in self._replicas))
        await asyncio.gather(*(self._serves_all_at_once(replica) for replica in self._replicas))
        await eventually(lambda: not self._spools(), timeout=SETTLE_WITHIN, what="all downloads have come to their end")
        if self._redis is not None:
            await self._nothing_is_leased(self._redis)
        self._nothing_was_wrong()

    def _nothing_was_wrong(self) -> None:
        """Nothing that clients saw was what no outage excuses."""
        assert not self.witness.wrongs, "\n".join(self.witness.wrongs)

    async def _serves_all(self, replica: Replica) -> None:
        """All that was ever published, so that every download that was begun comes to its end."""
        client = self._client(-1)
        for repository, versions in self._library.versions.items():
            for version in versions:
                await self._until_served(client, replica, repository, version)

    async def _until_served(self, client: Client, replica: Replica, repository: str, version: Artifact) -> None:
        async def served() -> bool:
            self._nothing_was_wrong()
            return await client.pull_version(replica, repository, version)

        what = f"{replica.name} serves {repository}@{version.digest}"
        _: bool = await eventually(served, timeout=SETTLE_WITHIN, what=what)

    async def _agrees(self, replica: Replica) -> None:
        """Its tags name what upstream's do."""
        client = self._client(-2)
        for repository in self._library.repositories:
            await self._until_it_follows(client, replica, repository)

    async def _until_it_follows(self, client: Client, replica: Replica, repository: str) -> None:
        newest = self._library.newest(repository)

        async def follows() -> bool:
            self._nothing_was_wrong()
            return await client.pull(replica, repository) is newest

        what = f"{replica.name} serves {newest.digest} as {repository}:{TAG}, as upstream does"
        _: bool = await eventually(follows, timeout=SETTLE_WITHIN, what=what)

    async def _serves_all_at_once(self, replica: Replica) -> None:
        client = self._client(-3)
        for repository in self._library.repositories:
            began = time.monotonic()
            assert await client.pull(replica, repository), f"{replica.name} fails to serve {repository} with all up"
            took = time.monotonic() - began
            assert took < NORMALLY, f"{replica.name} takes {took:.1f} s for {repository}, with all up"

    def _spools(self) -> list[Path]:
        """What is left of downloads, on all disks."""
        return [file for replica in self._replicas for file in (replica.mirror.data_dir / "spool").iterdir()]

    async def _nothing_is_leased(self, server: RedisServer) -> None:
        with server.client() as client:

            def leases() -> list[str]:
                return [str(key) for key in client.scan_iter("wm1:*lease*", count=1000)]

            assert [key for key in leases() if client.ttl(key) == -1] == [], "a lease that never ends"
            await eventually(lambda: not leases(), timeout=30, what="nothing is leased")
