"""What every metadata store promises (`mirror.metadata.base.Metadata`), as tests that run on any of them.

A test class of a store derives from `MetadataConformance` and says how it is opened.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from mirror.digest import Digest
from mirror.metadata.base import (
    BlobRecord,
    Dropped,
    KeptAnswer,
    Link,
    LinkEntry,
    Metadata,
    TagEntry,
    TagRecord,
    Tombstone,
)

A, B = Digest.of(b"a"), Digest.of(b"b", "sha512")
TAG = TagRecord("ghcr.io", "team/filter", "v1", A, "application/vnd.oci.image.manifest.v1+json", 512, 1000.25)
GONE = Tombstone("ghcr.io", "team/filter", "v1", 2000.0, 1)
LINK = Link("ghcr.io", "team/filter", A, "application/vnd.oci.image.layer.v1.tar+gzip", 1 << 40)
ANSWER = KeptAnswer(b'{"tags":["v1"]}\x00\xff', {"Link": '</v2/x?n="1">; rel="next"', "Content-Type": "é"}, 1000.5)


def _numbered(number: int, serial: int) -> TagEntry:
    """An entry of the tag ``v<number>``; those with an even serial are tombstones."""
    if serial % 2 == 0:
        return replace(GONE, tag=f"v{number}", serial=serial)
    return replace(TAG, tag=f"v{number}", serial=serial, size=number)


class MetadataConformance:
    """Derive from it, and say in `opened` how the store is opened and closed."""

    def opened(self, place: Path) -> AbstractAsyncContextManager[Metadata]:
        """A store kept at ``place``; opened twice, it is one store as two worker processes see it."""
        raise NotImplementedError

    @asynccontextmanager
    async def two(self, place: Path) -> AsyncIterator[tuple[Metadata, Metadata]]:
        """One store, opened twice at once."""
        async with AsyncExitStack() as stack:
            yield (
                await stack.enter_async_context(self.opened(place)),
                await stack.enter_async_context(self.opened(place)),
            )

    async def test_a_new_store_knows_nothing(self, tmp_path: Path) -> None:
        """None for everything, and no claim that links are missing."""
        async with self.opened(tmp_path) as store:
            assert await store.tag("ghcr.io", "team/filter", "v1") is None
            assert await store.link("ghcr.io", "team/filter", A) is None
            assert await store.negative("ghcr.io", "team/filter", "v1", 0.0) is None
            assert await store.kept("key") is None
            assert await store.blob(A) is None
            assert await store.last_access(A) is None
            assert not store.links_incomplete

    async def test_a_record_comes_back_as_it_was_put(self, tmp_path: Path) -> None:
        """Every field of every record, sha512 and sizes beyond 32 bits too."""
        blob = BlobRecord(B, 3 << 40, "0" * 64, 999.75)
        async with self.opened(tmp_path) as store:
            await store.put_tag(TAG)
            await store.put_links([LINK, replace(LINK, digest=B, media_type="", size=-1)])
            await store.keep("key", ANSWER)
            await store.put_blob(blob)
            await store.touch({A: 1000.125})
            assert await store.tag("ghcr.io", "team/filter", "v1") == TAG
            assert await store.link("ghcr.io", "team/filter", A) == LINK
            assert await store.link("ghcr.io", "team/filter", B) == replace(LINK, digest=B, media_type="", size=-1)
            assert await store.kept("key") == ANSWER
            assert await store.blob(B) == blob
            assert await store.last_access(A) == 1000.125

    async def test_what_was_put_is_there_after_a_restart(self, tmp_path: Path) -> None:
        """Closing loses nothing."""
        async with self.opened(tmp_path) as store:
            await store.put_tag(TAG)
            await store.put_links([LINK])
            await store.keep("key", ANSWER)
        async with self.opened(tmp_path) as store:
            assert await store.tag("ghcr.io", "team/filter", "v1") == TAG
            assert await store.link("ghcr.io", "team/filter", A) == LINK
            assert await store.kept("key") == ANSWER
            assert not store.links_incomplete

    async def test_what_one_worker_puts_another_sees_at_once(self, tmp_path: Path) -> None:
        """As soon as the put has returned."""
        async with self.two(tmp_path) as (one, other):
            assert await other.tag("ghcr.io", "team/filter", "v1") is None
            await one.put_tag(TAG)
            assert await other.tag("ghcr.io", "team/filter", "v1") == TAG
            await other.delete_tag("ghcr.io", "team/filter", "v1", 2000.0)
            assert await one.tag("ghcr.io", "team/filter", "v1") == GONE

    async def test_names_that_differ_anywhere_are_different_records(self, tmp_path: Path) -> None:
        """Upstream, repository and tag each count; so does the case of a tag."""
        records = [
            TAG,
            replace(TAG, upstream="quay.io", digest=B),
            replace(TAG, repository="team/filter/v1", tag="v1"),
            replace(TAG, repository="team", tag="filter"),
            replace(TAG, tag="V1", size=7),
            replace(TAG, tag="v1.", size=8),
        ]
        async with self.opened(tmp_path) as store:
            for record in records:
                await store.put_tag(record)
            for record in records:
                assert await store.tag(record.upstream, record.repository, record.tag) == record

    async def test_putting_a_tag_again_replaces_its_record(self, tmp_path: Path) -> None:
        """Also by one that is older: upstream's word is what counts, not the clock."""
        moved = replace(TAG, digest=B, size=9, fetched_at=10.0)
        async with self.opened(tmp_path) as store:
            await store.put_tag(TAG)
            await store.put_tag(moved)
            assert await store.tag("ghcr.io", "team/filter", "v1") == replace(moved, serial=1)
            confirmed = replace(moved, fetched_at=5.0)
            await store.put_tag(confirmed)
            assert await store.tag("ghcr.io", "team/filter", "v1") == replace(confirmed, serial=1)

    async def test_deleting_a_tag_deletes_that_tag_only(self, tmp_path: Path) -> None:
        """A tombstone is left; also where there was no tag."""
        other = replace(TAG, tag="v2")
        async with self.opened(tmp_path) as store:
            await store.put_tag(TAG)
            await store.put_tag(other)
            assert await store.delete_tag("ghcr.io", "team/filter", "v1", 2000.0) == GONE
            assert await store.tag("ghcr.io", "team/filter", "v1") == GONE
            assert await store.tag("ghcr.io", "team/filter", "v2") == other
            assert await store.delete_tag("ghcr.io", "team/filter", "v3", 2000.0) == replace(GONE, tag="v3")
            assert await store.tag("ghcr.io", "team/filter", "v3") == replace(GONE, tag="v3")

    async def test_a_serial_counts_moves_and_deletions_and_no_confirmations(self, tmp_path: Path) -> None:
        """And what is returned is what stands."""
        other = replace(TAG, digest=B)
        async with self.opened(tmp_path) as store:
            assert await store.put_tag(TAG) == TAG
            assert await store.put_tag(replace(TAG, fetched_at=1001.0)) == replace(TAG, fetched_at=1001.0)
            assert await store.put_tag(other) == replace(other, serial=1)
            assert await store.put_tag(replace(TAG, fetched_at=1002.0)) == replace(TAG, fetched_at=1002.0, serial=2)
            assert (await store.delete_tag("ghcr.io", "team/filter", "v1", 2000.0)).serial == 3
            assert (await store.delete_tag("ghcr.io", "team/filter", "v1", 2001.0)).serial == 4
            back = replace(TAG, fetched_at=2002.0)
            assert await store.put_tag(back) == replace(back, serial=5)
            assert await store.tag("ghcr.io", "team/filter", "v1") == replace(back, serial=5)

    async def test_a_serial_never_falls_behind_that_of_the_record_that_is_put(self, tmp_path: Path) -> None:
        """What was read elsewhere and is put here goes on from there."""
        async with self.opened(tmp_path) as store:
            assert (await store.put_tag(replace(TAG, serial=7))).serial == 7
            assert (await store.put_tag(replace(TAG, serial=3))).serial == 7
            assert (await store.put_tag(replace(TAG, serial=9))).serial == 9
            assert (await store.put_tag(replace(TAG, serial=4, digest=B))).serial == 10
            assert (await store.put_tag(replace(TAG, serial=20))).serial == 21

    async def test_a_move_that_is_announced_shows_until_the_tag_is_put(self, tmp_path: Path) -> None:
        """Moved or confirmed; also where the record that is put was read while it was moving."""
        async with self.two(tmp_path) as (one, other):
            await one.put_tag(TAG)
            await one.announce_move(TAG)
            moving = replace(TAG, moving=True)
            assert await other.tag("ghcr.io", "team/filter", "v1") == moving
            confirmed = replace(TAG, fetched_at=1001.0)
            assert await one.put_tag(replace(confirmed, moving=True)) == confirmed
            assert await other.tag("ghcr.io", "team/filter", "v1") == confirmed
            await other.announce_move(confirmed)
            moved = await other.put_tag(replace(TAG, digest=B, fetched_at=1002.0))
            assert await one.tag("ghcr.io", "team/filter", "v1") == moved
            assert moved == replace(TAG, digest=B, fetched_at=1002.0, serial=1)

    async def test_a_move_of_what_does_not_stand_any_more_is_not_announced(self, tmp_path: Path) -> None:
        """The tag moved in between, or was deleted, or was never there."""
        async with self.opened(tmp_path) as store:
            await store.put_tag(replace(TAG, digest=B))
            await store.announce_move(TAG)
            assert await store.tag("ghcr.io", "team/filter", "v1") == replace(TAG, digest=B)
            tombstone = await store.delete_tag("ghcr.io", "team/filter", "v1", 2000.0)
            await store.announce_move(TAG)
            assert await store.tag("ghcr.io", "team/filter", "v1") == tombstone
            await store.announce_move(replace(TAG, tag="v2"))
            assert await store.tag("ghcr.io", "team/filter", "v2") is None

    async def test_merging_takes_over_what_is_later_and_nothing_else(self, tmp_path: Path) -> None:
        """Serials decide; of one serial the time. Records and tombstones alike."""
        entries: list[TagEntry] = [
            replace(TAG, serial=3),
            replace(TAG, serial=3, fetched_at=1001.0),
            replace(GONE, serial=4, deleted_at=10.0),
            replace(TAG, serial=5, digest=B, fetched_at=5.0),
            replace(TAG, serial=5, fetched_at=6.0),
            replace(GONE, serial=6),
        ]
        async with self.opened(tmp_path) as store:
            for at, entry in enumerate(entries):
                await store.merge_tags([entry])
                assert await store.tag("ghcr.io", "team/filter", "v1") == entry
                await store.merge_tags(entries[: at + 1])
                assert await store.tag("ghcr.io", "team/filter", "v1") == entry
            await store.merge_tags([])

    async def test_merging_two_stores_both_ways_makes_them_the_same(self, tmp_path: Path) -> None:
        """In whatever order, with many tags at once."""
        (tmp_path / "one").mkdir()
        (tmp_path / "other").mkdir()
        numbers = range(1200)
        async with self.opened(tmp_path / "one") as one, self.opened(tmp_path / "other") as other:
            await one.merge_tags([_numbered(number, number % 7) for number in numbers])
            await other.merge_tags([_numbered(number, number % 5) for number in reversed(numbers)])
            async for entries in one.all_tags():
                await other.merge_tags(entries)
            async for entries in other.all_tags():
                await one.merge_tags(entries)
            for number in range(0, 1200, 17):
                expected = _numbered(number, max(number % 7, number % 5))
                for store in (one, other):
                    assert await store.tag("ghcr.io", "team/filter", f"v{number}") == expected

    async def test_all_tags_are_told_in_portions_with_tombstones(self, tmp_path: Path) -> None:
        """Each once, and as it stands; none of a new store."""
        async with self.opened(tmp_path) as store:
            assert [entries async for entries in store.all_tags()] == []
            wanted = [_numbered(number, number % 7) for number in range(1200)]
            await store.merge_tags(wanted)
            portions = [list(entries) async for entries in store.all_tags()]
            assert all(0 < len(entries) <= 1000 for entries in portions)
            found = sorted((entry for entries in portions for entry in entries), key=lambda entry: int(entry.tag[1:]))
            assert found == wanted

    async def test_all_links_are_told_in_portions(self, tmp_path: Path) -> None:
        """Each once; none of a new store."""
        async with self.opened(tmp_path) as store:
            assert [links async for links in store.all_links()] == []
            wanted = {
                replace(LINK, repository=f"team/{number % 3}", digest=Digest.of(str(number).encode()), size=number)
                for number in range(1200)
            }
            await store.put_links(wanted)
            portions = [list(links) async for links in store.all_links()]
            assert all(0 < len(links) <= 1000 for links in portions)
            found = [link for links in portions for link in links]
            assert set(found) == wanted
            assert len(found) == len(wanted)

    async def test_a_link_belongs_to_one_repository(self, tmp_path: Path) -> None:
        """Who may read one repository learns nothing through another."""
        async with self.opened(tmp_path) as store:
            await store.put_links([LINK])
            assert await store.link("ghcr.io", "team/other", A) is None
            assert await store.link("quay.io", "team/filter", A) is None
            assert await store.link("ghcr.io", "team/filter", B) is None

    async def test_a_link_learns_and_never_unlearns(self, tmp_path: Path) -> None:
        """An unknown media type or size does not overwrite a known one; a new one does."""
        unknown = replace(LINK, media_type="", size=-1)
        async with self.opened(tmp_path) as store:
            await store.put_links([unknown])
            await store.put_links([LINK])
            await store.put_links([unknown])
            assert await store.link("ghcr.io", "team/filter", A) == LINK
            await store.put_links([replace(LINK, media_type="application/wasm", size=-1)])
            await store.put_links([replace(LINK, media_type="", size=5)])
            assert await store.link("ghcr.io", "team/filter", A) == replace(LINK, media_type="application/wasm", size=5)

    async def test_many_links_and_none_are_put_in_one_call(self, tmp_path: Path) -> None:
        """Any iterable, an empty one too; of two for one digest, the later counts."""
        digests = [Digest.of(str(number).encode()) for number in range(2000)]
        async with self.opened(tmp_path) as store:
            await store.put_links([])
            await store.put_links(replace(LINK, digest=digest) for digest in digests)
            await store.put_links([replace(LINK, digest=B, size=1), replace(LINK, digest=B, size=2)])
            for digest in digests[::100]:
                assert await store.link("ghcr.io", "team/filter", digest) == replace(LINK, digest=digest)
            assert await store.link("ghcr.io", "team/filter", B) == replace(LINK, digest=B, size=2)

    async def test_a_link_that_was_dropped_stays_so_whatever_was_known_before(self, tmp_path: Path) -> None:
        """Also one that was not known, and of a link that was put anew the earlier drop."""
        place = LINK.upstream, LINK.repository, LINK.digest
        gone = Dropped(*place, 2000.5, 0)
        async with self.two(tmp_path) as (one, other):
            await one.put_links([LINK, replace(LINK, repository="team/other")])
            assert await one.drop_link(*place, 2000.5) == gone
            assert await other.link(*place) == gone
            await other.merge_links([LINK])
            assert await one.link(*place) == gone
            assert await one.drop_link(LINK.upstream, LINK.repository, B, 2001.0) == replace(
                gone, digest=B, dropped_at=2001.0
            )
            assert [link async for portion in one.all_links() for link in portion] == [
                replace(LINK, repository="team/other")
            ]
            drops = [drop async for portion in one.all_drops() for drop in portion]
            assert {drop.digest for drop in drops} == {A, B}
        async with self.opened(tmp_path) as again:
            assert await again.link(*place) == gone

    async def test_a_link_that_was_dropped_is_put_anew_by_a_fresh_word(self, tmp_path: Path) -> None:
        """And stands over what others know of the drop; what was known of the link before is not known any more."""
        place = LINK.upstream, LINK.repository, LINK.digest
        async with self.opened(tmp_path) as store:
            await store.put_links([LINK])
            for serial in range(1, 4):
                gone = await store.drop_link(*place, 2000.0)
                assert gone.serial == serial - 1
                anew = replace(LINK, media_type="", size=-1, serial=serial)
                await store.put_links([replace(anew, serial=0)])
                assert await store.link(*place) == anew
                await store.merge_links([gone, LINK])
                assert await store.link(*place) == anew
                await store.merge_links([replace(LINK, serial=serial)])
                assert await store.link(*place) == replace(LINK, serial=serial)
            assert [drop async for portion in store.all_drops() for drop in portion] == []

    async def test_merging_links_takes_over_what_stands_over_and_what_is_known_more(self, tmp_path: Path) -> None:
        """In any order, and twice, the outcome is the same."""
        digests = [Digest.of(bytes([number])) for number in range(6)]
        told: list[LinkEntry] = [
            entry
            for digest in digests
            for entry in (
                replace(LINK, digest=digest, size=-1),
                replace(LINK, digest=digest, serial=2, media_type=""),
                Dropped(LINK.upstream, LINK.repository, digest, 3000.0, 1),
            )
        ]
        told.append(Dropped(LINK.upstream, LINK.repository, digests[0], 3000.0, 2))
        async with self.opened(tmp_path) as store:
            await store.merge_links(told[::2])
            await store.merge_links(told[::-1])
            await store.merge_links(told)
            assert await store.link(LINK.upstream, LINK.repository, digests[0]) == told[-1]
            for digest in digests[1:]:
                found = await store.link(LINK.upstream, LINK.repository, digest)
                assert found == replace(LINK, digest=digest, serial=2, media_type="")
            await store.merge_links([replace(LINK, digest=digests[1], serial=2, size=-1)])
            found = await store.link(LINK.upstream, LINK.repository, digests[1])
            assert found == replace(LINK, digest=digests[1], serial=2)
            gone = Dropped(LINK.upstream, LINK.repository, digests[1], 3000.0, 2)
            await store.merge_links([gone])
            assert await store.link(LINK.upstream, LINK.repository, digests[1]) == gone
            await store.merge_links([])

    async def test_a_negative_answer_holds_until_its_time_is_over(self, tmp_path: Path) -> None:
        """For that reference only, a tag or a digest."""
        async with self.opened(tmp_path) as store:
            until = 4e9  # beyond any clock
            await store.put_negative("ghcr.io", "team/filter", "v9", until)
            assert await store.negative("ghcr.io", "team/filter", "v9", until - 1) == until
            assert await store.negative("ghcr.io", "team/filter", "v9", until) is None
            assert await store.negative("ghcr.io", "team/filter", str(A), until - 1) is None
            assert await store.negative("ghcr.io", "team/other", "v9", until - 1) is None
            await store.put_negative("ghcr.io", "team/filter", "v9", until - 100)
            assert await store.negative("ghcr.io", "team/filter", "v9", until - 50) is None

    async def test_a_tag_that_appears_ends_its_negative_answer(self, tmp_path: Path) -> None:
        """And no other's."""
        async with self.opened(tmp_path) as store:
            await store.put_negative("ghcr.io", "team/filter", "v1", 4e9)
            await store.put_negative("ghcr.io", "team/filter", "v2", 4e9)
            await store.put_tag(TAG)
            assert await store.negative("ghcr.io", "team/filter", "v1", 0.0) is None
            assert await store.negative("ghcr.io", "team/filter", "v2", 0.0) == 4e9
            await store.merge_tags([replace(TAG, tag="v2"), replace(GONE, tag="v3")])
            assert await store.negative("ghcr.io", "team/filter", "v2", 0.0) is None

    async def test_the_last_answer_kept_is_the_one_that_counts(self, tmp_path: Path) -> None:
        """Under its own key."""
        later = replace(ANSWER, body=b"", headers={}, fetched_at=2000.0)
        async with self.opened(tmp_path) as store:
            await store.keep("key", ANSWER)
            await store.keep("another", ANSWER)
            await store.keep("key", later)
            assert await store.kept("key") == later
            assert await store.kept("another") == ANSWER

    async def test_an_older_access_never_replaces_a_newer_one(self, tmp_path: Path) -> None:
        """Whichever worker reports last."""
        async with self.two(tmp_path) as (one, other):
            await one.touch({A: 2000.0, B: 1.0})
            await other.touch({A: 1000.0, B: 2.0})
            await one.touch({})
            assert await one.last_access(A) == 2000.0
            assert await one.last_access(B) == 2.0

    async def test_simultaneous_writers_lose_nothing(self, tmp_path: Path) -> None:
        """Many writes at once through two workers are all there."""
        records = [replace(TAG, tag=f"v{number}", size=number) for number in range(200)]
        async with self.two(tmp_path) as pair:
            await asyncio.gather(*(pair[record.size % 2].put_tag(record) for record in records))
            for record in records:
                assert await pair[0].tag(record.upstream, record.repository, record.tag) == record

    async def test_what_is_under_way_is_finished_before_closing(self, tmp_path: Path) -> None:
        """A put that was begun is there after the restart."""
        async with self.opened(tmp_path) as store:
            puts = [asyncio.ensure_future(store.put_tag(replace(TAG, tag=f"v{number}"))) for number in range(50)]
            await asyncio.sleep(0)  # each has begun
        await asyncio.gather(*puts)
        async with self.opened(tmp_path) as store:
            for number in range(50):
                assert await store.tag("ghcr.io", "team/filter", f"v{number}") is not None
