"""Three replicas to which anything is done in any order, beside a model: they are one registry, for all who ask.

Pushes whose steps reach different replicas, races, deletes, collectors, a Redis that forgets, replicas that stop and
return. After each step one replica, after some of them each, gives what the model has. ``WASM_MIRROR_TEST_SEED``
repeats a run.
"""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path

import pytest

from mirror.digest import Digest
from tests.support.artifacts import OCI_LAYER, Artifact, image, index
from tests.support.asking import Reply
from tests.support.ports import ReservedPort
from tests.support.process import merged
from tests.support.pushing import Author, whole
from tests.support.redis import RedisServer
from tests.support.running import Running, running
from tests.support.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.needs("redis-server")]

STEPS = 60
WITHIN = 60.0
"""Seconds after which no more steps are begun: a busy machine comes to fewer."""

ALL_EVERY = 6
"""Steps after which all replicas are looked at, and not one of them."""

GRACE = 4.0
REPOSITORIES = ("hosted/team/one", "hosted/team/two")
TAGS = ("a", "b")
CONTENTS = [bytes([number]) * 2_000 for number in range(4)]
IMAGES = [
    image([(OCI_LAYER, CONTENTS[0])]),
    image([(OCI_LAYER, CONTENTS[0]), (OCI_LAYER, CONTENTS[1])]),
    image([(OCI_LAYER, CONTENTS[2])], config=(OCI_LAYER, CONTENTS[3])),
]
ARTIFACTS = [*IMAGES, index(*IMAGES[:2])]
Step = Callable[["Story"], Awaitable[str]]


class Replica:
    """A mirror in this loop, at a port and with a disk of its own."""

    def __init__(self, folder: Path, port: ReservedPort, settings: dict[str, object]) -> None:
        at = f"127.0.0.1:{port.number}"
        self._settings = merged(settings, {"listen": at, "cluster": {"advertise": f"http://{at}"}})
        self._folder = folder
        self._stack = AsyncExitStack()
        self.running: Running | None = None

    async def start(self) -> None:
        """Serve."""
        nowhere = {"up": "http://127.0.0.1:1"}
        self.running = await self._stack.enter_async_context(running(self._folder, nowhere, self._settings))

        async def ready() -> bool:
            assert self.running is not None
            return (await self.running.get("/readyz")).status == 200

        is_ready: Callable[[], bool | Awaitable[bool]] = ready
        await eventually(is_ready, what="the replica is ready")

    async def stop(self) -> None:
        """Stop in order, if it runs."""
        self.running = None
        await self._stack.aclose()


