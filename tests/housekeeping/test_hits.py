"""How often manifests were asked for: counted in memory, added up over workers, and kept by whoever can."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mirror.accesses import Accesses
from mirror.digest import Digest
from mirror.errors import StoreError
from mirror.metadata import schema
from mirror.metadata.sqlite import SqliteMetadata
from mirror.metadata.uses import Used
from mirror.oci import Manifest
from tests.metadata.memory import Memory, MemoryMetadata
from tests.support.artifacts import raw, wasm_module

ARTIFACT = raw(wasm_module())
MANIFEST = Manifest.parse(ARTIFACT.body, ARTIFACT.media_type, ARTIFACT.digest)
DIGEST = str(MANIFEST.digest)
BEFORE = schema.STEPS.index(next(step for step in schema.STEPS if "hits" in step))


async def test_each_request_counts_once_and_what_it_names_is_used_but_not_hit(tmp_path: Path) -> None:
    store = SqliteMetadata.open(tmp_path / "metadata.sqlite")
    accesses = Accesses(store, lambda: 1000.0)
    for _ in range(3):
        accesses.manifest(MANIFEST)
    accesses.blob(MANIFEST.named[1].digest)
    await accesses.flush()
    await accesses.flush()
    named = [str(one.digest) for one in MANIFEST.named]
    assert await store.used([DIGEST, *named]) == {DIGEST: Used(3, 1000.0), **{one: Used(0, 1000.0) for one in named}}
    await store.forget_accesses([MANIFEST.digest])
    assert await store.used([DIGEST]) == {}
    await store.aclose()


async def test_workers_add_to_one_another_and_an_older_time_replaces_none(tmp_path: Path) -> None:
    stores = [SqliteMetadata.open(tmp_path / "metadata.sqlite") for _ in range(2)]
    for number, (store, at) in enumerate(zip(stores, (2000.0, 1000.0), strict=True), 1):
        await store.touch({MANIFEST.digest: at}, {MANIFEST.digest: number * 10})
    assert await stores[0].used([DIGEST]) == {DIGEST: Used(30, 2000.0)}
    for store in stores:
        await store.aclose()


async def test_what_could_not_be_written_is_counted_with_the_next_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryMetadata(Memory())
    written: list[dict[Digest, int]] = []
    failing = [True]

    async def touch(accesses: dict[Digest, float], hits: dict[Digest, int]) -> None:
        if failing.pop() if failing else False:
            raise StoreError("the disk is full")
        written.append(hits)

    monkeypatch.setattr(store, "touch", touch)
    accesses = Accesses(store, lambda: 1.0)
    accesses.manifest(MANIFEST)
    await accesses.flush()
    accesses.manifest(MANIFEST)
    await accesses.flush()
    assert written == [{MANIFEST.digest: 2}]


async def test_a_file_of_the_release_before_counts_from_now_on_and_that_release_can_go_on_with_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "metadata.sqlite"
    with closing(sqlite3.connect(path)) as connection, connection:
        schema.migrate(connection, schema.STEPS[:BEFORE])
        connection.execute("INSERT INTO access (digest, at) VALUES (?, 5.0)", (DIGEST,))
    store = SqliteMetadata.open(path)
    assert await store.used([DIGEST]) == {DIGEST: Used(0, 5.0)}
    await store.touch({MANIFEST.digest: 6.0}, {MANIFEST.digest: 2})
    await store.aclose()
    with closing(sqlite3.connect(path)) as connection, connection:  # as the release before writes
        connection.execute(
            "INSERT INTO access (digest, at) VALUES (?, 7.0) "
            "ON CONFLICT (digest) DO UPDATE SET at = excluded.at WHERE excluded.at > access.at",
            (DIGEST,),
        )
    store = SqliteMetadata.open(path)
    assert await store.used([DIGEST]) == {DIGEST: Used(2, 7.0)}
    await store.aclose()


async def test_hits_are_salvaged_from_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "metadata.sqlite"
    store = SqliteMetadata.open(path)
    await store.touch({MANIFEST.digest: 6.0}, {MANIFEST.digest: 2})
    await store.aclose()
    with closing(sqlite3.connect(path)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'negative'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    store = SqliteMetadata.open(path)
    assert await store.used([DIGEST]) == {DIGEST: Used(2, 6.0)}
    await store.aclose()
