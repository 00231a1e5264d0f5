"""The metadata in Redis: what every store promises, and what becomes of it when Redis forgets or a lease is lost."""

import re
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from mirror.digest import Digest
from mirror.errors import LeaseLost, StoreError
from mirror.metadata.base import BlobRecord, Dropped, Fence, Metadata
from mirror.metadata.redis import MAX_HOLDERS
from mirror.shared import keys
from tests.metadata.conformance import ANSWER, GONE, LINK, TAG, A, B, MetadataConformance
from tests.metadata.redis_stores import opened
from tests.support.redis import RedisServer

pytestmark = pytest.mark.needs("redis-server")

KEY = keys.tag("ghcr.io", "team/filter", "v1")
FENCE = Fence("tag v1", "token http://10.0.0.5:8080")


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
    """What stands in Redis."""
    with server.client() as client:
        yield client


class TestRedis(MetadataConformance):
    """A Redis alone."""

    @pytest.fixture(autouse=True)
    def _server(self, server: RedisServer) -> None:
        self.server = server

    def opened(self, place: Path) -> AbstractAsyncContextManager[Metadata]:
        """Another place is another database of the server."""
        return opened(f"{self.server.url}/{int(place.name == 'other')}")


def generation(raw: "redis.Redis") -> int:
    """The number that replicas watch; 0 when there is none."""
    return int(str(raw.get(keys.generation()) or 0))


async def test_every_key_that_may_expire_does(server: RedisServer, raw: "redis.Redis") -> None:
    """The number of moves alone stays for ever."""
    async with opened(server.url) as store:
        for number in range(3):
            record = await store.put_tag(replace(TAG, tag=f"v{number}"))
            await store.announce_move(record)
            await store.put_tag(replace(record, digest=B))
        await store.put_tag(TAG)
        await store.put_tag(TAG)
        await store.delete_tag("ghcr.io", "team/filter", "v1", 2000.0)
        await store.merge_tags([replace(TAG, tag="v8"), replace(GONE, tag="v9")])
        await store.merge_tags([replace(TAG, tag="v8", serial=7)])
        await store.put_links([LINK, replace(LINK, digest=B, media_type="", size=-1)])
        await store.put_negative("ghcr.io", "team/filter", "v7", 4e9)
        await store.put_negative("ghcr.io", "team/filter", str(A), 4e12)
        await store.keep("key", ANSWER)
        await store.put_blob(BlobRecord(A, 5, "0" * 64, 999.75))
        await store.touch({A: 1000.0, B: 4.0})
        await store.touch({A: 2000.0})
        await store.add_holder(A, "http://a:1")
    lasting = {str(key): raw.pttl(key) for key in raw.scan_iter("*")}
    assert len(lasting) == 16
    assert [key for key, left in lasting.items() if left == -1] == [keys.generation()]


async def test_a_record_says_its_version_and_is_text(server: RedisServer, raw: "redis.Redis") -> None:
    async with opened(server.url) as store:
        await store.put_tag(replace(TAG, serial=3))
        await store.delete_tag("ghcr.io", "team/filter", "v2", 2000.5)
    assert raw.hgetall(KEY) == {
        "v": "1", "digest": str(A), "media_type": TAG.media_type, "size": "512", "fetched_at": "1000.25",
        "serial": "3", "moving": "0",
    }  # fmt: skip
    deleted = raw.hgetall(keys.tag("ghcr.io", "team/filter", "v2"))
    assert deleted == {"v": "1", "deleted_at": "2000.5", "serial": "1"}


async def test_what_a_later_release_adds_is_passed_over(server: RedisServer, raw: "redis.Redis") -> None:
    async with opened(server.url) as store:
        await store.put_tag(TAG)
        await store.put_links([LINK])
        for key in (KEY, keys.link("ghcr.io", "team/filter", A)):
            raw.hset(key, "signed_by", "somebody")
        assert await store.tag("ghcr.io", "team/filter", "v1") == TAG
        assert await store.link("ghcr.io", "team/filter", A) == LINK
        await store.put_tag(replace(TAG, fetched_at=1001.0))
        assert raw.hget(KEY, "signed_by") == "somebody"
        await store.put_tag(replace(TAG, digest=B))
        assert raw.hget(KEY, "signed_by") is None


