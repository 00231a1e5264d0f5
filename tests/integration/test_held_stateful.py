"""Pulls, moved tags, pins, pushes, purges, collections, restarts and outages in any order, on a disk that is far too
small: what a simple model says must be held is held, and no byte is wrong. Hypothesis draws the story, and shortens it.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirror import evictor, survey
from mirror.digest import Digest
from mirror.evicting import Here
from mirror.hosted.catalogue import Catalogue
from mirror.metadata.sqlite import SqliteMetadata
from mirror.store.directory import DataDirectory
from mirror.upstream import breaker
from mirror.wiring import answering
from tests.support.admin import operated
from tests.support.artifacts import OCI_CONFIG, RAW_LAYER, Artifact, image, publish, wasm_module
from tests.support.pushing import Author
from tests.support.running import Running, running
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

KIB = 1024
TAGS = ("a", "b", "c")
PUSHED = ("x", "y")
SETTINGS = {
    "cache": {"max_size": 250 * KIB, "high_water": 0.8, "low_water": 0.5},
    "defaults": {"fresh_for": "0s", "hold_for": "1s", "negative_for": "0s"},
    "hosted": {"grace": "1h"},
}

STEPS = st.one_of(
    st.tuples(st.sampled_from(["pull", "move", "pin", "unpin", "purge", "pull in an outage"]), st.sampled_from(TAGS)),
    st.tuples(st.just("push"), st.sampled_from(PUSHED)),
    st.tuples(st.sampled_from(["crowd", "gc", "restart"]), st.just("")),
)


def version(name: str, number: int, size: int = 30 * KIB) -> Artifact:
    """What a tag names for a while; no two share a layer."""
    seed = 1_000 * (1 + ord(name)) + number
    return image([(RAW_LAYER, wasm_module(size, seed))], config=(OCI_CONFIG, b'{"seed":%d}' % seed))


class Story:
    """A mirror, and the model of what it must hold."""

    def __init__(self, up: FaultyUpstream, folder: Path) -> None:
        self.up = up
        self.folder = folder
        self.current = dict.fromkeys(TAGS, 0)
        self.learnt: dict[str, int] = {}  # what the mirror knows a tag to name
        self.pins: dict[str, list[int]] = {}  # versions that a pin protects, the current one first
        self.pushed: set[str] = set()
        self.there: set[Digest] = set()  # what is pinned, and was on the disk after the last step
        self.crowds = 0
        self.stack = contextlib.AsyncExitStack()
        self.mirror: Running

    async def start(self) -> None:
        self.mirror = await self.stack.enter_async_context(running(self.folder, {"up": self.up.url}, SETTINGS))

    async def restart(self, _: str) -> None:
        await self.stack.aclose()
        await self.start()

    async def pull(self, tag: str) -> None:
        current = version(tag, self.current[tag])

        async def is_given() -> bool:
            """Right after an outage the version before may be given, by the rule for those."""
            return (await self.mirror.get(f"/v2/up/team/{tag}/manifests/1")).body == current.body

        given: Callable[[], bool | Awaitable[bool]] = is_given
        await eventually(given, what=f"the current version of {tag}")
        self.learn(tag)
        await self.comes("up", tag, current)

    async def pull_in_an_outage(self, tag: str) -> None:
        """What is pinned comes; all else comes rightly or not at all."""
        self.up.refuse()
        try:
            reply = await self.mirror.get(f"/v2/up/team/{tag}/manifests/1")
            known = version(tag, self.learnt.get(tag, 0))
            assert reply.status != 200 or reply.body == known.body
            if tag in self.pins:
                await self.comes("up", tag, known)
        finally:
            self.up.accept()

    async def move(self, tag: str) -> None:
        self.current[tag] += 1
        publish(self.up, f"team/{tag}", "1", version(tag, self.current[tag]))

    async def pin(self, tag: str) -> None:
        assert await self.told("POST", "pins", tag) in ("pinned", "already")
        if tag not in self.pins:
            self.learn(tag)
            self.pins[tag] = [self.learnt[tag]]

    async def unpin(self, tag: str) -> None:
        reply = await operated(self.mirror, "DELETE", f"pins/up/team/{tag}:1")
        assert (reply.status == 200) == (self.pins.pop(tag, None) is not None)

    async def purge(self, tag: str) -> None:
        result = await self.told("POST", "purge", tag)
        if tag in self.pins:
            assert result == "pinned"
        else:
            assert result in ("purged", "absent")
            assert (result == "purged") >= (tag in self.learnt)
            self.learnt.pop(tag, None)

    async def push(self, name: str) -> None:
        artifact = version(name, 0)
        author = Author(self.mirror, f"hosted/team/{name}")
        for content in artifact.blobs.values():
            await author.blob(content)
        assert (await author.manifest(artifact, "1")).status == 201
        self.pushed.add(name)

    async def crowd(self, _: str) -> None:
        """So much comes that all goes that may."""
        for _round in range(3):
            self.crowds += 1
            one = version("z", self.crowds, 100 * KIB)
            publish(self.up, "team/z", str(self.crowds), one)
            manifest = await self.mirror.get(f"/v2/up/team/z/manifests/{self.crowds}")
            layer = await self.mirror.get(f"/v2/up/team/z/blobs/{one.layers[0]}")
            assert (manifest.body, layer.body) == (one.body, one.blobs[one.layers[0]])

    async def gc(self, _: str) -> None:
        assert (await operated(self.mirror, "POST", "gc")).status == 200

    async def holds_all_that_it_must(self) -> None:
        """What is pinned may be on its way still; what was pushed is there at once, and comes."""
        for name in self.pushed:
            assert self.missing([version(name, 0)]) == []
            await self.comes("hosted", name, version(name, 0))
        due = [version(tag, number) for tag, numbers in self.pins.items() for number in numbers]
        assert self.missing(one for one in due if one.digest in self.there) == [], "what was there has gone"
        await eventually(lambda: not self.missing(due), what="all that is pinned is there")
        self.there = {one.digest for one in due}

    def learn(self, tag: str) -> None:
        """The mirror has heard what a tag names now."""
        before, self.learnt[tag] = self.learnt.get(tag), self.current[tag]
        if tag in self.pins and self.current[tag] != before:
            self.pins[tag] = [self.current[tag], *self.pins[tag]][:2]

    def missing(self, those: Iterable[Artifact]) -> list[str]:
        files = [digest for one in those for digest in (one.digest, *one.blobs)]
        return [str(digest) for digest in files if not self.mirror.holds(digest)]

    async def comes(self, where: str, name: str, artifact: Artifact) -> None:
        manifest = await self.mirror.get(f"/v2/{where}/team/{name}/manifests/1")
        assert (manifest.status, manifest.body) == (200, artifact.body)
        for digest in artifact.layers:
            layer = await self.mirror.get(f"/v2/{where}/team/{name}/blobs/{digest}")
            assert (layer.status, layer.body) == (200, artifact.blobs[digest])

    async def told(self, method: str, operation: str, tag: str) -> str:
        reply = await operated(self.mirror, method, operation, {"references": [f"up/team/{tag}:1"]})
        assert reply.status == 200, reply
        (result,) = reply.json["results"]
        return str(result["result"])


class InThisProcess(Here):
    """What evicts, without a process for each round: a story has hundreds of them."""

    def __init__(self, folder: Path) -> None:
        directory = DataDirectory.attach(folder)
        self._database = SqliteMetadata.open(directory.database)
        self._catalogue = Catalogue.of(directory)
        super().__init__(directory, self._database, self._catalogue)

    async def aclose(self) -> None:
        await self._catalogue.aclose()
        await self._database.aclose()


@given(steps=st.lists(STEPS, min_size=5, max_size=18))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_whatever_happens_what_must_be_held_is_held_and_no_byte_is_wrong(steps: list[tuple[str, str]]) -> None:
    async def told() -> None:
        with tempfile.TemporaryDirectory() as folder, FaultyUpstream() as up:
            story = Story(up, Path(folder))
            for tag in TAGS:
                publish(up, f"team/{tag}", "1", version(tag, 0))
            await story.start()
            try:
                for kind, name in steps:
                    await getattr(story, kind.replace(" ", "_"))(name)
                    await story.holds_all_that_it_must()
            finally:
                await story.stack.aclose()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evictor, "_LOOK_EVERY", 0.02)
        patch.setattr(evictor, "_REST", 1.0)
        patch.setattr(survey, "YOUNG", 0.0)
        patch.setattr(breaker, "OPENS_AFTER", 1_000_000)  # a story has no time for the rest of an endpoint
        patch.setattr(answering, "Apart", InThisProcess)
        asyncio.run(told())
