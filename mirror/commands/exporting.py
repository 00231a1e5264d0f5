"""``export``: artifacts out of a mirror, as a tar archive of an OCI image layout that is whole or not there."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlencode

from mirror.commands import text
from mirror.commands.bars import Bar
from mirror.commands.client import TAR, Client, Query
from mirror.commands.options import STANDARD, Asked
from mirror.commands.screen import DONE, FAILED, INTERRUPTED, WRONG_USE, Screen, run
from mirror.commands.spelling import all_asked_for
from mirror.errors import CommandError, MirrorRefused

_GATHERED_WITHIN = 1800.0  # seconds until the first byte: the mirror has all of it by then, and may have to fetch it
_LONGEST_QUERY = 60_000  # bytes of an address, which clients and proxies bound


def export(asked: Asked, output: str, references: Sequence[str], platforms: Sequence[str], *, referrers: bool) -> int:
    """Write what ``references`` name into ``output``; gives the exit status."""

    def work(client: Client, screen: Screen) -> int:
        _refuse_terminals(output)
        names, faults = all_asked_for(references, client.host)
        for _, words in faults:
            screen.complain(words)
        if faults:
            return WRONG_USE
        query = [("reference", name) for name in names] + [("platforms", platform) for platform in platforms]
        if referrers:
            query.append(("referrers", "true"))
        if len(urlencode(query)) > _LONGEST_QUERY:
            raise CommandError(f"{len(names):,} references are more than one export takes: write several archives")
        try:
            size = _received(client, screen, output, query)
        except KeyboardInterrupt:
            screen.note("")  # behind the ^C
            screen.complain(
                f"interrupted; {'the archive is cut short' if output == STANDARD else 'nothing is written'}"
            )
            return INTERRUPTED
        except MirrorRefused as refused:
            return _not_exported(screen, refused)
        if output != STANDARD:
            screen.tell({"file": output, "bytes": size, "references": names})
            screen.say(f"{text.escaped(output)}: {text.count(len(names), 'reference')}, {text.size(size)}.")
        return DONE

    return run(asked, work)


def _not_exported(screen: Screen, refused: MirrorRefused) -> int:
    """Name every reference that stands against the archive, of which there is none then."""
    faults = refused.detail if isinstance(refused.detail, list) else []
    named = [fault for fault in faults if isinstance(fault, dict) and {"reference", "why"} <= fault.keys()]
    for fault in named:
        screen.complain(f"{fault['reference']}: {fault['why']}")
        screen.tell({"reference": fault["reference"], "result": "failed", "why": fault["why"]})
    screen.complain("nothing is exported" if named else refused.message)
    return FAILED


def _received(client: Client, screen: Screen, output: str, query: Query) -> int:
    """Bytes of the archive, which is whole in its place, or not there."""
    size = 0
    with (
        client.receive("export", media_type=TAR, query=query, within=_GATHERED_WITHIN) as incoming,
        _opened(output) as file,
        Bar(screen, "export") as bar,
    ):
        for piece in incoming.pieces:
            _written(file, piece, output)
            size += len(piece)
            bar.show(size, incoming.length, text.size(size))
    return size


@contextlib.contextmanager
def _opened(output: str) -> Iterator[BinaryIO]:
    """A file that gets the name ``output`` once it is whole. Raises `CommandError`."""
    if output == STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    beside: Path | None = None
    try:
        target = Path(output).resolve()  # a link stays one
        if target.exists() and not target.is_file():  # a pipe, a device: nothing whose place a file could take
            descriptor = os.open(target, os.O_WRONLY)
        else:
            descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
            beside = Path(name)
    except (OSError, ValueError) as error:
        raise CommandError(f"{output} cannot be written: {text.why(error)}", wrong_use=True) from error
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            if beside is not None:
                os.fsync(descriptor)
                os.fchmod(descriptor, 0o666 & ~_umask())
        if beside is not None:
            beside.replace(target)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandError(f"{output} cannot be written: {text.why(error)}") from error
    finally:
        if beside is not None:
            beside.unlink(missing_ok=True)


def _refuse_terminals(output: str) -> None:
    try:
        if output == STANDARD:
            is_terminal = sys.stdout.isatty()
        elif is_terminal := Path(output).is_char_device():
            with Path(output).open("wb") as file:
                is_terminal = file.isatty()
    except (OSError, ValueError):  # it will be said when it is written
        return
    if is_terminal:
        raise CommandError(
            "an archive is nothing for a terminal: name a file with -o, or let standard output lead somewhere",
            wrong_use=True,
        )


def _written(file: BinaryIO, piece: bytes, output: str) -> None:
    try:
        file.write(piece)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandError(f"{output} cannot be written: {text.why(error)}") from error


def _umask() -> int:
    mask = os.umask(0o077)  # there is no other way to ask for it
    os.umask(mask)
    return mask
