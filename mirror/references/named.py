"""A reference and where it stands; all that were found, without those that say the same."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

MAX_REFERENCES: Final = 100_000


@dataclass(frozen=True, slots=True)
class Named:
    """A reference as somebody wrote it, and where: ``plugins.yaml:7 (WasmPlugin team-a/auth)``.

    ``text`` is what the admin API takes: whether it names a module, the mirror says.
    """

    text: str
    where: str


@dataclass(frozen=True, slots=True)
class Collected:
    """The references that were found, in the order in which they stand, and what is broken, a line each."""

    references: Sequence[Named]
    problems: Sequence[str]


def merged(found: Iterable[Named]) -> list[Named]:
    """``found`` with each reference once, where it stood first; with or without ``oci://`` is the same one."""
    first: dict[str, Named] = {}
    more: dict[str, int] = {}
    for named in found:
        key = named.text.removeprefix("oci://")
        if key in first:
            more[key] = more.get(key, 0) + 1
        else:
            first[key] = named
    return [
        replace(named, where=f"{named.where} and {more[key]} more") if key in more else named
        for key, named in first.items()
    ]
