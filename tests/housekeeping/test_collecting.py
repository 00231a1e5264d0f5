"""What the collector takes from a disk on which all came two days ago: decided file by file."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.collecting import Collecting, Hosting, Swept
from mirror.config import CacheSettings
from mirror.digest import Digest
from mirror.errors import StoreError
from mirror.hosted.gc import Collected
from mirror.metadata.base import BlobRecord, Link, TagRecord, Unpacked
from mirror.oci import OCI_MANIFEST
from mirror.removal import Removal
from mirror.store.blobs import BlobStore
from mirror.store.census import Census
from mirror.store.leases import Leases
from mirror.survey import Survey
from tests.store.disk import data_in
from tests.support.evicting import Worker, evicting

DAY = 86400.0
PLACE = "ghcr.io", "team/plugin"


class Uploads:
    """Those that were dropped."""

    def __init__(self) -> None:
        self.dropped = 0

    async def expire(self) -> int:
        return self.dropped


class Hosted:
    """Who lets go of what is hosted, and when it was asked to."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.failure: StoreError | None = None
        self.parts = Hosting(self._collect, self._orphans, self._asked, grace=100.0)

    async def _collect(self) -> Collected:
        self.said.append("collect")
        if self.failure is not None:
            raise self.failure
        return Collected(2, 1, 10)

    async def _orphans(self) -> int:
        self.said.append("orphans")
        return 0

    async def _asked(self) -> None:
        self.said.append("asked")


class Disk:
    """A disk, and its collector; ``clock`` is since that began."""

    def __init__(self, worker: Worker, hosting: Hosting | None) -> None:
        self.worker = worker
        self.store = BlobStore(worker.directory)
        self.known = worker.known
        self.uploads = Uploads()
        self.clock = 0.0
        worker.ahead = 2 * DAY
        self.removed: list[Digest] = []

        async def withdraw(digests: object) -> None:
            assert isinstance(digests, list)
            self.removed += digests

        async def let_go() -> None:
            worker.let_go += 1

        async def protected() -> set[str]:
            return worker.pinned

        census = Census(worker.directory)
        survey = Survey(
            worker.directory,
            census,
            worker.known,
            worker.catalogue,
            worker.now,
            accesses=worker.accesses,
            protected=protected,
        )
        self.collecting = Collecting(
            worker.directory,
            survey,
            worker.known,
            worker.known,
            Removal(worker.directory, worker.known, worker.catalogue, worker.generation, withdraw, let_go),
            self.uploads,
            Leases(worker.directory.leases),
            hosting,
            worker.now,
            lambda: self.clock,
        )

    def put(self, content: bytes) -> Digest:
        """A blob on the disk."""
        digest = Digest.of(content)
        self.store.put(digest, content)
        return digest

    def manifest(self, *named: Digest) -> Digest:
        """A manifest that names these."""
        described = [{"mediaType": "x/y", "digest": str(digest), "size": 1} for digest in named]
        return self.put(json.dumps({"config": described[0], "layers": described[1:]}).encode())


@contextlib.asynccontextmanager
async def disk(folder: Path, hosting: Hosting | None = None) -> AsyncIterator[Disk]:
    """Such a disk, for a while."""
    async with evicting(data_in(folder).path, CacheSettings()) as worker:
        yield Disk(worker, hosting)


async def test_what_nothing_names_and_nobody_used_goes(tmp_path: Path) -> None:
    async with disk(tmp_path) as one:
        digests = [one.put(b"left"), one.put(b"over!")]
        used = one.put(b"used")
        await one.known.touch({used: one.worker.now() - 60})
        swept = await one.collecting.once()
        assert (swept.blobs, swept.size) == (2, 9)
        assert not any(map(one.store.holds, digests))
        assert one.store.holds(used)
        assert sorted(one.removed) == sorted(digests)
        assert one.worker.let_go == 1
        one.worker.ahead += DAY
        assert (await one.collecting.once()).blobs == 1


