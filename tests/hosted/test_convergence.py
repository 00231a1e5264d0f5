"""Replicas that change, miss, and hear things twice and late, step by step in any order: in the end all have the same.

No replica agrees with any other here: moments come as they like, two of one number among them. At no time does a
manifest name a blob that its repository has not.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterator

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mirror.digest import Digest
from mirror.errors import MirrorError
from mirror.hosted import ledger, merge, reads, writes
from mirror.hosted.entries import Entry, OfManifest, of_entry, to_entry
from mirror.hosted.ledger import Told, Unread
from mirror.hosted.records import Described
from mirror.hosted.schema import STEPS
from mirror.hosted.writes import When
from mirror.metadata.schema import migrate
from tests.hosted.shelf import OTHER, REPOSITORY, describe
from tests.support.artifacts import OCI_LAYER, image, index

BLOBS = (b"{}", b"one", b"two")
IMAGES = (image([(OCI_LAYER, b"one")]), image([(OCI_LAYER, b"one"), (OCI_LAYER, b"two")]))
MANIFESTS = {artifact.digest: describe(artifact) for artifact in (*IMAGES, index(*IMAGES))}
_ROUNDS = 12
"""Of each hearing all others, after which nothing is new any more."""

WHO = st.integers(0, 3)
WHERE = st.sampled_from([REPOSITORY, OTHER])
BLOB = st.sampled_from(BLOBS)
MANIFEST = st.sampled_from(list(MANIFESTS.values()))
TAG = st.sampled_from(["1", "2"])
WHEN = st.builds(When, st.floats(1, 30), st.none() | st.integers(1, 30_000_000) | st.integers(1, 8))

CHANGE = st.one_of(
    st.tuples(st.just("link"), WHERE, BLOB),
    st.tuples(st.just("touch"), WHERE, BLOB),
    st.tuples(st.just("expire"), WHERE),
    st.tuples(st.just("delete blob"), WHERE, BLOB),
    st.tuples(st.just("push"), WHERE, MANIFEST, TAG),
    st.tuples(st.just("push"), WHERE, MANIFEST, TAG),
    st.tuples(st.just("delete manifest"), WHERE, MANIFEST),
    st.tuples(st.just("delete tag"), WHERE, TAG),
)
HEAR = st.tuples(st.just("hear"), WHO, st.booleans(), st.sampled_from([1, 1_500, 1_000_000]), st.booleans())
STEP = st.tuples(WHO, WHEN, CHANGE | HEAR)


class Replica:
    """Records of their own, without a disk: all bytes are there."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        migrate(self.connection, STEPS)
        self.read: dict[int, int] = {}

    def change(self, what: tuple[object, ...], when: When) -> None:
        """Change something, if it can be changed."""
        match what:
            case "link", str(where), bytes(content):
                self._link(where, Digest.of(content), len(content), when)
            case "touch", str(where), bytes(content):
                writes.touch(self.connection, where, Digest.of(content), when.at)
            case "expire", str(where):
                writes.expire(self.connection, where, when.at, 10, when)
            case "delete blob", str(where), bytes(content):
                writes.delete_blob(self.connection, where, Digest.of(content), when)
            case "push", str(where), Described() as described, str(tag):
                for to in described.blobs:
                    self._link(where, to.digest, to.size, when)
                writes.put_manifest(
                    self.connection, where, described, [tag], when, lambda *_: True, None, overwrite=True
                )
            case "delete manifest", str(where), Described() as described:
                writes.delete_manifest(self.connection, where, described.manifest.digest, when)
            case "delete tag", str(where), str(tag):
                writes.delete_tag(self.connection, where, tag, when)
            case _:
                raise AssertionError(what)

    def hear(self, who: int, other: "Replica", *, anew: bool, most: int, twice: bool) -> int:
        """Read one portion of what another knows; how much of it was new."""
        after = 0 if anew else self.read.get(who, 0)
        told, self.read[who], _ = ledger.told(other.connection, after, most, 2_000)
        entries = [whole(one) for one in told]
        news = merge.entries(self.connection, entries, lambda *_: True, 0)
        if twice:
            assert merge.entries(self.connection, entries[-1:], lambda *_: True, 0) == 0
        return news

    def rows(self) -> dict[str, list[tuple[object, ...]]]:
        """All that must be the same everywhere."""
        tables = ("blob", "manifest", "named", "tag")
        found = {
            table: sorted(self.connection.execute(f"SELECT * FROM {table}").fetchall(), key=repr) for table in tables
        }
        noted = "kind, repository, key, moment, gone, size, touched_at, before"
        found["entry"] = self.connection.execute(f"SELECT {noted} FROM entry ORDER BY 1, 2, 3").fetchall()
        return found

    def is_whole(self) -> bool:
        """Whether the repositories have all blobs that their manifests name; and each row has an entry."""
        for where, digest in self.connection.execute("SELECT repository, digest FROM manifest").fetchall():
            for to in MANIFESTS[Digest.parse(digest)].blobs:
                if reads.blob(self.connection, where, to.digest) is None:
                    return False
        (rows,) = self.connection.execute(
            "SELECT (SELECT count(*) FROM blob) + (SELECT count(*) FROM manifest) + (SELECT count(*) FROM tag)"
        ).fetchone()
        (live,) = self.connection.execute("SELECT count(*) FROM entry WHERE NOT gone").fetchone()
        return bool(rows == live)

    def _link(self, where: str, digest: Digest, size: int, when: When) -> None:
        writes.link_blob(self.connection, where, digest, size, when, lambda *_: True, None)


def whole(told: Told) -> Entry:
    """What comes out of the document of an entry."""
    if isinstance(told, Unread):
        told = OfManifest(told.repository, told.digest, told.moment, MANIFESTS[told.digest], told.pushed_at)
    entry = to_entry(json.loads(json.dumps(of_entry(told))))
    assert entry == told
    return told


@contextlib.contextmanager
def replicas(number: int) -> Iterator[list[Replica]]:
    """Replicas that know nothing yet."""
    found = [Replica() for _ in range(number)]
    try:
        yield found
    finally:
        for replica in found:
            replica.connection.close()


@given(number=st.integers(2, 4), steps=st.lists(STEP, max_size=40))
@settings(max_examples=120, phases=(Phase.generate, Phase.shrink), derandomize=True, database=None, deadline=None)
def test_replicas_end_with_the_same_whatever_each_hears_first_and_how_often(
    number: int, steps: list[tuple[int, When, tuple[object, ...]]]
) -> None:
    with replicas(number) as all_of_them:
        for who, when, what in steps:
            replica = all_of_them[who % number]
            match what:
                case "hear", int(other), bool(anew), int(most), bool(twice):
                    if other % number != who % number:
                        replica.hear(other, all_of_them[other % number], anew=anew, most=most, twice=twice)
                case _:
                    with contextlib.suppress(MirrorError):
                        replica.change(what, when)
            assert replica.is_whole()
        for _ in range(_ROUNDS):
            news = 0
            for replica in all_of_them:
                for other, another in enumerate(all_of_them):
                    if another is not replica:
                        news += replica.hear(other, another, anew=False, most=1_000_000, twice=False)
                        assert replica.is_whole()
            if not news:
                break
        assert not news
        first, *rest = [replica.rows() for replica in all_of_them]
        for other_rows in rest:
            assert other_rows == first
