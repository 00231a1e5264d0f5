"""Killed in the middle of an import, a mirror has nothing half of it, and takes the archive in when it is sent again.

``WASM_MIRROR_TEST_SEED`` repeats the instants of a run that failed, as far as a kernel repeats anything.
"""

import asyncio
import contextlib
import os
import random
from pathlib import Path

import pytest

from tests.support.artifacts import compat, index, raw, wasm_module
from tests.support.layouts import archive, contents
from tests.support.process import MirrorProcess
from tests.support.pushing import At, whole

pytestmark = pytest.mark.integration

ROUNDS = 8
TAR = {"Content-Type": "application/x-tar"}
OFFLINE = {"endpoints": ["http://127.0.0.1:9"], "offline": True}
ARTIFACTS = {
    f"up/team/plugin:{seed}": index(raw(wasm_module(600_000, seed)), compat(wasm_module(1000, seed + 100)))
    for seed in range(6)
}


async def _until_killed(mirror: MirrorProcess, content: bytes, seconds: float) -> bool:
    """Send the archive, and kill the mirror a moment later; whether it had answered before."""
    sending = asyncio.create_task(At(mirror.url).ask("POST", "/api/v1/import", TAR, content))
    await asyncio.sleep(seconds)
    await asyncio.to_thread(mirror.kill)
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        return (await sending).status == 200
    return False


async def test_a_kill_in_the_middle_leaves_nothing_half(tmp_path: Path) -> None:
    seed = int(os.environ.get("WASM_MIRROR_TEST_SEED", random.randrange(1 << 32)))
    chance = random.Random(seed)
    content = archive(*ARTIFACTS.items())
    with MirrorProcess(tmp_path, {"up": OFFLINE}) as mirror:
        for _ in range(ROUNDS):
            answered = await _until_killed(mirror, content, chance.uniform(0, 0.2))
            await asyncio.to_thread(mirror.start)
            at = At(mirror.url)
            for name, artifact in ARTIFACTS.items():
                repository, _, tag = name.rpartition(":")
                found = await whole(at, repository, tag)
                assert found in ((artifact.body,) if answered else (artifact.body, None)), f"{name}, seed {seed}"
            spool = [file.name for file in (tmp_path / "data" / "spool").iterdir()]
            assert not any("import" in name for name in spool), f"{spool}, seed {seed}"
            for file in (tmp_path / "data" / "blobs" / "sha256").rglob("*"):
                assert not file.is_file() or file.read_bytes() in KNOWN, f"{file}, seed {seed}"
            if answered:
                for file in (tmp_path / "data" / "blobs").rglob("*"):
                    if file.is_file():
                        file.unlink()
        reply = await At(mirror.url).ask("POST", "/api/v1/import", TAR, content)
        assert {one["result"] for one in reply.json["results"]} <= {"imported", "held"}, reply
        for name, artifact in ARTIFACTS.items():
            repository, _, tag = name.rpartition(":")
            assert await whole(At(mirror.url), repository, tag) == artifact.body


KNOWN = frozenset(content for artifact in ARTIFACTS.values() for _, content in contents(artifact))