async def test_a_record_of_a_version_that_is_not_known_is_absent(server: RedisServer, raw: "redis.Redis") -> None:
    """Upstream's word takes its place, what another replica has does not."""
    async with opened(server.url) as store:
        await store.put_tag(replace(TAG, serial=7))
        raw.hset(KEY, "v", "2")
        assert await store.tag("ghcr.io", "team/filter", "v1") is None
        assert [entries async for entries in store.all_tags()] == []
        await store.merge_tags([replace(TAG, serial=100)])
        await store.announce_move(TAG)
        assert raw.hmget(KEY, "v", "serial", "moving") == ["2", "7", "0"]
        assert await store.put_tag(TAG) == replace(TAG, serial=8)
        assert await store.tag("ghcr.io", "team/filter", "v1") == replace(TAG, serial=8)
        await store.put_links([LINK])
        raw.hset(keys.link("ghcr.io", "team/filter", A), mapping={"v": "2", "size": "3"})
        await store.merge_links([replace(LINK, serial=3)])
        assert await store.link("ghcr.io", "team/filter", A) is None
        await store.put_links([replace(LINK, size=-1)])
        assert await store.link("ghcr.io", "team/filter", A) == replace(LINK, size=-1)


async def test_a_link_that_was_dropped_is_none_to_the_release_before(server: RedisServer, raw: "redis.Redis") -> None:
    """Which reads the media type and the size, and takes a size that is no number for nonsense."""
    async with opened(server.url) as store:
        await store.put_links([LINK])
        await store.drop_link("ghcr.io", "team/filter", A, 2000.5)
        assert raw.hgetall(keys.link("ghcr.io", "team/filter", A)) == {
            "v": "1", "dropped_at": "2000.5", "serial": "0", "size": "dropped",
        }  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [
        {"digest": "sha256:short"}, {"size": "many"}, {"fetched_at": ""}, {"serial": "1.5"}, {"v": "one"},
        {"deleted_at": "then"},
    ],
)  # fmt: skip
async def test_a_record_that_makes_no_sense_is_absent(
    server: RedisServer, raw: "redis.Redis", fields: dict[str, str]
) -> None:
    async with opened(server.url) as store:
        await store.put_tag(TAG)
        for name, value in fields.items():
            raw.hset(KEY, name, value)
        assert await store.tag("ghcr.io", "team/filter", "v1") is None
        assert [entries async for entries in store.all_tags()] == []


async def test_a_key_of_another_type_is_an_error_and_no_outage(server: RedisServer, raw: "redis.Redis") -> None:
    async with opened(server.url) as store:
        raw.set(KEY, "text")
        with pytest.raises(StoreError, match="WRONGTYPE"):
            await store.tag("ghcr.io", "team/filter", "v1")
        assert await store.tag("ghcr.io", "team/filter", "v2") is None


async def test_who_holds_the_lease_may_write(server: RedisServer, raw: "redis.Redis") -> None:
    async with opened(server.url) as store:
        raw.set(keys.tag_lease(FENCE.name), FENCE.token)
        await store.put_tag(TAG, FENCE)
        await store.announce_move(TAG, FENCE)
        assert await store.tag("ghcr.io", "team/filter", "v1") == replace(TAG, moving=True)
        await store.delete_tag("ghcr.io", "team/filter", "v1", 2000.0, FENCE)
        assert await store.tag("ghcr.io", "team/filter", "v1") == GONE


@pytest.mark.parametrize("holder", ["other http://10.0.0.6:8080", None])
async def test_nothing_is_written_under_a_lease_that_is_lost(
    server: RedisServer, raw: "redis.Redis", holder: str | None
) -> None:
    """Somebody else holds it now, or it is over."""
    async with opened(server.url) as store:
        await store.put_tag(TAG)
        before = generation(raw)
        if holder is not None:
            raw.set(keys.tag_lease(FENCE.name), holder)
        with pytest.raises(LeaseLost):
            await store.put_tag(replace(TAG, digest=B), FENCE)
        with pytest.raises(LeaseLost):
            await store.announce_move(TAG, FENCE)
        with pytest.raises(LeaseLost):
            await store.delete_tag("ghcr.io", "team/filter", "v1", 2000.0, FENCE)
        assert await store.tag("ghcr.io", "team/filter", "v1") == TAG
        assert generation(raw) == before


