"""Clients that pull all the time, and believe nothing."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence

from mirror.digest import Digest
from tests.chaos.library import TAG, Library
from tests.chaos.replica import Replica
from tests.integration.client import Got, get
from tests.support.artifacts import Artifact

END_WITHIN = 40.0
"""Seconds after which a request that has not ended is one that hangs: more than any replica is left hanging, and than
any fill goes on without bytes.
"""
HELD_WITHIN = 10.0
"""Seconds to the status line of what a replica holds. It is 1 s where nothing else takes the processor away."""


class Witness:
    """What all clients have seen. ``wrongs`` are what no outage excuses."""

    def __init__(self) -> None:
        self.wrongs: list[str] = []
        self.outcomes: Counter[str] = Counter()
        self.slowest_held = (0.0, "nothing that is held")

    def wrong(self, what: str) -> None:
        """No outage excuses this."""
        self.wrongs.append(what)


class Client:
    """Pulls at random from any replica. A cut, a refused connection or an error is an outage's right; wrong bytes are
    nobody's, nor that a replica to which nothing happened fails to serve what it holds.
    """

    def __init__(self, library: Library, replicas: Sequence[Replica], witness: Witness, random: random.Random) -> None:
        self._library = library
        self._replicas = replicas
        self._witness = witness
        self._random = random

    async def pull_until(self, over: asyncio.Event) -> None:
        """Pull by tag, or any version by digest, or a part of a layer; again and again."""
        while not over.is_set():
            replica = self._random.choice(self._replicas)
            repository = self._random.choice(self._library.repositories)
            if self._random.random() < 0.6:
                await self.pull(replica, repository)
            else:
                version = self._random.choice(self._library.versions[repository])
                await self._layers(replica, repository, version, parts=self._random.random() < 0.5)
            await asyncio.sleep(self._random.uniform(0.0, 0.1))

    async def pull(self, replica: Replica, repository: str) -> Artifact | None:
        """By tag, as agents do: the manifest, then its layers. What came whole, if all did."""
        got = await self._get(replica, f"/v2/up/{repository}/manifests/{TAG}")
        if got is None or got.status != 200 or not got.whole:
            return None
        named = got.headers["docker-content-digest"]
        if str(Digest.of(got.body)) != named or not self._library.had(repository, named):
            self._witness.wrong(f"{replica.name} served {Digest.of(got.body)} as {named} for the tag of {repository}")
            return None
        (version,) = [one for one in self._library.versions[repository] if str(one.digest) == named]
        return version if await self._layers(replica, repository, version, parts=False) else None

    async def pull_version(self, replica: Replica, repository: str, version: Artifact) -> bool:
        """By digest; whether all came whole."""
        path = f"/v2/up/{repository}/manifests/{version.digest}"
        got = await self._get(replica, path)
        if got is None or not self._is(replica, path, got, version.body):
            return False
        return await self._layers(replica, repository, version, parts=False)

    async def _layers(self, replica: Replica, repository: str, version: Artifact, *, parts: bool) -> bool:
        asked = [self._layer(replica, repository, digest, version.blobs[digest], parts) for digest in version.layers]
        return all(await asyncio.gather(*asked))

    async def _layer(self, replica: Replica, repository: str, digest: Digest, content: bytes, part: bool) -> bool:
        path = f"/v2/up/{repository}/blobs/{digest}"
        headers = {}
        if part:
            first = self._random.randrange(len(content))
            last = self._random.randrange(first, len(content))
            headers, content = {"range": f"bytes={first}-{last}"}, content[first : last + 1]
        got = await self._get(replica, path, headers)
        return got is not None and self._is(replica, path, got, content)

    def _is(self, replica: Replica, path: str, got: Got, content: bytes) -> bool:
        """Whether all of it came; bytes that are others were wrong, also in what did not come whole."""
        if got.status not in (200, 206):
            return False
        if got.body != content[: len(got.body)] or (got.whole and len(got.body) != len(content)):
            if got.whole:
                self._witness.wrong(f"{replica.name} served {len(got.body)} wrong bytes whole: {path}")
            return False
        return got.whole

    async def _get(self, replica: Replica, path: str, headers: dict[str, str] | None = None) -> Got | None:
        """The answer, None where the replica cannot be reached."""
        counted_on, moment = path in replica.held, replica.moment
        began = time.monotonic()
        try:
            async with asyncio.timeout(END_WITHIN):
                got = await get(replica.mirror.url, path, headers=headers)
        except OSError as error:  # a TimeoutError is one
            if isinstance(error, TimeoutError):
                self._witness.wrong(f"{replica.name} has not ended its answer after {END_WITHIN:g} s: {path}")
            got = None
        self._note(got)
        if got is not None and got.status == 500:
            self._witness.wrong(f"{replica.name} does not know what to say: {got.body[:300]!r} for {path}")
        if got is not None and got.status in (200, 206) and got.whole and got.cache_status.startswith("hit"):
            replica.held.add(path)
        if counted_on and moment is not None and replica.moment == moment:
            self._hold_to(replica, path, got, time.monotonic() - began)
        return got

    def _hold_to(self, replica: Replica, path: str, got: Got | None, seconds: float) -> None:
        """The replica holds this, and nothing happened to it: it may not fail."""
        if got is None or got.status not in (200, 206) or not got.whole:
            told = "cannot be reached" if got is None else f"says {got.status} {got.body[:300]!r}, whole={got.whole}"
            self._witness.wrong(f"{replica.name} {told} for what it holds, after {seconds:.2f} s: {path}")
            return
        told = f"{path} at {replica.name}, {got.cache_status}"
        self._witness.slowest_held = max(self._witness.slowest_held, (got.seconds, told))
        if got.seconds > HELD_WITHIN:
            self._witness.wrong(f"{replica.name} took {got.seconds:.1f} s for what it holds: {path}")

    def _note(self, got: Got | None) -> None:
        if got is None:
            self._witness.outcomes["not reached"] += 1
        elif got.status == 0 or not got.whole:
            self._witness.outcomes["cut"] += 1
        else:
            self._witness.outcomes[str(got.status)] += 1
