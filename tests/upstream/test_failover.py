"""Several endpoints, retries until a deadline, and which repositories may be asked for."""

import asyncio
from contextlib import ExitStack
from typing import Any

import pytest

from mirror.digest import Digest
from mirror.errors import (
    BlobUnknown,
    DigestMismatch,
    ManifestUnknown,
    MirrorError,
    UpstreamDenied,
    UpstreamInvalid,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from mirror.upstream.backoff import Backoff
from mirror.upstream.failover import COOL_FOR
from tests.support.faults import Fault
from tests.support.upstream import FaultyUpstream
from tests.upstream.support import BLOB, REPOSITORY, Clock, Naps, content, manifest, pulling_from, within


def mirror_and_origin(stack: ExitStack) -> tuple[FaultyUpstream, FaultyUpstream]:
    """Two registries with the same content."""
    both = stack.enter_context(FaultyUpstream()), stack.enter_context(FaultyUpstream())
    for one in both:
        one.add_manifest(REPOSITORY, manifest(), tag="v1")
        one.add_blob(REPOSITORY, BLOB)
    return both


async def test_the_first_endpoint_is_asked_and_no_other() -> None:
    with ExitStack() as stack:
        mirror, origin = mirror_and_origin(stack)
        async with pulling_from(mirror, origin) as upstream:
            await upstream.get_manifest(REPOSITORY, "v1", deadline=within())
            assert upstream.hosts == (mirror.host, origin.host)
        assert (mirror.count(), origin.count()) == (1, 0)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500),
        Fault(status=429, retry_after=3600),
        Fault(status=404),
        Fault(status=400),
        Fault(drop=True),
        Fault(html=True),
        Fault(flip_at=5),
        Fault(redirect="ftp://x/"),
    ],
)
async def test_what_a_mirror_cannot_answer_the_origin_answers(fault: Fault) -> None:
    naps = Naps()
    with ExitStack() as stack:
        mirror, origin = mirror_and_origin(stack)
        mirror.inject(fault)
        async with pulling_from(mirror, origin, wiring={"sleep": naps.sleep}) as upstream:
            assert await upstream.get_manifest(REPOSITORY, "v1", deadline=within())
            assert (await upstream.head_manifest(REPOSITORY, "v1")).digest is not None
    assert naps.taken == []


async def test_a_mirror_that_refuses_connections_is_passed_over() -> None:
    with ExitStack() as stack:
        mirror, origin = mirror_and_origin(stack)
        mirror.refuse()
        async with pulling_from(mirror, origin) as upstream:
            stream = await upstream.open_blob(REPOSITORY, Digest.of(BLOB), deadline=within())
            assert stream.endpoint == origin.host
            assert await content(stream) == BLOB


async def test_a_mirror_that_hangs_leaves_time_for_the_origin() -> None:
    with ExitStack() as stack:
        mirror, origin = mirror_and_origin(stack)
        mirror.inject(Fault(hang=True))
        async with pulling_from(mirror, origin) as upstream:
            assert (await upstream.head_manifest(REPOSITORY, "v1", deadline=within(2))).digest is not None


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refusal_is_final_wherever_it_comes_from(status: int) -> None:
    with ExitStack() as stack:
        mirror, origin = mirror_and_origin(stack)
        mirror.inject(Fault(status=status))
        async with pulling_from(mirror, origin) as upstream:
            with pytest.raises(UpstreamDenied, match=r"upstreams\.corp\.endpoints\[0\]\.credentials"):
                await upstream.get_manifest(REPOSITORY, "v1", deadline=within())
        assert origin.count() == 0


@pytest.mark.parametrize(
    ("at_the_mirror", "at_the_origin", "expected"),
    [
        (Fault(status=404), Fault(status=503), UpstreamUnavailable),
        (Fault(status=503), Fault(status=404), ManifestUnknown),
        (Fault(status=404), Fault(status=403), UpstreamDenied),
        (Fault(html=True), Fault(status=404), ManifestUnknown),
        (Fault(status=503), Fault(html=True), UpstreamInvalid),
    ],
)
async def test_the_origins_word_counts(at_the_mirror: Fault, at_the_origin: Fault, expected: type[MirrorError]) -> None:
    with ExitStack() as stack:
        mirror, origin = mirror_and_origin(stack)
        mirror.inject(at_the_mirror)
        origin.inject(at_the_origin)
        async with pulling_from(mirror, origin) as upstream:
            with pytest.raises(expected):
                await upstream.get_manifest(
                    REPOSITORY, "v1", deadline=within(0.5 if at_the_origin.status == 503 else 20)
                )