async def test_no_number_of_the_generation_comes_twice_though_the_last_ones_were_lost(
    server: RedisServer, raw: "redis.Redis"
) -> None:
    """A failover gives back the number before the last moves; what follows is new to all who have seen those."""
    async with opened(server.url) as store:
        await store.put_tag(TAG)
        before = generation(raw)
        await store.put_tag(replace(TAG, digest=B))
        seen = generation(raw)
        raw.set(keys.generation(), before)
        await store.put_tag(replace(TAG, digest=A))
        assert generation(raw) > seen > before


async def test_the_generation_moves_when_a_tag_does_and_only_then(server: RedisServer, raw: "redis.Redis") -> None:
    """When what it names changes, is deleted, or is about to change; not when it is confirmed."""
    async with opened(server.url) as store:

        async def moves(work: object) -> bool:
            before = generation(raw)
            await work  # type: ignore[misc]  # any coroutine
            return generation(raw) > before

        assert await moves(store.put_tag(TAG))
        assert not await moves(store.put_tag(replace(TAG, fetched_at=1001.0)))
        assert not await moves(store.put_tag(replace(TAG, serial=4)))
        assert await moves(store.announce_move(TAG))
        assert not await moves(store.announce_move(replace(TAG, digest=B)))
        assert not await moves(store.put_tag(TAG))
        assert await moves(store.put_tag(replace(TAG, digest=B)))
        assert await moves(store.delete_tag("ghcr.io", "team/filter", "v1", 2000.0))
        assert await moves(store.put_tag(TAG))
        assert not await moves(store.merge_tags([TAG, replace(TAG, serial=20)]))
        assert await moves(store.merge_tags([replace(TAG, serial=21, digest=B), replace(TAG, tag="v2")]))
        assert await moves(store.merge_tags([replace(GONE, serial=22)]))
        assert not await moves(store.merge_tags([replace(GONE, serial=23)]))
        assert not await moves(store.put_links([LINK]))
        assert await moves(store.drop_link("ghcr.io", "team/filter", A, 2000.0))
        assert not await moves(store.merge_links([LINK]))
        assert await moves(store.merge_links([Dropped("ghcr.io", "team/filter", A, 2000.0, 0)]))
        assert not await moves(store.put_negative("ghcr.io", "team/filter", "v9", 4e9))


@pytest.mark.parametrize("write", ["put", "delete", "merge"])
async def test_a_generation_that_was_lost_begins_above_all_that_it_was(
    server: RedisServer, raw: "redis.Redis", write: str
) -> None:
    """So that no replica takes it for one that it has seen."""
    async with opened(server.url) as store:
        seen = 0
        for number in range(20):
            if write == "put":
                await store.put_tag(replace(TAG, tag=f"v{number}"))
            elif write == "delete":
                await store.delete_tag("ghcr.io", "team/filter", "v1", 2000.0)
            else:
                await store.merge_tags([replace(TAG, tag=f"v{number}")])
            assert generation(raw) > seen
            seen = generation(raw)
            if number % 5 == 4:
                raw.flushall()


async def test_a_confirmation_from_elsewhere_does_not_end_a_move(server: RedisServer) -> None:
    """While a tag moves, another replica writes back what it has: the same version, confirmed later."""
    async with opened(server.url) as store:
        await store.put_tag(TAG)
        await store.announce_move(TAG)
        later = replace(TAG, fetched_at=1001.0)
        await store.merge_tags([later])
        assert await store.tag("ghcr.io", "team/filter", "v1") == replace(later, moving=True)
        await store.merge_tags([replace(TAG, serial=1)])
        assert await store.tag("ghcr.io", "team/filter", "v1") == replace(TAG, serial=1)


