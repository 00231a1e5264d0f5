"""docs/redis.md lists the keys that there are, with the time for which they last."""

import inspect
import re
import time
from pathlib import Path

import pytest

from mirror.config.models import MetadataSettings
from mirror.metadata import records
from mirror.metadata.base import BlobRecord
from mirror.metadata.redis import MAX_HOLDERS, RedisMetadata
from mirror.shared import keys
from tests.metadata.conformance import ANSWER, LINK, TAG, A
from tests.metadata.redis_stores import PATIENCE, connected
from tests.support.redis import RedisServer

_PAGE = (Path(__file__).parents[2] / "docs" / "redis.md").read_text()
_DAY = 86400


def patterns() -> dict[str, str]:
    """The name of each function that makes a key, and what it makes of the names of its arguments."""
    found = {}
    for name, function in inspect.getmembers(keys, inspect.isfunction):
        signature = inspect.signature(function)
        if signature.return_annotation is str:
            found[name] = function(*(f"<{parameter}>" for parameter in signature.parameters))
    return found


def rows() -> list[list[str]]:
    """The cells of the table of keys."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in _PAGE.splitlines() if line.startswith("| `wm")]


def test_the_page_lists_exactly_the_keys_that_there_are() -> None:
    listed = [row[0].strip("`") for row in rows()]
    assert len(patterns()) == 11
    assert sorted(listed) == sorted(patterns().values())


def test_the_page_says_for_how_long_keys_last() -> None:
    lasts = {row[0].strip("`"): row[3] for row in rows()}
    for name, seconds in (
        ("tag", keys.TAG_LASTS),
        ("link", keys.LINK_LASTS),
        ("kept", keys.KEPT_LASTS),
        ("blob", keys.BLOB_LASTS),
        ("access", keys.BLOB_LASTS),
        ("holders", keys.HOLDER_LASTS),
    ):
        assert re.match(rf"{seconds / _DAY:g} d\b", lasts[patterns()[name]]), name


def test_the_page_names_the_version_and_the_bounds() -> None:
    assert f"a field `v`, {records.VERSION} now" in _PAGE
    assert f"up to {MAX_HOLDERS} addresses" in _PAGE


def test_the_patterns_for_scanning_match_the_keys_of_tags_and_links() -> None:
    for pattern, name in ((keys.ALL_TAGS, "tag"), (keys.ALL_LINKS, "link")):
        expression = re.compile(re.escape(pattern).replace(r"\*", ".*"))
        assert [key for key in patterns().values() if expression.fullmatch(key)] == [patterns()[name]]


@pytest.mark.needs("redis-server")
async def test_the_rights_that_the_page_names_are_enough(tmp_path: Path) -> None:
    found = re.search(r"`user mirror on >… ([^`]+)`", _PAGE)
    assert found is not None
    password = tmp_path / "password"
    password.write_text("hunter2")
    with RedisServer(tmp_path / "redis") as server:
        with server.client() as raw:
            raw.execute_command("ACL", "SETUSER", "mirror", "on", ">hunter2", *found[1].split())
        settings = MetadataSettings(url=server.url, username="mirror", password_file=password)
        async with connected(settings) as client:
            store = RedisMetadata(client, time.time, PATIENCE)
            await store.announce_move(await store.put_tag(TAG))
            await store.delete_tag("ghcr.io", "team/filter", "v2", 1.0)
            await store.merge_tags([TAG])
            await store.put_links([LINK])
            await store.put_negative("ghcr.io", "team/filter", "v7", 4e9)
            await store.keep("key", ANSWER)
            await store.put_blob(BlobRecord(A, 5, "0" * 64, 999.75))
            await store.touch({A: 1000.0})
            await store.add_holder(A, "http://a:1")
            assert await store.holders(A) == ["http://a:1"]
            await store.remove_holders([A], "http://a:1")
            assert len([entries async for entries in store.all_tags()]) == 1
            assert [links async for links in store.all_links()] == [[LINK]]