async def test_an_endpoint_that_sent_wrong_bytes_is_asked_last_for_a_while() -> None:
    clock = Clock()
    with ExitStack() as stack:
        mirror, origin = mirror_and_origin(stack)
        mirror.inject(Fault(flip_at=5), times=1)
        async with pulling_from(mirror, origin, wiring={"clock": clock}) as upstream:
            await upstream.get_manifest(REPOSITORY, "v1", deadline=clock.now + 20)
            assert (mirror.count(), origin.count()) == (1, 1)
            clock.now += COOL_FOR - 1
            await upstream.get_manifest(REPOSITORY, "v1", deadline=clock.now + 20)
            assert (mirror.count(), origin.count()) == (1, 2)
            origin.inject(Fault(status=500))
            await upstream.get_manifest(REPOSITORY, "v1", deadline=clock.now + 20)
            assert (mirror.count(), origin.count()) == (2, 3)
            clock.now += 1
            await upstream.get_manifest(REPOSITORY, "v1", deadline=clock.now + 20)
            assert (mirror.count(), origin.count()) == (3, 3)


async def test_a_cooled_down_endpoint_gives_its_blobs_to_nobody_who_can_have_them_elsewhere() -> None:
    with ExitStack() as stack:
        mirror, origin = mirror_and_origin(stack)
        async with pulling_from(mirror, origin) as upstream:
            upstream.cool_down(mirror.host)
            stream = await upstream.open_blob(REPOSITORY, Digest.of(BLOB), deadline=within())
            assert stream.endpoint == origin.host
            await stream.aclose()


# Retries.


class Time(Clock):
    """A clock that only naps move."""

    def __init__(self) -> None:
        super().__init__()
        self.naps = Naps()

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await self.naps.sleep(seconds)

    @property
    def wiring(self) -> dict[str, Any]:
        return {"clock": self, "sleep": self.sleep, "random": self.naps.random}


async def test_it_is_tried_again_until_it_works() -> None:
    time = Time()
    with FaultyUpstream() as up:
        up.add_manifest(REPOSITORY, manifest(), tag="v1")
        up.inject(Fault(status=503), times=6)
        async with pulling_from(up, wiring=time.wiring) as upstream:
            assert await upstream.get_manifest(REPOSITORY, "v1", deadline=time.now + 20)
        assert up.count() == 7
    assert time.naps.taken == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.0], abs=0.01)


def test_a_pause_lies_anywhere_up_to_its_limit() -> None:
    naps = Naps()
    backoff = Backoff(naps.random)
    naps.chance = 0.0
    assert backoff.pause() == 0.0
    naps.chance = 0.5
    assert [backoff.pause() for _ in range(6)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.5, 1.5])


async def test_a_head_is_never_asked_twice() -> None:
    with FaultyUpstream() as up:
        up.inject(Fault(status=503))
        async with pulling_from(up) as upstream:
            with pytest.raises(UpstreamUnavailable):
                await upstream.head_manifest(REPOSITORY, "v1")
        assert up.count() == 1


async def test_retries_end_at_the_deadline_with_the_last_failure() -> None:
    with FaultyUpstream() as up:
        up.inject(Fault(status=503))
        async with pulling_from(up) as upstream:
            deadline = within(0.5)
            with pytest.raises(UpstreamUnavailable, match="503"):
                await upstream.open_blob(REPOSITORY, Digest.of(BLOB), deadline=deadline)
            assert asyncio.get_running_loop().time() <= deadline + 0.1
        assert up.count() > 1


async def test_a_failure_is_not_hidden_by_the_attempt_that_the_deadline_cut_short() -> None:
    with FaultyUpstream() as up:
        up.inject(Fault(status=503), times=1)
        up.inject(Fault(hang=True), skip=1)
        async with pulling_from(up) as upstream:
            with pytest.raises(UpstreamUnavailable, match="503"):
                await upstream.get_manifest(REPOSITORY, "v1", deadline=within(0.5))
        assert up.count() == 2


async def test_a_deadline_holds_for_an_endpoint_that_hangs() -> None:
    with FaultyUpstream() as up:
        up.inject(Fault(hang=True))
        async with pulling_from(up) as upstream:
            with pytest.raises(UpstreamTimeout, match=f"{up.host} did not answer within"):
                await upstream.get_manifest(REPOSITORY, "v1", deadline=within(0.2))


