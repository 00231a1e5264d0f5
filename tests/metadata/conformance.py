"""What every metadata store promises (`mirror.metadata.base.Metadata`), as tests that run on any of them.

A test class of a store derives from `MetadataConformance` and says how it is opened.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from mirror.digest import Digest
from mirror.metadata.base import BlobRecord, KeptAnswer, Link, Metadata, TagRecord

A, B = Digest.of(b"a"), Digest.of(b"b", "sha512")
TAG = TagRecord("ghcr.io", "team/filter", "v1", A, "application/vnd.oci.image.manifest.v1+json", 512, 1000.25)
LINK = Link("ghcr.io", "team/filter", A, "application/vnd.oci.image.layer.v1.tar+gzip", 1 << 40)
ANSWER = KeptAnswer(b'{"tags":["v1"]}\x00\xff', {"Link": '</v2/x?n="1">; rel="next"', "Content-Type": "é"}, 1000.5)


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
            await other.delete_tag("ghcr.io", "team/filter", "v1")
            assert await one.tag("ghcr.io", "team/filter", "v1") is None

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
            assert await store.tag("ghcr.io", "team/filter", "v1") == moved

    async def test_deleting_a_tag_deletes_that_tag_only(self, tmp_path: Path) -> None:
        """And is no error when there is none."""
        other = replace(TAG, tag="v2")
        async with self.opened(tmp_path) as store:
            await store.put_tag(TAG)
            await store.put_tag(other)
            await store.delete_tag("ghcr.io", "team/filter", "v1")
            await store.delete_tag("ghcr.io", "team/filter", "v1")
            assert await store.tag("ghcr.io", "team/filter", "v1") is None
            assert await store.tag("ghcr.io", "team/filter", "v2") == other

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
