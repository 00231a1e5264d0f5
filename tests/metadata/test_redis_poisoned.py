"""A Redis that somebody else has written to: what makes no sense there is as good as absent, and gives way."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from mirror.errors import StoreError
from mirror.metadata.base import MAX_SERIAL, Fence, Link, TagEntry
from mirror.metadata.redis import MAX_HOLDERS, RedisMetadata
from mirror.metadata.resilient import ResilientMetadata
from mirror.metadata.sqlite import SqliteMetadata
from mirror.shared import keys
from tests.metadata.conformance import ANSWER, LINK, TAG, A, B
from tests.metadata.redis_stores import opened
from tests.support.redis import RedisServer

pytestmark = pytest.mark.needs("redis-server")

PLACE = ("ghcr.io", "team/filter", "v1")
KEY = keys.tag(*PLACE)
LINK_KEY = keys.link("ghcr.io", "team/filter", A)
FIELDS: dict[Any, Any] = {
    "v": "1", "digest": str(B), "media_type": "text/plain", "size": "5", "fetched_at": "1e9", "serial": "9",
    "moving": "0",
}  # fmt: skip

NONSENSE: dict[str, list[str | bytes]] = {
    "v": ["-1", "", "inf", "nan", "9" * 5000, b"\xff"],
    "digest": ["", "sha256:" + "g" * 64, "../../etc/passwd", b"\xff\xfe", "x" * 100_000],
    "media_type": ["text/plain\r\nSet-Cookie: a=b", "text/plain\n", "a\0b", "é", b"\xff", "x" * 100_000],
    "size": ["-1", "1e3", "inf", "9" * 30, "9" * 5000, " 5", "5_0"],
    "fetched_at": ["nan", "inf", "-inf", "-1", "1e300", "9" * 5000, "then"],
    "serial": ["-1", "inf", "nan", "1e308", str(MAX_SERIAL + 1), "9" * 16, "9" * 5000, "0x10", "5 "],
    "deleted_at": ["nan", "inf", "-5", "", "1e300"],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One for all tests of this file."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(autouse=True)
def _empty(server: RedisServer) -> None:
    server.flush()


@pytest.fixture
def raw(server: RedisServer) -> Iterator["redis.Redis"]:
    """The one who writes what is not ours."""
    with server.client() as client:
        yield client


@contextlib.asynccontextmanager
async def pair(folder: Path, shared: RedisMetadata) -> AsyncIterator[ResilientMetadata]:
    """A replica: Redis, and its own database behind it."""
    local = SqliteMetadata.open(folder / "metadata.db")
    both = ResilientMetadata(local, shared, lambda: True)
    try:
        yield both
    finally:
        await both.aclose()


def spoil(raw: "redis.Redis", key: str, kind: str) -> None:
    """Let there be something of another type, that never ends."""
    raw.delete(key)
    match kind:
        case "text":
            raw.set(key, "x")
        case "list":
            raw.lpush(key, "x")
        case "set":
            raw.sadd(key, "x")
        case "stream":
            raw.xadd(key, {"x": "y"})


@pytest.mark.parametrize("name", NONSENSE)
async def test_nonsense_in_a_tag_is_not_taken_over_and_gives_way_to_upstreams_word(
    server: RedisServer, raw: "redis.Redis", tmp_path: Path, name: str
) -> None:
    async with opened(server.url) as store, pair(tmp_path, store) as both:
        for value in NONSENSE[name]:
            raw.delete(KEY)
            raw.hset(KEY, mapping={**FIELDS, name: value})
            assert await store.tag(*PLACE) is None, value
            found: list[TagEntry] = [entry async for portion in both.all_tags() for entry in portion]
            assert all(entry.serial <= MAX_SERIAL for entry in found)
            stands = await both.put_tag(TAG)
            assert await store.tag(*PLACE) == await both.tag(*PLACE) == stands, value


async def test_a_field_that_is_missing_makes_a_tag_absent(server: RedisServer, raw: "redis.Redis") -> None:
    async with opened(server.url) as store:
        for name in FIELDS.keys() - {"moving"}:
            raw.delete(KEY)
            raw.hset(KEY, mapping={key: value for key, value in FIELDS.items() if key != name})
            assert await store.tag(*PLACE) is None, name
            await store.announce_move(TAG)
            await store.delete_tag(*PLACE, 2000.0)
            await store.put_tag(TAG)
            assert await store.tag(*PLACE) is not None


async def test_a_serial_that_cannot_grow_leaves_the_order_to_the_times(
    server: RedisServer, raw: "redis.Redis", tmp_path: Path
) -> None:
    async with opened(server.url) as store, pair(tmp_path, store) as both:
        raw.hset(KEY, mapping={**FIELDS, "serial": str(MAX_SERIAL), "fetched_at": "500"})
        first = await both.put_tag(TAG)
        assert first.serial == MAX_SERIAL
        second = await both.put_tag(replace(TAG, digest=B, fetched_at=TAG.fetched_at + 1))
        assert await store.tag(*PLACE) == await both.tag(*PLACE) == second
        raw.delete(KEY)
        assert await both.tag(*PLACE) == second


@pytest.mark.parametrize("kind", ["text", "list", "set", "stream"])
async def test_keys_of_another_type_are_replaced_by_the_next_write(
    server: RedisServer, raw: "redis.Redis", tmp_path: Path, kind: str
) -> None:
    async with opened(server.url) as store, pair(tmp_path, store) as both:
        spoil(raw, KEY, kind)
        assert await both.tag(*PLACE) is None
        await both.put_tag(TAG)
        assert await store.tag(*PLACE) == TAG
        for write in (lambda: store.delete_tag(*PLACE, 2000.0), lambda: store.merge_tags([TAG])):
            spoil(raw, KEY, kind)
            await write()
            assert await store.tag(*PLACE) is not None
        spoil(raw, LINK_KEY, kind)
        assert await both.link("ghcr.io", "team/filter", A) is None
        await both.put_links([LINK])
        assert await store.link("ghcr.io", "team/filter", A) == LINK
        spoil(raw, keys.holders(A), kind)
        await store.add_holder(A, "http://10.0.0.5")
        assert await store.holders(A) == ["http://10.0.0.5"]


@pytest.mark.parametrize("value", ["x", "-5", "1.5", "9" * 19, "9" * 5000, "", b"\xff", "inf"])
async def test_a_generation_that_is_no_number_begins_anew(
    server: RedisServer, raw: "redis.Redis", value: str | bytes
) -> None:
    async with opened(server.url) as store:
        raw.set(keys.generation(), value)
        await store.put_tag(TAG)
        assert await store.tag(*PLACE) == TAG
        moved = int(str(raw.get(keys.generation())))
        assert moved > 10**15
        await store.put_tag(replace(TAG, digest=B))
        assert int(str(raw.get(keys.generation()))) > moved


async def test_a_generation_of_another_type_begins_anew(server: RedisServer, raw: "redis.Redis") -> None:
    async with opened(server.url) as store:
        spoil(raw, keys.generation(), "list")
        await store.put_tag(TAG)
        assert int(str(raw.get(keys.generation()))) > 10**15


async def test_one_record_that_is_nonsense_keeps_no_other_from_being_read_or_written_back(
    server: RedisServer, raw: "redis.Redis", tmp_path: Path
) -> None:
    async with opened(server.url) as store, pair(tmp_path, store) as both:
        tags = [await both.put_tag(replace(TAG, tag=f"v{number}")) for number in range(5)]
        await both.put_links([LINK])
        raw.flushdb()
        spoil(raw, keys.tag("ghcr.io", "team/filter", "v2"), "text")
        raw.hset(keys.tag("ghcr.io", "team/filter", "v3"), mapping={"v": "abc", "serial": "x", "fetched_at": "nan"})
        spoil(raw, keys.tag("ghcr.io", "team/filter", "other"), "set")
        raw.set(b"wm1:{tags}:tag:\xff\xfe", "x")
        raw.hset("wm1:{tags}:tag:../../etc:v1", mapping=FIELDS)
        raw.hset(b"wm1:{tags}:tag:\xff/x:v1", mapping=FIELDS)
        raw.hset(f"wm1:{{ghcr.io/../x}}:link:{A}", mapping={"v": "1"})
        spoil(raw, LINK_KEY, "list")
        await both.write_back()
        found = [entry async for portion in store.all_tags() for entry in portion]
        assert sorted(found, key=lambda entry: entry.tag) == tags
        links: list[Link] = [link async for portion in store.all_links() for link in portion]
        assert links == [LINK]


@pytest.mark.parametrize(
    "fields",
    [
        {"media_type": "a\r\nb: c"}, {"media_type": b"\xff"}, {"media_type": "x" * 256}, {"size": "-2"},
        {"size": "9" * 5000}, {"size": "nan"}, {"v": "nan"}, {"serial": "-1"}, {"serial": "x"}, {"serial": "9" * 14},
        {"dropped_at": "nan"}, {"dropped_at": "-1"}, {"dropped_at": "then"}, {"dropped_at": "1", "serial": "1e3"},
    ],
)  # fmt: skip
async def test_nonsense_in_a_link_makes_it_absent(
    server: RedisServer, raw: "redis.Redis", fields: dict[Any, Any]
) -> None:
    """And what is put takes its place, or that it was dropped."""
    async with opened(server.url) as store:
        for write in (store.put_links([LINK]), store.drop_link("ghcr.io", "team/filter", A, 1.0)):
            raw.delete(LINK_KEY)
            raw.hset(LINK_KEY, mapping={"v": "1", "media_type": "text/plain", "size": "3", **fields})
            assert await store.link("ghcr.io", "team/filter", A) is None
            await write
            assert await store.link("ghcr.io", "team/filter", A) is not None


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e300", "then", b"\xff", "9" * 5000])
async def test_nonsense_about_an_absence_is_no_absence(
    server: RedisServer, raw: "redis.Redis", value: str | bytes
) -> None:
    async with opened(server.url) as store:
        raw.set(keys.negative(*PLACE), value)
        assert await store.negative(*PLACE, 1000.0) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"headers": '{"link": "a\\r\\nb: c"}'}, {"headers": '{"a b": "c"}'}, {"headers": '{"a\\n": "c"}'},
        {"headers": '{"link": 5}'}, {"headers": "[" * 100_000}, {"headers": '{"a":' * 100_000}, {"headers": b"\xff"},
        {"headers": '{"a": "\\ud800"}'}, {"headers": "[]"}, {"fetched_at": "nan"}, {"body": b"x" * (9 << 20)},
    ],
)  # fmt: skip
async def test_nonsense_in_a_kept_answer_makes_it_absent(
    server: RedisServer, raw: "redis.Redis", fields: dict[Any, Any]
) -> None:
    async with opened(server.url) as store:
        await store.keep("question", ANSWER)
        (key,) = raw.keys("*:kept")
        raw.hset(key, mapping=fields)
        assert await store.kept("question") is None


async def test_of_holders_only_so_many_and_only_what_may_be_an_address_are_taken(
    server: RedisServer, raw: "redis.Redis"
) -> None:
    """Nor does a time that has not come keep those from being noted that do hold it."""
    async with opened(server.url) as store:
        poison = [b"\xff\xfe", b"x" * 100_000, *(b"http://10.6.6.%d" % number for number in range(200))]
        raw.zadd(keys.holders(A), dict.fromkeys(poison, float("inf")))
        assert len(await store.holders(A)) <= MAX_HOLDERS
        await store.add_holder(A, "http://10.0.0.5")
        assert await store.holders(A) == ["http://10.0.0.5"]


async def test_a_lease_of_another_type_is_an_error_and_writes_nothing(server: RedisServer, raw: "redis.Redis") -> None:
    async with opened(server.url) as store:
        spoil(raw, keys.tag_lease("tag v1"), "list")
        with pytest.raises(StoreError, match="WRONGTYPE"):
            await store.put_tag(TAG, Fence("tag v1", "token"))
        assert await store.tag(*PLACE) is None