@pytest.mark.parametrize("fault", [Fault(status=404), Fault(status=403), Fault(status=400), Fault(html=True)])
async def test_what_no_retry_would_change_is_not_retried(fault: Fault) -> None:
    with FaultyUpstream() as up:
        up.inject(fault)
        async with pulling_from(up) as upstream:
            with pytest.raises(MirrorError):
                await upstream.open_blob(REPOSITORY, Digest.of(BLOB), deadline=within())
        assert up.count() == 1


async def test_retry_after_is_waited_for() -> None:
    time = Time()
    with FaultyUpstream() as up:
        up.add_blob(REPOSITORY, BLOB)
        up.inject(Fault(status=429, retry_after=7), times=1)
        async with pulling_from(up, wiring=time.wiring) as upstream:
            stream = await upstream.open_blob(REPOSITORY, Digest.of(BLOB), deadline=time.now + 20)
            await stream.aclose()
    assert time.naps.taken == [7.0]


async def test_a_retry_after_beyond_the_deadline_fails_at_once() -> None:
    naps = Naps()
    with FaultyUpstream() as up:
        up.inject(Fault(status=429, retry_after=30))
        async with pulling_from(up, wiring={"sleep": naps.sleep}) as upstream:
            with pytest.raises(UpstreamUnavailable) as failed:
                await upstream.open_blob(REPOSITORY, Digest.of(BLOB), deadline=within(20))
            assert failed.value.retry_after == 30
        assert up.count() == 1
    assert naps.taken == []


async def test_who_asked_for_a_pause_is_left_alone_while_others_are_tried() -> None:
    naps = Naps()
    with ExitStack() as stack:
        mirror, origin = mirror_and_origin(stack)
        mirror.inject(Fault(status=503), times=3)
        origin.inject(Fault(status=429, retry_after=3600))
        async with pulling_from(mirror, origin, wiring={"sleep": naps.sleep}) as upstream:
            assert await upstream.get_manifest(REPOSITORY, "v1", deadline=within())
        assert (mirror.count(), origin.count()) == (4, 1)


async def test_a_blob_unknown_to_a_mirror_and_to_the_origin_is_unknown() -> None:
    with ExitStack() as stack:
        mirror, origin = mirror_and_origin(stack)
        async with pulling_from(mirror, origin) as upstream:
            with pytest.raises(BlobUnknown):
                await upstream.open_blob(REPOSITORY, Digest.of(b"other"), deadline=within())
        assert (mirror.count(), origin.count()) == (1, 1)


async def test_a_digest_mismatch_everywhere_is_told() -> None:
    with ExitStack() as stack:
        for one in (both := mirror_and_origin(stack)):
            one.inject(Fault(flip_at=5))
        async with pulling_from(*both) as upstream:
            with pytest.raises(DigestMismatch):
                await upstream.get_manifest(REPOSITORY, "v1", deadline=within())


# What may be asked for.


@pytest.mark.parametrize(
    ("allow", "inside", "outside"),
    [
        (["**"], ["a", "a/b/c"], []),
        (["*"], ["a"], ["a/b"]),
        (["team-a/**"], ["team-a/x", "team-a/x/y"], ["team-a", "team-ab/x", "x/team-a/y"]),
        (["team-*/x"], ["team-/x", "team-a/x"], ["team-a/b/x", "team-a/xy"]),
        (["**/proxy"], ["proxy", "a/proxy", "a/b/proxy"], ["aproxy", "proxy/a"]),
        (["a/**/z"], ["a/z", "a/b/z", "a/b/c/z"], ["az", "a/bz"]),
        (["a.b"], ["a.b"], ["axb"]),
        (["a", "b/*"], ["a", "b/c"], ["c", "b", "b/c/d"]),
    ],
)
async def test_repositories_are_allowed_by_patterns(allow: list[str], inside: list[str], outside: list[str]) -> None:
    with FaultyUpstream() as up:
        async with pulling_from(up, allow=allow) as upstream:
            assert [name for name in inside if not upstream.allows(name)] == []
            assert [name for name in outside if upstream.allows(name)] == []


async def test_without_patterns_every_repository_is_allowed() -> None:
    with FaultyUpstream() as up:
        async with pulling_from(up) as upstream:
            assert upstream.allows("any/thing")
