"""Replicas that change, miss, and hear things twice and late, step by step in any order: in the end all have the same.

No replica agrees with any other here: moments come as they like, two of one number among them. At no time does a
manifest name a blob that its repository has not.
"""

import contextlib
import json
import random
import sqlite3
from collections.abc import Iterator, Sequence
from typing import TypeVar

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
from mirror.oci import DOCKER_MANIFEST
from tests.hosted.shelf import OTHER, REPOSITORY, describe
from tests.support.artifacts import OCI_LAYER, Artifact, image, index

T = TypeVar("T")

BLOBS = (b"{}", b"one")
BARE = image([], extra={"mediaType": None})
AS_OTHER = Artifact(BARE.body, DOCKER_MANIFEST, BARE.blobs)
IMAGES = (BARE, AS_OTHER, image([(OCI_LAYER, b"one")]))
MANIFESTS = {(artifact.digest, artifact.media_type): describe(artifact) for artifact in (*IMAGES, index(*IMAGES[1:]))}
NAMED = {digest: described.blobs for (digest, _), described in MANIFESTS.items()}
MOST = (1, 1_500, 1_000_000)
_STEPS = 60
_ROUNDS = 12
"""Of each hearing all others, after which nothing is new any more."""

CHANGES = ("link", "touch", "touch", "expire", "delete blob", "push", "push", "delete manifest", "delete tag")


class Dice:
    """What is done next. A failure is repeated by its seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def change(self) -> tuple[object, ...]:
        """What is changed, nearly always in one repository."""
        kind, where = self._random.choice(CHANGES), self._random.choice([REPOSITORY] * 6 + [OTHER])
        blob, manifest = self._random.choice(BLOBS), self._random.choice(list(MANIFESTS.values()))
        tag = self._random.choice(["1", "2"])
        match kind:
            case "expire":
                return kind, where
            case "push":
                return kind, where, manifest, tag
            case "delete manifest":
                return kind, where, manifest
            case "delete tag":
                return kind, where, tag
        return kind, where, blob

    def when(self) -> When:
        """In a few seconds, with few numbers, so that many are the same."""
        return When(float(self._random.randint(1, 20)), self._random.choice([None, *[self._random.randint(1, 4)] * 19]))

    def one_of(self, some: Sequence[T]) -> T:
        """Any of them."""
        return self._random.choice(some)


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
            for to in NAMED[Digest.parse(digest)]:
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
        told = OfManifest(
            told.repository, told.digest, told.moment, MANIFESTS[told.digest, told.media_type], told.pushed_at
        )
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


@given(seed=st.integers(0, 1 << 32), number=st.integers(2, 4))
@settings(max_examples=60, phases=(Phase.generate,), derandomize=True, database=None, deadline=None)
def test_replicas_end_with_the_same_whatever_each_hears_first_and_how_often(seed: int, number: int) -> None:
    dice = Dice(seed)
    with replicas(number) as all_of_them:
        for _ in range(_STEPS):
            who, replica = dice.one_of(list(enumerate(all_of_them)))
            other, another = dice.one_of(list(enumerate(all_of_them)))
            if other == who:
                with contextlib.suppress(MirrorError):
                    replica.change(dice.change(), dice.when())
            else:
                anew, twice, most = dice.one_of([False] * 3 + [True]), dice.one_of([False, True]), dice.one_of(MOST)
                replica.hear(other, another, anew=anew, most=most, twice=twice)
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
