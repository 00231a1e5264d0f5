"""The embedded store: what every store promises, its schema, its bounds, and the event loop that it must not block."""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.errors import StartError, StoreError
from mirror.metadata import linked, recovery, schema, statements
from mirror.metadata.base import Dropped, KeptAnswer, Metadata, Tombstone, Unpacked
from mirror.metadata.sqlite import SqliteMetadata
from tests.metadata.conformance import MetadataConformance
from tests.metadata.databases import DIGEST, LINK, NAME, TAG, files, fill, opened, raw
from tests.support.waiting import eventually


class TestSqlite(MetadataConformance):
    """What every store promises, on SQLite."""

    def opened(self, place: Path) -> AbstractAsyncContextManager[Metadata]:
        """The database in ``place``."""
        return opened(place)


def tables(path: Path) -> set[str]:
    with raw(path) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


async def test_every_lookup_is_by_a_primary_key(tmp_path: Path) -> None:
    """No request scans a table, however large it grows."""
    plans: list[str] = []

    class Explaining(sqlite3.Connection):
        """Notes the plan of each statement."""

        def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
            plans.extend(row[3] for row in super().execute("EXPLAIN QUERY PLAN " + sql, parameters))  # type: ignore[arg-type] # passed on as it came
            return super().execute(sql, parameters)  # type: ignore[arg-type] # passed on as it came

    async with opened(tmp_path):
        pass
    connection = sqlite3.connect(tmp_path / NAME, factory=Explaining)
    try:
        statements.tag(connection, "u", "r", "t")
        linked.link(connection, "u", "r", DIGEST)
        statements.negative(connection, "u", "r", "t", 0.0)
        statements.kept(connection, "k")
        statements.blob(connection, DIGEST)
        statements.last_access(connection, DIGEST)
        statements.unpacked(connection, DIGEST, 0)
        statements.delete_tag(connection, "u", "r", "t", 1.0)
        statements.announce_move(connection, TAG)
        statements.merge_tags(connection, [TAG])
        statements.put_negative(connection, "u", "r", "t", 1.0, 0.0)
        linked.drop_link(connection, "u", "r", DIGEST, 1.0)
        linked.put_links(connection, [LINK])
        linked.merge_links(connection, [LINK])
    finally:
        connection.close()
    searches = [plan for plan in plans if plan.startswith(("SEARCH", "SCAN"))]
    assert len(searches) >= 16
    assert all(plan.startswith("SEARCH") for plan in searches), searches


async def test_an_older_schema_is_migrated_and_keeps_its_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each step that is missing is done, once."""
    async with opened(tmp_path) as store:
        await store.put_tag(TAG)
    steps = (*schema.STEPS, "CREATE TABLE second (x)", "CREATE TABLE third (x); INSERT INTO third VALUES (3)")
    monkeypatch.setattr(schema.migrate, "__defaults__", (steps,))
    for _ in range(2):
        async with opened(tmp_path) as store:
            assert await store.tag("ghcr.io", "team/filter", "v1") == TAG
    assert {"second", "third"} <= tables(tmp_path / NAME)
    with raw(tmp_path / NAME) as connection:
        assert connection.execute("SELECT * FROM third").fetchall() == [(3,)]
        assert connection.execute("PRAGMA user_version").fetchone() == (len(steps),)


async def test_a_step_that_fails_leaves_the_schema_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration is a transaction: nothing of half a step is seen, and the release before it goes on."""
    async with opened(tmp_path) as store:
        await store.put_tag(TAG)
    with monkeypatch.context() as patched:
        broken = (*schema.STEPS, "CREATE TABLE second (x); INSERT INTO nowhere VALUES (1)")
        patched.setattr(schema.migrate, "__defaults__", (broken,))
        async with opened(tmp_path) as store:
            with pytest.raises(StoreError, match="nowhere"):
                await store.tag("ghcr.io", "team/filter", "v1")
    assert "second" not in tables(tmp_path / NAME)
    async with opened(tmp_path) as store:
        assert await store.tag("ghcr.io", "team/filter", "v1") == TAG