class Story:
    """What was done, and what must be there: manifests and tags of each repository."""

    def __init__(self, draws: random.Random, replicas: list[Replica], redis: RedisServer) -> None:
        self.draws = draws
        self.replicas = replicas
        self.redis = redis
        self.manifests: dict[tuple[str, Digest], Artifact] = {}
        self.tags: dict[tuple[str, str], Digest] = {}
        self.told: list[str] = []

    def up(self) -> list[Running]:
        """The replicas that run."""
        return [one.running for one in self.replicas if one.running is not None]

    def any(self) -> Running:
        """One of them."""
        return self.draws.choice(self.up())

    async def taken(self, ask: Callable[[], Awaitable[Reply]]) -> Reply:
        """The answer, asked for again while the replicas cannot agree for a moment."""
        deadline = time.monotonic() + 15
        while (reply := await ask()).status == 503 and time.monotonic() < deadline:
            assert reply.code == "UNAVAILABLE", reply
            assert int(reply.header("retry-after") or 0) > 0
            await asyncio.sleep(0.1)  # as a client does that is told to come again
        return reply

    async def blob(self, repository: str, content: bytes) -> None:
        """Push a blob; each request may reach another replica."""
        begun = await self.taken(lambda: Author(self.any(), repository).ask("POST", "blobs/uploads/"))
        assert begun.status == 202, begun
        upload = begun.header("location") or ""
        half = self.draws.randrange(1, len(content))
        assert (await Author(self.any(), repository).chunk(upload, 0, content[:half])).status == 202
        author = Author(self.any(), repository)
        done = await self.taken(lambda: author.finish(upload, Digest.of(content), content[half:]))
        if done.status == 416:  # the bytes were taken in before the 503
            done = await author.finish(upload, Digest.of(content))
        assert done.status == 201, done

    async def push(self, repository: str, artifact: Artifact, tag: str | None) -> None:
        """Push all that an artifact names, and its manifest."""
        for child in artifact.children:
            await self.push(repository, child, None)
        while True:
            began = time.monotonic()
            for content in artifact.blobs.values():
                await self.blob(repository, content)
            put = partial(Author(self.any(), repository).manifest, artifact, tag or str(artifact.digest))
            reply = await self.taken(put)
            if reply.status != 404 or time.monotonic() - began < GRACE / 2:
                break
        assert reply.status == 201, reply
        self.manifests[repository, artifact.digest] = artifact
        if tag is not None:
            self.tags[repository, tag] = artifact.digest

    def forget(self, repository: str, digest: Digest) -> None:
        """A manifest is deleted, and its tags."""
        del self.manifests[repository, digest]
        self.tags = {key: to for key, to in self.tags.items() if (key[0], to) != (repository, digest)}

    async def check(self) -> None:
        """Every replica that runs gives what the model has, whole, and nothing else."""
        await asyncio.gather(*map(self.check_at, self.up()))

    async def check_at(self, replica: Running) -> None:
        for repository in REPOSITORIES:
            reply = await replica.get(f"/v2/{repository}/tags/list")
            wanted = sorted(tag for place, tag in self.tags if place == repository)
            assert (reply.json["tags"] if reply.status == 200 else []) == wanted, replica.host
            for tag in TAGS:
                digest = self.tags.get((repository, tag))
                body = self.manifests[repository, digest].body if digest else None
                assert await whole(replica, repository, tag) == body, f"{replica.host} {repository}:{tag}"
            for artifact in ARTIFACTS:
                got = await whole(replica, repository, str(artifact.digest))
                assert (got is not None) == ((repository, artifact.digest) in self.manifests), replica.host


async def pushes(story: Story) -> str:
    """Somebody pushes."""
    repository, tag = story.draws.choice(REPOSITORIES), story.draws.choice(TAGS)
    artifact = story.draws.choice(ARTIFACTS)
    await story.push(repository, artifact, tag)
    return f"{repository}:{tag} is pushed"


async def races(story: Story) -> str:
    """Two push one tag, each through another replica: one of them wins, at all."""
    repository, tag = story.draws.choice(REPOSITORIES), story.draws.choice(TAGS)
    both = story.draws.sample(IMAGES, 2)
    for artifact in both:
        await story.push(repository, artifact, None)
    authors = [Author(replica, repository) for replica in story.draws.sample(story.up(), 2)]

    async def put(author: Author, artifact: Artifact) -> Reply:
        return await story.taken(lambda: author.manifest(artifact, tag))

    replies = await asyncio.gather(*(put(*one) for one in zip(authors, both, strict=True)))
    assert [reply.status for reply in replies] == [201, 201], replies
    named = await story.any().head(f"/v2/{repository}/manifests/{tag}")
    digest = Digest.parse(named.header("docker-content-digest") or "")
    assert digest in [artifact.digest for artifact in both]
    story.tags[repository, tag] = digest
    return f"{repository}:{tag} is raced for"


async def mounts(story: Story) -> str:
    """What one repository has is in the other, too."""
    source, target = story.draws.sample(REPOSITORIES, 2)
    named = [blob for (place, _), artifact in story.manifests.items() if place == source for blob in artifact.blobs]
    if not named:
        return "nothing to mount"
    digest = story.draws.choice(named)
    author, query = Author(story.any(), target), f"?mount={digest}&from={source}"
    reply = await story.taken(lambda: author.ask("POST", f"blobs/uploads/{query}"))
    assert reply.status == 201, reply
    assert (await story.any().head(f"/v2/{target}/blobs/{digest}")).status == 200
    return f"{digest} is mounted in {target}"


async def deletes_a_tag(story: Story) -> str:
    """A tag goes, if it is there."""
    repository, tag = story.draws.choice(REPOSITORIES), story.draws.choice(TAGS)
    author = Author(story.any(), repository)
    reply = await story.taken(lambda: author.ask("DELETE", f"manifests/{tag}"))
    assert reply.status == (202 if story.tags.pop((repository, tag), None) else 404), reply
    return f"{repository}:{tag} is deleted"


