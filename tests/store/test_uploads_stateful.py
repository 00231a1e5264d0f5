"""Uploads against a model: whatever is sent, cut, refused or begun anew in any worker, the bytes are those accepted."""

import errno
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.errors import ChunkInvalid, DiskFull, SizeInvalid
from mirror.store.session import Session
from tests.store.uploading import LIMIT, Cut, Worker, pieces, workers

_STEPS = 25


class Model:
    """One upload, what must be in it, and the workers that it may reach."""

    def __init__(self, at: list[Worker], seeded: random.Random) -> None:
        self.accepted = b""
        self._at = at
        self._seeded = seeded

    async def step(self, upload: str) -> None:
        """Something that a client or fate does."""
        steps = [self.append, self.append, self.cut, self.too_much, self.misplaced, self.full, self.forget]
        await self._seeded.choice(steps)(upload)

    async def found(self, upload: str) -> Session:
        """The upload, as any of the workers finds it."""
        session = await self._seeded.choice(self._at).find(upload)
        assert session.size == len(self.accepted)
        return session

    async def append(self, upload: str) -> None:
        """A request that works."""
        session, sent = await self.found(upload), self._bytes()
        start = self._seeded.choice([None, len(self.accepted)])
        self.accepted += sent
        assert await session.append(self._pieces(sent), start=start, limit=LIMIT) == len(self.accepted)

    async def cut(self, upload: str) -> None:
        """A client that leaves; what it sent is there."""
        session, sent = await self.found(upload), self._bytes()
        with pytest.raises(Cut):
            await session.append(pieces(sent, cut=True), limit=LIMIT)
        self.accepted += sent

    async def too_much(self, upload: str) -> None:
        """A request that is refused at its end."""
        session, sent = await self.found(upload), self._bytes() + b"!"
        with pytest.raises(SizeInvalid):
            await session.append(self._pieces(sent), limit=len(self.accepted) + len(sent) - 1)

    async def misplaced(self, upload: str) -> None:
        """A request that is refused at its beginning."""
        session = await self.found(upload)
        start = len(self.accepted) + self._seeded.choice([-1, 1])
        with pytest.raises(ChunkInvalid) as refused:
            await session.append(self._pieces(b"!"), start=start, limit=LIMIT)
        assert refused.value.size == len(self.accepted)

    async def full(self, upload: str) -> None:
        """A disk that takes a part."""
        session, sent = await self.found(upload), self._bytes() + b"!"
        write, room = os.pwrite, [self._seeded.randrange(len(sent))]

        def bounded(fd: int, data: memoryview, offset: int) -> int:
            if not room[0]:
                raise OSError(errno.ENOSPC, "No space left on device")
            written = write(fd, data[: room[0]], offset)
            room[0] -= written
            return written

        self.accepted += sent[: room[0]]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "pwrite", bounded)
            with pytest.raises(DiskFull):
                await session.append(self._pieces(sent), limit=LIMIT)

    async def forget(self, upload: str) -> None:
        """A worker that is started anew."""
        self._seeded.choice(self._at).desk.forget(upload)

    def _pieces(self, content: bytes) -> AsyncIterator[bytes]:
        return pieces(content, self._seeded.randrange(1000, 90_000))

    def _bytes(self) -> bytes:
        return self._seeded.randbytes(self._seeded.choice([0, 1, 5_000, 200_000]))


@pytest.mark.parametrize("seed", range(12))
async def test_the_blob_is_what_was_accepted(tmp_path: Path, seed: int) -> None:
    seeded = random.Random(seed)
    with workers(tmp_path, 2) as at:
        session = await at[0].begin()
        model = Model(at, seeded)
        for _ in range(_STEPS):
            await model.step(session.id)
        digest = Digest.of(model.accepted, seeded.choice(["sha256", "sha512"]))
        received = await (await model.found(session.id)).finish(digest, at[0].store)
        assert received.size == len(model.accepted)
        assert at[1].held(digest) == model.accepted