async def test_a_flush_in_the_middle_costs_only_what_was_there(server: RedisServer) -> None:
    """Scripts too are forgotten, and are sent again."""
    async with opened(server.url) as store:
        await store.put_tag(TAG)
        with server.client() as client:
            client.flushall()
            client.script_flush()
        assert await store.tag("ghcr.io", "team/filter", "v1") is None
        assert await store.put_tag(TAG) == TAG
        assert await store.tag("ghcr.io", "team/filter", "v1") == TAG


async def test_a_serial_that_was_evicted_goes_on_from_that_of_the_record(
    server: RedisServer, raw: "redis.Redis"
) -> None:
    """The replica that writes next has it in its own database."""
    async with opened(server.url) as store:
        record = await store.put_tag(replace(TAG, serial=6))
        raw.delete(KEY)
        assert (await store.put_tag(replace(record, digest=B))).serial == 6
        await store.merge_tags([record])
        assert await store.tag("ghcr.io", "team/filter", "v1") == replace(record, digest=B)


async def test_a_negative_answer_outlasts_clocks_that_differ_a_little(server: RedisServer, raw: "redis.Redis") -> None:
    """It ends by itself, though never at once."""
    async with opened(server.url) as store:
        await store.put_negative("ghcr.io", "team/filter", "v1", 1000.0)
        assert await store.negative("ghcr.io", "team/filter", "v1", 999.0) == 1000.0
        assert 0 < int(str(raw.pttl(keys.negative("ghcr.io", "team/filter", "v1")))) <= 1000


async def test_the_replicas_that_hold_a_blob_are_known_the_last_one_first(
    server: RedisServer, raw: "redis.Redis"
) -> None:
    async with opened(server.url) as store:
        assert await store.holders(A) == []
        for number in range(MAX_HOLDERS + 3):
            await store.add_holder(A, f"http://10.0.0.{number}:8080")
        found = await store.holders(A)
        assert len(found) == MAX_HOLDERS
        assert set(found) <= {f"http://10.0.0.{number}:8080" for number in range(MAX_HOLDERS + 3)}
        raw.zadd(keys.holders(A), {"http://old:1": 1.0})
        assert await store.holders(A) == found
        await store.remove_holders([A], found[0])
        assert await store.holders(A) == found[1:]
        assert await store.holders(B) == []
        await store.add_holder(A, "http://new:1")
        assert raw.zscore(keys.holders(A), "http://old:1") is None


async def test_keys_lie_in_the_slots_of_what_they_are_about(server: RedisServer, raw: "redis.Redis") -> None:
    """Everything about tags in one, and no name of a client's choice can leave its own."""
    async with opened(server.url) as store:
        await store.put_tag(TAG)
        await store.put_links([LINK])
        await store.put_negative("ghcr.io", "team/filter", "v7", 4e9)
        await store.keep("{tags}", ANSWER)
        await store.put_blob(BlobRecord(A, 5, "0" * 64, 999.75))
    slots = {match[1] for key in raw.scan_iter("*") if (match := re.search(r"\{(.*?)\}", str(key)))}
    assert len(slots) == 4
    assert {"tags", "ghcr.io/team/filter", str(A)} <= slots


async def test_a_kept_answer_of_megabytes_comes_back_whole(server: RedisServer) -> None:
    large = replace(ANSWER, body=bytes(range(256)) * (4 << 12))
    async with opened(server.url) as store:
        await store.keep("key", large)
        assert await store.kept("key") == large


def test_the_keys_of_tags_and_links_can_be_read_back() -> None:
    assert keys.parse_tag(keys.tag("ghcr.io", "team/filter", "v1")) == ("ghcr.io", "team/filter", "v1")
    assert keys.parse_link(keys.link("ghcr.io", "team/filter", A)) == ("ghcr.io", "team/filter", str(A))
    for parse in (keys.parse_tag, keys.parse_link):
        for key in ("", "wm1:{tags}:tag:v1", "wm1:{tags}:members", "wm1:{a}:link:b", "other:{a/b}:link:c", "wm1:{a/b}"):
            with pytest.raises(ValueError, match="is no key"):
                parse(key)


def test_a_digest_is_not_split_by_the_key_that_names_it() -> None:
    digest = Digest.of(b"c", "sha512")
    assert keys.blob(digest) == f"wm1:{{{digest}}}:blob"
