"""What goes together with a manifest that is to go: decided of digests alone, by no I/O. Digests are text, as in
`mirror.store.eviction`.
"""

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet


class Naming:
    """What names what on a disk. ``stays``: what may not go, whoever else does. What is ``gone`` names nothing more."""

    def __init__(self, names: Mapping[str, Collection[str]], stays: AbstractSet[str]) -> None:
        self._names = names
        self._stays = stays
        self._namers: dict[str, list[str]] = {}
        for namer, named in names.items():
            for digest in named:
                self._namers.setdefault(digest, []).append(namer)
        self.gone: set[str] = set()

    def namer(self, digest: str) -> str | None:
        """Something that is not gone and names it; None: nothing does."""
        namers = self._namers.get(digest, ())
        return next((one for one in namers if one not in self.gone and one != digest), None)

    def take(self, root: str) -> list[str]:
        """What goes with ``root``: it, and what nothing else names; nothing where it stays, or is named itself."""
        taken: list[str] = []
        left = [root]
        while left:
            digest = left.pop()
            if digest in self.gone or digest in self._stays or self.namer(digest) is not None:
                continue
            self.gone.add(digest)
            taken.append(digest)
            left += self._names.get(digest, ())
        return taken