async def deletes_a_manifest(story: Story) -> str:
    """A manifest goes with its tags; not one that an index names, which is allowed, and leaves it behind."""
    repository, artifact = story.draws.choice(REPOSITORIES), story.draws.choice(ARTIFACTS)
    held = (repository, artifact.digest) in story.manifests
    if held and artifact in ARTIFACTS[-1].children and (repository, ARTIFACTS[-1].digest) in story.manifests:
        artifact = ARTIFACTS[-1]
    author = Author(story.any(), repository)
    reply = await story.taken(lambda: author.ask("DELETE", f"manifests/{artifact.digest}"))
    assert reply.status == (202 if held else 404), reply
    if held:
        story.forget(repository, artifact.digest)
    return f"{repository}@{artifact.digest} is deleted"


async def deletes_a_blob(story: Story) -> str:
    """A blob goes, unless a manifest names it."""
    repository, digest = story.draws.choice(REPOSITORIES), Digest.of(story.draws.choice(CONTENTS))
    artifacts = [artifact for (place, _), artifact in story.manifests.items() if place == repository]
    named = any(digest in artifact.blobs for artifact in artifacts)
    author = Author(story.any(), repository)
    reply = await story.taken(lambda: author.ask("DELETE", f"blobs/{digest}"))
    assert reply.status in ((405,) if named else (202, 404)), reply
    return f"{repository}@{digest}, a blob, is deleted"


async def stops(story: Story) -> str:
    """A replica stops; one that has stopped before returns first."""
    await returns(story)
    number = story.draws.randrange(len(story.replicas))
    await story.replicas[number].stop()
    return f"replica {number} stops"


async def returns(story: Story) -> str:
    """A replica that has stopped is there again."""
    for number, replica in enumerate(story.replicas):
        if replica.running is None:
            await replica.start()
            return f"replica {number} is back"
    return "all are there"


async def forgets(story: Story) -> str:
    """Redis loses all it has."""
    story.redis.flush()
    return "Redis forgets"


async def waits(story: Story) -> str:
    """Long enough for what no manifest names to go."""
    await asyncio.sleep(GRACE / 3)
    return "time goes by"


STEPS_AND_WEIGHTS: dict[Step, int] = {
    pushes: 10,
    races: 3,
    mounts: 2,
    deletes_a_tag: 3,
    deletes_a_manifest: 4,
    deletes_a_blob: 2,
    stops: 2,
    returns: 2,
    forgets: 1,
    waits: 1,
}


@pytest.mark.timeout(200)
async def test_replicas_are_one_registry_whatever_is_done_to_them(tmp_path: Path) -> None:
    seed = int(os.environ.get("WASM_MIRROR_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"WASM_MIRROR_TEST_SEED={seed}")
    draws = random.Random(seed)
    secret = tmp_path / "secret"
    secret.write_text("s" * 40)
    secret.chmod(0o600)
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(tmp_path / "redis"))
        settings: dict[str, object] = {
            "metadata": {"url": redis.url},
            "cluster": {"secret_file": str(secret)},
            "hosted": {"replicas": 2, "ack": "all", "grace": f"{GRACE}s"},
        }
        ports = [stack.enter_context(ReservedPort()) for _ in range(3)]
        replicas = [Replica(tmp_path / f"replica-{n}", port, settings) for n, port in enumerate(ports)]
        story = Story(draws, replicas, redis)
        try:
            for replica in replicas:
                await replica.start()
            ends_at = time.monotonic() + WITHIN
            for number in range(STEPS):
                if time.monotonic() > ends_at:
                    break
                [step] = draws.choices(list(STEPS_AND_WEIGHTS), list(STEPS_AND_WEIGHTS.values()))
                story.told.append(step.__name__)
                story.told[-1] = await step(story)
                await (story.check() if number % ALL_EVERY == 0 else story.check_at(story.any()))
            await returns(story)
            await story.check()
            print(f"{number} steps")
        except BaseException as error:
            error.add_note("\n".join(story.told[-15:]))
            raise
        finally:
            for replica in replicas:
                await replica.stop()
