"""Two replicas with a store each and one that they share, which is flushed, forgets and goes away in any order.

While nothing of that happens both serve what was put last. And whatever happened: once both have written back, both
serve the same, which is an entry with the greatest serial that anyone was told, and no link is lost but by a drop.
"""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mirror.digest import Digest
from mirror.metadata.base import Link, TagEntry, TagRecord
from tests.metadata.conformance import LINK, TAG
from tests.metadata.memory import Memory
from tests.metadata.test_resilient import KEY, Replica

DIGESTS = [Digest.of(bytes([number])) for number in range(3)]
WHO = st.integers(0, 1)
SKEWS = (0.0, -1000.5)  # of the two replicas' clocks, in seconds: they never tell the same time


class Replicas(RuleBasedStateMachine):
    """What replicas do and what happens to them; time is counted in seconds, one for each step."""

    @initialize()
    def begin(self) -> None:
        """Two replicas that know nothing."""
        self.runner = asyncio.Runner()
        self.shared = Memory()
        self.replicas = [Replica(self.shared), Replica(self.shared)]
        self.before = self.shared.snapshot()
        self.time = 1000.0
        self.told: list[TagEntry] = []
        self.last: tuple[int, Digest | None] | None = None
        self.links: set[Digest] = set()
        self.dropped: set[Digest] = set()
        self.there: dict[Digest, bool] = {}
        self.disturbed = False

    def teardown(self) -> None:
        """Nothing may run on."""
        if hasattr(self, "runner"):
            for replica in self.replicas:
                self.runner.run(replica.metadata.aclose())
            self.runner.close()

    def now(self, who: int) -> float:
        """The time as this replica tells it."""
        self.time += 1.0
        return self.time + SKEWS[who]

    @rule(who=WHO, digest=st.sampled_from(DIGESTS), careful=st.booleans())
    def put(self, who: int, digest: Digest, careful: bool) -> None:
        """Upstream said what the tag names; a careful one announces it first, and goes on from what it read."""
        metadata = self.replicas[who].metadata
        record = replace(TAG, digest=digest, fetched_at=self.now(who))
        if careful:
            known = self.runner.run(self.replicas[who].tag())
            if isinstance(known, TagRecord):
                self.runner.run(metadata.announce_move(known))
                record = replace(record, serial=known.serial)
        stands = self.runner.run(metadata.put_tag(record))
        assert (stands.digest, stands.fetched_at, stands.moving) == (digest, record.fetched_at, False)
        self.told.append(stands)
        self.last = version(stands)

    @rule(who=WHO)
    def delete(self, who: int) -> None:
        """Upstream has deleted the tag."""
        tombstone = self.runner.run(self.replicas[who].metadata.delete_tag(*KEY, self.now(who)))
        self.told.append(tombstone)
        self.last = version(tombstone)

    @rule(who=WHO)
    def read(self, who: int) -> None:
        """A client asks; what is done behind it may get its turn."""
        known = self.runner.run(self.replicas[who].tag())
        if known is not None:
            assert replace(known, moving=False) in self.told if isinstance(known, TagRecord) else known in self.told
        self.runner.run(asyncio.sleep(0))

    @rule(who=WHO, digest=st.sampled_from(DIGESTS))
    def link(self, who: int, digest: Digest) -> None:
        """A manifest names a blob."""
        self.runner.run(self.replicas[who].metadata.put_links([replace(LINK, digest=digest)]))
        self.links.add(digest)
        self.there[digest] = True

    @rule(who=WHO, digest=st.sampled_from(DIGESTS))
    def drop(self, who: int, digest: Digest) -> None:
        """Somebody deletes the blob."""
        self.runner.run(self.replicas[who].metadata.drop_link(LINK.upstream, LINK.repository, digest, self.now(who)))
        self.dropped.add(digest)
        self.there[digest] = False

    def linked(self, who: int, digest: Digest) -> bool:
        """Whether this replica says that the repository has the blob."""
        known = self.runner.run(self.replicas[who].metadata.link(LINK.upstream, LINK.repository, digest))
        return isinstance(known, Link)

    @rule()
    def remember(self) -> None:
        """Up to here the shared store has saved what it has."""
        self.before = self.shared.snapshot()

    @rule(how=st.sampled_from(["flushed", "restored", "evicted"]))
    def forget(self, how: str) -> None:
        """The shared store loses something, and nobody is told."""
        self.disturbed = True
        if how == "flushed":
            self.shared.flush()
        elif how == "restored":
            self.shared.restore(self.before)
        else:
            self.shared.tags.pop(KEY, None)

    @rule(who=WHO, calls=st.integers(0, 3), noticed=st.booleans())
    def cut_off(self, who: int, calls: int, noticed: bool) -> None:
        """A replica loses sight of the shared store, maybe in the middle of what it does next."""
        self.disturbed = True
        door = self.replicas[who].shared_door
        if noticed:
            door.shut()
        elif door.calls is None:
            door.calls = len(door.passed) + calls

    @rule(who=WHO)
    def come_back(self, who: int) -> None:
        """And sees it again; writing back has begun."""

        async def begin() -> None:
            self.replicas[who].metadata.returned()

        self.replicas[who].shared_door.open()
        self.runner.run(begin())

    @rule()
    def settle(self) -> None:
        """All is well, and each has written back."""
        for replica in self.replicas:
            replica.shared_door.open()
            self.runner.run(replica.metadata.write_back())
        self.disturbed = False
        one, other = (self.runner.run(replica.tag()) for replica in self.replicas)
        assert one == other
        self.last = version(one)
        if self.told:
            assert one is not None
            assert one.serial == max(entry.serial for entry in self.told)
        assert {link.digest for link in self.shared.links.values()} == self.links | self.dropped
        for digest in self.links | self.dropped:
            self.there[digest] = self.linked(0, digest)
            assert self.linked(1, digest) is self.there[digest]
            assert self.there[digest] or digest in self.dropped

    @precondition(lambda self: not self.disturbed)
    @invariant()
    def all_serve_what_came_last(self) -> None:
        """While nothing goes wrong. Of a confirmation, the time may be another's, whose clock is ahead."""
        for replica in self.replicas:
            assert version(self.runner.run(replica.tag())) == self.last
        for digest, there in self.there.items():
            assert [self.linked(who, digest) for who in (0, 1)] == [there, there]


def version(entry: TagEntry | None) -> tuple[int, Digest | None] | None:
    """What clients see of an entry, and what decides which is the later one."""
    return None if entry is None else (entry.serial, entry.digest if isinstance(entry, TagRecord) else None)


TestReplicas = pytest.mark.integration(Replicas.TestCase)
TestReplicas.settings = settings(
    max_examples=100, stateful_step_count=40, derandomize=True, database=None, deadline=None
)
