"""Bars of what is under way, for whoever looks at a terminal; nothing anywhere else.

They are drawn on standard error where standard output is not for people, as when an archive goes there.
"""

from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from mirror.commands import text
from mirror.commands.answers import Progress
from mirror.commands.screen import Screen

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

_MOST: Final = 8
"""Downloads that have a bar at a time."""


class Bar:
    """One bar. As a context manager it is there from the first `show` on, and gone at the end."""

    def __init__(self, screen: Screen, what: str) -> None:
        self._what = text.shortened(text.escaped(what), max(12, screen.width // 3))
        self._bars: Bars | None = None
        self._task: TaskID | None = None
        if screen.terminal:
            self._bars = _bars(screen.console)
        elif screen.watches_errors:
            self._bars = _bars(screen.error_console)

    def show(self, done: int, total: int | None, words: str) -> None:
        """How far it is, in numbers of any unit, and in ``words``."""
        if self._bars is None:
            return
        if self._task is None:
            self._bars.start()
            self._task = self._bars.add_task(self._what, total=total, words="")
        self._bars.update(self._task, completed=done, total=total, words=text.escaped(words))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None and self._task is not None:
            self._bars.stop()


class Downloads:
    """A bar for all of a job, and one for each download that is under way. A context manager, too."""

    def __init__(self, screen: Screen) -> None:
        self._width = screen.width
        self._bars = _bars(screen.console)
        self._all: TaskID | None = None
        self._single: dict[tuple[str, str | None], TaskID] = {}

    def total(self, done: int, total: int, words: str) -> None:
        """How many references are done, of how many."""
        if self._all is None:
            self._all = self._bars.add_task("all", total=total, words="")
        self._bars.update(self._all, completed=done, total=total, words=f"{done:,} of {total:,}; {words}")

    def progress(self, progress: Progress) -> None:
        """How far a download is."""
        key = (progress.reference, progress.replica)
        if key not in self._single:
            if len(self._single) == _MOST:
                return
            where = f" at {progress.replica}" if progress.replica else ""
            name = text.shortened(text.escaped(f"{progress.reference}{where}"), max(12, self._width // 2 - 4))
            self._single[key] = self._bars.add_task(name, total=progress.total, words="")
        words = text.size(progress.bytes) + (f" of {text.size(progress.total)}" if progress.total is not None else "")
        self._bars.update(self._single[key], completed=progress.bytes, total=progress.total, words=words)

    def over(self, reference: str, replica: str | None, line: str) -> None:
        """A download has ended: its bar is gone, and ``line`` stands above those that are left."""
        task = self._single.pop((reference, replica), None)
        if task is not None:
            self._bars.remove_task(task)
        self._bars.console.print(_coloured(line))

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()


def _bars(console: "Console") -> "Bars":
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[words]}", markup=False),
        console=console,
        transient=True,
        expand=True,
    )


def _coloured(line: str) -> "RenderableType":
    """A line with the colours of `click.style`."""
    from rich.text import Text

    return Text.from_ansi(line)
