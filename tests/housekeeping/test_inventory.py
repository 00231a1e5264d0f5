"""The list as it is made, without a mirror around it: of any order, and of ten thousand tags."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from mirror.contents import Contents
from mirror.digest import Digest
from mirror.findings import Findings
from mirror.freshness import Policy
from mirror.inventory import Inventory
from mirror.metadata.base import TagRecord
from mirror.metadata.sqlite import SqliteMetadata
from mirror.narrowing import Sort, Wanted
from mirror.oci import OCI_MANIFEST, Reference
from mirror.store.blobs import BlobStore
from mirror.wasm.facts import Facts
from tests.store.disk import data_in
from tests.support.artifacts import OCI_LAYER, image


class NoPins:
    """Nothing is pinned."""

    def is_pinned(self, upstream: str, repository: str, tag: str | None, digest: Digest) -> bool:
        return False

    def by_digest(self) -> Iterable[Reference]:
        return ()


class Shelf:
    """A disk with some tags, and the list of them."""

    def __init__(self, folder: Path) -> None:
        self.directory = data_in(folder)
        self.store = BlobStore(self.directory)
        self.known = SqliteMetadata.open(self.directory.database)
        self.moment = count(1)
        self.now = 1e9
        self.inventory = Inventory(
            self.known,
            None,
            "hosted",
            {"up": Policy()},
            Contents(self.directory),
            NoPins(),
            Findings(self.known, "now"),
            self._nothing,
            lambda: self.now,
        )

    async def _nothing(self) -> None:
        """All is written already."""

    async def put(self, tag: str, size: int) -> TagRecord:
        """Have a tag, whose artifact has about so many bytes."""
        artifact = image([(OCI_LAYER, tag.encode().ljust(size, b"!"))])
        for digest, content in (*artifact.blobs.items(), (artifact.digest, artifact.body)):
            if not self.store.holds(digest):
                self.store.put(digest, content)
        record = TagRecord("up", "team/plugin", tag, artifact.digest, OCI_MANIFEST, len(artifact.body), self._now())
        await self.known.put_tag(record)
        await self.use(record, size)
        return record

    async def use(self, record: TagRecord, times: int) -> None:
        """Have it been asked for, now and so often."""
        await self.known.touch({record.digest: self._now()}, {record.digest: times})

    def _now(self) -> float:
        return float(next(self.moment))


@contextlib.asynccontextmanager
async def shelf(folder: Path) -> AsyncIterator[Shelf]:
    """Such a disk, for a while."""
    one = Shelf(folder)
    try:
        yield one
    finally:
        await one.known.aclose()


@pytest.mark.parametrize("sort", ["reference", "size", "hits", "used", "fetched"])
@pytest.mark.parametrize("descending", [False, True])
async def test_pages_have_each_row_once_while_everything_changes(tmp_path: Path, sort: Sort, descending: bool) -> None:
    async with shelf(tmp_path) as one:
        records = [await one.put(f"v{number}", 100 * (number + 1)) for number in range(7)]
        wanted = Wanted(sort=sort, descending=descending, limit=2)
        found: list[str] = []
        for number in count():
            page = await one.inventory.listed(wanted)
            found += [module.row.reference for module in page.modules]
            if page.next is None:
                break
            wanted = replace(wanted, after=page.next)
            for record in (records[0], records[-1], records[number % 7]):  # what was last is first now
                await one.use(record, 10_000)
                await one.known.put_tag(replace(record, fetched_at=1e6 + number))
            await one.put(f"new-{number}", 50 + 1000 * number)
        assert len(found) == len(set(found))
        expected = [f"up/team/plugin:v{number}" for number in range(7)]
        told = [reference for reference in found if not reference.startswith("up/team/plugin:new")]
        assert told == (expected[::-1] if descending else expected)


async def test_the_order_by_size_is_right_at_once_of_what_has_come_and_soon_of_what_has_gone(tmp_path: Path) -> None:
    async with shelf(tmp_path) as one:
        small, large = await one.put("small", 100), await one.put("large", 1_000)
        late = await one.put("late", 5_000)
        layer = max(one.directory.blobs.rglob("*"), key=lambda file: file.stat().st_size if file.is_file() else 0)
        content = layer.read_bytes()
        layer.unlink()

        async def order() -> list[str]:
            listed = await one.inventory.listed(Wanted(sort="size"))
            return [module.row.tag or "" for module in listed.modules]

        assert await order() == [late.tag, small.tag, large.tag]
        layer.write_bytes(content)
        assert await order() == [small.tag, large.tag, late.tag]
        layer.unlink()
        one.now += 31.0
        assert await order() == [late.tag, small.tag, large.tag]


@pytest.mark.integration
async def test_ten_thousand_tags_are_listed_while_the_loop_goes_on(tmp_path: Path) -> None:
    async with shelf(tmp_path) as one:
        template = await one.put("one", 10)
        tags = [replace(template, tag=f"v{number}", fetched_at=float(number)) for number in range(10_000)]
        await one.known.merge_tags(tags)
        longest, ends = 0.0, False
        facts = Facts("oci tar+gzip", ("0.2.1",), "accepted", None)
        await one.known.put_facts({template.digest: facts}, "now")

        async def beat() -> None:
            """What the loop's own thread is at between two turns, whatever else the machine does."""
            nonlocal longest
            before = time.thread_time()
            while not ends:
                await asyncio.sleep(0.001)
                longest, before = max(longest, time.thread_time() - before), time.thread_time()

        wanted = [Wanted(sort=sort) for sort in ("reference", "size", "hits")]
        wanted += [Wanted(search="PLUGIN:V7", verdict="accepted")]
        beating = asyncio.ensure_future(beat())
        for first in wanted:
            used = time.process_time()
            page = await one.inventory.listed(first)
            assert len(page.modules) == 100
            assert page.total == (1_111 if first.search else 10_001)
            assert time.process_time() - used < 3.0, "half a second, where nobody else is at work"
            used = time.process_time()
            page = await one.inventory.listed(replace(first, after=page.next))
            assert len(page.modules) == 100
            assert time.process_time() - used < 1.5, "a fifth of a second, where nobody else is at work"
        ends = True
        await beating
        assert longest < 0.1, "it is made in a thread"
