"""What is heard from other replicas: the later change stands, and what follows from it is right here too."""

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.errors import StoreError
from mirror.hosted.entries import Cursor, Entry, OfBlob, OfManifest, OfTag, Portion
from mirror.hosted.gc import Gc
from mirror.hosted.ledger import Unread
from mirror.hosted.merge import fallen, joined, kept, order
from mirror.hosted.together import ByItself
from tests.hosted.cache import Cached
from tests.hosted.shelf import OTHER, REPOSITORY, Clock, Shelf, describe, shelf
from tests.support.artifacts import OCI_LAYER, Artifact, image, raw, wasm_module

PLUGIN = image([(OCI_LAYER, b"a layer")])
NEWER = raw(wasm_module())
LAYER = Digest.of(b"a layer")
DAY = 86_400
ALL = 1 << 30

THERE = OfBlob(REPOSITORY, LAYER, 10, False, 7, 100.0)
TAG = OfTag(REPOSITORY, "1", 10, PLUGIN.digest, 100.0, 1)


def gone(at: int, before: float | None = None, touched_at: float = 0.0) -> OfBlob:
    return replace(THERE, moment=at, gone=True, before=before, touched_at=touched_at)


def manifest(artifact: Artifact, at: int, *, deleted: bool = False, repository: str = REPOSITORY) -> OfManifest:
    return OfManifest(
        repository, artifact.digest, at, None if deleted else describe(artifact), 0.0 if deleted else 50.0
    )


@pytest.mark.parametrize(
    ("less", "greater"),
    [
        (THERE, replace(THERE, moment=11)),
        (THERE, gone(11)),
        (gone(10), THERE),
        (gone(10, before=6.0), gone(10, before=5.0)),
        (gone(10), gone(10, before=5.0)),
        (manifest(PLUGIN, 10), manifest(PLUGIN, 11, deleted=True)),
        (manifest(PLUGIN, 10, deleted=True), manifest(PLUGIN, 10)),
        (manifest(PLUGIN, 10), Unread(REPOSITORY, PLUGIN.digest, 11, PLUGIN.media_type, 0.0)),
        (Unread(REPOSITORY, PLUGIN.digest, 10, PLUGIN.media_type, 49.0), manifest(PLUGIN, 10)),
        (TAG, replace(TAG, moment=11, digest=None)),
        (replace(TAG, digest=None), TAG),
        (*sorted([TAG, replace(TAG, digest=LAYER)], key=lambda tag: str(tag.digest)),),
        (TAG, replace(TAG, serial=2)),
    ],
)
def test_of_two_entries_the_later_stands_and_of_one_moment_what_is_there(less: Entry, greater: Entry) -> None:
    assert order(less) < order(greater)


@pytest.mark.parametrize(
    ("one", "other", "named", "expected"),
    [
        (None, THERE, False, THERE),
        (None, gone(10), False, gone(10)),
        (THERE, gone(11), False, gone(11, touched_at=100.0)),
        (THERE, gone(9), False, THERE),
        (THERE, gone(11), True, replace(THERE, moment=11)),
        (THERE, gone(11, before=101.0), False, gone(11, before=101.0, touched_at=100.0)),
        (THERE, gone(11, before=100.0), False, replace(THERE, moment=11)),
        (THERE, gone(11, before=90.0, touched_at=80.0), False, replace(THERE, moment=11)),
        (THERE, gone(11, touched_at=200.0), False, gone(11, touched_at=200.0)),
        (THERE, replace(THERE, moment=11, touched_at=90.0), False, replace(THERE, moment=11)),
        (THERE, replace(THERE, moment=9, touched_at=110.0), False, replace(THERE, touched_at=110.0)),
        (THERE, gone(9, touched_at=110.0), False, replace(THERE, touched_at=110.0)),
    ],
)
def test_a_blob_that_a_manifest_names_or_somebody_was_told_of_since_does_not_go(
    one: OfBlob | None, other: OfBlob, named: bool, expected: OfBlob
) -> None:
    assert kept(joined(one, other), named=named) == expected
    if one is not None:
        assert kept(joined(other, one), named=named) == expected


def test_entries_for_a_blob_say_the_same_in_any_order() -> None:
    some = [
        THERE,
        gone(10, 99.0),
        gone(11, 120.0),
        replace(THERE, moment=5, touched_at=130.0),
        gone(11, 150.0),
        gone(8),
    ]
    for number in range(1, len(some) + 1):
        said = set()
        for in_order in permutations(some[:number]):
            own = None
            for entry in in_order:
                own = kept(joined(own, entry), named=False)
            said.add(own)
        assert len(said) == 1
    assert said == {replace(THERE, moment=11, touched_at=130.0)}


