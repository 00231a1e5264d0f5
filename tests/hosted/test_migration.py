"""Records that an older release wrote are all there afterwards, and told to other replicas."""

import sqlite3
from pathlib import Path

from mirror.digest import Digest
from mirror.hosted.entries import OfBlob, OfManifest, OfTag
from mirror.hosted.schema import STEPS
from mirror.metadata.schema import migrate
from tests.hosted.shelf import OTHER, REPOSITORY, Clock, shelf
from tests.support.artifacts import OCI_CONFIG, OCI_LAYER, image

PLUGIN = image([(OCI_LAYER, b"a layer")])
TABLES = ("blob", "manifest", "named", "tag", "doomed")

_FIRST = "sha256:033902ccb95da5a2fe200e8d61319da010d710b87e3bfa04f0896bec6edab881"
"""The digest of the first step, which is on the disks of those who have it."""


def older(path: Path) -> None:
    """A database of the first step, with a repository that was pushed, and one that has a blob."""
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, STEPS[:1])
    for number, (digest, content) in enumerate(PLUGIN.blobs.items()):
        connection.execute(
            "INSERT INTO blob VALUES (?, ?, ?, ?)", (REPOSITORY, str(digest), len(content), 100.25 + number)
        )
    connection.execute("INSERT INTO blob VALUES (?, ?, ?, ?)", (OTHER, str(Digest.of(b"a layer")), 7, 0.0))
    connection.execute(
        "INSERT INTO manifest VALUES (?, ?, ?, ?, NULL, ?, '{}', ?)",
        (REPOSITORY, str(PLUGIN.digest), PLUGIN.media_type, len(PLUGIN.body), OCI_CONFIG, 103.5),
    )
    for digest in PLUGIN.blobs:
        connection.execute("INSERT INTO named VALUES (?, ?, ?)", (REPOSITORY, str(PLUGIN.digest), str(digest)))
    for tag, at in (("1", 104.5), ("2", 1e300)):
        connection.execute("INSERT INTO tag VALUES (?, ?, ?, ?, ?)", (REPOSITORY, tag, str(PLUGIN.digest), at, 3))
    connection.execute("INSERT INTO doomed VALUES (?)", (str(Digest.of(b"gone")),))
    connection.close()


def rows(path: Path) -> dict[str, list[tuple[object, ...]]]:
    connection = sqlite3.connect(path)
    found = {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}
    connection.close()
    return found


def test_the_first_step_is_as_it_was_written() -> None:
    assert str(Digest.of(STEPS[0].encode())) == _FIRST


async def test_an_older_database_keeps_all_that_is_in_it_and_has_entries_for_it(tmp_path: Path) -> None:
    database = tmp_path / "hosted.sqlite"
    older(database)
    before = rows(database)
    async with shelf(tmp_path) as hosted:
        hosted.store.put(PLUGIN.digest, PLUGIN.body)
        told = await hosted.catalogue.entries(0, 1 << 20)
        assert rows(database) == before
        assert {(type(entry), entry.gone) for entry in told.entries} == {
            (OfBlob, False),
            (OfManifest, False),
            (OfTag, False),
        }
        moments = [entry.moment for entry in told.entries]
        assert moments == [1, 100_250_000, 101_250_000, 103_500_000, 104_500_000, 4_000_000_000_000_000]
        assert told.next == await hosted.catalogue.head() == 6
        assert len(await hosted.catalogue.identity()) == 32
        await hosted.push(REPOSITORY, PLUGIN, "1", "3")
        await hosted.catalogue.delete_manifest(REPOSITORY, PLUGIN.digest)


async def test_what_is_migrated_can_be_told_and_taken_in(tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()
    older(first / "hosted.sqlite")
    async with shelf(first, Clock()) as one, shelf(tmp_path / "second", Clock()) as two:
        one.store.put(PLUGIN.digest, PLUGIN.body)
        two.store.put(PLUGIN.digest, PLUGIN.body)
        await two.catalogue.merge((await one.catalogue.entries(0, 1 << 20)).entries)
        for table in ("blob", "manifest", "named", "tag"):
            assert sorted(rows(two.database)[table], key=repr) == sorted(rows(one.database)[table], key=repr)


async def test_an_older_release_leaves_records_alone_that_have_entries(tmp_path: Path) -> None:
    """It would change rows without them."""
    async with shelf(tmp_path) as hosted:
        await hosted.push(REPOSITORY, PLUGIN)
    connection = sqlite3.connect(tmp_path / "hosted.sqlite")
    (least,) = connection.execute("SELECT value FROM meta WHERE key = 'min_reader'").fetchone()
    connection.close()
    assert int(least) == len(STEPS)
