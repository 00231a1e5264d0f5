"""``kill -9`` in a loop while bytes come: what was reported is there, and it ends as the right blob."""

import asyncio
import random
from pathlib import Path

import pytest

from mirror.digest import Digest
from tests.store.process import process
from tests.store.uploading import LIMIT, pieces, worker

CONTENT = random.Random(1).randbytes(40_000_000)


@pytest.mark.integration
@pytest.mark.timeout(120)
async def test_what_was_reported_is_there_after_each_kill(tmp_path: Path) -> None:
    seeded = random.Random(6)
    (tmp_path / "content").write_bytes(CONTENT)
    with worker(tmp_path / "data") as one:
        session = await one.begin()
        kills = 0
        while (size := (await one.find(session.id)).size) < len(CONTENT):
            with process("push", tmp_path / "data", str(tmp_path / "content"), session.id, str(size)) as pushing:
                assert pushing.stdout is not None
                reported = [int(pushing.stdout.readline() or 0) for _ in range(seeded.randrange(4))]
                await asyncio.sleep(seeded.random() / 20)  # anywhere in a chunk
                pushing.kill()
                reported += [int(line) for line in pushing.stdout.read().split(b"\n")[:-1]]
            kills += 1
            found = (await one.find(session.id)).size
            assert found >= max(reported, default=size)
            assert one.path(session).read_bytes() == CONTENT[:found]
        assert kills > 5
        await session.append(pieces(b""), start=len(CONTENT), limit=LIMIT)
        await session.finish(Digest.of(CONTENT), one.store)
        assert one.held(Digest.of(CONTENT)) == CONTENT


@pytest.mark.integration
@pytest.mark.timeout(120)
async def test_a_finish_that_is_killed_has_made_a_whole_blob_or_can_be_finished(tmp_path: Path) -> None:
    seeded = random.Random(7)
    digest = Digest.of(CONTENT)
    with worker(tmp_path) as one:
        for _ in range(8):
            one.store.delete(digest)
            session = await one.begin()
            await session.append(pieces(CONTENT), limit=LIMIT)
            with process("finish", tmp_path, session.id, str(digest)) as finishing:
                await asyncio.sleep(seeded.random() / 5)
                finishing.kill()
            if one.held(digest) is None:
                await (await one.find(session.id)).finish(digest, one.store)
            assert one.held(digest) == CONTENT
