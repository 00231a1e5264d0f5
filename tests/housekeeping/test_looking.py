"""What nobody has looked at is looked at: of what is here whole and sound, once by the rules of now."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from mirror import looking
from mirror.digest import Digest
from mirror.findings import Findings
from mirror.looking import Looking
from mirror.metadata.sqlite import SqliteMetadata
from mirror.store.blobs import BlobStore
from mirror.store.leases import Leases
from mirror.wasm.facts import Facts
from tests.store.disk import data_in
from tests.support.artifacts import OCI_LAYER, Artifact, cncf, compat, image, index, tar_gz
from tests.support.waiting import eventually
from tests.wasm.modules import plugin

TAKEN, REFUSED = compat(plugin()), cncf(plugin())


class Shelf:
    """A disk with some artifacts, of which nobody knows anything."""

    def __init__(self, folder: Path, rules: str) -> None:
        self.directory = data_in(folder / "data")
        self.store = BlobStore(self.directory)
        self.known = SqliteMetadata.open(self.directory.database)
        self.listed: list[tuple[Digest, str]] = []
        self.findings = Findings(self.known, rules)
        leases = Leases(self.directory.leases)
        self.looking = Looking(
            self.directory, self.findings, self._named, self.known.forget_seen, leases, max_module_size=1 << 20
        )

    async def _named(self) -> Sequence[tuple[Digest, str]]:
        return self.listed

    def put(self, artifact: Artifact, *, listed: bool = True) -> None:
        """Have it here, with all that it leads to."""
        for child in artifact.children:
            self.put(child, listed=False)
        for digest, content in (*artifact.blobs.items(), (artifact.digest, artifact.body)):
            if not self.store.holds(digest):
                self.store.put(digest, content)
        if listed:
            self.listed.append((artifact.digest, artifact.media_type))

    async def look(self) -> int:
        """A round; how many were looked at."""
        count = await self.looking.once(pause=0.0)
        await self.findings.flush()
        return count

    async def found(self, artifact: Artifact) -> Facts | None:
        """What is known of it."""
        return (await self.findings.of([artifact.digest])).get(artifact.digest)


@contextlib.asynccontextmanager
async def shelf(folder: Path, rules: str = "these") -> AsyncIterator[Shelf]:
    one = Shelf(folder, rules)
    try:
        yield one
    finally:
        await one.known.aclose()


async def test_what_is_here_is_looked_at_once_by_the_rules_of_now(tmp_path: Path) -> None:
    async with shelf(tmp_path) as one:
        one.put(TAKEN)
        one.put(REFUSED)
        assert await one.look() == 2
        assert await one.found(TAKEN) == Facts("oci tar+gzip", ("0.2.1",), "accepted", None)
        refused = await one.found(REFUSED)
        assert refused is not None
        assert (refused.layout, refused.verdict) == ("cncf", "refused")
        assert await one.look() == 0, "it is known"
        listed = one.listed
    async with shelf(tmp_path, "others") as one:
        one.listed = listed
        assert await one.found(REFUSED) == refused, "told until it is looked at again"
        assert await one.look() == 2
        assert await one.look() == 0


async def test_an_index_is_looked_at_together_with_what_it_leads_to(tmp_path: Path) -> None:
    parent = index(TAKEN)
    async with shelf(tmp_path) as one:
        one.put(parent)
        one.put(TAKEN)
        assert await one.look() == 1, "one look for both"
        assert await one.found(parent) == await one.found(TAKEN) == Facts("oci tar+gzip", ("0.2.1",), "accepted", None)


async def test_an_index_that_is_wrong_about_its_child_says_nothing_of_it(tmp_path: Path) -> None:
    wrong = index(TAKEN)
    wrong = Artifact(wrong.body.replace(TAKEN.media_type.encode(), wrong.media_type.encode()), wrong.media_type)
    async with shelf(tmp_path) as one:
        one.put(TAKEN, listed=False)
        one.put(wrong)
        assert await one.look() == 1
        facts = await one.found(wrong)
        assert facts is not None
        assert facts.verdict == "refused"
        assert await one.found(TAKEN) is None


@pytest.mark.parametrize("lacking", ["manifest", "layer", "child"])
async def test_what_is_not_here_as_a_whole_is_left_until_it_is(tmp_path: Path, lacking: str) -> None:
    parent = index(TAKEN)
    artifact = parent if lacking == "child" else TAKEN
    digest = {"manifest": TAKEN.digest, "layer": TAKEN.layers[0], "child": TAKEN.digest}[lacking]
    async with shelf(tmp_path) as one:
        one.put(artifact)
        one.store.delete(digest)
        assert (await one.look(), await one.found(artifact)) == (0, None)
        one.put(TAKEN, listed=False)
        assert await one.look() == 1, "it was on its way"


async def test_what_stays_away_is_not_tried_each_time(tmp_path: Path) -> None:
    async with shelf(tmp_path) as one:
        one.put(TAKEN)
        one.store.delete(TAKEN.layers[0])
        assert [await one.look() for _ in range(2)] == [0, 0]
        one.put(TAKEN, listed=False)
        assert [await one.look() for _ in range(looking._AGAIN_AFTER - 1)] == [0] * (looking._AGAIN_AFTER - 2) + [1]


@pytest.mark.parametrize("rotten", ["manifest", "layer"])
async def test_what_has_rotted_is_not_spoken_ill_of(tmp_path: Path, rotten: str) -> None:
    digest = TAKEN.digest if rotten == "manifest" else TAKEN.layers[0]
    async with shelf(tmp_path) as one:
        one.put(TAKEN)
        file = one.directory.blob(digest)
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.unlink()
        file.write_bytes(bytes(content))
        assert (await one.look(), await one.found(TAKEN)) == (0, None)


async def test_containers_that_would_take_long_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    container = image([(OCI_LAYER, tar_gz({"bin/sh": b"\x7fELF" * 100}))])
    async with shelf(tmp_path) as one:
        one.put(container)
        monkeypatch.setattr(looking, "_MOST_OPENED", 10)
        assert (await one.look(), await one.found(container)) == (0, None)
        monkeypatch.undo()
        monkeypatch.setattr(looking, "_AGAIN_AFTER", 1)
        assert await one.look() == 1
        facts = await one.found(container)
        assert facts is not None
        assert facts.verdict == "not_wasm"


async def test_what_is_gone_is_forgotten_though_nobody_said_so(tmp_path: Path) -> None:
    async with shelf(tmp_path) as one:
        one.put(TAKEN)
        one.put(REFUSED)
        await one.look()
        one.store.delete(REFUSED.digest)
        assert await one.look() == 0
        assert await one.found(REFUSED) is None
        assert await one.found(TAKEN) is not None


class Turns:
    """A lease that others have at first."""

    def __init__(self) -> None:
        self.left = 3

    @contextlib.contextmanager
    def attempt(self, name: str) -> Iterator[bool]:
        """Whether it is held."""
        self.left -= 1
        yield self.left < 0


async def test_who_does_not_hold_the_lease_does_not_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = Turns()
    monkeypatch.setattr(looking, "_FIRST_AFTER", 0.0)
    monkeypatch.setattr(looking, "_EVERY", 0.0)
    async with shelf(tmp_path) as one:
        at_each: list[int] = []

        async def named() -> Sequence[tuple[Digest, str]]:
            at_each.append(turns.left)
            return []

        work = Looking(one.directory, one.findings, named, one.known.forget_seen, turns, 1 << 20)
        running = asyncio.create_task(work.run())
        await eventually(lambda: at_each, what="the round of who holds it")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert at_each[0] == -1
