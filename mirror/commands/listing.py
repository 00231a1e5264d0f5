"""``ls``: what a mirror holds, page by page; with ``--pinned`` also what is wrong with pins."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mirror.commands import text
from mirror.commands.answers import Module, Pin, items, read
from mirror.commands.client import Client
from mirror.commands.options import Asked
from mirror.commands.screen import DONE, Screen, run
from mirror.commands.tables import Cell, Column, Row, show

_PAGE = 1000
_WITHIN = 120.0  # seconds for a page; the first may cost a look at all that is held

_COLUMNS = (
    Column("reference", folds=56),
    Column("size", right=True),
    Column("hits", right=True, spare=1),
    Column("used", right=True, spare=2),
    Column("fetched", right=True, spare=3),
    Column("digest", spare=4),
    Column("state", folds=24),
)
_WHY = (Column("layout", spare=5), Column("why", folds=48))
_SHORT = 19  # signs of a digest that tell it from others: sha256: and twelve more


@dataclass(frozen=True, slots=True)
class Filters:
    """What is listed. ``query``: as the operation has it. ``most``: modules at most; None: all.

    ``pins``: what is known of pins is told too; ``bare_pins``: also those of which nothing is listed otherwise.
    ``why``: also why agents would not take it, or Envoy would not run it.
    """

    query: Sequence[tuple[str, str]]
    most: int | None
    pins: bool
    bare_pins: bool
    why: bool = False


def ls(asked: Asked, filters: Filters) -> int:
    """List it; gives the exit status."""

    def work(client: Client, screen: Screen) -> int:
        pins = _pins(client) if filters.pins else {}
        rows: list[Row] = []
        size = 0
        for document in _modules(client, filters):
            module = read(Module, document)
            pin = pins.pop(module.reference, None)
            size += module.size
            screen.tell(document if pin is None else {**document, "pin": pin})
            if not screen.in_json:
                more = [module.layout or "", module.why or ""] if filters.why else []
                rows.append([*_row(module, None if pin is None else read(Pin, pin)), *more])
        for document in pins.values() if filters.bare_pins else ():
            screen.tell({"reference": document["reference"], "pin": document})
            rows.append(_bare(read(Pin, document)))
        if screen.in_json:
            return DONE
        show(screen, (*_COLUMNS, *_WHY) if filters.why else _COLUMNS, rows)
        if screen.terminal:
            screen.say(
                f"{text.count(len(rows), 'module')}, {text.size(size)}; what several of them share counts for each."
            )
        return DONE

    return run(asked, work)


def _modules(client: Client, filters: Filters) -> Iterator[Mapping[str, object]]:
    left = filters.most
    after: str | None = None
    while left is None or left > 0:
        limit = _PAGE if left is None else min(_PAGE, left)
        query = [*filters.query, ("limit", str(limit)), *([("after", after)] if after is not None else [])]
        page = client.call("GET", "modules", query=query, within=_WITHIN)
        found = items(page, "modules")
        yield from found
        left = None if left is None else left - len(found)
        following = page.get("next")
        if not isinstance(following, str) or not found:
            return
        after = following


def _pins(client: Client) -> dict[object, Mapping[str, object]]:
    return {pin["reference"]: pin for pin in items(client.call("GET", "pins"), "pins") if "reference" in pin}


def _row(module: Module, pin: Pin | None) -> Row:
    now = time.time()
    return [
        module.reference,
        text.size(module.size),
        f"{module.hits:,}",
        "never" if module.used_at is None else text.ago(module.used_at, now),
        "" if module.fetched_at is None else text.ago(module.fetched_at, now),
        module.digest[:_SHORT],
        _state(module, pin),
    ]


def _state(module: Module, pin: Pin | None) -> Cell:
    words = []
    colour = ""
    if module.pinned:
        words.append("pinned" + (f" by {pin.by}" if pin is not None and pin.by else ""))
    if not module.fresh:
        words.append("stale")
    if not module.complete:
        words.append("incomplete")
        colour = "yellow"
    if module.verdict not in (None, "accepted"):
        words.append(f"agents: {module.verdict}")
        colour = "yellow"
    elif module.why:
        words.append("Envoy: refused")
        colour = "yellow"
    if pin is not None and pin.problem:
        words.append(pin.problem)
        colour = "red"
    return Cell(", ".join(words), colour)


def _bare(pin: Pin) -> Row:
    """A pin that no row of what is held has: of a digest that is listed under its tag, or of what is not here."""
    now = time.time()
    words = ["pinned" + (f" by {pin.by}" if pin.by else "")]
    if not pin.complete:
        words.append("incomplete")
    if pin.problem:
        words.append(pin.problem)
    colour = "red" if pin.problem else "" if pin.complete else "yellow"
    pinned = "" if pin.pinned_at is None else text.ago(pin.pinned_at, now)
    digest = pin.digests[0][:_SHORT] if pin.digests else ""
    return [pin.reference, text.size(pin.bytes), "", "", pinned, digest, Cell(", ".join(words), colour)]
