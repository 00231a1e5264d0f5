"""Tags, where somebody else knows more than this worker at the moment: what is later wins."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from mirror.digest import Digest
from mirror.metadata.base import Fence, Link, TagEntry, TagRecord, Tombstone
from mirror.oci import Reference
from mirror.store.generation import Generation
from mirror.tags import Tags
from tests.metadata.memory import Memory, MemoryMetadata

REFERENCE = Reference("up", "team/plugin", tag="v1")
KEY = ("up", "team/plugin", "v1")
OLD = TagRecord(*KEY, Digest.of(b"old"), "application/vnd.oci.image.manifest.v1+json", 3, 1000.0, serial=1)
NEW = replace(OLD, digest=Digest.of(b"new"), fetched_at=2000.0)


class Others:
    """Other replicas, of which one has ``entry`` in its database."""

    def __init__(self) -> None:
        self.moves = 1
        self.in_sight = True
        self.entry: TagEntry | None = None

    async def seen_by_all(self) -> None:
        """They have."""

    async def tag(self, upstream: str, repository: str, tag: str) -> TagEntry | None:
        return self.entry

    async def link(self, upstream: str, repository: str, digest: Digest) -> Link | None:
        return None


class Slow(MemoryMetadata):
    """A store; ``meanwhile`` happens between what it writes and its answer."""

    def __init__(self) -> None:
        super().__init__(Memory())
        self.meanwhile: Callable[[], None] = lambda: None

    async def put_tag(self, record: TagRecord, fence: Fence | None = None) -> TagRecord:
        stands = await super().put_tag(record, fence)
        self.meanwhile()
        return stands


def tags(folder: Path) -> tuple[Tags, Slow, Others]:
    """The tags of one worker."""
    store, others = Slow(), Others()
    return Tags(store, Generation(folder / "generation"), others, others), store, others


async def test_a_tag_that_is_known_to_be_deleted_does_not_come_back_from_a_replica_that_was_away(
    tmp_path: Path,
) -> None:
    known, store, others = tags(tmp_path)
    await store.put_tag(OLD)
    deleted = await store.delete_tag(*KEY, 3000.0)
    others.entry = OLD
    assert await known.ask_elsewhere(REFERENCE) is None
    assert await store.tag(*KEY) == deleted == Tombstone(*KEY, 3000.0, serial=2)


async def test_of_what_is_known_here_and_elsewhere_the_later_is_served(tmp_path: Path) -> None:
    known, store, others = tags(tmp_path)
    await store.put_tag(NEW)
    others.entry = replace(OLD, serial=0)
    assert await known.ask_elsewhere(REFERENCE) == NEW


async def test_what_was_put_while_the_tag_moved_on_is_not_kept_in_memory(tmp_path: Path) -> None:
    known, store, others = tags(tmp_path)
    later = replace(NEW, digest=Digest.of(b"later"), serial=9)

    def moved_on() -> None:
        """The worker sleeps, somebody else gets the lease and moves the tag, and a request notices that."""
        store.memory.tags[KEY] = later
        others.moves += 1
        known._notice_others()

    store.meanwhile = moved_on
    await known.learn(NEW, None)
    assert await known.get(REFERENCE) == later
