"""``wasm-mirror inspect``: one reference after the other, and the exit status at the end."""

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from mirror.commands.client import Client
from mirror.commands.text import escaped
from mirror.commands.token import token_of
from mirror.errors import CommandError, InspectError
from mirror.inspector import local, report
from mirror.inspector.remote import Mirror
from mirror.inspector.told import Told
from mirror.wasm.description import as_json

ACCEPTED, REFUSED, NOT_DESCRIBED, INTERRUPTED = 0, 1, 2, 130
"""The exit status: agents take it, and Envoy runs it; one of them would not; there is nothing to say of it; Ctrl-C."""


def run(references: Sequence[str], url: str, token_file: Path | None, *, in_json: bool) -> int:
    """Say what each reference is, in a table or a line of JSON; gives the worst exit status.

    What cannot be described is told in a line on stderr, and with ``in_json`` also in the reference's line.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names may hold signs that it has not
            stream.reconfigure(errors="backslashreplace")
    try:
        return _told(references, url, token_file, in_json=in_json)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # who read has seen enough
        raise
    except OSError as error:
        click.echo(f"wasm-mirror: the output cannot be written: {error.strerror or error}", err=True)
        return NOT_DESCRIBED


def _told(references: Sequence[str], url: str, token_file: Path | None, *, in_json: bool) -> int:
    statuses = []
    for number, reference in enumerate(references):
        try:
            found, told = _describe(reference, url, token_file)
        except CommandError as error:
            click.echo(f"wasm-mirror: {escaped(error.message)}", err=True)
            if in_json:
                click.echo(report.as_line(reference, {"error": error.message}))
            statuses.append(REFUSED if isinstance(error, InspectError) and error.broken else NOT_DESCRIBED)
            continue
        if in_json:
            click.echo(report.as_line(reference, found))
        else:
            click.echo(("\n" if number else "") + report.as_table(reference, told, report.columns()))
        statuses.append(ACCEPTED if told.accepted else REFUSED)
    if len(references) > 1 and not in_json:
        click.echo("\n" + report.summary(*map(statuses.count, (ACCEPTED, REFUSED, NOT_DESCRIBED))))
    return max(statuses)


def _describe(reference: str, url: str, token_file: Path | None) -> tuple[dict[str, object], Told]:
    here = local.place(reference)
    if here is not None:
        found = as_json(local.describe(here))
    else:
        with Client(url, token_of(token_file, os.environ)) as client:
            found = Mirror(client).describe(reference)
    told = Told.read(found)
    if told is None:
        raise InspectError(f"{url} answered with what is no description; is it a wasm-mirror, and of this release?")
    return found, told
