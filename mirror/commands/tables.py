"""Tables: with rich on a terminal, as wide as that is; plain everywhere else, with nothing left out of them.

Cells are what strangers may have written: none of them steers a terminal, or is taken for markup.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mirror.commands.screen import Screen
from mirror.commands.text import escaped

_GAP = "  "


@dataclass(frozen=True, slots=True)
class Column:
    """``right``: numbers, which stand under each other. ``folds``: what takes a second line where there is no room."""

    name: str
    right: bool = False
    folds: bool = False


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


def _drawn(screen: Screen, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(
            column.name.upper(),
            justify="right" if column.right else "left",
            no_wrap=not column.folds,
            overflow="fold" if column.folds else "ellipsis",
        )
    for row in rows:
        table.add_row(*(Text(cell.text or "-", style=cell.colour) for cell in row))
    screen.console.print(table)