@pytest.mark.parametrize(
    ("deleted_at", "expected"),
    [(None, TAG), (9, TAG), (10, TAG), (11, OfTag(REPOSITORY, "1", 11, None)), (99, OfTag(REPOSITORY, "1", 11, None))],
)
def test_a_tag_goes_with_a_manifest_that_was_deleted_after_it(deleted_at: int | None, expected: OfTag) -> None:
    deletion = None if deleted_at is None else manifest(PLUGIN, deleted_at, deleted=True)
    assert fallen(TAG, deletion) == expected
    assert fallen(TAG, manifest(PLUGIN, 99)) == TAG


async def all_entries(hosted: Shelf, after: int = 0) -> Portion:
    return await hosted.catalogue.entries(after, ALL)


async def hear(hosted: Shelf, *entries: Entry) -> int:
    """Take in entries, with the bytes of manifests on the disk before."""
    for entry in entries:
        if isinstance(entry, OfManifest) and entry.described is not None:
            hosted.store.put(entry.digest, entry.described.manifest.body)
    return await hosted.catalogue.merge(entries)


async def test_what_one_replica_takes_in_another_has_with_the_same_rows(tmp_path: Path) -> None:
    async with shelf(tmp_path / "a", Clock()) as one, shelf(tmp_path / "b", Clock()) as two:
        await one.push(REPOSITORY, PLUGIN, "1", "latest")
        await one.push(REPOSITORY, NEWER, "latest")
        told = await all_entries(one)
        assert await hear(two, *told.entries) == len(told.entries)
        for name, artifact in (("1", PLUGIN), ("latest", NEWER)):
            found = await two.catalogue.tagged(REPOSITORY, name)
            assert found is not None
            assert found == await one.catalogue.tagged(REPOSITORY, name)
            assert found.digest == artifact.digest
            for blob in artifact.blobs:
                assert await two.catalogue.blob(REPOSITORY, blob) == await one.catalogue.blob(REPOSITORY, blob)
        assert await two.catalogue.tag(REPOSITORY, "latest") == await one.catalogue.tag(REPOSITORY, "latest")
        assert await two.catalogue.latest() == await one.catalogue.latest() > 0
        assert set((await all_entries(two)).entries) == set(told.entries)
        head = await two.catalogue.head()
        assert await hear(two, *told.entries) == 0
        assert await two.catalogue.head() == head