async def test_what_a_module_was_kept_as_is_remembered_for_each_entry_of_each_archive(tmp_path: Path) -> None:
    """By all workers and after a restart, and the last word counts."""
    first = Unpacked(DIGEST, 3, Digest.of(b"module"), 6)
    others = [replace(first, entry=30), replace(first, layer=Digest.of(b"x", "sha512"), size=1 << 40)]
    async with opened(tmp_path) as one, opened(tmp_path) as other:
        assert await one.unpacked(DIGEST, 3) is None
        for record in (replace(first, digest=Digest.of(b"lost"), size=4), first, *others):
            await one.put_unpacked(record)
        assert await other.unpacked(DIGEST, 3) == first
    async with opened(tmp_path) as store:
        assert [await store.unpacked(record.layer, record.entry) for record in others] == others


async def test_what_the_next_release_adds_does_not_keep_this_one_out(tmp_path: Path) -> None:
    """Releases N and N+1 share a data directory: an addition leaves ``min_reader`` alone."""
    async with opened(tmp_path) as store:
        await store.put_tag(TAG)
    with raw(tmp_path / NAME) as connection:
        connection.execute("ALTER TABLE tag ADD COLUMN etag TEXT NOT NULL DEFAULT ''")
        connection.execute(f"PRAGMA user_version = {len(schema.STEPS) + 1}")
    async with opened(tmp_path) as store:
        assert await store.tag("ghcr.io", "team/filter", "v1") == TAG
        await store.put_tag(replace(TAG, size=3))
        assert await store.tag("ghcr.io", "team/filter", "v1") == replace(TAG, size=3)
    with raw(tmp_path / NAME) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(schema.STEPS) + 1,)


async def test_the_release_before_goes_on_with_the_same_file_and_this_one_after_it(tmp_path: Path) -> None:
    """It writes and deletes tags without serials and knows no tombstones: what it wrote last is what counts."""
    later = replace(TAG, digest=Digest.of(b"later"), fetched_at=3000.0)
    async with opened(tmp_path) as store:
        await store.put_tag(TAG)
        await store.put_tag(replace(TAG, tag="v2"))
        await store.delete_tag("ghcr.io", "team/filter", "v3", 2000.0)
        await store.delete_tag("ghcr.io", "team/filter", "v4", 2000.0)
    with raw(tmp_path / NAME) as connection:
        for tag in ("v1", "v3"):
            connection.execute(
                "INSERT OR REPLACE INTO tag (upstream, repository, tag, digest, media_type, size, fetched_at) "
                "VALUES ('ghcr.io', 'team/filter', ?, ?, ?, ?, ?)",
                (tag, str(later.digest), later.media_type, later.size, later.fetched_at),
            )
        for tag in ("v2", "v4"):
            connection.execute(
                "DELETE FROM tag WHERE upstream = 'ghcr.io' AND repository = 'team/filter' AND tag = ?", (tag,)
            )
    async with opened(tmp_path) as store:
        revived = replace(later, tag="v3", serial=2)
        gone = Tombstone("ghcr.io", "team/filter", "v4", 2000.0, 1)
        assert await store.tag("ghcr.io", "team/filter", "v1") == later
        assert await store.tag("ghcr.io", "team/filter", "v2") is None
        assert await store.tag("ghcr.io", "team/filter", "v3") == revived
        assert await store.tag("ghcr.io", "team/filter", "v4") == gone
        assert [entry async for entries in store.all_tags() for entry in entries] == [later, revived, gone]
        assert (await store.put_tag(replace(TAG, tag="v3", fetched_at=4000.0))).serial == 3


