"""A reference and where it stands; all that were found, each once, and what is broken."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

MAX_REFERENCES: Final = 100_000
MAX_PROBLEMS: Final = 1_000
_MAX_SHOWN = 120


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


@dataclass(slots=True)
class Findings:
    """References and problems while they are looked for: each reference once, and no more of both than anyone reads."""

    _first: dict[str, Named] = field(default_factory=dict)
    _again: dict[str, int] = field(default_factory=dict)
    _problems: list[str] = field(default_factory=list)
    _untold: int = 0
    _refused: int = 0

    def add(self, text: str, where: str) -> None:
        """Note a reference. Where it was noted before, with or without ``oci://``, that it stands here too."""
        key = text.removeprefix("oci://")
        if key in self._first:
            self._again[key] = self._again.get(key, 0) + 1
        elif len(self._first) < MAX_REFERENCES:
            self._first[key] = Named(text, where)
        else:
            self._refused += 1

    def problem(self, where: str, words: str) -> None:
        """Note what is broken at ``where``."""
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(f"{where}: {words}")
        else:
            self._untold += 1

    def collected(self) -> Collected:
        """All that was noted."""
        references = [
            Named(named.text, f"{named.where} and {self._again[key]} more") if key in self._again else named
            for key, named in self._first.items()
        ]
        problems = list(self._problems)
        if self._untold:
            problems.append(f"and {self._untold} problems more")
        if self._refused:
            problems.append(f"{self._refused} references are beyond the {MAX_REFERENCES} that one call takes")
        return Collected(references, problems)


def shown(text: str) -> str:
    """``text`` as it may stand in a line for people: printable, and not long."""
    short = text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…"
    if short.isprintable():
        return short
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode("ascii") for sign in short)