async def test_each_change_is_told_and_what_was_told_before_is_not_told_again(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hosted:
        catalogue = hosted.catalogue
        changes: list[tuple[Callable[[], object], set[tuple[type, bool]]]] = [
            (lambda: hosted.push_blob(REPOSITORY, b"a layer"), {(OfBlob, False)}),
            (lambda: catalogue.mount_blob(OTHER, LAYER, REPOSITORY), {(OfBlob, False)}),
            (lambda: catalogue.touch(OTHER, LAYER), {(OfBlob, False)}),
            (lambda: catalogue.delete_blob(OTHER, LAYER), {(OfBlob, True)}),
            (lambda: hosted.push_blob(REPOSITORY, b"{}"), {(OfBlob, False)}),
            (lambda: hosted.push_manifest(REPOSITORY, PLUGIN, "1", "2"), {(OfManifest, False), (OfTag, False)}),
            (lambda: catalogue.delete_tag(REPOSITORY, "1"), {(OfTag, True)}),
            (lambda: catalogue.delete_manifest(REPOSITORY, PLUGIN.digest), {(OfManifest, True), (OfTag, True)}),
            (lambda: catalogue.expire(REPOSITORY, 1e12, 10), {(OfBlob, True)}),
        ]
        after = 0
        latest = 0
        for change, expected in changes:
            await change()  # type: ignore[misc]  # each is a coroutine of something else
            told = await all_entries(hosted, after)
            assert {(type(entry), entry.gone) for entry in told.entries} == expected
            if change is not changes[2][0]:  # a touch is no change of what is there
                assert min(entry.moment for entry in told.entries) > latest
            latest = await catalogue.latest()
            after = told.next
            assert after == await catalogue.head()
            assert await all_entries(hosted, after) == Portion([], after, False)


async def test_a_change_has_the_moment_that_was_agreed_on_or_one_that_is_later_than_all(tmp_path: Path) -> None:
    clock = Clock()
    async with shelf(tmp_path, clock) as hosted:
        hosted.store.put(LAYER, b"a layer")
        await hosted.catalogue.link_blob(REPOSITORY, LAYER, 7, moment=5)
        assert await hosted.catalogue.latest() == 5
        await hosted.catalogue.delete_blob(REPOSITORY, LAYER)
        assert await hosted.catalogue.latest() == clock.time * 1_000_000
        for step in (1, 2):
            await hosted.catalogue.link_blob(OTHER, LAYER, 7)
            assert await hosted.catalogue.latest() == clock.time * 1_000_000 + step
        await hosted.catalogue.link_blob(OTHER, LAYER, 7, moment=6)  # what it replaces came to be known meanwhile
        assert await hosted.catalogue.latest() == clock.time * 1_000_000 + 3


async def test_a_manifest_gives_its_repository_all_that_it_names(tmp_path: Path) -> None:
    """What it names comes later, or was deleted by somebody who did not know of it."""
    async with shelf(tmp_path, Clock()) as hosted:
        config = Digest.of(b"{}")
        await hear(hosted, gone(9, touched_at=3.0), manifest(PLUGIN, 10))
        links = [await hosted.catalogue.blob(REPOSITORY, digest) for digest in (LAYER, config)]
        assert [link and (link.size, link.touched_at) for link in links] == [(7, 3.0), (2, 50.0)]
        assert await hear(hosted, gone(11), gone(12, before=1e9)) == 2
        assert await hosted.catalogue.blob(REPOSITORY, LAYER) is not None
        await hear(hosted, manifest(PLUGIN, 13, deleted=True), gone(14))
        assert await hosted.catalogue.blob(REPOSITORY, LAYER) is None


async def test_a_tag_is_seen_when_its_manifest_is_there(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hosted:
        await hear(hosted, manifest(NEWER, 5), TAG)
        assert await hosted.catalogue.tagged(REPOSITORY, "1") is None
        assert await hosted.catalogue.tag(REPOSITORY, "1") is None
        assert await hosted.catalogue.tags(REPOSITORY, 10, None) == []
        await hear(hosted, manifest(PLUGIN, 9))
        assert await hosted.catalogue.tags(REPOSITORY, 10, None) == ["1"]
        await hear(hosted, manifest(PLUGIN, 20, deleted=True), replace(TAG, tag="late"), manifest(PLUGIN, 30))
        assert await hosted.catalogue.tags(REPOSITORY, 10, None) == []
        await hear(hosted, replace(TAG, moment=15, digest=NEWER.digest))
        found = await hosted.catalogue.tag(REPOSITORY, "1")
        assert found is not None
        assert found.digest == NEWER.digest


async def test_bytes_go_when_what_was_heard_took_their_last_link(tmp_path: Path) -> None:
    clock = Clock()
    async with shelf(tmp_path, clock) as hosted:
        await hosted.push(REPOSITORY, PLUGIN)
        await hosted.push(OTHER, NEWER)
        gc = Gc(hosted.catalogue, Cached(), hosted.directory, 0.0, clock, lambda _: 0.0, together=ByItself())
        latest = await hosted.catalogue.latest()
        deletion = manifest(PLUGIN, latest + 1, deleted=True)
        await hear(hosted, deletion, *(replace(gone(latest + 2), digest=digest) for digest in PLUGIN.blobs))
        for _ in range(2):
            await gc.once()
            assert not hosted.store.holds(PLUGIN.digest)
            assert await hear(hosted, manifest(PLUGIN, latest)) == 0  # its bytes were put on the disk for nothing
            assert hosted.store.holds(PLUGIN.digest)
        await gc.once()
        kept_here = [hosted.store.holds(digest) for digest in (PLUGIN.digest, LAYER, NEWER.digest, *NEWER.blobs)]
        assert kept_here == [False, False, True, *(True for _ in NEWER.blobs)]


async def test_a_portion_is_taken_in_whole_or_not_at_all(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hosted:
        read = Cursor("them", 7, 1.0)
        with pytest.raises(StoreError, match=str(PLUGIN.digest)):
            await hosted.catalogue.merge([THERE, manifest(PLUGIN, 10)], read)
        assert not await hosted.catalogue.exists(REPOSITORY)
        assert (await hosted.catalogue.head(), await hosted.catalogue.cursor("them")) == (0, None)
        hosted.store.put(PLUGIN.digest, PLUGIN.body)
        assert await hosted.catalogue.merge([THERE, manifest(PLUGIN, 10)], read) == 2
        assert await hosted.catalogue.cursor("them") == read


async def test_who_is_wrong_about_bytes_that_lie_here_is_not_believed(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hosted:
        await hosted.push_blob(REPOSITORY, b"a layer")
        latest = await hosted.catalogue.latest()
        for lie in (replace(THERE, moment=latest + 1, size=8), replace(gone(latest + 1), size=8)):
            assert await hear(hosted, lie) == 0
        link = await hosted.catalogue.blob(REPOSITORY, LAYER)
        assert link is not None
        assert link.size == 7


async def test_what_is_taken_in_from_others_may_be_more_than_a_push_might_make_it(tmp_path: Path) -> None:
    async with shelf(tmp_path, most=8) as hosted:
        await hear(hosted, THERE, manifest(PLUGIN, 11))
        assert await hosted.catalogue.size(REPOSITORY) > 8


async def test_entries_come_in_portions_that_begin_anew_for_who_knows_more_than_there_is(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hosted:
        await hosted.push(REPOSITORY, PLUGIN, *map(str, range(20)))
        found: list[Entry] = []
        after, more = 10**9, True  # what was known was lost, and restored from a copy
        while more:
            portion = await hosted.catalogue.entries(after, 2_000)
            assert 1 <= len(portion.entries) <= 4
            found += portion.entries
            after, more = portion.next, portion.more
        assert found == list((await all_entries(hosted)).entries)
        assert len(found) == 23


async def test_a_manifest_that_the_disk_has_lost_is_not_told_and_stops_nothing(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hosted:
        await hosted.push(REPOSITORY, PLUGIN)
        await hosted.push(REPOSITORY, NEWER, "1")
        file = hosted.directory.blob(PLUGIN.digest)
        for damaged in (b"{}", None):
            file.unlink()
            if damaged is not None:
                file.write_bytes(damaged)
            told = await all_entries(hosted)
            assert [entry.digest for entry in told.entries if isinstance(entry, OfManifest)] == [NEWER.digest]
            assert told.next == await hosted.catalogue.head()


async def test_records_have_an_identity_that_stays_and_remember_how_far_they_know_others(tmp_path: Path) -> None:
    async with shelf(tmp_path / "a") as one, shelf(tmp_path / "b") as two:
        identity = await one.catalogue.identity()
        assert identity != await two.catalogue.identity()
        assert await two.catalogue.cursor(identity) is None
        await two.catalogue.set_cursor(identity, 7, 100.5)
    async with shelf(tmp_path / "a") as one, shelf(tmp_path / "b") as two:
        assert await one.catalogue.identity() == identity
        assert await two.catalogue.cursor(identity) == Cursor(identity, 7, 100.5)


async def test_what_an_earlier_release_has_read_and_not_understood_is_read_again(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hosted:
        await hosted.catalogue.set_cursor("them", 7, 100.5)
        connection = sqlite3.connect(hosted.database)
        connection.execute("UPDATE cursor SET version = version - 1")
        connection.commit()
        connection.close()
        assert await hosted.catalogue.cursor("them") is None


async def test_blobs_are_listed_once_each_in_their_order(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hosted:
        for repository, artifact in ((REPOSITORY, PLUGIN), (OTHER, PLUGIN), (OTHER, NEWER)):
            await hosted.push(repository, artifact)
        expected = sorted(
            (str(digest), len(content)) for one in (PLUGIN, NEWER) for digest, content in one.blobs.items()
        )
        found: list[tuple[Digest, int]] = []
        while some := await hosted.catalogue.linked(found[-1][0] if found else None, 2):
            found += some
        assert [(str(digest), size) for digest, size in found] == sorted(set(expected))


async def test_that_something_went_is_forgotten_in_the_end_and_nobody_brings_it_to_mind(tmp_path: Path) -> None:
    clock = Clock()
    clock.time = 1e9
    async with shelf(tmp_path, clock) as hosted:
        await hosted.push(REPOSITORY, PLUGIN, "1")
        await hosted.catalogue.delete_manifest(REPOSITORY, PLUGIN.digest)
        head = await hosted.catalogue.head()
        told = [entry for entry in (await all_entries(hosted)).entries if entry.gone]
        assert len(told) == 2
        clock.time += 91 * DAY
        await hosted.push_blob(REPOSITORY, b"another")
        assert await hosted.catalogue.forget_tombstones() == 2
        assert await hear(hosted, *told) == 0
        assert not any(entry.gone for entry in (await all_entries(hosted)).entries)
        assert await hosted.catalogue.head() == head + 1


async def test_the_last_entry_is_not_forgotten_so_that_no_number_comes_twice(tmp_path: Path) -> None:
    clock = Clock()
    clock.time = 1e9
    async with shelf(tmp_path, clock) as hosted:
        digest = await hosted.push_blob(REPOSITORY, b"another")
        await hosted.catalogue.delete_blob(REPOSITORY, digest)
        clock.time += 91 * DAY
        assert await hosted.catalogue.forget_tombstones() == 0
        head = await hosted.catalogue.head()
        await hosted.push_blob(REPOSITORY, b"a layer")
        assert await hosted.catalogue.head() == head + 1
        assert await hosted.catalogue.forget_tombstones() == 1
