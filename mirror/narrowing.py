"""Which rows of the listing are wanted, in which order, and where a page of them begins."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from mirror.contents import Contents
from mirror.digest import Digest
from mirror.errors import PaginationInvalid
from mirror.globs import Globs
from mirror.leafing import Key, Place
from mirror.wasm.facts import Verdict

Sort = Literal["reference", "size", "hits", "used", "fetched"]

_SIZED_FOR = 30.0
"""Seconds for which the order by size need not know that something has gone."""


class Row(NamedTuple):
    """A module, as far as the database knows it. Times are in seconds since the epoch."""

    reference: str
    upstream: str
    repository: str
    tag: str | None
    digest: Digest
    media_type: str
    hits: int
    used_at: float | None
    fetched_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which modules, in which order. ``repository`` is a glob; sizes are in bytes; ``older_than``: seconds since it was
    used, or since it came, where nobody has used it; ``search``: what stands somewhere in the reference, in whatever
    case. ``after`` is the `Listed.next` of the page before.
    """

    upstream: str | None = None
    repository: str | None = None
    pinned: bool | None = None
    hosted: bool | None = None
    min_size: int | None = None
    max_size: int | None = None
    older_than: float | None = None
    min_hits: int | None = None
    search: str | None = None
    verdict: Verdict | None = None
    sort: Sort = "reference"
    descending: bool = False
    limit: int = 100
    after: str | None = None

    @property
    def by_size(self) -> bool:
        """Whether the sizes of all rows matter, not only those of the page."""
        return self.sort == "size" or self.min_size is not None or self.max_size is not None

    @property
    def list(self) -> str:
        """What tells this list from others, whichever page of it is wanted."""
        return hashlib.blake2b(repr(replace(self, after=None, limit=0)).encode(), digest_size=8).hexdigest()


class Chosen(NamedTuple):
    """A row of the list, and by what it is sorted."""

    key: Key
    reference: str
    row: Row


class Narrowing:
    """Chooses rows. ``prefix`` stands before hosted repositories; ``is_pinned`` is asked by threads too, and so is
    ``verdict``, which gives what agents make of a row, by the verdicts of all digests. ``now``: seconds since the
    epoch.
    """

    def __init__(
        self,
        prefix: str,
        contents: Contents,
        is_pinned: Callable[[Row], bool],
        verdict: Callable[[Row, Mapping[str, str]], str | None],
        now: Callable[[], float],
    ) -> None:
        self._prefix = prefix
        self._sizes = _Sizes(contents, now)
        self._is_pinned = is_pinned
        self._verdict = verdict
        self._now = now

    def chosen(self, rows: Iterable[Row], wanted: Wanted, verdicts: Mapping[str, str]) -> list[Chosen]:
        """Those that are wanted, in their order. Blocks on the disk where sizes matter."""
        globs = None if wanted.repository is None else Globs([wanted.repository])
        sought = None if wanted.search is None else wanted.search.casefold()
        used_before = None if wanted.older_than is None else self._now() - wanted.older_than
        chosen: list[Chosen] = []
        for row in rows:
            if (
                (wanted.upstream is not None and row.upstream != wanted.upstream)
                or (sought is not None and sought not in row.reference.casefold())
                or (globs is not None and row.repository not in globs)
                or (wanted.hosted is not None and (row.upstream == self._prefix) != wanted.hosted)
                or (wanted.min_hits is not None and row.hits < wanted.min_hits)
                or (used_before is not None and (row.used_at or row.fetched_at or 0.0) > used_before)
                or (wanted.pinned is not None and self._is_pinned(row) != wanted.pinned)
                or (wanted.verdict is not None and self._verdict(row, verdicts) != wanted.verdict)
            ):
                continue
            size = self._sizes.of(row.digest) if wanted.by_size else 0
            if not wanted.by_size or _fits(size, wanted):
                chosen.append(Chosen(_key(row, size, wanted.sort), row.reference, row))
        chosen.sort(key=lambda one: one[:2], reverse=wanted.descending)
        return chosen

    def in_order(
        self, rows: Iterable[Row], order: Sequence[str], place: Place, wanted: Wanted
    ) -> tuple[list[Chosen], Place | None]:
        """The page at ``place`` of an order that was kept, without what is not there any more."""
        left = set(order[place.number :])
        there = {row.reference: row for row in rows if row.reference in left}
        page: list[Chosen] = []
        number = place.number
        while number < len(order) and len(page) < wanted.limit:
            if (row := there.get(order[number])) is not None:
                size = self._sizes.of(row.digest) if wanted.by_size else 0
                page.append(Chosen(_key(row, size, wanted.sort), row.reference, row))
            number += 1
        if not page or number >= len(order):
            return page, None
        return page, Place(place.list, page[-1].key, page[-1].reference, number, place.order)


class _Sizes:
    """How much of what manifests lead to is here, in bytes, as of the last half a minute: to sort by it, and not to be
    told. Blocks on the disk: for threads, of which any may ask.
    """

    def __init__(self, contents: Contents, now: Callable[[], float]) -> None:
        self._contents = contents
        self._now = now
        self._whole: dict[Digest, int] = {}
        self._since = 0.0

    def of(self, manifest: Digest) -> int:
        if not 0 <= self._now() - self._since < _SIZED_FOR:
            self._whole, self._since = {}, self._now()
        size = self._whole.get(manifest)
        if size is None:
            size, complete = self._contents.here(manifest)
            if complete:  # which nothing but eviction changes, or people who purge it
                self._whole[manifest] = size
        return size


def _key(row: Row, size: int, sort: Sort) -> Key:
    """What was never used or fetched comes before all that was."""
    match sort:
        case "reference":
            return row.reference
        case "size":
            return size
        case "hits":
            return row.hits
        case "used":
            return row.used_at or 0.0
        case "fetched":
            return row.fetched_at or 0.0


def _fits(size: int, wanted: Wanted) -> bool:
    return (wanted.min_size is None or size >= wanted.min_size) and (wanted.max_size is None or size <= wanted.max_size)


def first_after(chosen: Sequence[Chosen], place: Place, wanted: Wanted) -> int:
    """The number of the first row after a place; past the end where there is none. Raises `PaginationInvalid`."""
    if isinstance(place.key, str) != (wanted.sort == "reference"):
        raise PaginationInvalid("after must be the `next` of the page before, as it was given")
    at = (place.key, place.reference)

    def is_after(one: Chosen) -> bool:
        return one[:2] < at if wanted.descending else one[:2] > at

    return next((number for number, one in enumerate(chosen) if is_after(one)), len(chosen))
