"""Whatever goes wrong at once, /modules and /v2 give right bytes of a version that was published, or an error in words.

Tags move, upstream fails in all its ways, blobs and manifests are taken from the disk or lose bytes, clients leave.
"""

import asyncio
import contextlib
import hashlib
import logging
import random
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.oci import Manifest
from mirror.wasm.repackage import repackaged
from tests.support.artifacts import (
    OCI_LAYER,
    Artifact,
    cncf,
    compat,
    docker,
    image,
    index,
    publish,
    raw,
    tar_gz,
    wasm_module,
)
from tests.support.asking import Reply
from tests.support.faults import Fault
from tests.support.running import Running, running
from tests.support.upstream import FaultyUpstream

REPOSITORIES = ("team/one", "team/two")
TAGS = ("v1", "v2", "v3")
LAYOUTS = (
    raw,
    compat,
    docker,
    cncf,
    lambda module: image([(OCI_LAYER, tar_gz({"filter.wasm": module, "README": b"read me"}))]),
    lambda module: index(raw(module)),
    lambda module: index(index(compat(module))),
    lambda module: index(compat(module), platforms=("linux/arm64",)),
    lambda module: index(cncf(module)),
)
FAULTS = (
    (Fault(status=503), "/manifests/"),
    (Fault(status=503), "/blobs/"),
    (Fault(status=429, retry_after=1), ""),
    (Fault(drop=True), ""),
    (Fault(hang=True), "/manifests/"),
    (Fault(cut_after=5_000), "/blobs/"),
    (Fault(flip_at=-1), "/blobs/"),
    (Fault(tamper_from=1_000), "/blobs/"),
    (Fault(html=True), ""),
    (Fault(delay=0.05), ""),
)
SETTINGS = {
    "wasm": {"repackage": "agents"},
    "defaults": {"fresh_for": "20ms", "negative_for": "50ms", "hold_for": "300ms", "revalidate_for": "50ms"},
}
STEPS = 15
AT_ONCE = 12


