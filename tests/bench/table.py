"""The table: every figure beside another one of the same run."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """A figure of the mirror, the one it is held against, their ratio, and what issue it has to meet.

    ``met`` is None where there is no goal. A row without a ``mirror`` was skipped; ``what`` says why.
    """

    what: str
    mirror: str = ""
    beside: str = ""
    ratio: float | None = None
    goal: str = ""
    met: bool | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Measurements of the mirror and of what it is held against, taken in turns."""

    mirror: Sequence[float]
    beside: Sequence[float]

    @property
    def ours(self) -> float:
        """The mirror's median."""
        return statistics.median(self.mirror)

    @property
    def theirs(self) -> float:
        """The other's median."""
        return statistics.median(self.beside)

    @property
    def ratio(self) -> float:
        """Of the medians."""
        return self.ours / self.theirs


def seconds(value: float) -> str:
    """A time, with three digits that mean something."""
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.0f} ms" if value >= 0.1 else f"{value * 1000:.1f} ms"


_VERDICT = {True: "met", False: "MISSED", None: ""}


def cells(rows: Iterable[Row]) -> list[tuple[str, ...]]:
    """The head of the table, and a line for each row, each of six cells."""
    lines: list[tuple[str, ...]] = [("figure", "mirror", "beside it", "ratio", "goal", "")]
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.2f} ×" if row.ratio < 100 else f"{row.ratio:.0f} ×"
        lines.append((row.what, row.mirror, row.beside, ratio, row.goal, _VERDICT[row.met]))
    return lines


def render(rows: Iterable[Row]) -> str:
    """The table as text, for a terminal."""
    lines = cells(rows)
    widths = [max(len(line[column]) for line in lines) for column in range(6)]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column == 3 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (lines[0], rule, *lines[1:])
    )
