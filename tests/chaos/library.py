"""What the registries hold while everything fails: artifacts, whose tags move now and then."""

import random
from collections.abc import Sequence

from mirror.digest import Digest
from tests.support.artifacts import Artifact, compat, docker, publish, raw, wasm_module
from tests.support.upstream import FaultyUpstream

TAG = "latest"
_LAYOUTS = (raw, compat, docker)
_AT_FIRST = 4
_LARGEST = 1_500_000  # bytes of a module


class Library:
    """Repositories with one tag each, the same at every endpoint. ``versions`` are all that a tag ever named, by
    repository, oldest first.
    """

    def __init__(self, endpoints: Sequence[FaultyUpstream], random: random.Random) -> None:
        self.versions: dict[str, list[Artifact]] = {}
        self._endpoints = endpoints
        self._random = random
        self._made = 0
        for _ in range(_AT_FIRST):
            self.add()

    @property
    def repositories(self) -> list[str]:
        return list(self.versions)

    def add(self) -> str:
        """A new repository."""
        repository = f"team/plugin-{len(self.versions)}"
        self.versions[repository] = []
        self._publish(repository)
        return f"{repository} is new"

    def move(self) -> str:
        """A tag names a new version."""
        repository = self._random.choice(self.repositories)
        self._publish(repository)
        return f"{repository} moves to version {len(self.versions[repository])}"

    def newest(self, repository: str) -> Artifact:
        """What the tag names now."""
        return self.versions[repository][-1]

    def had(self, repository: str, digest: str) -> bool:
        """Whether the tag has ever named this manifest."""
        return any(str(version.digest) == digest for version in self.versions[repository])

    def _publish(self, repository: str) -> None:
        self._made += 1
        module = wasm_module(self._random.randrange(1000, _LARGEST), seed=self._made)
        # Layouts keep their layers apart: the same module in two of them would not be the same blob anyway.
        artifact = self._random.choice(_LAYOUTS)(module, {"annotations": {"version": str(self._made)}})
        self.versions[repository].append(artifact)  # first, for from now on clients may get it
        for up in self._endpoints:
            publish(up, repository, TAG, artifact)


def blobs(artifact: Artifact) -> dict[Digest, bytes]:
    """The layers of an artifact."""
    return {digest: artifact.blobs[digest] for digest in artifact.layers}
