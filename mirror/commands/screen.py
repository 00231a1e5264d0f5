"""Where a command writes: a terminal, a pipe, or JSON lines for a program; and what its exit status says."""

import functools
import io
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, TextIO

import click

from mirror.commands.client import Client
from mirror.commands.options import Asked
from mirror.commands.text import escaped
from mirror.commands.token import token_of
from mirror.errors import CommandError

if TYPE_CHECKING:
    from rich.console import Console

DONE: Final = 0
FAILED: Final = 1
WRONG_USE: Final = 2
INTERRUPTED: Final = 130
"""The exit status: all done; some failed, said which; wrong use; Ctrl-C."""

NARROWEST: Final = 40

_USUAL = 80


class Screen:
    """Standard output and standard error. ``terminal``: somebody looks at tables and bars."""

    def __init__(self, *, in_json: bool) -> None:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # names may hold signs that it has not
                stream.reconfigure(errors="backslashreplace")
        self.in_json = in_json
        looked_at = sys.stdout is not None and sys.stdout.isatty()  # None: it is closed
        self.terminal = not in_json and looked_at and _can_draw()

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        return _columns(sys.stdout if self.terminal else sys.stderr)

    @functools.cached_property
    def console(self) -> "Console":
        """What rich draws on; only where there is a ``terminal``."""
        return self._drawn_on(sys.stdout)

    @functools.cached_property
    def error_console(self) -> "Console":
        """The same on standard error; only where it ``watches_errors``."""
        return self._drawn_on(sys.stderr)

    @property
    def watches_errors(self) -> bool:
        """Whether somebody looks at standard error."""
        return sys.stderr is not None and sys.stderr.isatty() and _can_draw()

    def _drawn_on(self, file: TextIO) -> "Console":
        from rich.console import Console

        return Console(
            file=file,
            force_terminal=True,
            width=_columns(file),
            highlight=False,
            markup=False,
            emoji=False,
            no_color=not _has_colours(),
        )

    def say(self, text: str = "") -> None:
        """A line for people; ``text`` may hold colours of `click.style`, which go nowhere but to a terminal."""
        if not self.in_json:
            click.echo(text, color=None if _has_colours() else False)

    def tell(self, document: Mapping[str, object]) -> None:
        """A line of JSON: printable ASCII, whatever names it holds; nothing unless ``in_json``."""
        if self.in_json:
            click.echo(json.dumps(document))

    def complain(self, message: str) -> None:
        """What went wrong, a line on standard error, whoever reads standard output."""
        click.echo(f"wasm-mirror: {escaped(message)}", err=True)

    def note(self, message: str) -> None:
        """What is no result, and good to know: a line on standard error."""
        click.echo(escaped(message), err=True)


def _columns(file: TextIO) -> int:
    given = os.environ.get("COLUMNS", "")
    try:
        found = int(given) if given.isdecimal() else os.get_terminal_size(file.fileno()).columns
    except OSError:
        found = _USUAL
    return max(NARROWEST, found or _USUAL)


def _has_colours() -> bool:
    return not os.environ.get("NO_COLOR") and _can_draw()  # https://no-color.org/


def _can_draw() -> bool:
    return os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def run(asked: Asked, work: Callable[[Client, Screen], int]) -> int:
    """``work`` with a client of the mirror; its exit status, or that of what stopped it."""
    screen = Screen(in_json=asked.in_json)
    try:
        with Client(asked.url, token_of(asked.token_file, os.environ)) as client:
            return work(client, screen)
    except CommandError as error:
        screen.complain(error.message)
        return WRONG_USE if error.wrong_use else FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # who read has seen enough
        raise
    except OSError as error:
        click.echo(f"wasm-mirror: the output cannot be written: {error.strerror or error}", err=True)
        return FAILED
