"""The list of what is known and held: complete, and the same from page to page, whatever is pulled meanwhile."""

import asyncio
import sqlite3
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.housekeeping.support import act, call, names, pull, rows
from tests.support.artifacts import Artifact, compat, publish, raw, wasm_module
from tests.support.pushing import Author
from tests.support.running import Running, running
from tests.support.upstream import FaultyUpstream

NAME = "up/team/plugin"
LATE = {"defaults": {"fresh_for": "1h"}}


def plugin(seed: int, size: int = 3_000) -> Artifact:
    return raw(wasm_module(size, seed=seed))


async def test_a_row_says_what_is_known_and_held(tmp_path: Path) -> None:
    artifact, pushed = compat(wasm_module(4_000, seed=1)), plugin(2)
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            await Author(mirror).push(pushed, "1.0")
            assert (await mirror.get("/v2/hosted/team/plugin/manifests/1.0")).status == 200
            for _ in range(3):
                assert (await mirror.get(f"/v2/{NAME}/manifests/1")).status == 200
            await mirror.until_held(artifact.layers[0])
            hosted, cached = await rows(mirror)
            everything = sum(map(len, artifact.blobs.values()))  # its config is here because what was pushed has it too
            assert cached == {
                "reference": f"{NAME}:1",
                "upstream": "up",
                "repository": "team/plugin",
                "tag": "1",
                "digest": str(artifact.digest),
                "media_type": artifact.media_type,
                "size": len(artifact.body) + everything,
                "complete": True,
                "hits": 3,
                "used_at": pytest.approx(cached["fetched_at"], abs=60),
                "fetched_at": cached["fetched_at"],
                "fresh": True,
                "pinned": False,
                "layout": cached["layout"],
                "abi": cached["abi"],
                "verdict": cached["verdict"],
                "why": cached["why"],
            }
            assert (hosted["reference"], hosted["hits"], hosted["fresh"]) == ("hosted/team/plugin:1.0", 1, True)
            config = next(digest for digest in artifact.blobs if digest not in artifact.layers)
            mirror.directory.blob(config).unlink()
            _, cached = await rows(mirror)
            assert cached["complete"], "agents never ask for it"
            mirror.directory.blob(artifact.layers[0]).unlink()
            _, cached = await rows(mirror)
            assert (cached["complete"], cached["size"]) == (False, len(artifact.body))


async def test_what_is_pinned_by_digest_has_a_row(tmp_path: Path) -> None:
    artifact = plugin(3)
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            await act(mirror, "pins", f"{NAME}@{artifact.digest}")
            (row,) = await rows(mirror, "pinned=true")
            assert (row["reference"], row["tag"]) == (f"{NAME}@{artifact.digest}", None)
            assert (row["pinned"], row["media_type"]) == (True, artifact.media_type)
            assert await rows(mirror, "pinned=false") == []


async def shelf(mirror: Running, up: FaultyUpstream, n: int) -> list[str]:
    """``n`` tags of artifacts, each larger than the one before, and asked for once more."""
    references = []
    for number in range(n):
        artifact = plugin(number, 2_000 + 1_000 * number)
        publish(up, f"team-{number % 2}/plugin", f"v{number}", artifact)
        await pull(mirror, f"up/team-{number % 2}/plugin:v{number}", artifact)
        for _ in range(number):
            await mirror.get(f"/v2/up/team-{number % 2}/plugin/manifests/v{number}")
        references.append(f"up/team-{number % 2}/plugin:v{number}")
    return references