class Storm:
    """What was published, by repository and tag, and what may be answered because of it."""

    def __init__(self, up: FaultyUpstream, mirror: Running, seed: int) -> None:
        self.up = up
        self.mirror = mirror
        self.random = random.Random(seed)
        self.modules: dict[tuple[str, str], set[bytes]] = {}
        self.manifests: dict[tuple[str, str], set[bytes]] = {}
        self.own: dict[str, dict[Digest, bytes]] = {repository: {} for repository in REPOSITORIES}
        self.unpacked: dict[str, set[Digest]] = {repository: set() for repository in REPOSITORIES}
        self.served = 0

    def publish(self) -> None:
        """Let a tag name a version that nobody has seen."""
        repository, tag = self.random.choice(REPOSITORIES), self.random.choice(TAGS)
        module = wasm_module(self.random.choice((40, 2_000, 90_000)), seed=self.random.getrandbits(32))
        artifact = self.random.choice(LAYOUTS)(module)
        publish(self.up, repository, tag, artifact)
        self.modules.setdefault((repository, tag), set()).add(module)
        self.manifests.setdefault((repository, tag), set()).add(artifact.body)
        self.unpacked[repository].add(Digest.of(module))
        for one in _all_of(artifact):
            made = repackaged(one.digest, Digest.of(module), len(module))
            self.manifests.setdefault((repository, f"{tag}-istio"), set()).add(made.body)
            self.own[repository].update({one.digest: one.body, made.digest: made.body, **one.blobs})

    def turn(self) -> None:
        """Upstream gets better or worse."""
        what = self.random.randrange(6)
        if what == 0:
            self.up.refuse()
        elif what <= 2:
            self.up.accept()
            self.up.clear()
        else:
            fault, path = self.random.choice(FAULTS)
            self.up.inject(fault, path=path, times=self.random.choice((1, 3, 20)))

    def rot(self) -> None:
        """Blobs and manifests vanish from the disk, or lose a byte."""
        files = [file for file in self.mirror.directory.blobs.glob("*/??/*") if file.is_file()]
        for file in self.random.sample(files, min(len(files), 3)):
            with contextlib.suppress(FileNotFoundError):
                if self.random.random() < 0.3:
                    short = file.with_name("short")
                    short.write_bytes(file.read_bytes()[:-1])
                    short.replace(file)
                else:
                    file.unlink()

    async def ask(self) -> None:
        """One client, of any kind."""
        repository, tag = self.random.choice(REPOSITORIES), self.random.choice(TAGS)
        module = f"/modules/up/{repository}:{tag}"
        match self.random.randrange(8):
            case 0 | 1:
                await self.module(repository, tag, module)
            case 2:
                if reply := await self.right(f"{module}?info"):
                    known = {None, *(hashlib.sha256(one).hexdigest() for one in self.modules[repository, tag])}
                    assert (reply.json["module"] or {}).get("sha256") in known
            case 3:
                await self.manifest(repository, tag)
            case 4:
                await self.manifest(repository, f"{tag}-istio")
            case 5:
                digest = self.random.choice([*self.own[repository]])
                if reply := await self.right(f"/v2/up/{repository}/blobs/{digest}"):
                    assert reply.body == self.own[repository][digest]
            case 6:
                await self.foreign(repository)
            case _:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.random.random() * 0.02):
                        await self.mirror.get(
                            self.random.choice((module, f"/v2/up/{repository}/manifests/{tag}-istio"))
                        )

    async def module(self, repository: str, tag: str, target: str) -> None:
        """An Envoy."""
        if reply := await self.right(target):
            assert reply.body in self.modules[repository, tag]
            assert reply.header("x-wasm-sha256") == hashlib.sha256(reply.body).hexdigest()

    async def manifest(self, repository: str, tag: str) -> None:
        """An agent, which takes all that the manifest names."""
        reply = await self.right(f"/v2/up/{repository}/manifests/{tag}")
        if reply is None:
            return
        assert reply.body in self.manifests[repository, tag]
        for named in Manifest.parse(reply.body, "", Digest.of(reply.body)).layers:
            if blob := await self.right(f"/v2/up/{repository}/blobs/{named.digest}"):
                assert Digest.of(blob.body) == named.digest

    async def foreign(self, repository: str) -> None:
        """Somebody who has guessed the digests of another repository."""
        other = REPOSITORIES[1 - REPOSITORIES.index(repository)]
        theirs = (self.own[other].keys() | self.unpacked[other]) - self.own[repository].keys()
        digest = self.random.choice(sorted(theirs, key=str))
        for path in (f"v2/up/{repository}/blobs/", f"v2/up/{repository}/manifests/", f"modules/up/{repository}@"):
            assert await self.right(f"/{path}{digest}") is None
        assert await self.right(f"/modules/up/{repository}@{digest}?info") is None

    async def right(self, target: str) -> Reply | None:
        """A whole answer, or None for an error that may be, or a body that was cut."""
        async with asyncio.timeout(20):
            reply = await self.mirror.get(target)
        if reply.status == 200:
            self.served += 1
            return reply if reply.whole else None
        assert reply.status in (404, 500, 502, 503, 504), (target, reply)
        assert reply.code
        assert reply.status != 500 or "on the mirror's disk; ask again" in reply.message, (target, reply)
        return None


def _all_of(artifact: Artifact) -> list[Artifact]:
    return [artifact, *(below for child in artifact.children for below in _all_of(child))]


@pytest.mark.integration
@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.integration)])
@pytest.mark.shows("a registry refuses connections, hangs, or answers with errors or what is not HTTP")
async def test_only_right_bytes_come_through_a_storm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    with FaultyUpstream() as up:
        async with running(tmp_path, {"up": up}, SETTINGS) as mirror:
            storm = Storm(up, mirror, seed)
            for _ in range(12):
                storm.publish()
            for _ in range(STEPS):
                asking = [asyncio.create_task(storm.ask()) for _ in range(AT_ONCE)]
                await asyncio.sleep(0)
                storm.random.choice((storm.publish, storm.turn, storm.turn, storm.rot, storm.rot))()
                await asyncio.gather(*asking)
    assert storm.served > STEPS
    failed = [one for one in caplog.records if one.exc_info is not None and one.levelno >= logging.ERROR]
    assert failed == []
