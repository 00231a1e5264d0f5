"""``gc`` and ``scrub``: what a mirror does with its whole disk."""

import time
from collections.abc import Callable
from typing import Final

from mirror.commands import text
from mirror.commands.answers import Scrub, Swept, read
from mirror.commands.client import Client
from mirror.commands.options import Asked
from mirror.commands.screen import DONE, FAILED, INTERRUPTED, Screen, run
from mirror.errors import MirrorUnreachable

_GC_WITHIN = 600.0
LOOK_EVERY = 1.0
"""Seconds between two looks at how far it is."""

PATIENCE: Final = 60.0
"""Seconds for which a mirror that does not answer is asked again how far it is."""


def gc(asked: Asked) -> int:
    """Have what nothing needs any more go; gives the exit status."""

    def work(client: Client, screen: Screen) -> int:
        document = client.call("POST", "gc", within=_GC_WITHIN)
        swept = read(Swept, document)
        screen.tell(document)
        what = [
            text.count(swept.blobs, "blob") + (f" ({text.size(swept.bytes)})" if swept.bytes else ""),
            text.count(swept.uploads, "upload"),
            text.count(swept.records, "record"),
        ]
        screen.say(f"{text.listed(what)} went.")
        return DONE

    return run(asked, work)


def scrub(asked: Asked, *, wait: bool) -> int:
    """Have every blob read again; with ``wait`` follow it to its end. The exit status is 1 where something is lost."""

    def work(client: Client, screen: Screen) -> int:
        document = client.call("POST", "scrub")
        if not wait:
            screen.tell(document)
            screen.say(_begun(read(Scrub, document)))
            return DONE
        try:
            document = _followed(client, screen, document)
        except KeyboardInterrupt:
            screen.note("")  # behind the ^C
            screen.complain(f"interrupted; the mirror at {client.url} goes on reading")
            return INTERRUPTED
        state = read(Scrub, document)
        screen.tell(document)
        _report(screen, state)
        return FAILED if state.missing else DONE

    return run(asked, work)


def _followed(
    client: Client,
    screen: Screen,
    document: dict[str, object],
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> dict[str, object]:
    """The state at the end."""
    from mirror.commands.bars import Bar

    heard = clock()
    with Bar(screen, "reading") as bar:
        while (state := read(Scrub, document)).state == "running":
            bar.show(state.read, state.blobs, f"{text.size(state.bytes_read)}, {len(state.damaged)} damaged")
            pause(LOOK_EVERY)
            try:
                document = client.call("GET", "scrub")
            except MirrorUnreachable:
                if clock() - heard > PATIENCE:
                    raise
            else:
                heard = clock()
    return document


def _begun(state: Scrub) -> str:
    return f"{'Reading' if state.state == 'running' else 'About to read'} {text.count(state.blobs, 'blob')}."


def _report(screen: Screen, state: Scrub) -> None:
    for digest in state.damaged:
        screen.say(f"damaged  {text.escaped(digest)}")
    for digest in state.missing:
        screen.say(f"missing  {text.escaped(digest)}")
    took = ""
    if state.began_at is not None and state.ended_at is not None:
        took = f" in {text.seconds(max(0.0, state.ended_at - state.began_at))}"
    found = f"{len(state.damaged)} damaged, {state.restored} restored" if state.damaged else "none damaged"
    lost = f", {len(state.missing)} out of service, for nobody has them" if state.missing else ""
    screen.say(f"{text.count(state.read, 'blob')} ({text.size(state.bytes_read)}) read{took}: {found}{lost}.")