async def test_it_is_filtered_and_sorted(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            references = await shelf(mirror, up, 5)
            assert names(await rows(mirror)) == sorted(references)
            assert names(await rows(mirror, "sort=size&")) == references
            assert names(await rows(mirror, "sort=hits&order=desc&")) == references[::-1]
            assert names(await rows(mirror, "sort=fetched&")) == references
            assert names(await rows(mirror, "sort=used&")) == references
            assert names(await rows(mirror, "min_hits=4&")) == sorted(references[3:])
            assert names(await rows(mirror, f"repository={quote('team-1/*')}&")) == references[1::2]
            sizes = {row["reference"]: row["size"] for row in await rows(mirror)}
            limit = sizes[references[2]]
            assert names(await rows(mirror, f"sort=size&min_size={limit}&")) == references[2:]
            assert names(await rows(mirror, f"sort=size&max_size={limit}&")) == references[:3]
            assert names(await rows(mirror, "older_than=3600&")) == []
            assert names(await rows(mirror, "older_than=0&")) == sorted(references)
            assert names(await rows(mirror, "upstream=hosted&")) == []
            assert names(await rows(mirror, "hosted=false&")) == sorted(references)
            assert (await call(mirror, "GET", "modules?limit=2"))["total"] == 5


@pytest.mark.integration
async def test_its_pages_have_each_row_once_while_pulls_go_on(tmp_path: Path) -> None:
    """Of all orders: `test_inventory`."""
    with FaultyUpstream() as up:
        async with running(tmp_path, {"up": up}, {"defaults": {"fresh_for": "0s"}}) as mirror:
            references = await shelf(mirror, up, 6)

            async def stir(number: int) -> None:
                """What was last becomes what is first, and something new comes."""
                for reference in (references[0], references[-1], references[number % 6]):
                    repository, _, tag = reference.rpartition(":")
                    for _ in range(5):
                        await mirror.get(f"/v2/{repository}/manifests/{tag}")
                new = plugin(100 + number)
                publish(up, "other/plugin", f"v{number}", new)
                await pull(mirror, f"up/other/plugin:v{number}", new)

            found: list[str] = []
            after, number = "", 0
            while True:
                page = await call(mirror, "GET", f"modules?sort=used&order=desc&limit=2{after}")
                found += names(page["modules"])
                if page["next"] is None:
                    break
                after = f"&after={page['next']}"
                await stir(number)
                number += 1
            assert len(found) == len(set(found)), "each once"
            assert set(references) <= set(found), "none is missed"


async def test_what_goes_between_two_pages_is_not_told_and_nothing_else_is_missed(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            references = await shelf(mirror, up, 6)
            page = await call(mirror, "GET", "modules?sort=size&limit=1")
            await act(mirror, "purge", *references[1:3])
            found = await rows(mirror, "sort=size&limit=2", page["next"])
            assert names(page["modules"] + found) == [references[0], *references[3:]]


@pytest.mark.integration
async def test_a_page_goes_on_where_the_order_was_lost(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            references = await shelf(mirror, up, 4)
            page = await call(mirror, "GET", "modules?sort=size&limit=2")
            await asyncio.to_thread(_forget_orders, mirror)
            found = await rows(mirror, "sort=size&limit=2", page["next"])
            assert names(page["modules"] + found) == references


@pytest.mark.integration
async def test_who_leafs_again_and_again_does_not_fill_the_disk(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            await shelf(mirror, up, 2)
            for _ in range(60):
                await call(mirror, "GET", "modules?sort=hits&limit=1")
            assert 0 < await asyncio.to_thread(_orders, mirror) <= 16


def _orders(mirror: Running) -> int:
    """How many orders are kept."""
    connection = sqlite3.connect(mirror.directory.database)
    (number,) = connection.execute("SELECT count(*) FROM kept WHERE key LIKE 'order %'").fetchone()
    connection.close()
    return int(number)


def _forget_orders(mirror: Running) -> None:
    connection = sqlite3.connect(mirror.directory.database)
    with connection:
        connection.execute("DELETE FROM kept WHERE key LIKE 'order %'")
    connection.close()


async def test_a_bad_after_gets_one_clear_line(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        async with running(tmp_path, {"up": up}) as mirror:
            for after in ("x", "%00", "bm8", "e30", "W10", quote("ä" * 100), "a" * 8000):
                reply = await mirror.get(f"/api/v1/modules?after={after}", {"Host": "localhost"})
                assert reply.status == 400, reply
                assert "after must be the `next` of the page before" in reply.message


async def test_an_after_of_another_list_is_refused(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        async with running(tmp_path, {"up": up}, LATE) as mirror:
            await shelf(mirror, up, 3)
            page = await call(mirror, "GET", "modules?sort=size&limit=1")
            reply = await mirror.get(f"/api/v1/modules?sort=hits&after={page['next']}", {"Host": "localhost"})
            assert (reply.status, "another list" in reply.message) == (400, True)