async def test_what_has_just_come_stays(tmp_path: Path) -> None:
    async with disk(tmp_path) as one:
        one.worker.ahead = DAY / 2
        digest = one.put(b"new")
        assert (await one.collecting.once()).blobs == 0
        assert one.store.holds(digest)


async def test_what_anything_names_stays(tmp_path: Path) -> None:
    async with disk(tmp_path) as one:
        linked, tagged, layer, pinned_layer = (one.put(name) for name in (b"linked", b"tagged", b"layer", b"pinned"))
        module, lost_module = one.put(b"out of a layer"), one.put(b"out of a layer that nothing names")
        pinned = one.manifest(one.put(b"config"), pinned_layer)
        await one.known.put_links([Link(*PLACE, linked, "", -1), Link(*PLACE, layer, "", -1)])
        await one.known.put_links([Link(*PLACE, pinned, OCI_MANIFEST, -1)])
        await one.known.put_tag(TagRecord(*PLACE, "1", tagged, OCI_MANIFEST, 6, 1.0))
        await one.known.put_unpacked(Unpacked(layer, 0, module, 14))
        await one.known.put_unpacked(Unpacked(Digest.of(b"elsewhere"), 0, lost_module, 33))
        one.worker.pinned = {str(pinned)}
        assert one.worker.catalogue is not None
        hosted = one.put(b"hosted")
        await one.worker.catalogue.link_blob("team/hosted", hosted, 6)
        swept = await one.collecting.once()
        assert swept == Swept(blobs=1, size=33, records=1)
        assert all(map(one.store.holds, (linked, tagged, layer, pinned_layer, module, pinned, hosted)))
        assert not one.store.holds(lost_module)


async def test_records_of_what_is_not_here_go_but_not_links(tmp_path: Path) -> None:
    async with disk(tmp_path) as one:
        gone, here = Digest.of(b"gone"), one.put(b"here")
        for digest in (gone, here):
            await one.known.put_links([Link(*PLACE, digest, "", -1)])
            await one.known.put_blob(BlobRecord(digest, 4, "0" * 64, 1.0))
            await one.known.touch({digest: 1.0}, {digest: 3})
        await one.known.put_unpacked(Unpacked(here, 0, gone, 4))
        coming = Digest.of(b"on its way here")
        await one.known.touch({coming: one.worker.now()})
        assert (await one.collecting.once()).records == 3
        assert await one.known.blob(gone) is None
        assert await one.known.link(*PLACE, gone) is not None
        assert await one.known.blob(here) is not None
        assert await one.known.last_access(coming) is not None


async def test_where_links_were_lost_nothing_is_taken_for_unnamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with disk(tmp_path) as one:
        digest = one.put(b"linked, until the database was damaged")
        monkeypatch.setattr(type(one.known), "links_incomplete", True)
        assert (await one.collecting.once()).blobs == 0
        assert one.store.holds(digest)


async def test_before_others_have_told_what_a_backup_lacks_no_file_is_taken_for_unnamed(tmp_path: Path) -> None:
    hosted = Hosted()
    async with disk(tmp_path, hosted.parts) as one:
        digest = one.put(b"hosted, and not in the backup")
        assert await one.collecting.once() == Swept(blobs=1, size=10, records=2)
        assert hosted.said == ["collect"]
        assert one.store.holds(digest)
        one.clock = 100.0
        assert (await one.collecting.once()).blobs == 2
        assert hosted.said == ["collect", "orphans", "collect", "asked"]
        assert not one.store.holds(digest)


async def test_where_one_part_fails_the_others_are_done_and_it_is_said(tmp_path: Path) -> None:
    hosted = Hosted()
    hosted.failure = StoreError("the records are away")
    async with disk(tmp_path, hosted.parts) as one:
        one.clock = 100.0
        one.uploads.dropped = 3
        digest = one.put(b"left over")
        with pytest.raises(StoreError, match="the records are away"):
            await one.collecting.once()
        assert not one.store.holds(digest)
        hosted.failure = None
        assert await one.collecting.once() == Swept(blobs=1, size=10, uploads=3, records=2)
