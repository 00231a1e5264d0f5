"""What goes when the disk holds too much: decided of numbers alone, by no I/O.

A manifest goes together with all that it names and that no manifest which stays names too. Such a group was used when
the last of it was; the one that was not used for the longest goes first.

Digests are text here: a hundred thousand of them are looked up many times, each of which costs a quarter so.
"""

import heapq
import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

NEVER = math.inf
"""As the time of the last use: it may not go yet, nor may what would go together with it."""


class Held(NamedTuple):
    """A blob: its bytes, and when it was used last, in seconds since the epoch, or `NEVER`."""

    size: int
    used_at: float


def excess(used: int, limit: int, high_water: float, low_water: float) -> int:
    """Bytes that must go: from above the high mark down to the low one, which are shares of ``limit``."""
    return max(0, used - int(low_water * limit)) if used > high_water * limit else 0


def closure(digests: AbstractSet[str], names: Mapping[str, Collection[str]]) -> set[str]:
    """They, and all that they name, directly or not."""
    found = set(digests)
    left = list(digests)
    while left:
        more = set(names.get(left.pop(), ())) - found
        found |= more
        left += more
    return found


def batches(
    held: Mapping[str, Held],
    names: Mapping[str, Collection[str]],
    stays: AbstractSet[str],
    need: int,
    most: int,
) -> Iterator[list[str]]:
    """What is to go, in its order, until ``need`` bytes are free or nothing more may go.

    ``names``: what each of the manifests that are held names. What ``stays`` stays, and all that it names. A batch has
    about ``most`` digests, and whole groups, in each of which whoever names comes before what it names.
    """
    graph = _Graph(held, names, stays)
    heap = [(graph.used_at(graph.group(root)), root) for root in graph.roots()]
    heapq.heapify(heap)
    batch: list[str] = []
    while heap and need > 0 and heap[0][0] != NEVER:
        at, root = heapq.heappop(heap)
        group = graph.group(root)  # may have grown: something else that named a part of it is gone
        used_at = graph.used_at(group)
        if used_at > at:
            heapq.heappush(heap, (used_at, root))
            continue
        graph.remove(group)
        need -= sum(held[digest].size for digest in group)
        batch += group
        if len(batch) >= most:
            yield batch
            batch = []
    if batch:
        yield batch


class _Graph:
    """What is held and may go, and how much of it names what."""

    def __init__(
        self,
        held: Mapping[str, Held],
        names: Mapping[str, Collection[str]],
        stays: AbstractSet[str],
    ) -> None:
        self._held = held
        stay = closure(stays, names)
        self._names: dict[str, Sequence[str]] = {}
        self._named: Counter[str] = Counter()
        self._may_go = held.keys() - stay
        for digest, named in names.items():
            if digest in self._may_go:
                self._names[digest] = [one for one in dict.fromkeys(named) if one in self._may_go and one != digest]
                self._named.update(self._names[digest])

    def roots(self) -> Iterator[str]:
        """What nothing names that may go."""
        return (digest for digest in self._may_go if not self._named[digest])

    def group(self, root: str) -> list[str]:
        """What goes together with ``root``, it first."""
        found = [root]
        unnamed: Counter[str] = Counter()
        for digest in found:
            for child in self._names.get(digest, ()):
                unnamed[child] += 1
                if unnamed[child] == self._named[child]:
                    found.append(child)
        return found

    def used_at(self, group: Sequence[str]) -> float:
        """When anything of it was used last."""
        return max(self._held[digest].used_at for digest in group)

    def remove(self, group: Sequence[str]) -> None:
        """It is gone, and names nothing any more."""
        for digest in group:
            for child in self._names.pop(digest, ()):
                self._named[child] -= 1
