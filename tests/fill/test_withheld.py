"""No client ever holds a whole body that is not what its digest names."""

from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.errors import DigestMismatch, UpstreamInvalid, UpstreamUnavailable
from mirror.store.growing import WITHHELD
from tests.fill.source import MemorySource, Sending, Tap
from tests.fill.workers import KIB, MIB, Client, settled, some_bytes, worker
from tests.store.disk import data_in
from tests.support.waiting import eventually

CONTENT = some_bytes(MIB)
SIZE = len(CONTENT)
DIGEST = Digest.of(CONTENT)
TAMPERED = CONTENT[:1000] + b"!" + CONTENT[1001:]


async def test_the_last_64_kib_of_every_body_wait_for_the_digest(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    tap = Tap(SIZE - 1)
    source.script.append(Sending(tap=tap))
    async with worker(data_in(tmp_path), source) as one:
        fill = one.start(DIGEST, SIZE)
        whole = Client(fill.content)
        front = Client(fill.content, 0, 200 * KIB)
        back = Client(fill.content, 100 * KIB, SIZE)
        short = Client(fill.content, 10, 10 + WITHHELD)
        await eventually(lambda: fill.content.available == SIZE - 1)
        await whole.gets(SIZE - WITHHELD)
        await settled()
        assert whole.received == CONTENT[:-WITHHELD]
        assert front.received == CONTENT[: 200 * KIB - WITHHELD]
        assert back.received == CONTENT[100 * KIB : -WITHHELD]
        assert short.received == b""
        tap.open()
        assert await whole.body() == CONTENT
        assert await front.body() == CONTENT[: 200 * KIB]
        assert await back.body() == CONTENT[100 * KIB :]
        assert await short.body() == CONTENT[10 : 10 + WITHHELD]


async def test_while_the_size_is_unknown_the_last_64_kib_that_have_come_are_withheld(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    tap = Tap(200 * KIB)
    source.script.append(Sending(tap=tap, announces=None))
    async with worker(data_in(tmp_path), source) as one:
        fill = one.start(DIGEST)
        client = Client(fill.content)
        await client.gets(200 * KIB - WITHHELD)
        await settled()
        assert client.received == CONTENT[: 200 * KIB - WITHHELD]
        tap.open()
        assert await client.body() == CONTENT
        assert fill.content.size == SIZE


async def test_wrong_bytes_reach_nobody_whole_and_leave_nothing_on_the_disk(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    tap = Tap(SIZE - 1)
    source.script.append(Sending(content=TAMPERED, tap=tap))
    async with worker(data_in(tmp_path), source) as one:
        fill = one.start(DIGEST, SIZE)
        clients = [Client(fill.content, *span) for span in ((0, None), (0, 200 * KIB), (300 * KIB, SIZE), (5, 50))]
        await clients[0].gets(100 * KIB)
        tap.open()
        for client, most in zip(clients, (SIZE, 200 * KIB, SIZE - 300 * KIB, 45), strict=True):
            assert isinstance(await client.cut(), DigestMismatch)
            assert len(client.received) <= max(0, most - WITHHELD)
        await one.ended(fill)
        assert one.held(DIGEST) is None
        assert one.spools() == []
        assert not one.notes.blobs
        assert source.cooled == ["up.test"]
        assert await Client(one.start(DIGEST, SIZE).content).body() == CONTENT


async def test_wrong_bytes_that_nobody_has_seen_are_fetched_anew_from_the_next_endpoint(tmp_path: Path) -> None:
    source = MemorySource(CONTENT, hosts=("mirror.test", "origin.test"))
    source.script.append(Sending(content=TAMPERED, endpoint="mirror.test"))
    async with worker(data_in(tmp_path), source) as one:
        fill = one.start(DIGEST, SIZE)
        await fill.content.whole()
        assert await Client(fill.content).body() == CONTENT
        await one.ended(fill)
        assert one.held(DIGEST) == CONTENT
    assert source.offsets == [0, 0]
    assert source.cooled == ["mirror.test"]


async def test_an_endpoint_is_not_blamed_for_what_two_have_sent(tmp_path: Path) -> None:
    source = MemorySource(CONTENT, hosts=("mirror.test", "origin.test"))
    source.script.append(Sending(content=TAMPERED, endpoint="mirror.test", cut_at=SIZE // 2))
    source.script.append(Sending(endpoint="origin.test"))
    async with worker(data_in(tmp_path), source) as one:
        fill = one.start(DIGEST, SIZE)
        await fill.content.whole()
    assert source.offsets == [0, SIZE // 2, 0]
    assert source.cooled == []


async def test_wrong_bytes_from_everywhere_end_the_fill(tmp_path: Path) -> None:
    source = MemorySource(CONTENT, hosts=("mirror.test", "origin.test"))
    source.script.extend(Sending(content=TAMPERED) for _ in range(5))
    async with worker(data_in(tmp_path), source) as one:
        fill = one.start(DIGEST, SIZE)
        with pytest.raises(DigestMismatch):
            await fill.content.whole()
    assert source.offsets == [0, 0]


async def test_another_size_than_the_descriptor_says_is_not_believed(tmp_path: Path) -> None:
    async with worker(data_in(tmp_path), MemorySource(CONTENT)) as one:
        client = Client(one.start(DIGEST, SIZE + 1).content)
        failure = await client.cut()
        assert isinstance(failure, UpstreamInvalid)
        assert failure.detail == {"expected": SIZE + 1, "actual": SIZE}
        assert not client.received


async def test_more_bytes_than_announced_are_not_taken(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    source.script.append(Sending(content=CONTENT + b"more", announces=SIZE))
    async with worker(data_in(tmp_path), source) as one:
        client = Client(one.start(DIGEST, SIZE).content)
        assert "more than" in str(await client.cut())
        assert len(client.received) <= SIZE - WITHHELD


async def test_fewer_bytes_than_announced_are_asked_for_again(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    source.script.append(Sending(content=CONTENT[: SIZE // 2], announces=SIZE))
    async with worker(data_in(tmp_path), source) as one:
        assert await Client(one.start(DIGEST, SIZE).content).body() == CONTENT
    assert source.offsets == [0, SIZE // 2]


async def test_fewer_bytes_than_there_are_of_a_blob_of_unknown_size_are_no_whole(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    source.script.append(Sending(content=CONTENT[: SIZE // 2], announces=None))
    async with worker(data_in(tmp_path), source) as one:
        client = Client(one.start(DIGEST).content)
        assert isinstance(await client.cut(), DigestMismatch)
        assert client.received == CONTENT[: SIZE // 2 - WITHHELD]


async def test_a_range_beyond_the_end_of_what_came_is_cut(tmp_path: Path) -> None:
    """The size in a link may be a lie; a range is made out before upstream has told another one."""
    source = MemorySource(CONTENT, hosts=("a.test", "b.test"))
    tap = Tap(1)
    source.script.append(Sending(announces=SIZE + 100, content=CONTENT + bytes(100), tap=tap))
    async with worker(data_in(tmp_path), source) as one:
        fill = one.start(DIGEST)
        await eventually(lambda: fill.content.size == SIZE + 100)
        client = Client(fill.content, SIZE - 50, SIZE + 50)
        tap.open()
        assert isinstance(await client.cut(), UpstreamInvalid | UpstreamUnavailable)
        await one.ended(fill)
        assert one.held(DIGEST) == CONTENT


@pytest.mark.parametrize("size", [None, 0])
async def test_an_empty_blob_is_a_blob(tmp_path: Path, size: int | None) -> None:
    source = MemorySource(b"")
    async with worker(data_in(tmp_path), source) as one:
        fill = one.start(Digest.of(b""), size)
        assert await Client(fill.content).body() == b""
        await one.ended(fill)
        assert one.held(Digest.of(b"")) == b""


async def test_a_blob_that_is_not_empty_is_not_served_as_empty(tmp_path: Path) -> None:
    async with worker(data_in(tmp_path), MemorySource(CONTENT)) as one:
        fill = one.start(DIGEST, 0)
        assert isinstance(await Client(fill.content).cut(), UpstreamInvalid)
        await one.ended(fill)
        assert one.held(DIGEST) is None


@pytest.mark.parametrize("size", [1, 2, WITHHELD - 1, WITHHELD, WITHHELD + 1])
async def test_bodies_about_as_short_as_what_is_withheld_come_whole(tmp_path: Path, size: int) -> None:
    content = some_bytes(size)
    source = MemorySource(content)
    source.script.append(Sending(announces=None, piece=1000))
    async with worker(data_in(tmp_path), source) as one:
        assert await Client(one.start(Digest.of(content)).content).body() == content


async def test_sha512_is_held_against_its_own_digest(tmp_path: Path) -> None:
    digest = Digest.of(CONTENT, "sha512")
    source = MemorySource()
    source.contents = {digest: CONTENT}
    async with worker(data_in(tmp_path), source) as one:
        fill = one.start(digest, SIZE)
        assert await Client(fill.content).body() == CONTENT
        await one.ended(fill)
        assert one.held(digest) == CONTENT


async def test_the_first_bytes_can_be_looked_at_however_small_the_pieces_are(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    source.script.append(Sending(tap=Tap(5), piece=1))
    async with worker(data_in(tmp_path), source) as one:
        fill = one.start(DIGEST, SIZE)
        await fill.content.reached(4)
        assert fill.content.peek(4) == CONTENT[:4]
        assert fill.content.peek(100) == CONTENT[:5]
