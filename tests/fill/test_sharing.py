"""One download for all who wait, which belongs to none of them."""

import asyncio
from pathlib import Path

import blake3

from mirror.digest import Digest
from mirror.errors import BlobUnknown, StoreError
from mirror.metadata.base import BlobRecord
from mirror.metadata.sqlite import SqliteMetadata
from mirror.oci import Reference
from tests.fill.source import MemorySource, Sending, Tap
from tests.fill.workers import KIB, MIB, REPOSITORY, Client, Notes, settled, some_bytes, worker
from tests.store.disk import data_in
from tests.support.waiting import eventually

CONTENT = some_bytes(2 * MIB)
DIGEST = Digest.of(CONTENT)


async def test_two_hundred_clients_cost_one_get_and_all_get_the_exact_bytes(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    async with worker(data_in(tmp_path), source) as one:
        clients = [Client(one.start(DIGEST, len(CONTENT)).content) for _ in range(200)]
        assert all([await client.body() == CONTENT for client in clients])
        await eventually(lambda: one.held(DIGEST) == CONTENT)
    assert source.offsets == [0]
    assert all(stream.closed for stream in source.streams)


async def test_a_client_that_comes_late_reads_from_the_first_byte(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    tap = Tap(MIB)
    source.script.append(Sending(tap=tap))
    async with worker(data_in(tmp_path), source) as one:
        first = Client(one.start(DIGEST, len(CONTENT)).content)
        await first.gets(MIB)
        late = Client(one.start(DIGEST, len(CONTENT)).content)
        await late.gets(MIB)
        tap.open()
        assert await late.body() == await first.body() == CONTENT
    assert source.offsets == [0]


async def test_bytes_reach_a_client_while_the_rest_has_not_come(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    source.script.append(Sending(tap=Tap(1), piece=1))
    async with worker(data_in(tmp_path), source) as one:
        client = Client(one.start(DIGEST, len(CONTENT)).content)
        await client.gets(1)
        assert client.received == CONTENT[:1]


async def test_a_disconnect_does_not_stop_the_fill(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    tap = Tap(MIB)
    source.script.append(Sending(tap=tap))
    async with worker(data_in(tmp_path), source) as one:
        fill = one.start(DIGEST, len(CONTENT))
        leaving, staying = Client(fill.content), Client(fill.content)
        await leaving.gets(MIB)
        leaving.leave()
        tap.open()
        assert await staying.body() == CONTENT
        await one.ended(fill)
        assert one.held(DIGEST) == CONTENT
    assert source.offsets == [0]


async def test_a_fill_goes_on_when_nobody_waits_for_it(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    tap = Tap(MIB)
    source.script.append(Sending(tap=tap))
    async with worker(data_in(tmp_path), source) as one:
        fill = one.start(DIGEST, len(CONTENT))
        only = Client(fill.content)
        await only.gets(MIB)
        only.leave()
        await eventually(lambda: fill.content.waiters == 0)
        tap.open()
        await one.ended(fill)
        assert one.held(DIGEST) == CONTENT


async def test_a_client_that_stands_still_slows_neither_the_fill_nor_the_others(tmp_path: Path) -> None:
    content = some_bytes(8 * MIB)
    async with worker(data_in(tmp_path), MemorySource(content)) as one:
        fill = one.start(Digest.of(content), len(content))
        slow, fast = Client(fill.content, paused=True), Client(fill.content)
        assert await fast.body() == content
        await one.ended(fill)
        assert 0 < len(slow.received) < MIB
        slow.resume()
        assert await slow.body() == content


async def test_a_client_that_begins_to_read_after_the_end_of_the_fill_that_it_joined_gets_the_bytes(
    tmp_path: Path,
) -> None:
    async with worker(data_in(tmp_path), MemorySource(CONTENT)) as one:
        fill = one.start(DIGEST, len(CONTENT))
        await one.ended(fill)
        assert await Client(fill.content).body() == CONTENT
        assert await Client(fill.content, MIB, MIB + 10).body() == CONTENT[MIB : MIB + 10]


async def test_a_range_waits_for_its_bytes(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    tap = Tap(100 * KIB)
    source.script.append(Sending(tap=tap))
    async with worker(data_in(tmp_path), source) as one:
        fill = one.start(DIGEST, len(CONTENT))
        middle = Client(fill.content, MIB, MIB + 200 * KIB)
        await eventually(lambda: fill.content.available == 100 * KIB)
        await settled()
        assert not middle.received
        tap.open(MIB + KIB)
        await middle.gets(KIB)
        tap.open()
        assert await middle.body() == CONTENT[MIB : MIB + 200 * KIB]


async def test_what_was_filled_is_noted_with_its_blake3(tmp_path: Path) -> None:
    metadata = SqliteMetadata.open(tmp_path / "metadata.sqlite")
    async with worker(data_in(tmp_path / "data"), MemorySource(CONTENT), metadata) as one:
        await one.ended(one.start(DIGEST, len(CONTENT)))
        noted = await metadata.blob(DIGEST)
        assert isinstance(noted, BlobRecord)
        assert (noted.size, noted.blake3) == (len(CONTENT), blake3.blake3(CONTENT).hexdigest())
    await metadata.aclose()


async def test_a_database_that_fails_costs_no_client_a_byte(tmp_path: Path) -> None:
    class Broken(Notes):
        async def put_blob(self, record: BlobRecord) -> None:
            raise StoreError("no database")

    async with worker(data_in(tmp_path), MemorySource(CONTENT), Broken()) as one:  # type: ignore[arg-type] # part of it
        fill = one.start(DIGEST, len(CONTENT))
        assert await Client(fill.content).body() == CONTENT
        await one.ended(fill)
        assert one.held(DIGEST) == CONTENT


async def test_a_fill_that_fails_before_anybody_waits_is_no_error_of_the_loop_and_can_be_tried_again(
    tmp_path: Path,
) -> None:
    source = MemorySource(CONTENT)
    source.script.append(Sending(refuses=BlobUnknown("gone")))
    async with worker(data_in(tmp_path), source) as one:
        failed = one.start(DIGEST, len(CONTENT))
        await one.ended(failed)
        assert isinstance(await Client(failed.content).cut(), BlobUnknown)
        again = one.start(DIGEST, len(CONTENT))
        assert again is not failed
        assert await Client(again.content).body() == CONTENT
        await one.ended(again)
        assert one.spools() == []


async def test_a_stop_leaves_what_has_come_for_the_next_start(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    source.script.append(Sending(tap=Tap(MIB)))
    directory = data_in(tmp_path)
    async with worker(directory, source) as one:
        fill = one.start(DIGEST, len(CONTENT))
        client = Client(fill.content)
        await client.gets(MIB)
    assert "stopping" in str(await client.cut())
    async with worker(directory, source) as two:
        assert await Client(two.start(DIGEST, len(CONTENT)).content).body() == CONTENT
    assert source.offsets == [0, MIB]


async def test_a_stop_reaches_the_clients_of_a_fill_that_had_no_time_to_begin(tmp_path: Path) -> None:
    async with worker(data_in(tmp_path), MemorySource(CONTENT)) as one:
        client = Client(one.start(DIGEST, len(CONTENT)).content)
    assert "stopping" in str(await asyncio.wait_for(client.cut(), 5))


async def test_what_one_repository_fails_to_give_is_fetched_from_the_next_that_was_asked_for_it(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    source.lacking.add("other/repository")
    elsewhere = Reference("up", "other/repository", tag="v1")
    async with worker(data_in(tmp_path), source) as one:
        first = one.start(DIGEST, len(CONTENT), origin=elsewhere)
        assert one.start(DIGEST, len(CONTENT), origin=REPOSITORY) is first
        assert await Client(first.content).body() == CONTENT
    assert [asked.repository for asked in source.gets] == ["other/repository", "team/filter"]
    assert source.cooled == []


async def test_the_next_repository_gives_the_rest_of_what_the_first_has_begun(tmp_path: Path) -> None:
    source = MemorySource(CONTENT)
    half = len(CONTENT) // 2
    source.script.append(Sending(cut_at=half))
    source.script.append(Sending(refuses=BlobUnknown("gone")))
    async with worker(data_in(tmp_path), source) as one:
        fill = one.start(DIGEST, len(CONTENT), origin=Reference("up", "other/repository", tag="v1"))
        one.start(DIGEST, len(CONTENT), origin=REPOSITORY)
        assert await Client(fill.content).body() == CONTENT
    assert [(asked.repository, asked.offset) for asked in source.gets] == [
        ("other/repository", 0),
        ("other/repository", half),
        ("team/filter", half),
    ]
