"""Killed at any instant, again and again, the mirror starts on a whole store and forgets nothing that was pulled.

``WASM_MIRROR_TEST_SEED`` repeats the instants of a run that failed, as far as a kernel repeats anything.
"""

import asyncio
import os
import random
from pathlib import Path

import pytest

from mirror.digest import Digest
from tests.integration.client import Pulled, pull
from tests.support.artifacts import compat, docker, publish, raw, wasm_module
from tests.support.faults import Fault
from tests.support.process import MirrorProcess
from tests.support.upstream import FaultyUpstream

LAYOUTS = (raw, compat, docker)
MOVING = "moving/team/moving"


class Story:
    """Rounds of pulls that end with a kill. ``pulled`` are the versions that clients have got whole, by repository."""

    def __init__(self, up: FaultyUpstream, mirror: MirrorProcess, seed: int) -> None:
        self.up = up
        self.mirror = mirror
        self.random = random.Random(seed)
        self.pulled: dict[str, int] = {}
        self.interrupted = 0
        self._versions: dict[str, int] = {}
        self._number = 0
        self._over = False

    def push(self) -> list[str]:
        """Let upstream have new artifacts, and a new version of a moving tag; gives their names at the mirror."""
        names = []
        for layout in LAYOUTS:
            self._number += 1
            artifact = layout(wasm_module(self.random.randrange(1000, 400_000), seed=self._number))
            publish(self.up, f"team/plugin-{self._number}", "v1", artifact)
            names.append(f"up/team/plugin-{self._number}")
        moved = raw(wasm_module(50_000 + self._number, seed=self._number), {"annotations": {"n": str(self._number)}})
        publish(self.up, "team/moving", "v1", moved)
        self._versions[str(moved.digest)] = self._number
        return [*names, MOVING]

    async def until_killed(self, names: list[str], part: int, parts: int) -> None:
        """Pull them all, and kill the mirror meanwhile, in one ``part`` of ``parts`` of the time for it."""
        self._over = False
        clients = [asyncio.create_task(self._client(name)) for name in names for _ in range(2)]
        await asyncio.sleep(0.4 * self.random.uniform(part, part + 1) / parts)  # the instant
        self.mirror.kill()
        self._over = True
        await asyncio.gather(*clients)

    async def _client(self, name: str) -> None:
        while not self._over:
            try:
                self._note(name, await pull(self.mirror.url, name, "v1"))
            except OSError:
                await asyncio.sleep(0.01)

    def _note(self, name: str, pulled: Pulled) -> None:
        if pulled.whole:
            self.pulled[name] = max(self._version(pulled), self.pulled.get(name, 0))

    def _version(self, pulled: Pulled) -> int:
        return self._versions.get(pulled.manifest.headers["docker-content-digest"], 0)

    async def check(self, names: list[str]) -> None:
        """What was pulled is there without upstream, and what was interrupted can be pulled with it.

        A tag may have moved on to a version whose layers were still flowing; then its manifest is there.
        """
        self.up.refuse()
        for name in names:
            if name in self.pulled:
                pulled = await pull(self.mirror.url, name, "v1")
                assert pulled.manifest.status == 200, f"{name} was pulled, and its tag is not there without upstream"
                version = self._version(pulled)
                assert version >= self.pulled[name], f"{name} went back from version {self.pulled[name]} to {version}"
                assert pulled.whole or version > self.pulled[name], f"{name} was pulled, and is not there: {pulled}"
        self.up.accept()
        for name in names:
            self.interrupted += name not in self.pulled
            pulled = await pull(self.mirror.url, name, "v1")
            assert pulled.whole, f"{name} cannot be pulled: {pulled}"
            self._note(name, pulled)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("workers", "rounds"),
    [pytest.param(*many, marks=pytest.mark.integration) for many in [(1, 3), (1, 15), (1, 16), (2, 10)]],
)
@pytest.mark.shows("the mirror is killed at any instant")
async def test_a_kill_at_any_instant_leaves_a_store_to_go_on_with(tmp_path: Path, workers: int, rounds: int) -> None:
    seed = int(os.environ.get("WASM_MIRROR_TEST_SEED") or random.randrange(2**32))
    print(f"WASM_MIRROR_TEST_SEED={seed}")
    settings = {"workers": workers, "defaults": {"fresh_for": "1h", "hold_for": "3s"}}
    with FaultyUpstream() as up:
        up.inject(Fault(bandwidth=2e6), path="/blobs/")
        mirror = MirrorProcess(tmp_path, {"up": up.url, "moving": {"endpoints": [up.url], "fresh_for": "0s"}}, settings)
        story = Story(up, mirror, seed)
        mirror.start()
        for number in range(rounds):
            names = story.push()
            await story.until_killed(names, number, rounds)  # early ones among them, whatever the seed
            if number % 5 == 4:
                mirror.start(wait=False)
                await asyncio.sleep(story.random.uniform(0.0, 0.8))  # somewhere in its start
                mirror.kill()
            no_blob_is_wrong(mirror.data_dir)
            mirror.start()
            await story.check(names)
        await story.check(list(story.pulled))
        no_blob_is_wrong(mirror.data_dir)
        assert mirror.stop() == 0
        mirror.close()
        assert "Traceback" not in mirror.log_text()
        assert story.interrupted >= rounds / 5, "the instants were chosen so that pulls are interrupted"


def no_blob_is_wrong(data: Path) -> None:
    """Every file under ``blobs/`` has the digest that its path names."""
    for file in data.glob("blobs/**/*"):
        if file.is_file():
            digest = Digest(file.parent.parent.name, file.name)
            assert Digest.of(file.read_bytes(), digest.algorithm) == digest, f"{file} is not what it is called"
