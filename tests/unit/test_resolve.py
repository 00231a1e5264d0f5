"""Questions about tags: one for all who wait, asked by one, waited for as long as may be, and answered in any case."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from mirror import meanwhile
from mirror.cluster.alone import Alone
from mirror.digest import Digest
from mirror.errors import LeaseLost, ManifestUnknown, MirrorError, StoreError, UpstreamTimeout, UpstreamUnavailable
from mirror.freshness import Policy
from mirror.manifests import Manifests
from mirror.metadata.base import Fence, TagEntry, TagRecord, Tombstone
from mirror.oci import Manifest, Reference
from mirror.resolve import Resolver, Word
from mirror.store.generation import Generation
from mirror.suspicion import Suspicion
from mirror.tags import Tags
from mirror.upstream.answers import ManifestHead
from mirror.upstream.failover import Upstream
from tests.metadata.memory import Memory, MemoryMetadata
from tests.support.waiting import eventually

NOW = 10_000.0
REFERENCE = Reference("up", "team/plugin", tag="v1")
KEY = ("up", "team/plugin", "v1")
MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"
BODY = b"{}"
OLD = TagRecord(*KEY, Digest.of(b"old"), MEDIA_TYPE, 3, NOW - 100, serial=1)
NEW = Digest.of(BODY)


class Registry:
    """An upstream, and the manifests that come from it. ``says``: to a HEAD, ``gives``: to a GET; None is silence."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.reachable = True
        self.says: Digest | MirrorError | None = OLD.digest
        self.gives: Digest | MirrorError | None = NEW
        self.arranges = True
        self.heads = 0
        self.gets: list[str] = []

    async def head_manifest(self, repository: str, target: str, *, deadline: float) -> ManifestHead:
        self.heads += 1
        return ManifestHead(await _said(self.says), MEDIA_TYPE, 3)

    async def fetch(self, reference: Reference, target: str) -> Manifest:
        self.gets.append(target)
        return Manifest(BODY, MEDIA_TYPE, await _said(self.gives))

    async def arrange(self, reference: Reference, manifest: Manifest) -> None:
        if not self.arranges:
            await asyncio.Event().wait()

    def patience(self, upstream: str) -> float:
        return self.policy.hold_for


async def _said(what: Digest | MirrorError | None) -> Digest:
    if isinstance(what, MirrorError):
        raise what
    if what is None:
        await asyncio.Event().wait()
    assert what is not None
    return what


class Elsewhere(Alone):
    """What another replica has in its database."""

    entry: TagEntry | None = None

    async def tag(self, upstream: str, repository: str, tag: str) -> TagEntry | None:
        return self.entry


class Leases:
    """Leases that are had at once, under names that are noted; ``meanwhile`` has happened when one is."""

    def __init__(self, memory: Memory) -> None:
        self.names: list[str] = []
        self.meanwhile: Callable[[], Awaitable[object]] | None = None
        self.lost = 0
        self._memory = memory

    @asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[Fence | None]:
        self.names.append(name)
        if self.meanwhile is not None:
            await self.meanwhile()
        if self.lost:
            self.lost -= 1
            self._memory.leases[name] = "another"
        else:
            self._memory.leases[name] = "mine"
        yield Fence(name, "mine")


class Setup:
    """A resolver with all that it needs in memory."""

    def __init__(self, folder: Path, policy: Policy) -> None:
        self.memory = Memory()
        self.store = MemoryMetadata(self.memory)
        self.generation = Generation(folder / "generation")
        self.elsewhere = Elsewhere()
        self.tags = Tags(self.store, self.generation, Alone(), self.elsewhere)
        self.leases = Leases(self.memory)
        self.registry = Registry(policy)
        self.suspicion = Suspicion(asyncio.get_running_loop().time)
        self.resolver = Resolver(
            {"up": cast(Upstream, self.registry)},
            self.tags,
            cast(Manifests, self.registry),
            self.leases,
            self.suspicion,
            lambda: NOW,
        )


@asynccontextmanager
async def setup(folder: Path, known: TagEntry | None = OLD, **policy: Any) -> AsyncIterator[Setup]:
    """A resolver, whose store has one entry."""
    one = Setup(folder, Policy(**policy))
    if known is not None:
        await one.store.merge_tags([known])
    try:
        yield one
    finally:
        await one.resolver.aclose()
        one.generation.close()


