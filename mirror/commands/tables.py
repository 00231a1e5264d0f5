"""Tables: with rich on a terminal, as wide as that is; plain everywhere else, with nothing left out of them.

Cells are what strangers may have written: none of them steers a terminal, or is taken for markup.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mirror.commands.screen import Screen
from mirror.commands.text import escaped

_GAP = "  "
_NARROWEST = 8  # signs of a column, whatever the terminal is


@dataclass(frozen=True, slots=True)
class Column:
    """``right``: numbers, which stand under each other. ``folds``: where there is no room it is no wider than
    so many signs, and takes further lines; 0: it does not.

    ``spare``: it is left out of a terminal that is too narrow; the higher, the sooner. 0: never.
    """

    name: str
    right: bool = False
    folds: int = 0
    spare: int = 0


@dataclass(frozen=True, slots=True)
class Cell:
    """A text, and the colour that says how to take it."""

    text: str
    colour: str = ""


Row = Sequence[Cell | str]


def show(screen: Screen, columns: Sequence[Column], rows: Sequence[Row]) -> None:
    """Print ``rows`` under the names of the ``columns``."""
    cells = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    safe = [[Cell(escaped(cell.text), cell.colour) for cell in row] for row in cells]
    if screen.terminal:
        _drawn(screen, columns, safe)
    else:
        for line in plain(columns, [[cell.text for cell in row] for row in safe]):
            screen.say(line)


def plain(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of aligned columns, whatever their length; the first has their names."""
    names = [column.name.upper() for column in columns]
    table = [names, *([cell or "-" for cell in row] for row in rows)]
    widths = [max(len(row[number]) for row in table) for number in range(len(columns))]
    lines = []
    for row in table:
        placed = [
            cell.rjust(width) if column.right else cell.ljust(width)
            for column, cell, width in zip(columns, row, widths, strict=True)
        ]
        lines.append(_GAP.join(placed).rstrip())
    return lines


def fitting(columns: Sequence[Column], widths: Sequence[int], room: int) -> dict[int, int]:
    """The columns, counted from 0, that are shown where ``room`` signs are, and how wide each of them is.

    ``widths`` are those of their contents.
    """
    shown = {number: min(width, columns[number].folds or width) for number, width in enumerate(widths)}

    def left() -> int:
        return room - sum(shown.values()) - len(_GAP) * (len(shown) - 1)

    while left() < 0 and (spare := max(shown, key=lambda number: columns[number].spare)) and columns[spare].spare:
        del shown[spare]
    for number in [number for number in shown if columns[number].folds]:
        shown[number] = max(_NARROWEST, min(widths[number], shown[number] + left()))
    return shown


def _drawn(screen: Screen, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
    from rich.table import Table
    from rich.text import Text

    widths = [
        max(len(column.name), *(len(row[number].text) for row in rows), 1) for number, column in enumerate(columns)
    ]
    shown = fitting(columns, widths, screen.width)
    table = Table(box=None, pad_edge=False, collapse_padding=True, padding=(0, len(_GAP), 0, 0), header_style="bold")
    for number, width in shown.items():
        column = columns[number]
        table.add_column(
            column.name.upper(),
            justify="right" if column.right else "left",
            no_wrap=not column.folds,
            overflow="fold" if column.folds else "ellipsis",
            width=width,
        )
    for row in rows:
        table.add_row(*(Text(row[number].text or "-", style=row[number].colour) for number in shown))
    screen.console.print(table)