async def test_a_file_of_the_release_before_is_taken_over(tmp_path: Path) -> None:
    """Its tags have the serial 0."""
    with raw(tmp_path / NAME) as connection:
        schema.migrate(connection, schema.STEPS[:1])
        row = (TAG.upstream, TAG.repository, TAG.tag, str(TAG.digest), TAG.media_type, TAG.size, TAG.fetched_at)
        connection.execute("INSERT INTO tag VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    async with opened(tmp_path) as store:
        assert await store.tag("ghcr.io", "team/filter", "v1") == TAG
        assert not store.links_incomplete


async def test_a_file_without_modules_gets_a_table_for_them(tmp_path: Path) -> None:
    """As the release before left it."""
    record = Unpacked(DIGEST, 0, Digest.of(b"module"), 6)
    with raw(tmp_path / NAME) as connection:
        schema.migrate(connection, schema.STEPS[:2])
    async with opened(tmp_path) as store:
        assert await store.unpacked(DIGEST, 0) is None
        await store.put_unpacked(record)
        assert await store.unpacked(DIGEST, 0) == record


async def test_what_this_release_cannot_read_is_refused_in_one_line(tmp_path: Path) -> None:
    """And left untouched."""
    async with opened(tmp_path):
        pass
    with raw(tmp_path / NAME) as connection:
        connection.execute("UPDATE meta SET value = '7' WHERE key = 'min_reader'")
        connection.execute("PRAGMA user_version = 9")
    with pytest.raises(StartError) as refused:
        SqliteMetadata.open(tmp_path / NAME)
    assert "newer release" in refused.value.message
    assert "\n" not in refused.value.message
    with raw(tmp_path / NAME) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (9,)


@pytest.mark.parametrize("where", ["a file", "nowhere"])
def test_a_directory_that_cannot_hold_it_is_refused_at_start(tmp_path: Path, where: str) -> None:
    """In one line that says why."""
    (tmp_path / "a file").touch()
    with pytest.raises(StartError, match=r"cannot hold the metadata database: (Not a directory|No such file)"):
        SqliteMetadata.open(tmp_path / where / NAME)


async def test_a_database_out_of_reach_is_an_error_to_callers_and_comes_back_by_itself(tmp_path: Path) -> None:
    """Not at start, and not for ever; and the error names no path of the host."""
    (tmp_path / NAME).mkdir()
    async with opened(tmp_path) as store:
        for _ in range(3):
            with pytest.raises(StoreError) as failed:
                await store.put_tag(TAG)
            assert str(tmp_path) not in failed.value.message
        with pytest.raises(StoreError):
            await store.tag("ghcr.io", "team/filter", "v1")
        (tmp_path / NAME).rmdir()

        async def works() -> bool:
            try:
                await store.put_tag(TAG)
                return await store.tag("ghcr.io", "team/filter", "v1") == TAG
            except StoreError:
                return False

        works_again: Callable[[], bool | Awaitable[bool]] = works
        await eventually(works_again)


async def test_a_database_that_was_removed_is_made_anew_while_it_serves(tmp_path: Path) -> None:
    """Losing it costs what it knew, no request."""
    async with opened(tmp_path) as store:
        await store.put_tag(TAG)
        for path in files(tmp_path):
            path.unlink()
        assert await store.tag("ghcr.io", "team/filter", "v1") is None
        await store.put_tag(TAG)
        assert await store.tag("ghcr.io", "team/filter", "v1") == TAG


async def test_the_loop_goes_on_and_reads_are_answered_while_another_process_holds_the_write_lock(
    tmp_path: Path,
) -> None:
    """A write waits for the lock in its thread, and is done when it is free."""
    async with opened(tmp_path) as store:
        await store.put_tag(TAG)
        with raw(tmp_path / NAME) as connection:
            connection.execute("BEGIN IMMEDIATE")
            put = asyncio.ensure_future(store.put_tag(replace(TAG, tag="v2")))
            began, longest = time.monotonic(), 0.0
            while (now := time.monotonic()) < began + 1.5:  # longer than SQLite itself waits for the lock
                assert await store.tag("ghcr.io", "team/filter", "v1") == TAG
                await asyncio.sleep(0.001)
                longest = max(longest, time.monotonic() - now)
            assert not put.done()
            assert longest < 0.9
            connection.execute("COMMIT")
        await put
        assert await store.tag("ghcr.io", "team/filter", "v2") is not None


@pytest.mark.integration
async def test_a_lock_that_is_never_released_is_an_error_in_bounded_time(tmp_path: Path) -> None:
    """The caller goes on without the database."""
    async with opened(tmp_path) as store:
        with raw(tmp_path / NAME) as connection:
            connection.execute("BEGIN IMMEDIATE")
            async with asyncio.timeout(12):
                with pytest.raises(StoreError, match="locked"):
                    await store.put_tag(TAG)
        await store.put_tag(TAG)


async def test_a_caller_that_goes_away_harms_no_other(tmp_path: Path) -> None:
    """Cancelled reads and writes leave the threads in order."""
    async with opened(tmp_path) as store:
        tasks = [asyncio.ensure_future(store.put_tag(replace(TAG, tag=f"v{number}"))) for number in range(20)]
        tasks += [asyncio.ensure_future(store.tag("ghcr.io", "team/filter", "v1")) for _ in range(20)]  # type: ignore[arg-type] # only ever cancelled
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await store.put_tag(TAG)
        assert await store.tag("ghcr.io", "team/filter", "v1") == TAG


async def test_what_nobody_waits_for_any_more_is_not_done(tmp_path: Path) -> None:
    """So that a slow disk is not kept busy with what callers gave up."""
    async with opened(tmp_path) as store:
        with raw(tmp_path / NAME) as connection:
            connection.execute("BEGIN IMMEDIATE")
            first = asyncio.ensure_future(store.put_tag(TAG))  # occupies the thread
            await asyncio.sleep(0.1)
            given_up = asyncio.ensure_future(store.put_tag(replace(TAG, tag="v2")))
            await asyncio.sleep(0)
            given_up.cancel()
            connection.execute("COMMIT")
        await first
        await store.put_tag(replace(TAG, tag="v3"))
        assert await store.tag("ghcr.io", "team/filter", "v2") is None


async def test_a_write_that_cannot_be_made_does_not_take_others_with_it(tmp_path: Path) -> None:
    """They are committed together, but a number beyond 64 bits is the fault of one."""
    async with opened(tmp_path) as store:
        with raw(tmp_path / NAME) as connection:
            connection.execute("BEGIN IMMEDIATE")
            first = asyncio.ensure_future(store.put_tag(TAG))  # occupies the thread, so that the rest is one batch
            await asyncio.sleep(0.1)
            good, bad, other = (
                asyncio.ensure_future(store.put_tag(replace(TAG, tag=tag, size=size)))
                for tag, size in (("v2", 1), ("v3", 1 << 70), ("v4", 2))
            )
            await asyncio.sleep(0)
            connection.execute("COMMIT")
        with pytest.raises(OverflowError):
            await bad
        await asyncio.gather(first, good, other)
        assert await store.tag("ghcr.io", "team/filter", "v4") == replace(TAG, tag="v4", size=2)


async def test_after_closing_every_call_is_an_error(tmp_path: Path) -> None:
    """And closing again is none."""
    async with opened(tmp_path) as store:
        await store.aclose()
        with pytest.raises(StoreError):
            await store.tag("ghcr.io", "team/filter", "v1")
    assert files(tmp_path) == [tmp_path / NAME, tmp_path / f"{NAME}.lock"]


async def test_expired_negative_answers_do_not_pile_up(tmp_path: Path) -> None:
    """They go when the next one is noted."""
    now = [1000.0]
    store = SqliteMetadata.open(tmp_path / NAME, clock=lambda: now[0])
    try:
        for number in range(10):
            await store.put_negative("ghcr.io", "team/filter", f"v{number}", 1010.0)
        now[0] = 1010.0
        await store.put_negative("ghcr.io", "team/filter", "v99", 1020.0)
        with raw(tmp_path / NAME) as connection:
            assert connection.execute("SELECT reference FROM negative").fetchall() == [("v99",)]
    finally:
        await store.aclose()


@pytest.mark.parametrize(
    ("limit", "value"), [("_MAX_KEPT", 20), ("_MAX_KEPT_BYTES", 20 * 100)], ids=["number", "bytes"]
)
async def test_kept_answers_are_bounded_and_the_newest_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    """Clients choose the questions, so their number must not be theirs to choose."""
    monkeypatch.setattr(statements, limit, value)
    async with opened(tmp_path) as store:
        for number in range(256):
            await store.keep(f"key {number}", KeptAnswer(b"x" * 100, {}, float(number)))
        with raw(tmp_path / NAME) as connection:
            kept = [key for (key,) in connection.execute("SELECT key FROM kept ORDER BY fetched_at")]
        assert kept == [f"key {number}" for number in range(236, 256)]


async def test_negative_answers_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that hold longest stay."""
    monkeypatch.setattr(statements, "_MAX_NEGATIVE", 20)
    async with opened(tmp_path) as store:
        for number in range(256):
            await store.put_negative("ghcr.io", "team/filter", f"v{number}", 4e9 + number)
        with raw(tmp_path / NAME) as connection:
            assert connection.execute("SELECT count(*), min(until) FROM negative").fetchone() == (20, 4e9 + 236)


async def test_tombstones_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest stay."""
    monkeypatch.setattr(statements, "_MAX_TOMBSTONES", 20)
    async with opened(tmp_path) as store:
        await store.merge_tags([Tombstone("ghcr.io", "team/filter", f"v{n}", float(n), 1) for n in range(100)])
        for number in range(256):
            await store.put_negative("ghcr.io", "team/filter", f"v{number}", 4e9)
        assert len([entry async for entries in store.all_tags() for entry in entries]) == 20
        assert await store.tag("ghcr.io", "team/filter", "v80") is not None
        digests = [Digest.of(bytes([number])) for number in range(100)]
        await store.merge_links([Dropped("u", "r", digest, float(at), 0) for at, digest in enumerate(digests)])
        for number in range(256):
            await store.put_negative("ghcr.io", "team/filter", f"v{number}", 4e9)
        assert {drop.digest async for drops in store.all_drops() for drop in drops} == set(digests[80:])


async def test_a_tag_has_a_row_or_a_tombstone_and_never_both(tmp_path: Path) -> None:
    """What the release before does not know must not pile up behind it."""
    async with opened(tmp_path) as store:
        for at in range(3):
            await store.delete_tag("ghcr.io", "team/filter", "v1", float(at))
            await store.put_tag(TAG)
        with raw(tmp_path / NAME) as connection:
            assert connection.execute("SELECT (SELECT count(*) FROM tag), count(*) FROM tombstone").fetchone() == (1, 0)
            await store.delete_tag("ghcr.io", "team/filter", "v1", 9.0)
            assert connection.execute("SELECT (SELECT count(*) FROM tag), count(*) FROM tombstone").fetchone() == (0, 1)


async def test_a_link_has_a_row_or_was_dropped_and_never_both(tmp_path: Path) -> None:
    """But where the release before has put it anew, which knows nothing of drops: then upstream is asked once more."""
    counts = "SELECT (SELECT count(*) FROM link), count(*) FROM dropped"
    place = LINK.upstream, LINK.repository, LINK.digest
    async with opened(tmp_path) as store:
        for at in range(3):
            await store.drop_link(*place, float(at))
            await store.put_links([LINK])
        with raw(tmp_path / NAME) as connection:
            assert connection.execute(counts).fetchone() == (1, 0)
            gone = await store.drop_link(*place, 9.0)
            assert connection.execute(counts).fetchone() == (0, 1)
            connection.execute("INSERT INTO link VALUES (?, ?, ?, 'text/x', 1, 0)", [str(part) for part in place])
            connection.commit()
        assert await store.link(*place) == gone
        assert [portion async for portion in store.all_links()] == []
        assert [portion async for portion in store.all_drops()] == [[gone]]
        await store.put_links([LINK])
        assert [portion async for portion in store.all_links()] == [[replace(LINK, serial=gone.serial + 1)]]


async def test_portions_are_small_and_found_by_the_primary_key(tmp_path: Path) -> None:
    """Other reads go in between, however much there is."""
    async with opened(tmp_path) as store:
        await fill(store, 1200)
        for portions in (store.all_tags(), store.all_links()):
            sizes = []
            async for portion in portions:
                sizes.append(len(portion))
                assert await store.tag("ghcr.io", "team/filter", "v1") is not None
            assert sizes == [500, 500, 200]
    with raw(tmp_path / NAME) as connection:
        for table, column in (("tag", "tag"), ("tombstone", "tag"), ("link", "digest"), ("dropped", "digest")):
            plan = connection.execute(
                f"EXPLAIN QUERY PLAN SELECT * FROM {table} WHERE (upstream, repository, {column}) > ('', '', '') "
                f"ORDER BY upstream, repository, {column} LIMIT 1"
            ).fetchall()
            assert [step[3].split()[0] for step in plan] == ["SEARCH"]


def commits(trace: list[str]) -> list[str]:
    return [statement for statement in trace if "synchronous" in statement]


@pytest.fixture
def trace(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement that the writing and reading threads run."""
    found: list[str] = []
    connect = sqlite3.connect

    def traced(*args: object, **kwargs: object) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **kwargs)  # type: ignore[call-overload] # passed on as it came
        connection.set_trace_callback(found.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    return found


async def test_new_tags_and_links_are_synced_to_the_disk_and_confirmed_ones_are_not(
    tmp_path: Path, trace: list[str]
) -> None:
    """A power cut may take back when a tag was confirmed, not what it names."""
    full, normal = ["PRAGMA synchronous = FULL"], ["PRAGMA synchronous = NORMAL"]
    async with opened(tmp_path) as store:

        async def of(write: Callable[[], object]) -> list[str]:
            trace.clear()
            await write()  # type: ignore[misc] # each of them gives an awaitable
            return commits(trace)

        assert await of(lambda: store.put_tag(TAG)) == full
        assert await of(lambda: store.put_tag(replace(TAG, fetched_at=2000.0))) == normal
        assert await of(lambda: store.put_tag(replace(TAG, digest=Digest.of(b"moved")))) == full
        tag, later = replace(TAG, digest=DIGEST, serial=9), replace(TAG, digest=DIGEST, serial=9, fetched_at=3000.0)
        assert await of(lambda: store.merge_tags([tag])) == full
        assert await of(lambda: store.merge_tags([tag, TAG])) == []
        assert await of(lambda: store.merge_tags([tag, later])) == normal
        assert await of(lambda: store.announce_move(later)) == normal
        assert await of(lambda: store.delete_tag("ghcr.io", "team/filter", "v1", 1.0)) == full
        assert await of(lambda: store.put_tag(TAG)) == full
        assert await of(lambda: store.put_links([LINK])) == full
        assert await of(lambda: store.put_links([LINK])) == []
        assert await of(lambda: store.touch({DIGEST: 1.0})) == normal


async def test_writes_that_queue_up_are_committed_together(tmp_path: Path, trace: list[str]) -> None:
    """A burst of pulls costs a few syncs, not one for each."""
    async with opened(tmp_path) as store:
        trace.clear()
        await asyncio.gather(*(store.put_tag(replace(TAG, tag=f"v{number}")) for number in range(200)))
        assert len(commits(trace)) < 100


async def test_a_backup_is_one_sound_file_with_all_that_was_known(tmp_path: Path) -> None:
    """And nothing is left beside it."""
    async with opened(tmp_path) as store:
        await store.put_tag(TAG)
        await store.backup()
        suffixes = ("", "-shm", "-wal", ".backup", ".backup.lock", ".lock")
        assert files(tmp_path) == [tmp_path / f"{NAME}{suffix}" for suffix in suffixes]
    with raw(tmp_path / f"{NAME}.backup") as connection:
        recovery.check(connection)
        assert connection.execute("SELECT tag FROM tag").fetchall() == [("v1",)]


async def test_backups_are_made_when_due_and_by_one_worker_for_all(tmp_path: Path) -> None:
    """At once when there is none; then not before the interval is over."""
    backup = tmp_path / f"{NAME}.backup"
    async with opened(tmp_path) as one, opened(tmp_path) as other:
        tasks = [asyncio.ensure_future(store.backups.run(3600.0)) for store in (one, other)]
        try:
            await eventually(backup.exists)
            first = backup.stat().st_ino
            due_in = await asyncio.to_thread(one.backups.renew_when_due, 3600.0)
            assert 3500 < due_in <= 3600
            assert backup.stat().st_ino == first
            tasks.append(asyncio.ensure_future(other.backups.run(0.1)))
            await eventually(lambda: backup.stat().st_ino != first)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_backup_that_fails_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The task lives on, and says what failed."""
    (tmp_path / f"{NAME}.backup.partial").mkdir()
    async with opened(tmp_path) as store:
        task = asyncio.ensure_future(store.backups.run(0.05))
        try:
            await eventually(lambda: "was not backed up" in caplog.text)
            (tmp_path / f"{NAME}.backup.partial").rmdir()
            await eventually((tmp_path / f"{NAME}.backup").exists)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