async def test_a_word_that_was_given_stays() -> None:
    word = Word()
    waiting = asyncio.create_task(word.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    word.give(OLD)
    word.give()  # as when the question ends
    assert await waiting == OLD
    nothing = Word()
    nothing.give()
    assert await nothing.wait() is None


async def test_a_confirmation_is_taken_down(tmp_path: Path) -> None:
    async with setup(tmp_path) as one:
        found = await one.resolver.ask(REFERENCE, OLD)
        assert found == replace(OLD, fetched_at=NOW) == await one.store.tag(*KEY)
        assert one.leases.names == [f"tag {REFERENCE}"]
        assert one.registry.heads == 1


async def test_all_who_ask_at_once_share_a_question_and_who_asks_later_has_another(tmp_path: Path) -> None:
    async with setup(tmp_path, fresh_for=0.0) as one:
        await asyncio.gather(*(one.resolver.ask(REFERENCE, OLD) for _ in range(20)))
        assert one.registry.heads == 1
        one.resolver._now = lambda: NOW + 1
        await one.resolver.ask(REFERENCE, OLD)
        assert one.registry.heads == 2
        one.resolver._now = lambda: NOW + 2
        one.registry.says = UpstreamUnavailable("away")
        with pytest.raises(UpstreamUnavailable):
            await one.resolver.ask(REFERENCE, OLD)


async def test_who_got_the_lease_after_somebody_else_has_asked_asks_no_more(tmp_path: Path) -> None:
    async with setup(tmp_path) as one:
        theirs = replace(OLD, fetched_at=NOW - 1)
        one.leases.meanwhile = lambda: one.store.merge_tags([theirs])
        assert await one.resolver.ask(REFERENCE, OLD) == theirs
        found, joined = await one.resolver.first(REFERENCE)
        assert (found, joined) == (theirs, False)
        assert (one.registry.heads, one.registry.gets) == (0, [])


async def test_an_answer_that_came_while_the_lease_was_waited_for_is_enough_even_where_each_request_asks(
    tmp_path: Path,
) -> None:
    async with setup(tmp_path, fresh_for=0.0) as one:
        theirs = replace(OLD, fetched_at=NOW)
        one.leases.meanwhile = lambda: one.store.merge_tags([theirs])
        assert await one.resolver.ask(REFERENCE, OLD) == theirs
        assert one.registry.heads == 0


async def test_what_somebody_else_has_learnt_meanwhile_is_later_than_what_upstream_confirmed(tmp_path: Path) -> None:
    async with setup(tmp_path, fresh_for=0.0) as one:
        theirs = replace(OLD, digest=NEW, fetched_at=NOW, serial=2)

        async def moved() -> None:
            if len(one.leases.names) > 1:
                await one.store.merge_tags([theirs])

        one.leases.lost, one.leases.meanwhile = 1, moved
        assert await one.resolver.ask(REFERENCE, OLD) == theirs


async def test_a_question_that_somebody_else_took_over_is_asked_anew(tmp_path: Path) -> None:
    async with setup(tmp_path, fresh_for=0.0) as one:
        one.leases.lost = 2
        assert (await one.resolver.ask(REFERENCE, OLD)).fetched_at == NOW
        assert len(one.leases.names) == 3
        assert await one.store.tag(*KEY) == replace(OLD, fetched_at=NOW)


async def test_who_is_always_too_slow_says_so(tmp_path: Path) -> None:
    async with setup(tmp_path, None) as one:
        one.leases.lost = 100
        with pytest.raises(UpstreamTimeout, match="too slow"):
            await one.resolver.first(REFERENCE)
        assert await one.store.tag(*KEY) is None
        assert 1 < len(one.leases.names) < 10


async def test_nobody_is_asked_while_no_endpoint_is_to_be(tmp_path: Path) -> None:
    async with setup(tmp_path) as one:
        one.registry.reachable = False
        with pytest.raises(UpstreamUnavailable, match="left alone"):
            await one.resolver.ask(REFERENCE, OLD)
        assert one.leases.names == []


async def test_a_store_that_hangs_keeps_nobody_from_what_upstream_has_confirmed(tmp_path: Path) -> None:
    async with setup(tmp_path, hold_for=30.0) as one:
        hangs = asyncio.Event()

        class Hanging(MemoryMetadata):
            async def put_tag(self, record: TagRecord, fence: Fence | None = None) -> TagRecord:
                await hangs.wait()
                raise LeaseLost("it does not matter any more")

        one.tags._metadata = Hanging(one.memory)
        async with asyncio.timeout(5):
            assert await one.resolver.ask(REFERENCE, OLD) == replace(OLD, fetched_at=NOW)


async def test_what_upstream_has_confirmed_moves_no_more_also_where_that_cannot_be_noted(tmp_path: Path) -> None:
    async with setup(tmp_path) as one:

        class Failing(MemoryMetadata):
            async def put_tag(self, record: TagRecord, fence: Fence | None = None) -> TagRecord:
                raise StoreError("no space left")

        one.tags._metadata = Failing(one.memory)
        await one.store.announce_move(OLD)
        assert await one.resolver.ask(REFERENCE, OLD) == replace(OLD, fetched_at=NOW)


async def test_a_silent_upstream_is_waited_for_once_and_the_question_goes_on(tmp_path: Path) -> None:
    async with setup(tmp_path, revalidate_for=0.05) as one:
        one.registry.says = None
        with pytest.raises(UpstreamTimeout, match="revalidate_for"):
            await one.resolver.ask(REFERENCE, OLD)
        assert one.suspicion.rests_on("up")
        assert not one.resolver.begin(REFERENCE, OLD)[0].done()
        with pytest.raises(UpstreamTimeout, match="lately"):
            await one.resolver.ask(REFERENCE, OLD)
        assert one.registry.heads == 1


async def test_a_tag_that_moved_is_waited_for_until_all_that_agents_need_can_be_had(tmp_path: Path) -> None:
    async with setup(tmp_path, hold_for=0.05, revalidate_for=5.0) as one:
        one.registry.says = NEW
        one.registry.arranges = False
        with pytest.raises(UpstreamTimeout, match="do not come"):
            await one.resolver.ask(REFERENCE, OLD)
        assert await one.store.tag(*KEY) == OLD
        one.registry.arranges = True
        moved = await one.resolver.ask(REFERENCE, OLD)
        assert (moved.digest, moved.serial) == (NEW, 2)
        assert one.registry.gets == [str(NEW)] * 2


async def test_a_new_version_that_kept_clients_waiting_is_not_waited_for_by_the_next(tmp_path: Path) -> None:
    async with setup(tmp_path, hold_for=0.1, revalidate_for=0.05) as one:
        one.registry.says = NEW
        one.registry.arranges = False
        with pytest.raises(UpstreamTimeout):
            await one.resolver.ask(REFERENCE, OLD)
        await eventually(lambda: one.suspicion.rests_on(str(REFERENCE)))
        with pytest.raises(UpstreamTimeout, match="has not come since"):
            await one.resolver.ask(REFERENCE, OLD)
        one.registry.arranges = True
        task, _ = one.resolver.begin(REFERENCE, OLD)  # behind the clients' backs
        await asyncio.gather(task, return_exceptions=True)
        await one.resolver.begin(REFERENCE, OLD)[0]
        assert (await one.resolver.ask(REFERENCE, OLD)).digest == NEW


@pytest.mark.parametrize("kept", [False, True])
async def test_a_tag_that_upstream_has_deleted_is_forgotten_unless_it_is_to_be_kept(tmp_path: Path, kept: bool) -> None:
    async with setup(tmp_path, keep_deleted_tags=kept) as one:
        one.registry.says = ManifestUnknown("gone")
        with pytest.raises(ManifestUnknown):
            await one.resolver.ask(REFERENCE, OLD)
        assert isinstance(await one.store.tag(*KEY), TagRecord if kept else Tombstone)
        assert await one.tags.absent(REFERENCE, NOW) is not kept


@pytest.mark.parametrize("where", ["in the store", "elsewhere"])
@pytest.mark.parametrize("silent", [False, True])
async def test_while_upstream_does_not_answer_a_record_stands_in_wherever_it_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, silent: bool
) -> None:
    monkeypatch.setattr(meanwhile, "_LOOK_EVERY", 0.01)
    async with setup(tmp_path, OLD if where == "in the store" else None) as one:
        one.elsewhere.entry = OLD if where == "elsewhere" else None
        one.registry.gives = None if silent else UpstreamUnavailable("away")
        async with asyncio.timeout(5):
            assert await one.resolver.first(REFERENCE) == (OLD, False)
        assert await one.store.tag(*KEY) == OLD


