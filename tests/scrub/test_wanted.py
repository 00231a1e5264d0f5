"""The scrubber reads all blobs when somebody wants it, in one worker, and says how far it is."""

import asyncio
from dataclasses import replace
from pathlib import Path

from mirror.store.leases import Leases
from mirror.store.scrubbed import Scrubbed, load, save
from tests.scrub.support import Disk, worker
from tests.support.rot import rot


async def test_it_begins_when_it_is_wanted_even_where_it_never_does_by_itself(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    digests = await disk.fill(5)
    async with worker(disk, every=0.0) as one:
        await one.scrubber.turn()
        assert disk.opened == []
        begun = await one.scrubber.begin()
        assert begun.running
        assert begun.look.read == 0
        assert (await one.scrubber.progress()).running, "nobody may think that it has ended before it has begun"
        rot(disk.file(digests[2]))
        await one.scrubber.turn()
        done = await one.scrubber.progress()
        assert not done.running
        assert (done.look.blobs, done.look.read, done.look.bytes_read) == (5, 5, 5000)
        assert (done.look.damaged, done.look.restored, done.look.missing) == ((digests[2],), 1, frozenset())
        assert done.look.ended_at == disk.time()
        opened = len(disk.opened)
        await one.scrubber.turn()
        assert len(disk.opened) == opened, "once"


async def test_the_worker_that_is_asked_need_not_be_the_one_that_reads(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    (digest,) = await disk.fill(1)
    disk.mending.nowhere.add(digest)
    async with worker(disk, every=0.0) as asked, worker(disk, every=0.0) as other:
        await asked.scrubber.turn()
        await other.scrubber.turn()
        rot(disk.file(digest))
        assert (await asked.scrubber.begin()).running
        assert (await other.scrubber.progress()).running
        await other.scrubber.turn()
        told = await asked.scrubber.progress()
        assert not told.running
        assert (told.look.damaged, told.look.restored, told.look.missing) == ((digest,), 0, frozenset([digest]))
        await asked.scrubber.turn()
        assert other.counted()["damaged"] == 1
        assert "sound" not in asked.counted(), "what another worker has just read is not read again"


async def test_a_look_that_is_under_way_is_not_begun_anew(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    await disk.fill(1)
    save(disk.directory.scrubbed, Scrubbed(disk.time() - 10, ended=False))
    async with worker(disk) as one:
        assert (await one.scrubber.begin()).running
        await one.scrubber.turn()
        assert not (await one.scrubber.progress()).running
        assert len(disk.opened) == 1


async def test_a_look_that_was_cut_short_goes_on_where_it_was_and_remembers_what_it_found(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    digests = await disk.fill(9)
    async with worker(disk, every=0.0) as one:
        await one.scrubber.begin()
        await one.scrubber.turn()
    look = load(disk.directory.scrubbed)
    assert look is not None
    cut = replace(look, ended=False, after=digests[5], read=6, bytes_read=6000, damaged=(digests[1],), ended_at=None)
    save(disk.directory.scrubbed, cut)
    disk.opened.clear()
    async with worker(disk, every=0.0) as one:
        assert (await one.scrubber.progress()).running
        await one.scrubber.turn()
        done = await one.scrubber.progress()
    assert disk.opened == digests[6:]
    assert (done.running, done.look.read, done.look.damaged) == (False, 9, (digests[1],))


async def test_one_that_is_wanted_while_another_worker_still_mends_comes_after(tmp_path: Path) -> None:
    """That look has ended, so what rots from now on would not be found by it."""
    disk = Disk(tmp_path)
    await disk.fill(2)
    async with worker(disk, every=0.0) as one:
        with Leases(disk.directory.leases).attempt("scrub") as mine:
            assert mine
            await one.scrubber.begin()
            await one.scrubber.turn()
            assert disk.opened == []
        await one.scrubber.turn()
        assert len(disk.opened) == 2


async def test_how_far_it_is_can_be_asked_while_it_reads(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    await disk.fill(50)
    async with worker(disk, every=0.0) as one:
        await one.scrubber.begin()
        turn = asyncio.ensure_future(one.scrubber.turn())
        seen = set()
        while not turn.done():
            seen.add((await one.scrubber.progress()).look.read)
            await asyncio.sleep(0)
        await turn
        assert len(seen) > 2


async def test_what_the_release_before_has_written_is_read_and_what_is_written_it_can_read(tmp_path: Path) -> None:
    save(tmp_path / "scrubbed", Scrubbed(1.0, ended=True, asked=3, read=7, ended_at=2.0))
    text = (tmp_path / "scrubbed").read_text()
    assert '"v": 1' in text
    (tmp_path / "scrubbed").write_text(
        '{"v": 1, "began": 1.0, "ended": true, "after": null, "condemned": [], "missing": []}'
    )
    assert load(tmp_path / "scrubbed") == Scrubbed(1.0, ended=True)
