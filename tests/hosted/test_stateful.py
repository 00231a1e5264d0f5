"""Two workers that push and delete, and a collector in each, step by step in any order: no reference ever dangles.

What a push was told to be there is there for the grace; each manifest that was taken in has all that it names, until
it is deleted; what is deleted and needed by nobody is gone in the end.

The catalogue's threads are played by the loop itself, so that a failure can be repeated.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mirror.digest import Digest
from mirror.errors import Denied, ManifestBlobUnknown, NotFound, Unsupported
from mirror.hosted import access
from mirror.hosted.gc import Collected, Gc
from mirror.hosted.together import ByItself
from mirror.metadata.thread import Ticket, WorkThread
from tests.hosted.cache import Cached
from tests.hosted.shelf import OTHER, REPOSITORY, Clock, Shelf, describe
from tests.support.artifacts import OCI_LAYER, Artifact, image, index

J = TypeVar("J")

GRACE = 100.0
_TURNS = 100  # of the loop, in which a collector comes to its next stop
CONTENTS = (b"{}", b"one", b"two")
IMAGES = (image([(OCI_LAYER, b"one")]), image([(OCI_LAYER, b"one"), (OCI_LAYER, b"two")]))
ARTIFACTS = (*IMAGES, index(*IMAGES))
CACHED = Digest.of(b"two")

WHO = st.integers(0, 1)
WHERE = st.sampled_from([REPOSITORY, OTHER])
BLOB = st.sampled_from(CONTENTS)
ARTIFACT = st.sampled_from(ARTIFACTS)
TAG = st.sampled_from(["1", "2"])


class AtOnce(WorkThread[J]):
    """Works when it is asked to."""

    def __init__(
        self, name: str, work: Callable[[Sequence[Ticket[J]]], None], last: Callable[[], None], **_: object
    ) -> None:
        self._at_once = work
        self._in_the_end = last

    async def do(self, job: J) -> object:
        """The result of a job."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[object] = loop.create_future()
        self._at_once([Ticket(job, loop, future)])
        return await future

    async def aclose(self) -> None:
        """Nothing is left to be done."""
        self._in_the_end()


