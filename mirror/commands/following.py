"""The events of a prewarming, to its end: a connection that breaks is made anew, and goes on where it was."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from mirror.commands.client import Client, path_of
from mirror.commands.sse import Event, events
from mirror.errors import CommandError, MirrorRefused, MirrorUnreachable

PATIENCE: Final = 60.0
"""Seconds without a word of the mirror, after which the command gives up; the job goes on."""

END: Final = "end"

_MEDIA_TYPE = "text/event-stream"
_PAUSES = (0.1, 0.5, 1.0, 2.0, 5.0)


def follow(
    client: Client,
    job: str,
    *,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> Iterator[tuple[str, dict[str, object]]]:
    """The kind and data of each event of ``job``, from the first on; the last one is `END`.

    Raises `CommandError` when there is no such job, or when the mirror stays silent for `PATIENCE`. What it is asked
    for again begins behind the last event that had an id, so that no result comes twice.
    """
    last: str | None = None
    heard = clock()
    tries = 0

    def noted(pieces: Iterable[bytes]) -> Iterator[bytes]:
        """The same; a comment that only keeps the connection open is a word of the mirror too."""
        nonlocal heard
        for piece in pieces:
            heard = clock()
            yield piece

    while True:
        try:
            with client.receive(path_of("prewarm", job, "events"), media_type=_MEDIA_TYPE, last_event=last) as incoming:
                for event in events(noted(incoming.pieces)):
                    tries = 0
                    last = event.id if event.id is not None else last
                    yield event.kind, _data(event)
                    if event.kind == END:
                        return
            broken: CommandError = MirrorUnreachable(f"{client.url} ended its answer before the job has ended")
        except MirrorUnreachable as error:
            broken = error
        except MirrorRefused as error:
            if error.answered < 500:
                raise
            broken = error
        if clock() - heard > PATIENCE:
            raise broken
        pause(_PAUSES[min(tries, len(_PAUSES) - 1)])
        tries += 1


def _data(event: Event) -> dict[str, object]:
    try:
        found = json.loads(event.data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CommandError("the mirror sent an event that is no JSON object; is it a wasm-mirror?")
    return found
