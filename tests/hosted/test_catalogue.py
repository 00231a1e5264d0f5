"""A hosted repository has what was pushed to it, whole, and nothing else; one change leaves no half of itself."""

import asyncio
import json
import os
import sqlite3
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.errors import (
    BlobUnknown,
    Denied,
    DiskFull,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    SizeInvalid,
    StoreError,
    Unsupported,
)
from mirror.hosted.database import Database
from mirror.hosted.records import FOREIGN, ManifestRecord
from tests.hosted.shelf import OTHER, REPOSITORY, Clock, describe, shelf
from tests.support.artifacts import OCI_LAYER, Artifact, descriptor, image, index, raw, wasm_module

PLUGIN = raw(wasm_module())
NEWER = raw(wasm_module(seed=1))
_ABSENT = Digest.of(b"never pushed")


async def test_a_blob_is_in_the_repositories_that_it_was_pushed_to_and_in_no_other(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hosted:
        digest = await hosted.push_blob(REPOSITORY, b"a layer")
        link = await hosted.catalogue.blob(REPOSITORY, digest)
        assert link is not None
        assert (link.digest, link.size) == (digest, 7)
        assert await hosted.catalogue.blob(OTHER, digest) is None
        assert await hosted.catalogue.exists(REPOSITORY)
        assert not await hosted.catalogue.exists(OTHER)


async def test_a_blob_whose_bytes_are_not_on_the_disk_is_not_taken_down(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hosted:
        with pytest.raises(StoreError, match="push it again"):
            await hosted.catalogue.link_blob(REPOSITORY, _ABSENT, 5)
        digest = await hosted.push_blob(REPOSITORY, b"a layer")
        with pytest.raises(StoreError, match="push it again"):
            await hosted.catalogue.link_blob(OTHER, digest, 8)
        with pytest.raises(StoreError, match="push it again"):
            await hosted.catalogue.put_manifest(REPOSITORY, describe(image([])), ["1"])
        assert not await hosted.catalogue.exists(OTHER)


async def test_a_blob_is_mounted_only_from_where_it_is(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hosted:
        digest = await hosted.push_blob(REPOSITORY, b"a layer")
        assert await hosted.catalogue.repositories_with(digest) == [REPOSITORY]
        assert not await hosted.catalogue.mount_blob("team/third", digest, OTHER)
        assert await hosted.catalogue.blob("team/third", digest) is None
        assert await hosted.catalogue.mount_blob(OTHER, digest, REPOSITORY)
        assert await hosted.catalogue.blob(OTHER, digest) is not None
        hosted.directory.blob(digest).write_bytes(b"short")
        assert not await hosted.catalogue.mount_blob("team/third", digest, REPOSITORY)


async def test_a_manifest_is_there_with_its_tags_when_it_was_pushed_and_after_a_restart(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hosted:
        digest = await hosted.push(REPOSITORY, PLUGIN, "1.0", "latest")
    async with shelf(tmp_path) as hosted:
        for name in ("1.0", "latest"):
            found = await hosted.catalogue.tagged(REPOSITORY, name)
            assert found is not None
            assert (found.digest, found.media_type, found.size) == (digest, PLUGIN.media_type, len(PLUGIN.body))
        assert await hosted.catalogue.tagged(OTHER, "1.0") is None
        assert await hosted.catalogue.manifest(OTHER, digest) is None


async def test_a_manifest_is_refused_that_names_what_its_repository_does_not_have(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hosted:
        first, *rest = PLUGIN.blobs
        for content in PLUGIN.blobs.values():
            await hosted.push_blob(OTHER, content)
        await hosted.push_blob(REPOSITORY, PLUGIN.blobs[first])
        with pytest.raises(ManifestBlobUnknown) as caught:
            await hosted.push_manifest(REPOSITORY, PLUGIN, "1.0")
        assert all(str(digest) in caught.value.message for digest in rest)
        assert isinstance(caught.value.detail, list)
        assert sorted(missing["digest"] for missing in caught.value.detail) == sorted(map(str, rest))
        assert await hosted.catalogue.tag(REPOSITORY, "1.0") is None
        assert await hosted.catalogue.manifest(REPOSITORY, PLUGIN.digest) is None


@pytest.mark.parametrize("media_type", sorted(FOREIGN))
async def test_a_foreign_layer_need_not_be_there(tmp_path: Path, media_type: str) -> None:
    artifact = image([(media_type, b"far away"), (OCI_LAYER, b"here")])
    async with shelf(tmp_path) as hosted:
        for content in (b"{}", b"here"):
            await hosted.push_blob(REPOSITORY, content)
        await hosted.push_manifest(REPOSITORY, artifact, "1.0")


async def test_a_child_of_an_index_must_be_a_manifest_of_the_repository(tmp_path: Path) -> None:
    both = index(PLUGIN, NEWER)
    async with shelf(tmp_path) as hosted:
        await hosted.push(REPOSITORY, PLUGIN)
        await hosted.push_blob(REPOSITORY, NEWER.body)
        with pytest.raises(ManifestBlobUnknown, match=str(NEWER.digest)):
            await hosted.push_manifest(REPOSITORY, both, "1.0")
        await hosted.push(REPOSITORY, NEWER)
        await hosted.push_manifest(REPOSITORY, both, "1.0")


async def test_a_subject_may_be_absent_but_must_be_a_descriptor(tmp_path: Path) -> None:
    absent = image([], extra={"subject": {**descriptor("x/y", b"never pushed")}})
    async with shelf(tmp_path) as hosted:
        await hosted.push(REPOSITORY, absent)
    nothing: list[object] = []
    for wrong in ("sha256:00", {"digest": "x"}, nothing):
        with pytest.raises(ManifestInvalid, match="subject"):
            describe(image([], extra={"subject": wrong}))
    with pytest.raises(ManifestInvalid, match="artifactType"):
        describe(image([], extra={"artifactType": 1}))


async def test_a_manifest_is_refused_that_is_wrong_about_a_size(tmp_path: Path) -> None:
    layer = {**descriptor(OCI_LAYER, b"a layer"), "size": 8}
    wrong = image([], extra={"layers": [layer]})
    async with shelf(tmp_path) as hosted:
        for content in (b"{}", b"a layer"):
            await hosted.push_blob(REPOSITORY, content)
        with pytest.raises(ManifestInvalid, match="8 bytes, but it has 7"):
            await hosted.push_manifest(REPOSITORY, wrong)


async def test_a_tag_moves_only_by_who_may_overwrite_it(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hosted:
        await hosted.push(REPOSITORY, PLUGIN, "1.0", overwrite=False)
        await hosted.push(REPOSITORY, PLUGIN, "1.0", overwrite=False)
        with pytest.raises(Denied, match="overwrite"):
            await hosted.push(REPOSITORY, NEWER, "2.0", "1.0", overwrite=False)
        assert await hosted.catalogue.tag(REPOSITORY, "2.0") is None
        assert await hosted.catalogue.manifest(REPOSITORY, NEWER.digest) is None
        before = await hosted.catalogue.tag(REPOSITORY, "1.0")
        await hosted.push(REPOSITORY, NEWER, "1.0")
        after = await hosted.catalogue.tag(REPOSITORY, "1.0")
        assert before is not None
        assert after is not None
        assert (before.digest, before.serial, after.digest, after.serial) == (PLUGIN.digest, 1, NEWER.digest, 2)


async def test_of_two_pushes_of_one_tag_without_the_right_to_overwrite_one_wins_whole(tmp_path: Path) -> None:
    async with shelf(tmp_path) as one, shelf(tmp_path) as two:
        for round_ in range(5):
            name = str(round_)
            results = await asyncio.gather(
                one.push(REPOSITORY, PLUGIN, name, overwrite=False),
                two.push(REPOSITORY, NEWER, name, overwrite=False),
                return_exceptions=True,
            )
            won = [result for result in results if isinstance(result, Digest)]
            assert [type(result) for result in results if not isinstance(result, Digest)] == [Denied]
            found = await one.catalogue.tagged(REPOSITORY, name)
            assert found is not None
            assert [found.digest] == won


async def test_a_change_that_is_refused_does_not_stand_in_the_way_of_those_beside_it(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hosted:
        await hosted.push(REPOSITORY, PLUGIN)
        await hosted.push_blob(REPOSITORY, b"{}")
        wrong = image([(OCI_LAYER, b"never pushed")])
        pushes = [hosted.push_manifest(REPOSITORY, [PLUGIN, wrong][n % 2], f"t{n}") for n in range(20)]
        results = await asyncio.gather(*pushes, return_exceptions=True)
        assert [type(result) for result in results] == [Digest, ManifestBlobUnknown] * 10
        assert await hosted.catalogue.tags(REPOSITORY, 100, None) == sorted(f"t{n}" for n in range(0, 20, 2))


async def test_deleting_a_tag_leaves_the_manifest_and_deleting_the_manifest_takes_its_tags(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hosted:
        digest = await hosted.push(REPOSITORY, PLUGIN, "1.0", "1", "latest")
        await hosted.push(REPOSITORY, NEWER, "2.0")
        await hosted.catalogue.delete_tag(REPOSITORY, "latest")
        assert await hosted.catalogue.manifest(REPOSITORY, digest) is not None
        assert await hosted.catalogue.tags(REPOSITORY, 10, None) == ["1", "1.0", "2.0"]
        await hosted.catalogue.delete_manifest(REPOSITORY, digest)
        assert await hosted.catalogue.manifest(REPOSITORY, digest) is None
        assert await hosted.catalogue.tags(REPOSITORY, 10, None) == ["2.0"]
        with pytest.raises(ManifestUnknown):
            await hosted.catalogue.delete_manifest(REPOSITORY, digest)
        with pytest.raises(ManifestUnknown):
            await hosted.catalogue.delete_tag(REPOSITORY, "1.0")


async def test_a_blob_cannot_be_deleted_while_a_manifest_of_the_repository_names_it(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hosted:
        await hosted.push(REPOSITORY, PLUGIN)
        named = next(iter(PLUGIN.blobs))
        await hosted.catalogue.mount_blob(OTHER, named, REPOSITORY)
        await hosted.catalogue.delete_blob(OTHER, named)
        with pytest.raises(Unsupported, match=str(PLUGIN.digest)):
            await hosted.catalogue.delete_blob(REPOSITORY, named)
        await hosted.catalogue.delete_manifest(REPOSITORY, PLUGIN.digest)
        await hosted.catalogue.delete_blob(REPOSITORY, named)
        with pytest.raises(BlobUnknown):
            await hosted.catalogue.delete_blob(REPOSITORY, named)


async def test_tags_are_told_in_pages_in_an_order_that_is_blind_to_case(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hosted:
        names = ["10", "2", "a", "B", "b", "c", "Z", "_"]
        await hosted.push(REPOSITORY, PLUGIN, *reversed(names))
        in_order = sorted(names, key=lambda name: (name.lower(), name))
        assert await hosted.catalogue.tags(REPOSITORY, 100, None) == in_order
        paged: list[str] = []
        while page := await hosted.catalogue.tags(REPOSITORY, 3, paged[-1] if paged else None):
            assert len(page) <= 3
            paged += page
        assert paged == in_order
        assert await hosted.catalogue.tags(REPOSITORY, 100, "bb") == ["c", "Z"]
        assert await hosted.catalogue.tags(OTHER, 100, None) is None


async def test_referrers_are_of_their_repository_and_filtered_by_what_they_are(tmp_path: Path) -> None:
    subject = {**descriptor(PLUGIN.media_type, PLUGIN.body)}
    notes = {"annotations": {"org.example": "yes"}}
    signature = image([], extra={"subject": subject, "artifactType": "application/signature", **notes})
    by_config = image([], config=("application/sbom", b"{}"), extra={"subject": subject})
    plain = index()
    of_index = Artifact(json.dumps({**json.loads(plain.body), "subject": subject}).encode(), plain.media_type)
    async with shelf(tmp_path) as hosted:
        for artifact in (PLUGIN, signature, by_config, of_index):
            await hosted.push(REPOSITORY, artifact)
        await hosted.push(OTHER, signature)
        found, following = await hosted.catalogue.referrers(REPOSITORY, PLUGIN.digest, None, None, 1 << 20)
        assert following is None
        told = {record.digest: (record.artifact_type, dict(record.annotations)) for record in found}
        assert told == {
            signature.digest: ("application/signature", {"org.example": "yes"}),
            by_config.digest: ("application/sbom", {}),
            of_index.digest: ("", {}),
        }
        (only,), _ = await hosted.catalogue.referrers(REPOSITORY, PLUGIN.digest, "application/sbom", None, 1 << 20)
        assert only.digest == by_config.digest
        assert await hosted.catalogue.referrers(REPOSITORY, _ABSENT, None, None, 1 << 20) == ([], None)
        paged: list[ManifestRecord] = []
        after: str | None = None
        for _ in range(3):
            page, after = await hosted.catalogue.referrers(REPOSITORY, PLUGIN.digest, None, after, 1)
            paged += page
        assert (paged, after) == (found, None)


async def test_a_repository_takes_in_no_more_than_it_may(tmp_path: Path) -> None:
    most = sum(map(len, PLUGIN.blobs.values())) + len(PLUGIN.body)
    async with shelf(tmp_path, most=most) as hosted:
        await hosted.push(REPOSITORY, PLUGIN, "1.0")
        await hosted.push(REPOSITORY, PLUGIN, "again")
        assert await hosted.catalogue.size(REPOSITORY) == most
        with pytest.raises(SizeInvalid, match=r"hosted\.max_repository_size"):
            await hosted.push_blob(REPOSITORY, b"!")
        await hosted.push_blob(OTHER, b"!")
        with pytest.raises(SizeInvalid):
            await hosted.catalogue.mount_blob(REPOSITORY, Digest.of(b"!"), OTHER)
        await hosted.catalogue.delete_manifest(REPOSITORY, PLUGIN.digest)
        await hosted.catalogue.mount_blob(REPOSITORY, Digest.of(b"!"), OTHER)
        with pytest.raises(SizeInvalid):
            await hosted.push_manifest(REPOSITORY, PLUGIN)


async def test_touching_moves_a_blobs_time_forward_only(tmp_path: Path) -> None:
    clock = Clock()
    async with shelf(tmp_path, clock) as hosted:
        digest = await hosted.push_blob(REPOSITORY, b"a layer")
        for at in (20.0, 10.0):
            clock.time = 2_000_000.0 + at
            assert await hosted.catalogue.touch(REPOSITORY, digest)
        link = await hosted.catalogue.blob(REPOSITORY, digest)
        assert link is not None
        assert link.touched_at == 2_000_020.0
        assert not await hosted.catalogue.touch(OTHER, digest)


def test_each_commit_is_synced_to_the_disk(tmp_path: Path) -> None:
    database = Database(tmp_path / "hosted.sqlite")
    assert database.read(lambda connection: connection.execute("PRAGMA synchronous").fetchone()) == (2,)
    assert database.read(lambda connection: connection.execute("PRAGMA journal_mode").fetchone()) == ("wal",)
    database.close()


def test_a_full_disk_is_told_as_such_and_is_no_damage(tmp_path: Path) -> None:
    database = Database(tmp_path / "hosted.sqlite")
    database.read(lambda connection: connection.execute("PRAGMA max_page_count = 1").fetchone())
    name = "n" * 1_000_000
    with pytest.raises(DiskFull, match="disk is full"):
        database.change([lambda connection: connection.execute("INSERT INTO meta VALUES (?, '')", (name,))])
    assert database.damage is None
    database.read(lambda connection: connection.execute("PRAGMA max_page_count = 1000000").fetchone())
    database.change([lambda connection: connection.execute("INSERT INTO meta VALUES (?, '')", (name,))])
    database.close()


@pytest.mark.shows("the records of hosted content (`hosted.sqlite`) are damaged or lost")
@pytest.mark.parametrize("damage", ["empty", "noise", "cut", "table"])
async def test_a_damaged_database_takes_in_nothing_and_is_left_as_it_is(tmp_path: Path, damage: str) -> None:
    async with shelf(tmp_path) as hosted:
        await hosted.push(REPOSITORY, PLUGIN, *map(str, range(200)))
    content, before = hosted.database.read_bytes(), sorted(os.listdir(tmp_path))
    match damage:
        case "empty":
            hosted.database.write_bytes(b"")
        case "noise":
            hosted.database.write_bytes(b"!" * len(content))
        case "cut":
            hosted.database.write_bytes(content[: len(content) // 2])
        case _:
            connection = sqlite3.connect(hosted.database)
            connection.execute("DROP TABLE tag")
            connection.close()
    async with shelf(tmp_path) as hosted:
        assert hosted.catalogue.damage is not None
        assert "restore hosted.sqlite" in hosted.catalogue.damage
        assert str(tmp_path) not in hosted.catalogue.damage
        with pytest.raises(StoreError, match=r"restore hosted\.sqlite"):
            await hosted.push_blob(REPOSITORY, b"a layer")
    assert sorted(os.listdir(tmp_path)) == before


async def test_a_database_that_goes_while_it_is_in_use_is_not_made_anew(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hosted:
        await hosted.push(REPOSITORY, PLUGIN, "1.0")
        kept = tmp_path / "kept.sqlite"
        hosted.database.rename(kept)
        for _ in range(2):
            with pytest.raises(StoreError, match="removed while the mirror was running"):
                await hosted.catalogue.tag(REPOSITORY, "1.0")
            with pytest.raises(StoreError):
                await hosted.push_blob(REPOSITORY, b"a layer")
        assert not hosted.database.exists()
        assert hosted.catalogue.damage is not None


async def test_what_a_newer_release_wrote_is_not_read_and_not_changed(tmp_path: Path) -> None:
    async with shelf(tmp_path) as hosted:
        await hosted.push(REPOSITORY, PLUGIN, "1.0")
    connection = sqlite3.connect(hosted.database)
    connection.executescript("PRAGMA user_version = 99; UPDATE meta SET value = '99' WHERE key = 'min_reader'")
    connection.close()
    async with shelf(tmp_path) as hosted:
        with pytest.raises(StoreError, match="newer release"):
            await hosted.catalogue.tag(REPOSITORY, "1.0")
        with pytest.raises(StoreError, match="newer release"):
            await hosted.push_blob(REPOSITORY, b"a layer")
