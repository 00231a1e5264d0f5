"""Killed at any instant of many pushes, the mirror has all that was answered with 201, whole, and nothing half.

``WASM_MIRROR_TEST_SEED`` repeats the instants of a run that failed, as far as a kernel repeats anything.
"""

import asyncio
import contextlib
import os
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mirror.digest import Digest
from tests.support.artifacts import Artifact, image
from tests.support.asking import Headers, Reply, ask
from tests.support.process import MirrorProcess
from tests.support.pushing import Author

pytestmark = pytest.mark.integration

ROUNDS = 8
AUTHORS = 4
EXAMPLE = "application/vnd.example"
MOVING = "hosted/team/moving"


class Program:
    """The mirror as a program, asked over a connection for each request."""

    def __init__(self, mirror: MirrorProcess) -> None:
        host, _, port = mirror.host.partition(":")
        self._address = host, int(port)

    async def ask(self, method: str, target: str, headers: Headers = (), body: bytes = b"") -> Reply:
        return await ask(self._address, target, method=method, headers=headers, body=body)


@dataclass
class Story:
    """What was begun, and what was answered with 201. ``moves``: the artifacts pushed to one tag, in their order."""

    program: Program
    random: random.Random
    begun: list[tuple[str, Artifact]] = field(default_factory=list)
    taken: list[tuple[str, Artifact]] = field(default_factory=list)
    blobs: list[tuple[str, Digest, bytes]] = field(default_factory=list)
    uploads: list[tuple[Author, str, bytes]] = field(default_factory=list)
    moves: list[Artifact] = field(default_factory=list)
    moved: int = -1
    """The last of ``moves`` that was answered with 201."""

    def made(self) -> Artifact:
        """An artifact that nobody has pushed before."""
        contents = [self.random.randbytes(self.random.choice((10, 5_000, 300_000))) for _ in range(3)]
        return image([(EXAMPLE, content) for content in contents[1:]], config=(EXAMPLE, contents[0]))

    async def author(self) -> None:
        """Push one artifact after the other, until the mirror is gone."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                artifact = self.made()
                name = f"hosted/team/plugin-{len(self.begun)}"
                self.begun.append((name, artifact))
                author = Author(self.program, name)
                for digest, content in artifact.blobs.items():
                    await self.blob(author, name, digest, content)
                if (await author.manifest(artifact, "v1")).status == 201:
                    self.taken.append((name, artifact))

    async def blob(self, author: Author, name: str, digest: Digest, content: bytes) -> None:
        upload = await author.begin()
        half = len(content) // 2
        assert (await author.chunk(upload, 0, content[:half])).status == 202
        self.uploads.append((author, upload, content))
        if (await author.finish(upload, digest, content[half:])).status == 201:
            self.blobs.append((name, digest, content))
            self.uploads.remove((author, upload, content))

    async def mover(self) -> None:
        """Move one tag, again and again."""
        author = Author(self.program, MOVING)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                artifact = self.made()
                for digest, content in artifact.blobs.items():
                    assert (await author.blob(content, digest)).status == 201
                number = len(self.moves)
                self.moves.append(artifact)
                if (await author.manifest(artifact, "moving")).status == 201:
                    self.moved = number

    async def examine(self) -> None:
        """After a start: what was answered with 201 is there, and whatever is there is whole."""
        for name, artifact in self.taken:
            assert await self.whole(name, "v1") == artifact.body, f"{name} was answered with 201"
        for name, artifact in self.begun:
            for target in ("v1", str(artifact.digest)):
                assert await self.whole(name, target) in (artifact.body, None)
        for name, digest, content in self.blobs:
            reply = await self.program.ask("GET", f"/v2/{name}/blobs/{digest}")
            assert (reply.status, reply.body == content) == (200, True), f"{name} {digest} was answered with 201"
        if self.moves:
            there = await self.whole(MOVING, "moving")
            assert there in [artifact.body for artifact in self.moves[max(self.moved, 0) :]] or self.moved < 0

    async def whole(self, name: str, target: str) -> bytes | None:
        """A manifest all of whose blobs can be pulled; None: there is none."""
        reply = await self.program.ask("GET", f"/v2/{name}/manifests/{target}")
        if reply.status == 404:
            return None
        assert (reply.status, reply.header("docker-content-digest")) == (200, str(Digest.of(reply.body)))
        fields = reply.json
        for one in [fields["config"], *fields["layers"]]:
            blob = await self.program.ask("GET", f"/v2/{name}/blobs/{one['digest']}")
            assert (blob.status, str(Digest.of(blob.body))) == (200, one["digest"]), f"{name}:{target} is half there"
        return reply.body

    async def go_on(self) -> None:
        """Finish what was begun before the kill, from where the mirror says that it stands."""
        for author, upload, content in self.uploads:
            told = await author.ask("GET", upload)
            if told.status == 404:  # it was finished, though nobody could be told
                there = await author.ask("GET", f"blobs/{Digest.of(content)}")
                assert there.status == 404 or there.body == content
                continue
            size = int((told.header("range") or "").partition("-")[2]) + 1
            assert size >= len(content) // 2, "what was answered with 202 is gone"
            assert (await author.ask("PATCH", upload, body=content[size:])).status == 202
            assert (await author.finish(upload, Digest.of(content))).status == 201
        self.uploads.clear()


@pytest.mark.timeout(240)
@pytest.mark.shows("the mirror is killed, or a client leaves, in the middle of a push")
async def test_killed_while_many_push_nothing_is_lost_or_half(tmp_path: Path) -> None:
    seed = int(os.environ.get("WASM_MIRROR_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"WASM_MIRROR_TEST_SEED={seed}")
    settings = {"workers": 2, "hosted": {"max_uploads": 1000}}
    with MirrorProcess(tmp_path, {"ghcr.io": "http://127.0.0.1:9"}, settings) as mirror:
        story = Story(Program(mirror), random.Random(seed))
        for turn in range(ROUNDS):
            pushing = [asyncio.create_task(story.author()) for _ in range(AUTHORS)]
            pushing.append(asyncio.create_task(story.mover()))
            await asyncio.sleep(story.random.uniform(0.1, 1.0))  # the instant
            await asyncio.to_thread(mirror.kill)
            for result in await asyncio.gather(*pushing, return_exceptions=True):
                if isinstance(result, BaseException):
                    raise result
            await asyncio.to_thread(mirror.start)
            await story.go_on()
            if turn % 4 == 3:
                await story.examine()
        assert story.taken, "nothing was pushed"
        assert len(story.taken) < len(story.begun), "nothing was interrupted"
        assert "Traceback" not in mirror.log_text()
        print(f"{len(story.taken)} of {len(story.begun)} pushes were answered with 201")


async def test_a_push_is_seen_by_all_workers_at_once(tmp_path: Path) -> None:
    with MirrorProcess(tmp_path, {"ghcr.io": "http://127.0.0.1:9"}, {"workers": 3}) as mirror:
        program = Program(mirror)
        author = Author(program)
        for number in range(20):
            content = str(number).encode()
            artifact = image([(EXAMPLE, content)], config=(EXAMPLE, b"{}"))
            assert (await author.push(artifact, "v1")).status == 201  # each request on a connection of its own
            for reply in await asyncio.gather(*(author.ask("GET", "manifests/v1") for _ in range(6))):
                assert reply.body == artifact.body
            if number % 5 == 4:
                assert (await author.ask("DELETE", "manifests/v1")).status == 202
                for reply in await asyncio.gather(*(author.ask("GET", "manifests/v1") for _ in range(6))):
                    assert reply.status == 404
