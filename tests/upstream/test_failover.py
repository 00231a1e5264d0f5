"""Several endpoints, retries until a deadline, and which repositories may be asked for."""

import asyncio
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from mirror.digest import Digest
from mirror.errors import (
    BlobUnknown,
    DigestMismatch,
    ManifestUnknown,
    MirrorError,
    UpstreamCutShort,
    UpstreamDenied,
    UpstreamInvalid,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from mirror.store.board import Board
from mirror.upstream.backoff import Backoff
from mirror.upstream.breaker import FIRST_REST, OPENS_AFTER, PRESSING_EVERY, State
from mirror.upstream.failover import COOL_FOR, ENDS_THERE, Upstream
from mirror.upstream.rounds import OutOfTime
from tests.support.faults import Fault, Gate
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually
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


# Who is left alone.


async def failing_heads(upstream: Upstream, times: int = OPENS_AFTER) -> None:
    for _ in range(times):
        with pytest.raises(MirrorError):
            await upstream.head_manifest(REPOSITORY, "v1")


async def test_after_five_failures_nobody_waits_and_nothing_is_sent_until_a_probe_may_be() -> None:
    time = Time()
    with FaultyUpstream() as up:
        up.add_manifest(REPOSITORY, manifest(), tag="v1")
        fault = up.inject(Fault(status=503))
        async with pulling_from(up, wiring=time.wiring) as upstream:
            await failing_heads(upstream)
            assert up.count() == OPENS_AFTER
            assert not upstream.reachable
            with pytest.raises(UpstreamUnavailable) as failed:
                await upstream.head_manifest(REPOSITORY, "v1")
            assert f"{up.host} failed 5 times in a row and is asked again in 10 s" in failed.value.message
            assert f"{up.host} answers 503" in failed.value.message
            assert failed.value.retry_after == 10
            time.now += FIRST_REST - 0.001
            await failing_heads(upstream)
            assert up.count() == OPENS_AFTER

            time.now += 0.001
            assert upstream.reachable
            await failing_heads(upstream)
            assert up.count() == OPENS_AFTER + 1, "one probe, and twice the time"
            time.now += FIRST_REST * 2
            fault.remove()
            await upstream.head_manifest(REPOSITORY, "v1")
            await upstream.head_manifest(REPOSITORY, "v1")
            assert up.count() == OPENS_AFTER + 3
            assert upstream.reachable


async def test_an_endpoint_that_is_left_alone_costs_the_next_one_no_time() -> None:
    time = Time()
    with ExitStack() as stack:
        mirror, origin = mirror_and_origin(stack)
        mirror.inject(Fault(drop=True))
        async with pulling_from(mirror, origin, wiring=time.wiring) as upstream:
            for _ in range(OPENS_AFTER + 3):
                await upstream.head_manifest(REPOSITORY, "v1")
            assert (mirror.count(), origin.count()) == (OPENS_AFTER, OPENS_AFTER + 3)
            assert upstream.reachable


async def test_without_the_origins_word_there_is_none() -> None:
    time = Time()
    with ExitStack() as stack:
        mirror, origin = mirror_and_origin(stack)
        origin.inject(Fault(status=500))
        mirror.inject(Fault(status=404))
        async with pulling_from(mirror, origin, wiring=time.wiring) as upstream:
            await failing_heads(upstream)
            with pytest.raises(UpstreamUnavailable, match=f"{origin.host} failed 5 times in a row"):
                await upstream.head_manifest(REPOSITORY, "v1")


@pytest.mark.parametrize(
    ("fault", "counts"),
    [
        (Fault(status=500), True),
        (Fault(status=504), True),
        (Fault(drop=True), True),
        (Fault(status=429), True),
        (Fault(status=429, retry_after=0), False),
        (Fault(status=404), False),
        (Fault(status=401), False),
        (Fault(status=403), False),
        (Fault(status=400), False),
        (Fault(status=408), False),
        (Fault(html=True, headers={"docker-content-digest": None}), False),
    ],
)
async def test_what_counts_as_a_failure(fault: Fault, counts: bool) -> None:
    with FaultyUpstream() as up:
        up.add_manifest(REPOSITORY, manifest(), tag="v1")
        up.inject(fault)
        async with pulling_from(up) as upstream:
            await failing_heads(upstream, OPENS_AFTER + 1)
            (state,) = upstream.endpoints_state()
            assert (state.breaker is State.OPEN) == counts
            assert up.host in state.last_error or not counts


async def test_connections_that_are_refused_count() -> None:
    with FaultyUpstream() as up:
        up.refuse()
        async with pulling_from(up) as upstream:
            await failing_heads(upstream)
            assert not upstream.reachable
            with pytest.raises(UpstreamUnavailable, match="refuses connections"):
                await upstream.head_manifest(REPOSITORY, "v1")


async def test_a_deadline_that_left_an_endpoint_no_time_is_not_held_against_it() -> None:
    with FaultyUpstream() as up:
        up.inject(Fault(hang=True))
        async with pulling_from(up) as upstream:
            for _ in range(OPENS_AFTER + 1):
                with pytest.raises(UpstreamTimeout):
                    await upstream.head_manifest(REPOSITORY, "v1", deadline=within(0.02))
            assert upstream.reachable


async def test_a_silence_of_a_second_is() -> None:
    with FaultyUpstream() as up:
        up.inject(Fault(hang=True))
        async with pulling_from(up) as upstream:
            heads = [upstream.head_manifest(REPOSITORY, "v1", deadline=within(1.5)) for _ in range(OPENS_AFTER)]
            failures = await asyncio.gather(*heads, return_exceptions=True)
            assert {type(failure) for failure in failures} == {OutOfTime}
            assert not upstream.reachable


async def test_who_waits_for_what_is_not_held_gets_it_soon_after_upstream_is_back() -> None:
    time = Time()
    began = time.now
    with FaultyUpstream() as up:
        up.add_manifest(REPOSITORY, manifest(), tag="v1")
        fault = up.inject(Fault(status=503))

        async def sleep(seconds: float) -> None:
            await time.sleep(seconds)
            if time.now > began + 5:
                fault.remove()

        async with pulling_from(up, wiring={**time.wiring, "sleep": sleep}) as upstream:
            await failing_heads(upstream)
            assert await upstream.get_manifest(REPOSITORY, "v1", deadline=began + 9)
            assert time.now < began + 9, "before the ten seconds of the breaker are over"
            assert up.count() - OPENS_AFTER <= (time.now - began) / PRESSING_EVERY + 1
            assert upstream.reachable


async def test_those_who_wait_send_one_probe_at_a_time_between_them() -> None:
    clock, naps, gate = Clock(), Naps(), Gate()
    with FaultyUpstream() as up:
        up.add_manifest(REPOSITORY, manifest(), tag="v1")
        fault = up.inject(Fault(status=503))
        wiring = {"clock": clock, "sleep": naps.sleep, "random": naps.random}
        async with pulling_from(up, wiring=wiring) as upstream:
            await failing_heads(upstream)
            fault.remove()
            up.inject(Fault(hold=gate))
            clock.now += PRESSING_EVERY
            pulls = [
                asyncio.create_task(upstream.get_manifest(REPOSITORY, "v1", deadline=clock.now + 5)) for _ in range(20)
            ]
            await gate.reached()
            await eventually(lambda: len(naps.taken) > 100, what="that each has looked again")
            assert up.count() == OPENS_AFTER + 1
            gate.release()
            assert len(await asyncio.gather(*pulls)) == 20
    assert set(naps.taken) == {0.25}, "looking costs nothing, and is not done less and less often"


async def test_a_body_that_ends_at_the_same_byte_is_known_though_nobody_is_asked_in_between() -> None:
    time = Time()
    with FaultyUpstream() as up:
        up.add_manifest(REPOSITORY, manifest(), tag="v1")
        up.inject(Fault(status=500), method="HEAD")
        up.inject(Fault(cut_after=5), method="GET")
        async with pulling_from(up, wiring=time.wiring) as upstream:
            await failing_heads(upstream, OPENS_AFTER - 1)
            with pytest.raises(UpstreamInvalid, match="time and again"):
                await upstream.get_manifest(REPOSITORY, "v1", deadline=time.now + 20)
        assert up.count(method="GET") == ENDS_THERE
    assert 0.25 in time.naps.taken


async def test_a_probe_that_is_stopped_leaves_its_place_to_another() -> None:
    time = Time()
    gate = Gate()
    with FaultyUpstream() as up:
        up.add_manifest(REPOSITORY, manifest(), tag="v1")
        fault = up.inject(Fault(status=503))
        async with pulling_from(up, wiring=time.wiring) as upstream:
            await failing_heads(upstream)
            fault.remove()
            time.now += FIRST_REST
            with up.inject(Fault(hold=gate)):
                probe = asyncio.create_task(upstream.head_manifest(REPOSITORY, "v1"))
                await gate.reached()
                assert not upstream.reachable
                probe.cancel()
                await asyncio.gather(probe, return_exceptions=True)
            assert upstream.reachable
            gate.release()
            await upstream.head_manifest(REPOSITORY, "v1")


async def test_what_one_worker_has_found_out_all_know(tmp_path: Path) -> None:
    time = Time()
    boards = [Board(tmp_path / "board") for _ in range(2)]
    with ExitStack() as stack:
        mirror, origin = mirror_and_origin(stack)
        async with (
            pulling_from(mirror, origin, wiring={**time.wiring, "board": boards[0]}) as one,
            pulling_from(mirror, origin, wiring={**time.wiring, "board": boards[1]}) as other,
        ):
            mirror.inject(Fault(status=500))
            await failing_heads_at_the_mirror(one)
            asked = mirror.count()
            await other.head_manifest(REPOSITORY, "v1")
            assert mirror.count() == asked
            assert other.endpoints_state() == one.endpoints_state()
            assert "answers 500" in other.endpoints_state()[0].last_error

            mirror.clear()
            time.now += FIRST_REST
            await other.head_manifest(REPOSITORY, "v1")
            assert one.endpoints_state()[0].breaker is State.CLOSED

            other.cool_down(mirror.host)
            asked = mirror.count()
            await one.head_manifest(REPOSITORY, "v1")
            assert mirror.count() == asked
    for board in boards:
        board.close()


async def failing_heads_at_the_mirror(upstream: Upstream) -> None:
    for _ in range(OPENS_AFTER):
        await upstream.head_manifest(REPOSITORY, "v1")


async def test_who_asked_to_be_left_alone_is_so_by_all_operations_but_no_longer_than_clients_wait() -> None:
    time = Time()
    with FaultyUpstream() as up:
        up.add_manifest(REPOSITORY, manifest(), tag="v1")
        up.inject(Fault(status=429, retry_after=3600), times=1)
        async with pulling_from(up, wiring=time.wiring) as upstream:
            await failing_heads(upstream, 1)
            with pytest.raises(UpstreamUnavailable, match=f"{up.host} is left alone for another 25 s") as failed:
                await upstream.get_manifest(REPOSITORY, "v1", deadline=time.now + 20)
            assert failed.value.retry_after == upstream.policy.hold_for
            assert not upstream.reachable
            assert up.count() == 1
            time.now += 10
            assert await upstream.get_manifest(REPOSITORY, "v1", deadline=time.now + 20)
    assert time.naps.taken == [15.0]


# Cuts.


async def test_after_a_cut_another_endpoint_is_asked_for_the_rest() -> None:
    with ExitStack() as stack:
        mirror, origin = mirror_and_origin(stack)
        mirror.inject(Fault(cut_after=1000))
        async with pulling_from(mirror, origin) as upstream:
            with pytest.raises(UpstreamCutShort):
                await content(await upstream.open_blob(REPOSITORY, Digest.of(BLOB), deadline=within()))
            stream = await upstream.open_blob(REPOSITORY, Digest.of(BLOB), offset=1000, deadline=within())
            assert (stream.endpoint, stream.offset) == (origin.host, 1000)
            assert await content(stream) == BLOB[1000:]
            await upstream.get_manifest(REPOSITORY, "v1", deadline=within())
        assert mirror.count(path="/manifests/") == 1, "manifests are asked for as ever"


async def test_when_both_cut_they_take_turns() -> None:
    with ExitStack() as stack:
        both = mirror_and_origin(stack)
        for one in both:
            one.inject(Fault(cut_after=1000))
        async with pulling_from(*both) as upstream:
            endpoints = []
            for number in range(6):
                stream = await upstream.open_blob(REPOSITORY, Digest.of(BLOB), offset=number * 1000, deadline=within())
                endpoints.append(stream.endpoint)
                with pytest.raises(UpstreamCutShort):
                    await content(stream)
    assert endpoints == [one.host for one in both] * 3


async def test_one_that_cuts_again_and_again_is_asked_on_where_there_is_no_other() -> None:
    with FaultyUpstream() as up:
        up.add_blob(REPOSITORY, BLOB)
        up.inject(Fault(cut_after=20_000))
        async with pulling_from(up) as upstream:
            got = b""
            while len(got) < len(BLOB):
                stream = await upstream.open_blob(REPOSITORY, Digest.of(BLOB), offset=len(got), deadline=within())
                with suppress(UpstreamCutShort):
                    async for chunk in stream:
                        got += chunk
                await stream.aclose()
            assert got == BLOB
            assert upstream.reachable


# Rate limits.

DOCKER = {"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "9;w=21600"}


async def test_with_little_left_of_a_limit_what_can_wait_waits_and_pulls_go_on() -> None:
    time = Time()
    with FaultyUpstream() as up:
        up.add_manifest(REPOSITORY, manifest(), tag="v1")
        up.add_blob(REPOSITORY, BLOB)
        limit = up.inject(Fault(headers=DOCKER))
        async with pulling_from(up, wiring=time.wiring) as upstream:
            await upstream.head_manifest(REPOSITORY, "v1")
            with pytest.raises(UpstreamUnavailable, match=r"has 9% of its rate limit left"):
                await upstream.head_manifest(REPOSITORY, "v1")
            assert up.count() == 1
            assert upstream.reachable
            assert upstream.endpoints_state()[0].rate_limit == pytest.approx(0.09)
            await upstream.head_manifest(REPOSITORY, "v1", yielding=False)
            await upstream.get_manifest(REPOSITORY, "v1", deadline=time.now + 20)
            await (await upstream.open_blob(REPOSITORY, Digest.of(BLOB), deadline=time.now + 20)).aclose()
            assert up.count() == 4

            limit.remove()
            with up.inject(Fault(headers={**DOCKER, "ratelimit-remaining": "10;w=21600"})):
                await upstream.get_manifest(REPOSITORY, "v1", deadline=time.now + 20)
            await upstream.head_manifest(REPOSITORY, "v1")
            assert up.count() == 6


async def test_when_the_window_has_passed_it_is_asked_again() -> None:
    time = Time()
    with FaultyUpstream() as up:
        up.add_manifest(REPOSITORY, manifest(), tag="v1")
        up.inject(Fault(headers={"ratelimit": "limit=100, remaining=1, reset=30"}), times=1)
        async with pulling_from(up, wiring=time.wiring) as upstream:
            await upstream.head_manifest(REPOSITORY, "v1")
            time.now += 29
            with pytest.raises(UpstreamUnavailable):
                await upstream.head_manifest(REPOSITORY, "v1")
            time.now += 1
            await upstream.head_manifest(REPOSITORY, "v1")
            assert upstream.endpoints_state()[0].rate_limit is None


async def test_an_endpoint_with_enough_left_answers_for_one_that_has_little() -> None:
    with ExitStack() as stack:
        mirror, origin = mirror_and_origin(stack)
        mirror.inject(Fault(headers=DOCKER))
        async with pulling_from(mirror, origin) as upstream:
            for _ in range(3):
                await upstream.head_manifest(REPOSITORY, "v1")
        assert (mirror.count(), origin.count()) == (1, 2)


# How many at a time.


async def test_no_more_than_max_requests_are_under_way_and_a_blob_is_until_it_is_closed() -> None:
    gate = Gate()
    with FaultyUpstream() as up:
        up.add_manifest(REPOSITORY, manifest(), tag="v1")
        up.add_blob(REPOSITORY, BLOB)
        async with pulling_from(up, max_requests=3) as upstream:
            stream = await upstream.open_blob(REPOSITORY, Digest.of(BLOB), deadline=within())
            up.inject(Fault(hold=gate), path="/manifests/")
            pulls = [asyncio.create_task(upstream.get_manifest(REPOSITORY, "v1", deadline=within())) for _ in range(10)]
            await gate.reached(2)
            assert up.count(path="/manifests/") == 2
            await stream.aclose()
            await gate.reached(3)
            await stream.aclose()
            assert up.count(path="/manifests/") == 3
            gate.release()
            await asyncio.gather(*pulls)
        assert up.count(path="/manifests/") == 10


async def test_who_waits_in_vain_for_others_hears_which_setting_it_is() -> None:
    gate = Gate()
    with FaultyUpstream() as up:
        up.add_manifest(REPOSITORY, manifest(), tag="v1")
        up.inject(Fault(hold=gate))
        async with pulling_from(up, max_requests=1) as upstream:
            first = asyncio.create_task(upstream.get_manifest(REPOSITORY, "v1", deadline=within()))
            await gate.reached()
            with pytest.raises(
                UpstreamTimeout, match=r"1 requests are under way at corp.*upstreams\.corp\.max_requests"
            ):
                await upstream.get_manifest(REPOSITORY, "v1", deadline=within(0.1))
            assert up.count() == 1
            gate.release()
            await first


async def test_questions_that_fail_or_are_stopped_give_their_place_back() -> None:
    gate = Gate()
    with FaultyUpstream() as up:
        up.add_manifest(REPOSITORY, manifest(), tag="v1")
        up.inject(Fault(status=400), times=6)  # three times HEAD, then GET
        async with pulling_from(up, max_requests=1) as upstream:
            await failing_heads(upstream, 3)
            with up.inject(Fault(hold=gate)):
                stopped = asyncio.create_task(upstream.get_manifest(REPOSITORY, "v1", deadline=within()))
                await gate.reached()
                stopped.cancel()
                await asyncio.gather(stopped, return_exceptions=True)
            assert await upstream.get_manifest(REPOSITORY, "v1", deadline=within())
            gate.release()


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