class Hosted(RuleBasedStateMachine):
    """What clients and collectors do; ``confirmed`` is when a client was last told that a blob is there."""

    @initialize(cached=st.booleans())
    def begin(self, cached: bool) -> None:
        """An empty directory, and two workers on it."""
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(access, "WorkThread", AtOnce)
        self.folder = Path(tempfile.mkdtemp(prefix="hosted-"))
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.named_at: dict[Path, float] = {}
        self.workers = [Shelf(self.folder, self.clock) for _ in range(2)]
        self.caches = [Cached(*([CACHED] if cached else [])) for _ in range(2)]
        self.collecting: list[asyncio.Task[Collected] | None] = [None, None]
        self.confirmed: dict[tuple[str, Digest], float] = {}
        self.manifests: dict[tuple[str, Digest], Artifact] = {}
        self.tags: dict[tuple[str, str], Digest] = {}

    def teardown(self) -> None:
        """Let go of everything; in the end what nobody needs is gone."""
        if not hasattr(self, "runner"):
            return
        try:
            for who in (0, 1):
                self.collector_ends(who)
            self.clock.time += 2 * GRACE
            self.runner.run(self.collector(0).once())
            self.is_swept()
        finally:
            for worker in self.workers:
                self.runner.run(worker.catalogue.aclose())
            self.runner.close()
            self.patch.undo()
            shutil.rmtree(self.folder)

    def collector(self, who: int) -> Gc:
        """The collector of a worker."""
        worker = self.workers[who]
        cache, named_at = self.caches[who], self.named_at.__getitem__
        return Gc(worker.catalogue, cache, worker.directory, GRACE, self.clock, named_at, together=ByItself())

    def file(self, who: int, content: bytes) -> Digest:
        """Bytes come to lie on the disk."""
        digest = Digest.of(content)
        self.workers[who].store.put(digest, content)
        self.named_at[self.workers[who].directory.blob(digest)] = self.clock()
        return digest

    @rule(who=WHO, where=WHERE, content=BLOB, seconds=st.sampled_from([0.0, GRACE - 1]), other=st.booleans())
    def push_blob(self, who: int, where: str, content: bytes, seconds: float, other: bool) -> None:
        """A blob is pushed; between its file and its link time goes by, and the other worker may collect."""
        digest = self.file(who, content)
        self.clock.time += seconds
        if other:
            self.collector_ends(1 - who)
            self.runner.run(self.collector(1 - who).once())
        self.runner.run(self.workers[who].catalogue.link_blob(where, digest, len(content)))
        self.confirmed[where, digest] = self.clock()

    @rule(who=WHO, where=WHERE, content=BLOB)
    def confirm(self, who: int, where: str, content: bytes) -> None:
        """A client asks whether a blob is there."""
        digest = Digest.of(content)
        if self.runner.run(self.workers[who].catalogue.touch(where, digest)):
            self.confirmed[where, digest] = self.clock()

    @rule(who=WHO, content=BLOB, back=st.booleans())
    def mount(self, who: int, content: bytes, back: bool) -> None:
        """A blob is mounted from the one repository in the other."""
        source, target = (OTHER, REPOSITORY) if back else (REPOSITORY, OTHER)
        digest = Digest.of(content)
        if self.runner.run(self.workers[who].catalogue.mount_blob(target, digest, source)):
            self.confirmed[target, digest] = self.clock()

    @rule(who=WHO, where=WHERE, artifact=ARTIFACT, tag=TAG, overwrite=st.booleans())
    def push_manifest(self, who: int, where: str, artifact: Artifact, tag: str, overwrite: bool) -> None:
        """A manifest is pushed, taken in exactly when all is there that it names, and its tag may be moved."""
        worker = self.workers[who].catalogue
        digest = self.file(who, artifact.body)
        wanted = [(where, child.digest) in self.manifests for child in artifact.children]
        wanted += [self.runner.run(worker.blob(where, blob)) is not None for blob in artifact.blobs]
        moves = self.tags.get((where, tag), digest) != digest
        try:
            self.runner.run(worker.put_manifest(where, describe(artifact), [tag], overwrite=overwrite))
        except ManifestBlobUnknown:
            assert not all(wanted)
        except Denied:
            assert moves
            assert not overwrite
        else:
            assert all(wanted)
            assert overwrite or not moves
            self.manifests[where, digest] = artifact
            self.tags[where, tag] = digest

    @rule(who=WHO, where=WHERE, content=BLOB)
    def delete_blob(self, who: int, where: str, content: bytes) -> None:
        """A blob is deleted, unless a manifest names it."""
        digest = Digest.of(content)
        try:
            self.runner.run(self.workers[who].catalogue.delete_blob(where, digest))
        except Unsupported:
            assert digest in self.named(where)
        except NotFound:
            assert digest not in self.named(where)
        else:
            assert digest not in self.named(where)
            self.confirmed.pop((where, digest), None)

    @rule(who=WHO, where=WHERE, artifact=ARTIFACT)
    def delete_manifest(self, who: int, where: str, artifact: Artifact) -> None:
        """A manifest is deleted with its tags; not one that an index names, which is allowed, and leaves it behind."""
        key = where, artifact.digest
        if key in self.manifests and (where, ARTIFACTS[2].digest) not in self.manifests:
            self.runner.run(self.workers[who].catalogue.delete_manifest(*key))
            del self.manifests[key]
            self.tags = {tag: digest for tag, digest in self.tags.items() if (tag[0], digest) != key}

    @rule(where=WHERE)
    def delete_index(self, where: str) -> None:
        """An index is deleted."""
        key = where, ARTIFACTS[2].digest
        if key in self.manifests:
            self.runner.run(self.workers[0].catalogue.delete_manifest(*key))
            del self.manifests[key]
            self.tags = {tag: digest for tag, digest in self.tags.items() if (tag[0], digest) != key}

    @rule(seconds=st.sampled_from([1.0, GRACE / 2, GRACE + 1]))
    def wait(self, seconds: float) -> None:
        """Time goes by."""
        self.clock.time += seconds

    @rule(who=WHO)
    def collector_begins(self, who: int) -> None:
        """A collector takes links away, and stops in the middle, before it takes bytes away."""
        if self.collecting[who] is None:
            self.runner.run(self.begun(who))

    @rule(who=WHO)
    def collector_ends(self, who: int) -> None:
        """It goes on to its end."""
        task, self.collecting[who] = self.collecting[who], None
        if task is not None:
            self.caches[who].may_answer.set()
            self.runner.run(finished(task))

    @rule(who=WHO)
    @precondition(lambda self: any(self.collecting))
    def killed(self, who: int) -> None:
        """A worker is killed where it stands, and another takes its place."""
        task, self.collecting[who] = self.collecting[who], None
        if task is not None:
            task.cancel()
            self.caches[who].may_answer.set()
            self.runner.run(finished(task))
        self.runner.run(self.workers[who].catalogue.aclose())
        self.workers[who] = Shelf(self.folder, self.clock)

    @invariant()
    def nothing_dangles(self) -> None:
        """Every tag leads to its manifest, every manifest to all that it names, with its bytes."""
        if not hasattr(self, "manifests"):
            return
        worker = self.workers[0]

        async def look() -> None:
            for (where, name), digest in self.tags.items():
                found = await worker.catalogue.tagged(where, name)
                assert found is not None
                assert found.digest == digest
            for (where, digest), artifact in self.manifests.items():
                assert await worker.catalogue.manifest(where, digest) is not None
                assert worker.there(digest, len(artifact.body))
                for blob, content in artifact.blobs.items():
                    assert await worker.catalogue.blob(where, blob) is not None
                    assert worker.there(blob, len(content))
            for (where, digest), at in self.confirmed.items():
                if at > self.clock() - GRACE:
                    link = await worker.catalogue.blob(where, digest)
                    assert link is not None
                    assert worker.there(digest, link.size)

        self.runner.run(look())

    def named(self, where: str) -> set[Digest]:
        """The blobs that manifests of a repository name."""
        return {blob for (place, _), artifact in self.manifests.items() if place == where for blob in artifact.blobs}

    def is_swept(self) -> None:
        """Only manifests are there and what they name, but for what the cache has links to."""
        needed = {*self.caches[0].digests, *(digest for _, digest in self.manifests)}
        needed = needed.union(*map(self.named, (REPOSITORY, OTHER)))
        for content in (*CONTENTS, *(artifact.body for artifact in ARTIFACTS)):
            digest = Digest.of(content)
            assert self.workers[0].store.holds(digest) <= (digest in needed)

    async def begun(self, who: int) -> None:
        """Begin to collect, up to where the cache is asked, if it is."""
        cache = self.caches[who]
        cache.may_answer.clear()
        before = cache.asked
        task = asyncio.create_task(self.collector(who).once())
        for _ in range(_TURNS):
            if task.done() or cache.asked > before:
                break
            await asyncio.sleep(0)
        assert task.done() or cache.asked > before
        self.collecting[who] = task


async def finished(task: "asyncio.Task[Collected]") -> None:
    """Wait for it, whatever becomes of it."""
    await asyncio.gather(task, return_exceptions=True)


TestHosted = Hosted.TestCase
TestHosted.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    phases=(Phase.generate,),  # to look for a smaller failure takes longer than a test may
    derandomize=True,
    database=None,
    deadline=None,
)