async def test_a_record_that_is_too_old_does_not_stand_in(tmp_path: Path) -> None:
    async with setup(tmp_path, stale_if_error=50.0) as one:
        one.registry.gives = UpstreamUnavailable("away")
        with pytest.raises(UpstreamUnavailable):
            await one.resolver.first(REFERENCE)


async def test_a_record_that_is_pinned_stands_in_however_old_it_is(tmp_path: Path) -> None:
    async with setup(tmp_path, stale_if_error=50.0) as one:
        one.resolver._covers = lambda reference, digest: (reference, digest) == (REFERENCE, OLD.digest)
        one.registry.gives = UpstreamUnavailable("away")
        assert await one.resolver.first(REFERENCE) == (OLD, False)


async def test_a_tag_that_upstream_does_not_have_is_absent_for_a_while(tmp_path: Path) -> None:
    async with setup(tmp_path, None) as one:
        one.elsewhere.entry = OLD
        one.registry.gives = ManifestUnknown("not there")
        with pytest.raises(ManifestUnknown):
            await one.resolver.first(REFERENCE)
        assert await one.tags.absent(REFERENCE, NOW)


async def test_another_replica_is_asked_for_a_tag_only_while_upstream_is_not(tmp_path: Path) -> None:
    async with setup(tmp_path, None) as one:
        one.elsewhere.entry = OLD
        one.registry.gives = None
        first = asyncio.create_task(one.resolver.first(REFERENCE))
        await eventually(lambda: one.registry.gets)
        assert await one.resolver.elsewhere(REFERENCE) is None
        first.cancel()
        await one.resolver.aclose()
        await eventually(lambda: not one.resolver._flights.under_way(("first", REFERENCE)))
        assert await one.resolver.elsewhere(REFERENCE) == OLD
