"""A replica after the other is killed while many push through a balancer: what got 201 is there, whole, at all.

``WASM_MIRROR_TEST_SEED`` repeats what was drawn in a run that failed, as far as kernels repeat anything.
"""

import asyncio
import contextlib
import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mirror.digest import Digest
from tests.support.artifacts import Artifact, image
from tests.support.asking import Reply
from tests.support.balancer import Balancer
from tests.support.process import MirrorProcess
from tests.support.pushing import At, Author, whole
from tests.support.replicas import replicated

pytestmark = [pytest.mark.integration, pytest.mark.needs("redis-server")]

ROUNDS = 3
AUTHORS = 4
EXAMPLE = "application/vnd.example"
MOVING = "hosted/team/moving"
GONE = (OSError, asyncio.IncompleteReadError)
"""What a client sees of a replica that is killed."""

REFUSALS = {(404, "BLOB_UPLOAD_UNKNOWN"), (503, "UNAVAILABLE")}
"""What it may be told by one that is not: to begin again, or to come again later."""


class Refused(Exception):
    """A step of a push was not taken; it says with which status and code."""


@dataclass
class Story:
    """What was begun through ``balanced``, and what was answered with 201. ``moves``: what was pushed to one tag."""

    balanced: At
    random: random.Random
    begun: list[tuple[str, Artifact]] = field(default_factory=list)
    taken: list[tuple[str, Artifact]] = field(default_factory=list)
    blobs: list[tuple[str, Digest, bytes]] = field(default_factory=list)
    moves: list[Artifact] = field(default_factory=list)
    moved: int = -1
    """The last of ``moves`` that was answered with 201."""
    refused: Counter[str] = field(default_factory=Counter)
    over: bool = False

    def made(self) -> Artifact:
        """An artifact that nobody has pushed before."""
        contents = [self.random.randbytes(self.random.choice((10, 5_000, 300_000))) for _ in range(3)]
        return image([(EXAMPLE, content) for content in contents[1:]], config=(EXAMPLE, contents[0]))

    async def author(self) -> None:
        """Push one artifact after the other, as a client does that gives up a push that fails."""
        while not self.over:
            artifact = self.made()
            name = f"hosted/team/plugin-{len(self.begun)}"
            self.begun.append((name, artifact))
            with self.giving_up():
                await self.push(name, artifact, "v1")
                self.taken.append((name, artifact))

    async def mover(self) -> None:
        """Move one tag, again and again."""
        while not self.over:
            artifact = self.made()
            number = len(self.moves)
            self.moves.append(artifact)
            with self.giving_up():
                await self.push(MOVING, artifact, "moving")
                self.moved = number

    async def push(self, name: str, artifact: Artifact, tag: str) -> None:
        author = Author(self.balanced, name)
        for digest, content in artifact.blobs.items():
            begun = taken(await author.ask("POST", "blobs/uploads/"), 202)
            half = len(content) // 2
            span = {"Content-Range": f"0-{half - 1}", "Content-Type": "application/octet-stream"}
            upload = begun.header("location") or ""
            taken(await author.ask("PATCH", upload, span, content[:half]), 202)
            taken(await author.finish(upload, digest, content[half:]), 201)
            self.blobs.append((name, digest, content))
        taken(await author.manifest(artifact, tag), 201)

    @contextlib.contextmanager
    def giving_up(self) -> Iterator[None]:
        try:
            yield
        except Refused as refusal:
            self.refused[str(refusal)] += 1
        except GONE as error:
            self.refused[type(error).__name__] += 1

    async def examine(self, replica: At) -> None:
        """What was answered with 201 is there, and whatever is there is whole."""
        for name, artifact in self.taken:
            assert await whole(replica, name, "v1") == artifact.body, f"{name} was answered with 201; {replica.url}"
        for name, artifact in self.begun:
            for target in ("v1", str(artifact.digest)):
                assert await whole(replica, name, target) in (artifact.body, None)
        for name, digest, content in self.blobs:
            reply = await replica.ask("GET", f"/v2/{name}/blobs/{digest}")
            assert (reply.status, reply.body == content) == (200, True), f"{name} {digest} was answered with 201"

    async def examine_together(self, replicas: Iterable[At]) -> None:
        """They agree about the tag that moves, which has not moved back."""
        names = [await whole(replica, MOVING, "moving") for replica in replicas]
        assert len(set(names)) == 1, "the replicas disagree"
        if self.moved >= 0:
            assert names[0] in [artifact.body for artifact in self.moves[self.moved :]]


def taken(reply: Reply, status: int) -> Reply:
    """The answer, when it is the one that was hoped for; raises `Refused` when it is one of `REFUSALS`."""
    if reply.status == status:
        return reply
    assert (reply.status, reply.code) in REFUSALS, reply
    assert reply.status != 503 or int(reply.header("retry-after") or 0) > 0, reply
    raise Refused(f"{reply.status} {reply.code}")


@pytest.mark.timeout(240)
@pytest.mark.shows("a replica dies while something is pushed to `hosted/` at another")
@pytest.mark.parametrize("ack", ["one", "all"])
async def test_what_was_pushed_while_replicas_were_killed_is_there_and_whole(tmp_path: Path, ack: str) -> None:
    seed = int(os.environ.get("WASM_MIRROR_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"WASM_MIRROR_TEST_SEED={seed}")
    draws = random.Random(seed)
    hosted = {"ack": ack, "replicas": 2, "max_uploads": 1000}
    with (
        replicated(tmp_path, settings={"hosted": hosted}) as (_, _, replicas),
        Balancer(
            [mirror.host for mirror in replicas], follows=0.5, at_random=random.Random(draws.random())
        ) as balancer,
    ):
        story = Story(At(balancer.url), draws)
        everyone = [At(url) for url in replicas.urls]
        for _ in range(ROUNDS):
            story.over = False
            pushing = [asyncio.create_task(story.author()) for _ in range(AUTHORS)]
            pushing.append(asyncio.create_task(story.mover()))
            await asyncio.sleep(draws.uniform(0.3, 1.5))  # the instant
            victim: MirrorProcess = draws.choice(list(replicas))
            await asyncio.to_thread(victim.kill)
            await asyncio.sleep(draws.uniform(0.3, 1.5))  # pushes go on without it
            story.over = True
            await asyncio.gather(*pushing)
            if ack == "all":
                left = [At(mirror.url) for mirror in replicas.other_than(victim)]
                await asyncio.gather(*map(story.examine, left))
                await story.examine_together(left)
            await asyncio.to_thread(replicas.start, victim)
            await asyncio.gather(*map(story.examine, everyone))
            await story.examine_together(everyone)
        assert story.moved >= 0
        assert story.taken, "nothing was pushed"
        assert len(story.taken) < len(story.begun), "nothing was interrupted"
        print(f"{len(story.taken)} of {len(story.begun)} pushes were answered with 201; {dict(story.refused)}")
