"""``import``: archives into a mirror, one after the other; what is wrong with one keeps none of the others out."""

import contextlib
import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from mirror.commands import text
from mirror.commands.answers import items
from mirror.commands.bars import Bar
from mirror.commands.client import TAR, Client
from mirror.commands.options import STANDARD, Asked
from mirror.commands.outcomes import Outcomes
from mirror.commands.screen import FAILED, INTERRUPTED, Screen, run
from mirror.errors import CommandError

GOOD: Final = frozenset({"imported", "held"})

_WITHIN = 1800.0  # seconds for the answer, from the last byte on
_PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Import:
    """What to do with the archives. ``under``: the upstream and repository that get what has no name of its own."""

    files: Sequence[str]
    pin: bool
    under: str | None


def import_(asked: Asked, wish: Import) -> int:
    """Have each of the archives taken in, and say what became of what is in it; gives the exit status."""

    def work(client: Client, screen: Screen) -> int:
        outcomes = Outcomes(screen, GOOD)
        failed = 0
        for number, name in enumerate(wish.files):
            try:
                results = _sent(client, screen, name, wish)
            except KeyboardInterrupt:
                screen.note("")  # behind the ^C
                left = ", ".join(wish.files[number:])
                screen.complain(f"interrupted; so far: {outcomes.summary()}; not taken in: {left}")
                return INTERRUPTED
            except CommandError as error:
                failed += 1
                screen.complain(error.message if name in error.message else f"{_shown(name)}: {error.message}")
                screen.tell({"file": name, "error": error.message})
                continue
            for result in results:
                outcomes.add(result)
        if outcomes.counts.total() > 1 or len(wish.files) > 1:
            screen.say(outcomes.summary() + (f"; {text.count(failed, 'archive')} failed." if failed else "."))
        return FAILED if failed else outcomes.status

    return run(asked, work)


def _sent(client: Client, screen: Screen, name: str, wish: Import) -> Sequence[Mapping[str, object]]:
    query = [("pin", "1")] if wish.pin else []
    if wish.under is not None:
        query.append(("as", wish.under))
    with _source(name) as (file, size), Bar(screen, _shown(name)) as bar:
        answer = client.send(
            "import",
            _pieces(file, name, size, bar),
            media_type=TAR,
            length=size,
            query=query,
            within=_WITHIN,
        )
    return items(answer, "results")


@contextlib.contextmanager
def _source(name: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """An archive and its bytes, if they can be known. Raises `CommandError`."""
    if name == STANDARD:
        if sys.stdin.isatty():
            raise CommandError("an archive is nothing to type: name a file, or let something lead to standard input")
        yield sys.stdin.buffer, None
        return
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(Path(name).open("rb"))
            status = os.fstat(file.fileno())
        except (OSError, ValueError) as error:
            raise CommandError(f"{name} cannot be read: {text.why(error)}") from error
        yield file, status.st_size if stat.S_ISREG(status.st_mode) else None


def _pieces(file: BinaryIO, name: str, size: int | None, bar: Bar) -> Iterator[bytes]:
    sent = 0
    while True:
        try:
            piece = file.read(_PIECE if size is None else min(_PIECE, size - sent))
        except OSError as error:
            raise CommandError(f"{name} cannot be read: {text.why(error)}") from error
        if not piece:
            break
        yield piece
        sent += len(piece)
        bar.show(sent, size, text.size(sent))
    if size is not None and sent < size:
        raise CommandError(f"{name} has become shorter while it was read")
    bar.show(sent, size, f"{text.size(sent)}; the mirror looks at it")


def _shown(name: str) -> str:
    return "standard input" if name == STANDARD else name
