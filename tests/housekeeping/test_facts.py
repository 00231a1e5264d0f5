"""What the listing says of modules: what they are, and who would not take them; kept, searched, and gone with them."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mirror import looking
from mirror.digest import Digest
from mirror.findings import Findings
from mirror.metadata.base import TagRecord
from mirror.metadata.seen import Asker
from mirror.metadata.sqlite import SqliteMetadata
from mirror.wasm.facts import Facts
from tests.housekeeping.support import Row, act, call, names, pull, rows
from tests.support.artifacts import Artifact, cncf, compat, index, publish
from tests.support.pushing import Author
from tests.support.running import Running, running
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually
from tests.wasm.modules import plugin

LATE = {"defaults": {"fresh_for": "1h"}}
NAME = "up/team/plugin"
DIGEST, OTHER = Digest.of(b"a manifest"), Digest.of(b"another")
FACTS = Facts("oci raw", ("0.2.0", "0.2.1"), "accepted", "the module imports what Envoy lacks")


def told(row: Row) -> tuple[object, ...]:
    return row["layout"], row["abi"], row["verdict"], row["why"]


async def until_looked(mirror: Running, query: str = "") -> list[Row]:
    async def looked() -> list[Row]:
        found = await rows(mirror, query)
        return found if all(row["verdict"] is not None for row in found) else []

    found: list[Row] = await eventually(looked, what="all is looked at")
    return found


async def test_what_was_found_of_a_module_is_told_of_it_and_after_a_restart_too(tmp_path: Path) -> None:
    taken, refused = compat(plugin()), cncf(plugin())
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", taken)
        publish(up, "team/plugin", "2", refused)
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            await pull(mirror, f"{NAME}:1", taken)
            await pull(mirror, f"{NAME}:2", refused)
            good, bad = before = await until_looked(mirror)
            assert told(good) == ("oci tar+gzip", ["0.2.1"], "accepted", None)
            assert told(bad)[:3] == ("cncf", ["0.2.1"], "refused")
            assert "unknown to agents" in bad["why"]
            await act(mirror, "purge", f"{NAME}:2")
            await pull(mirror, f"{NAME}:2", refused)
            assert list(map(told, await until_looked(mirror))) == list(map(told, before)), "it is noted anew"
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            assert list(map(told, await rows(mirror))) == list(map(told, before))
            (purged,) = await act(mirror, "purge", f"{NAME}:2")
            assert purged["result"] == "purged"
            with closing(sqlite3.connect(mirror.directory.database)) as database:
                assert database.execute("SELECT digest FROM fact").fetchall() == [(str(taken.digest),)]


async def test_an_index_is_what_agents_make_of_its_child_and_by_its_digest_they_refuse_it(tmp_path: Path) -> None:
    child = compat(plugin())
    parent = index(child)
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", parent)
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            assert (await mirror.get(f"/v2/{NAME}/manifests/1")).status == 200
            assert (await mirror.get(f"/v2/{NAME}/manifests/{child.digest}")).status == 200
            assert (await mirror.get(f"/v2/{NAME}/blobs/{child.layers[0]}")).status == 200
            await act(mirror, "pins", f"{NAME}@{parent.digest}")
            by_tag, by_digest = await until_looked(mirror)
            assert told(by_tag) == ("oci tar+gzip", ["0.2.1"], "accepted", None)
            assert (by_digest["tag"], by_digest["verdict"]) == (None, "refused")
            assert "checksum mismatch" in by_digest["why"]
            assert names(await rows(mirror, "verdict=refused")) == [f"{NAME}@{parent.digest}"]


async def test_what_is_pushed_is_known_as_soon_as_it_was_judged(tmp_path: Path) -> None:
    async with running(tmp_path, {"up": "http://127.0.0.1:1"}) as mirror:
        await Author(mirror).push(compat(plugin()), "1.0")
        (row,) = await until_looked(mirror)
        assert told(row) == ("oci tar+gzip", ["0.2.1"], "accepted", None)


async def test_modules_are_searched_by_name_and_verdict_page_by_page(tmp_path: Path) -> None:
    artifacts: dict[str, Artifact] = {"Alpha": compat(plugin()), "beta": cncf(plugin()), "gamma": compat(plugin())}
    with FaultyUpstream() as up:
        for tag, artifact in artifacts.items():
            publish(up, "team/filter", tag, artifact)
        publish(up, "other/auth", "1", cncf(plugin()))
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            for tag, artifact in artifacts.items():
                await pull(mirror, f"up/team/filter:{tag}", artifact)
            await pull(mirror, "up/other/auth:1", cncf(plugin()))
            await until_looked(mirror)
            assert names(await rows(mirror, "search=TEAM%2Ffilter:alpha")) == ["up/team/filter:Alpha"]
            assert names(await rows(mirror, "search=AM/fi&limit=1")) == [f"up/team/filter:{tag}" for tag in artifacts]
            assert names(await rows(mirror, "verdict=refused")) == ["up/other/auth:1", "up/team/filter:beta"]
            assert names(await rows(mirror, "search=filter&verdict=refused")) == ["up/team/filter:beta"]
            assert await rows(mirror, "search=%25") == await rows(mirror, "verdict=not_wasm") == []
            page = await call(mirror, "GET", "modules?search=filter&limit=1")
            assert page["total"] == 3
            await call(mirror, "GET", f"modules?search=auth&after={page['next']}", status=400)
            await call(mirror, "GET", "modules?verdict=fine", status=400)


async def test_what_nobody_looked_at_is_looked_at_after_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = compat(plugin())
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            await pull(mirror, f"{NAME}:1", artifact)
            await until_looked(mirror)
            database = mirror.directory.database
        with closing(sqlite3.connect(database)) as connection, connection:  # as the release before has left it
            connection.execute("DELETE FROM fact")
        asked = up.count()
        monkeypatch.setattr(looking, "_FIRST_AFTER", 0.0)
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            (row,) = await until_looked(mirror)
            assert told(row) == ("oci tar+gzip", ["0.2.1"], "accepted", None)
        assert up.count() == asked, "nothing is fetched for it"


async def test_facts_are_kept_until_their_manifest_goes(tmp_path: Path) -> None:
    store = SqliteMetadata.open(tmp_path / "metadata.sqlite")
    findings = Findings(store, "these")
    findings.note([DIGEST, OTHER], FACTS)
    assert await findings.of([DIGEST]) == {}, "nobody waits for it"
    await findings.flush()
    assert await findings.of([DIGEST, OTHER]) == {DIGEST: FACTS, OTHER: FACTS}
    assert await Findings(store, "others").looked() == {str(DIGEST): False, str(OTHER): False}
    assert await findings.looked() == {str(DIGEST): True, str(OTHER): True}
    asker = Asker("10.0.0.1", "", "", 1, 5.0, 5.0)
    await store.put_askers({DIGEST: [asker], OTHER: [asker]}, 0.0)
    await store.forget_accesses([DIGEST])  # of what was evicted or purged
    assert (await findings.of([DIGEST, OTHER]), await store.askers(DIGEST)) == ({OTHER: FACTS}, [])
    assert [digest async for portion in store.all_noted() for digest in portion] == [str(OTHER)]
    assert [await store.forget([str(OTHER)], before) for before in (5.0, 6.0)] == [0, 1]  # of what is missing
    assert await store.askers(OTHER) == []
    await store.forget_seen([OTHER])
    assert await findings.verdicts() == {}
    await store.aclose()


async def test_a_damaged_row_of_who_asked_is_as_good_as_none(tmp_path: Path) -> None:
    store = SqliteMetadata.open(tmp_path / "metadata.sqlite")
    askers = [Asker(f"10.0.0.{number}", "", "", 1, 5.0, 5.0) for number in (1, 2)]
    await store.put_askers({DIGEST: askers}, 0.0)
    with closing(sqlite3.connect(tmp_path / "metadata.sqlite")) as database, database:
        database.execute("PRAGMA ignore_check_constraints = ON")
        database.execute("UPDATE asker SET last_at = x'ff' WHERE client = '10.0.0.1'")
    assert await store.askers(DIGEST) == askers[1:]
    await store.aclose()


@pytest.mark.parametrize("change", ["verdict = 'fine'", "verdict = x'ff'", "layout = x'ff'", "why = x'ff'"])
async def test_a_damaged_row_is_as_good_as_none(tmp_path: Path, change: str) -> None:
    store = SqliteMetadata.open(tmp_path / "metadata.sqlite")
    await store.put_facts({DIGEST: FACTS, OTHER: FACTS}, "these")
    record = TagRecord("up", "team/plugin", "1", DIGEST, "", 1, 1.0)
    await store.put_tag(record)
    with closing(sqlite3.connect(tmp_path / "metadata.sqlite")) as database, database:
        database.execute("PRAGMA ignore_check_constraints = ON")
        database.execute(f"UPDATE fact SET {change} WHERE digest = ?", (str(DIGEST),))
    assert await store.facts([str(DIGEST), str(OTHER)]) == {str(OTHER): FACTS}
    assert str(OTHER) in await Findings(store, "these").looked()
    assert await store.tag("up", "team/plugin", "1") is not None, "the database goes on"
    await store.put_facts({DIGEST: FACTS}, "these")
    assert set(await store.facts([str(DIGEST)])) == {str(DIGEST)}
    await store.aclose()
