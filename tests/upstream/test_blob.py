"""A blob on its way: whole, from an offset, cut off, stopped, longer or shorter than announced."""

from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import cast

import httpx
import pytest

from mirror.errors import (
    UpstreamInvalid,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from mirror.upstream.blob import LEAST_RATE, BlobStream
from mirror.upstream.transport import Transport
from tests.support.faults import Fault, Gate
from tests.support.upstream import FaultyUpstream
from tests.upstream.support import (
    BLOB,
    BLOB_DIGEST,
    REPOSITORY,
    Clock,
    content,
    holding,
    pulling_from,
    within,
)


async def collect(stream: BlobStream, into: bytearray) -> None:
    async for chunk in stream:
        into += chunk


async def test_a_blob_comes_whole() -> None:
    with FaultyUpstream() as up:
        holding(up)
        async with pulling_from(up) as upstream:
            stream = await upstream.open_blob(REPOSITORY, BLOB_DIGEST, deadline=within())
            assert (stream.offset, stream.size, stream.endpoint) == (0, len(BLOB), up.host)
            assert await content(stream) == BLOB
            assert await upstream.head_blob(REPOSITORY, BLOB_DIGEST, deadline=within()) == len(BLOB)
        assert up.accepted_connections == 1


async def test_a_blob_is_resumed_where_it_broke_off() -> None:
    with FaultyUpstream() as up:
        holding(up)
        async with pulling_from(up) as upstream:
            stream = await upstream.open_blob(REPOSITORY, BLOB_DIGEST, offset=100_000, deadline=within())
            assert (stream.offset, stream.size) == (100_000, len(BLOB))
            assert await content(stream) == BLOB[100_000:]
        assert up.requests[0].headers["range"] == "bytes=100000-"


async def test_an_endpoint_that_passes_over_the_range_begins_anew() -> None:
    with FaultyUpstream() as up:
        holding(up)
        up.inject(Fault(ignore_range=True))
        async with pulling_from(up) as upstream:
            stream = await upstream.open_blob(REPOSITORY, BLOB_DIGEST, offset=100_000, deadline=within())
            assert (stream.offset, stream.size) == (0, len(BLOB))
            assert await content(stream) == BLOB


async def test_a_range_that_cannot_be_had_becomes_the_whole() -> None:
    with FaultyUpstream() as up:
        holding(up)
        async with pulling_from(up) as upstream:
            stream = await upstream.open_blob(REPOSITORY, BLOB_DIGEST, offset=len(BLOB), deadline=within())
            assert (stream.offset, await content(stream)) == (0, BLOB)


@pytest.mark.parametrize("told", ["bytes 5-255999/256000", "bytes 0-1/256000", "bytes 100000-5/256000", "x", None])
async def test_a_range_that_was_not_asked_for_is_refused(told: str | None) -> None:
    with FaultyUpstream() as up:
        holding(up)
        up.inject(Fault(headers={"content-range": told}))
        async with pulling_from(up) as upstream:
            with pytest.raises(UpstreamInvalid, match="sends others"):
                await upstream.open_blob(REPOSITORY, BLOB_DIGEST, offset=100_000, deadline=within())


async def test_a_part_that_nobody_asked_for_is_refused() -> None:
    with FaultyUpstream() as up:
        holding(up)
        up.inject(Fault(status=206))
        async with pulling_from(up) as upstream:
            with pytest.raises(UpstreamInvalid):
                await upstream.open_blob(REPOSITORY, BLOB_DIGEST, deadline=within())


@pytest.mark.parametrize(
    "fault",
    [
        Fault(cut_after=70_000),
        Fault(cut_after=70_000, reset=True),
        Fault(cut_after=70_000, framing="chunked"),
        Fault(length_off_by=10),
    ],
    ids=["cut", "reset", "cut between chunks", "length too large"],
)
async def test_a_body_that_ends_early_is_an_error_after_what_came(fault: Fault) -> None:
    with FaultyUpstream() as up:
        holding(up)
        up.inject(fault)
        async with pulling_from(up) as upstream:
            stream = await upstream.open_blob(REPOSITORY, BLOB_DIGEST, deadline=within())
            came = bytearray()
            with pytest.raises(UpstreamUnavailable, match=up.host):
                await collect(stream, came)
            await stream.aclose()
            assert BLOB.startswith(bytes(came))
            assert len(came) >= (0 if fault.reset else 70_000)


async def test_a_body_that_stops_is_a_timeout_after_what_came() -> None:
    with FaultyUpstream() as up:
        holding(up)
        up.inject(Fault(stall_after=70_000))
        async with pulling_from(up, transport=Transport(idle_for=0.2)) as upstream:
            stream = await upstream.open_blob(REPOSITORY, BLOB_DIGEST, deadline=within())
            came = bytearray()
            with pytest.raises(UpstreamTimeout, match=up.host):
                await collect(stream, came)
            await stream.aclose()
            assert bytes(came) == BLOB[:70_000]


async def test_there_are_never_more_bytes_than_announced() -> None:
    with FaultyUpstream() as up:
        holding(up)
        announced = f"bytes 1000-{len(BLOB) - 1}/1500"
        up.inject(Fault(headers={"content-range": announced}))
        async with pulling_from(up) as upstream:
            stream = await upstream.open_blob(REPOSITORY, BLOB_DIGEST, offset=1000, deadline=within())
            assert await content(stream) == BLOB[1000:1500]


async def test_a_part_that_does_not_reach_the_end_is_an_error() -> None:
    with FaultyUpstream() as up:
        holding(up)
        up.inject(Fault(headers={"content-range": f"bytes 1000-{len(BLOB) - 1}/{len(BLOB) + 1}"}))
        async with pulling_from(up) as upstream:
            stream = await upstream.open_blob(REPOSITORY, BLOB_DIGEST, offset=1000, deadline=within())
            with pytest.raises(UpstreamUnavailable, match=f"{len(BLOB) + 1} bytes after {len(BLOB)}"):
                await content(stream)


@pytest.mark.parametrize("framing", ["chunked", "close"])
async def test_a_blob_may_come_without_a_length(framing: str) -> None:
    with FaultyUpstream() as up:
        holding(up)
        up.inject(Fault(framing=framing))  # type: ignore[arg-type]  # one of the three
        async with pulling_from(up) as upstream:
            stream = await upstream.open_blob(REPOSITORY, BLOB_DIGEST, deadline=within())
            assert stream.size is None
            assert await content(stream) == BLOB


async def test_an_empty_blob_is_a_blob() -> None:
    with FaultyUpstream() as up:
        digest = up.add_blob(REPOSITORY, b"")
        async with pulling_from(up) as upstream:
            stream = await upstream.open_blob(REPOSITORY, digest, deadline=within())
            assert (stream.size, await content(stream)) == (0, b"")


async def test_a_blob_that_is_left_unread_gives_its_connection_back() -> None:
    with FaultyUpstream() as up:
        digest = up.add_blob(REPOSITORY, BLOB * 40)
        async with pulling_from(up) as upstream:
            stream = await upstream.open_blob(REPOSITORY, digest, deadline=within())
            async for _ in stream:
                break
            await stream.aclose()
            await stream.aclose()
            assert len(await content(await upstream.open_blob(REPOSITORY, digest, deadline=within()))) == len(BLOB) * 40


async def test_the_first_bytes_do_not_wait_for_the_last() -> None:
    with FaultyUpstream() as up:
        holding(up)
        gate = Gate()
        up.inject(Fault(gate=gate, gate_at=1000))
        async with pulling_from(up) as upstream:
            stream = await upstream.open_blob(REPOSITORY, BLOB_DIGEST, deadline=within())
            chunks = aiter(stream)
            assert await anext(chunks) == BLOB[:1000]
            gate.release()
            assert b"".join([chunk async for chunk in chunks]) == BLOB[1000:]
            await stream.aclose()


class Trickle:
    """A response whose body comes by and by: so many bytes, each time after so many seconds of ``clock``."""

    status_code = 200
    headers: Mapping[str, str] = MappingProxyType({})

    def __init__(self, clock: Clock, *pieces: tuple[float, int]) -> None:
        self._clock = clock
        self._pieces = pieces

    async def aiter_raw(self) -> AsyncIterator[bytes]:
        for seconds, size in self._pieces:
            self._clock.now += seconds
            yield bytes(size)


def trickling(clock: Clock, *pieces: tuple[float, int]) -> BlobStream:
    response = cast(httpx.Response, Trickle(clock, *pieces))
    return BlobStream(response, endpoint="registry.example", offset=0, size=None, clock=clock)


async def test_a_body_that_trickles_is_given_up() -> None:
    stream = trickling(Clock(), *[(9.0, 100)] * 10)
    came = bytearray()
    with pytest.raises(UpstreamTimeout, match=r"registry\.example sends a blob too slowly: 400 bytes in 36 s"):
        await collect(stream, came)
    assert len(came) == 300


async def test_a_body_that_begins_fast_and_then_trickles_is_given_up() -> None:
    with pytest.raises(UpstreamTimeout, match="too slowly"):
        await collect(trickling(Clock(), (0.0, 10_000_000), (30.0, 1), *[(9.0, 1)] * 5), bytearray())


async def test_a_slow_body_is_read_to_its_end() -> None:
    came = bytearray()
    await collect(trickling(Clock(), *[(9.0, int(9.0 * LEAST_RATE))] * 100, (9.0, 1)), came)
    assert len(came) == 100 * 9 * LEAST_RATE + 1


async def test_who_reads_slowly_is_not_taken_for_a_slow_endpoint() -> None:
    clock, came = Clock(), 0
    async for chunk in trickling(clock, *[(0.1, 10)] * 100):
        clock.now += 100.0
        came += len(chunk)
    assert came == 1000
