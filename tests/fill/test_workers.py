"""Several workers on one disk: one downloads, the others follow its file, and one of them takes its place."""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.errors import DigestMismatch, UpstreamDenied
from mirror.store import spool
from mirror.store.blobs import BlobStore
from mirror.store.growing import WITHHELD
from mirror.store.spool import Spool, Standing
from tests.fill.source import MemorySource, Sending, Tap
from tests.fill.test_disk import full_from
from tests.fill.workers import KIB, MIB, Client, settled, some_bytes, worker
from tests.store.disk import data_in
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
CONTENT = some_bytes(2 * MIB)
SIZE = len(CONTENT)
DIGEST = Digest.of(CONTENT)


@contextlib.contextmanager
def a_leader(folder: Path, upto: int) -> Iterator[subprocess.Popen[bytes]]:
    """Another process, which has filled so much and stands still."""
    command = [sys.executable, "-m", "tests.fill.leader", str(folder), str(SIZE), str(upto)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"there\n"
            yield process
        finally:
            process.kill()


async def test_two_workers_cost_one_get_and_the_clients_of_both_get_the_bytes_as_they_come(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    ours, theirs = MemorySource(CONTENT), MemorySource(CONTENT)
    ours.script.append(Sending(tap=(tap := Tap(MIB))))
    async with worker(directory, ours) as leader, worker(directory, theirs) as follower:
        leading = leader.start(DIGEST, SIZE)
        await eventually(lambda: leading.content.available == MIB)
        following = follower.start(DIGEST, SIZE)
        clients = [Client(fill.content) for fill in (leading, following) for _ in range(20)]
        middle = Client(following.content, MIB - KIB, MIB + 200 * KIB)
        for client in clients:
            await client.gets(MIB)
        tap.open()
        assert all([await client.body() == CONTENT for client in clients])
        assert await middle.body() == CONTENT[MIB - KIB : MIB + 200 * KIB]
        assert follower.held(DIGEST) == CONTENT
    assert (ours.offsets, theirs.offsets) == ([0], [])


async def test_a_client_of_a_follower_that_waits_for_the_whole_gets_it(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    ours = MemorySource(CONTENT)
    ours.script.append(Sending(tap=(tap := Tap(MIB))))
    async with worker(directory, ours) as leader, worker(directory, MemorySource(CONTENT)) as follower:
        leading = leader.start(DIGEST, SIZE)
        await eventually(lambda: leading.content.available == MIB)
        following = follower.start(DIGEST, SIZE)

        async def archive() -> bytes:
            await following.content.whole()
            await settled()  # the status line is sent
            return await Client(following.content).body()

        reading = asyncio.create_task(archive())
        await eventually(lambda: following.content.available == MIB)
        tap.open()
        assert await reading == CONTENT


async def test_a_follower_takes_what_was_committed_since_it_was_asked(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    source = MemorySource(CONTENT)
    async with worker(directory, MemorySource(CONTENT)) as first, worker(directory, source) as second:
        await first.ended(first.start(DIGEST, SIZE))
        assert await Client(second.start(DIGEST, SIZE).content).body() == CONTENT
    assert source.offsets == []


async def test_when_the_leader_fails_a_follower_goes_on_from_the_bytes_that_are_there(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    ours, theirs = MemorySource(CONTENT), MemorySource(CONTENT)
    ours.script.append(Sending(tap=(tap := Tap(MIB)), cut_at=MIB + KIB))
    ours.script.append(Sending(refuses=UpstreamDenied("no")))
    async with worker(directory, ours) as leader, worker(directory, theirs) as follower:
        leading = leader.start(DIGEST, SIZE)
        await eventually(lambda: leading.content.available == MIB)
        following = follower.start(DIGEST, SIZE)
        client = Client(following.content)
        await client.gets(MIB)
        tap.open()
        assert await client.body() == CONTENT
        assert isinstance(await Client(leading.content).cut(), UpstreamDenied)
    assert theirs.offsets == [MIB + KIB]


async def test_only_one_of_many_followers_takes_over(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    ours, theirs = MemorySource(CONTENT), MemorySource(CONTENT)
    ours.script.append(Sending(tap=(tap := Tap(MIB)), cut_at=MIB + 1))
    ours.script.append(Sending(refuses=UpstreamDenied("no")))
    async with (
        worker(directory, ours) as leader,
        worker(directory, theirs) as one,
        worker(directory, theirs) as two,
        worker(directory, theirs) as three,
    ):
        leading = leader.start(DIGEST, SIZE)
        await eventually(lambda: leading.content.available == MIB)
        fills = [follower.start(DIGEST, SIZE) for follower in (one, two, three)]
        clients = [Client(fill.content) for fill in fills for _ in range(3)]
        await asyncio.gather(*(client.gets(MIB) for client in clients))
        tap.open()
        assert all([await client.body() == CONTENT for client in clients])
    assert theirs.offsets == [MIB + 1]


@pytest.mark.parametrize("upto", [1, MIB + 12345])
async def test_when_the_leader_is_killed_a_follower_goes_on_from_the_bytes_that_are_there(
    tmp_path: Path, upto: int
) -> None:
    directory = data_in(tmp_path)
    with a_leader(tmp_path, upto) as leader:
        source = MemorySource(CONTENT)
        async with worker(directory, source) as follower:
            fill = follower.start(DIGEST, SIZE)
            client = Client(fill.content)
            await client.gets(upto)
            assert source.gets == []
            leader.kill()
            assert await asyncio.wait_for(client.body(), 5) == CONTENT
            await follower.ended(fill)
            assert follower.held(DIGEST) == CONTENT
            assert follower.spools() == []
    assert source.offsets == [upto]


async def test_patience_does_not_run_out_while_the_leader_gets_bytes(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    ours, theirs = MemorySource(CONTENT), MemorySource(CONTENT)
    ours.script.append(Sending(tap=(tap := Tap(MIB)), cut_at=2 * MIB - 1))
    ours.script.append(Sending(refuses=UpstreamDenied("no")))
    async with worker(directory, ours) as leader, worker(directory, theirs) as follower:
        leading = leader.start(DIGEST, SIZE)
        await eventually(lambda: leading.content.available == MIB)
        client = Client(follower.start(DIGEST, SIZE, patience=0.3).content)
        await client.gets(MIB)
        await asyncio.sleep(0.4)
        tap.open(MIB + 1)
        await client.gets(MIB + 1)
        tap.open()
        assert await client.body() == CONTENT
    assert theirs.offsets == [2 * MIB - 1]


async def test_when_the_leader_got_wrong_bytes_the_clients_of_a_follower_are_cut_too(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    ours, theirs = MemorySource(CONTENT), MemorySource(CONTENT)
    ours.script.append(Sending(tap=(tap := Tap(MIB)), content=bytes(SIZE)))
    async with worker(directory, ours) as leader, worker(directory, theirs) as follower:
        leading = leader.start(DIGEST, SIZE)
        await eventually(lambda: leading.content.available == MIB)
        following = follower.start(DIGEST, SIZE)
        clients = [Client(leading.content), Client(following.content), Client(following.content, 0, MIB)]
        for client in clients:
            await client.gets(MIB - WITHHELD)
        tap.open()
        for client, most in zip(clients, (SIZE, SIZE, MIB), strict=True):
            assert isinstance(await client.cut(), DigestMismatch)
            assert len(client.received) <= most - WITHHELD
        await follower.ended(following)
        assert follower.spools() == []
        assert follower.held(DIGEST) is None
        assert theirs.cooled == []
        assert await Client(follower.start(DIGEST, SIZE).content).body() == CONTENT


async def test_a_follower_whose_clients_saw_nothing_of_wrong_bytes_fetches_the_right_ones(tmp_path: Path) -> None:
    directory = data_in(tmp_path)
    ours, theirs = MemorySource(CONTENT), MemorySource(CONTENT)
    ours.script.append(Sending(tap=(tap := Tap(MIB)), content=bytes(SIZE)))
    async with worker(directory, ours) as leader, worker(directory, theirs) as follower:
        leading = leader.start(DIGEST, SIZE)
        await eventually(lambda: leading.content.available == MIB)
        following = follower.start(DIGEST, SIZE)
        await following.content.reached(0)
        tap.open()
        await following.content.whole()
        assert await Client(following.content).body() == CONTENT
    assert theirs.offsets == [0]


@pytest.mark.parametrize("seen", [True, False])
async def test_when_the_leaders_disk_is_full_the_clients_of_a_follower_get_the_bytes_too(
    tmp_path: Path, seen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = data_in(tmp_path)
    ours, theirs = MemorySource(CONTENT), MemorySource(CONTENT)
    ours.script.append(Sending(tap=(tap := Tap(MIB))))
    full_from(MIB + 1000)(monkeypatch)
    async with worker(directory, ours) as leader, worker(directory, theirs) as follower:
        leading = leader.start(DIGEST, SIZE)
        await eventually(lambda: leading.content.available == MIB)
        following = follower.start(DIGEST, SIZE)
        await eventually(lambda: following.content.available == MIB)
        clients = [Client(leading.content)]
        if seen:
            clients.append(Client(following.content))
            await clients[1].gets(MIB)
        tap.open()
        if not seen:
            clients.append(Client(following.content))
        for client in clients:
            assert await client.body() == CONTENT


async def test_a_size_that_is_read_before_the_last_bytes_came_is_not_taken_for_that_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower looks at size and name one after the other, and the leader may end in between."""
    directory = data_in(tmp_path)
    writer = Spool.acquire(directory, DIGEST)
    assert writer is not None
    writer.append(CONTENT[:MIB])
    reader = Spool.follow(directory, DIGEST)
    assert reader is not None
    look = spool._inode
    looks: list[Path] = []

    def slowly(path: Path) -> int | None:
        if not looks:
            looks.append(path)
            writer.append(CONTENT[MIB:])
            writer.commit(BlobStore(directory))
        return look(path)

    monkeypatch.setattr(spool, "_inode", slowly)
    assert reader.standing() is Standing.VERIFIED
    assert reader.size == SIZE
    for one in (writer, reader):
        one.close()
