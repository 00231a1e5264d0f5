"""Where a page of a list begins, as clients hand it back, and the order in which all rows stood at the first one."""

import base64
import json
import logging
import secrets
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

from mirror.errors import PaginationInvalid, StoreError
from mirror.metadata.base import KeptAnswer

log = logging.getLogger(__name__)

Key = float | str
"""By what rows are sorted."""

_KEPT = 16
"""Orders that are kept at a time, so that who looks again and again does not fill the disk."""

_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class Place:
    """After the row ``reference``, whose key was ``key``. It was the row before the ``number``-th, from 0 on, in the
    order that was kept as ``order``; empty: none was. ``list``: which list it is a place in.
    """

    list: str
    key: Key
    reference: str
    number: int
    order: str

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(json.dumps(asdict(self), separators=(",", ":")).encode()).decode().rstrip("=")


def place_of(text: str, name: str) -> Place:
    """What a client hands back, in the list ``name``. Raises `PaginationInvalid`."""
    try:
        if len(text) > _LONGEST:
            raise ValueError(text)
        place = Place(**json.loads(base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))))
    except (ValueError, TypeError, RecursionError) as error:
        raise PaginationInvalid("after must be the `next` of the page before, as it was given") from error
    kinds = (place.list, str), (place.reference, str), (place.number, int), (place.order, str)
    if not all(type(value) is kind for value, kind in kinds) or type(place.key) not in (float, int, str):
        raise PaginationInvalid("after must be the `next` of the page before, as it was given")
    if place.list != name:
        raise PaginationInvalid("after is of another list: ask with the filters and the order of the page before")
    return place


class Notes(Protocol):
    """Where orders are kept, for all workers: `mirror.metadata.sqlite`. Both may raise `StoreError`."""

    async def kept(self, key: str) -> KeptAnswer | None: ...

    async def keep(self, key: str, answer: KeptAnswer) -> None: ...


class Orders:
    """Keeps the last few orders. ``now``: seconds since the epoch."""

    def __init__(self, notes: Notes, now: Callable[[], float]) -> None:
        self._notes = notes
        self._now = now

    async def keep(self, references: Sequence[str]) -> str:
        """Keep an order; its name, empty where the disk does not take it."""
        name = f"{secrets.randbelow(_KEPT)}.{secrets.token_hex(8)}"
        body = zlib.compress("\n".join((name, *references)).encode(), 1)
        try:
            await self._notes.keep(_key(name), KeptAnswer(body, {}, self._now()))
        except StoreError as error:
            log.info("the order of a list could not be kept, and may change between its pages: %s", error)
            return ""
        return name

    async def kept(self, name: str) -> Sequence[str] | None:
        """The order; None where it is not there any more."""
        try:
            answer = await self._notes.kept(_key(name)) if name else None
            first, *references = [] if answer is None else zlib.decompress(answer.body).decode().split("\n")
        except (StoreError, ValueError, zlib.error):
            return None
        return references if first == name else None


def _key(name: str) -> str:
    return f"order {name.partition('.')[0]}"
