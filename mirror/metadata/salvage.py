"""Rows out of a damaged database: what can still be read, table by table, and passes the checks of the schema."""

import sqlite3
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirror.digest import Digest
from mirror.errors import DigestInvalid
from mirror.metadata import schema

_MAX_PROBES = 2000  # for each table; with nothing left to read they take 0.1 s
_DIGITS = 16

Row = tuple[Any, ...]
Holds = Callable[[Digest], bool]
"""Whether the disk holds a blob."""


@dataclass(frozen=True, slots=True)
class Disk:
    """What the disk says of its blobs: whether it holds a certain one, and whether it holds any."""

    holds: Holds
    holds_any: Callable[[], bool]


def plain(path: Path) -> sqlite3.Connection:
    """A connection to a file that no server uses."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


def ordering(key: tuple[str, ...], order: str) -> str:
    """The ORDER BY terms for a key, ``ASC`` or ``DESC``."""
    return ", ".join(f"{name} {order}" for name in key)


def salvage(damaged: Path, target: sqlite3.Connection, holds: Holds) -> int:
    """Take over what rows can be read; say how many they are."""
    before = target.total_changes
    with closing(plain(damaged)) as source:
        source.text_factory = lambda raw: raw.decode(errors="replace")
        for name, rule in schema.SALVAGED.items():
            common = [column for column in _columns(target, name) if column in _columns(source, name)]
            if not set(rule.key) <= set(common):
                continue
            rows = _Table(source, name, common, rule.key).rows()
            if rule.about_content:
                at = common.index("digest")
                rows = (row for row in rows if _held(row[at], holds))
            target.execute("BEGIN")
            target.executemany(_insertion(name, common, rule), rows)
            target.execute("COMMIT")
    return target.total_changes - before


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    try:
        return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    except sqlite3.Error:
        return []


def _insertion(table: str, columns: list[str], rule: schema.Salvage) -> str:
    """Insert a row, unless a check refuses it; where the key is taken, the newer row stays."""
    statement = f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
    if not rule.newer:
        return statement
    theirs, ours = (", ".join(f"{side}.{name}" for name in rule.newer) for side in ("excluded", table))
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in rule.key)
    return f"{statement} ON CONFLICT ({', '.join(rule.key)}) DO UPDATE SET {changes} WHERE ({theirs}) > ({ours})"


def _held(digest: object, holds: Holds) -> bool:
    try:
        return isinstance(digest, str) and holds(Digest.parse(digest))
    except (DigestInvalid, OSError):  # a blob that cannot be looked at must not stop the salvage
        return False


class _Table:
    """A table with damaged pages. Keys are joined to one text, in whose order the rows stand."""

    def __init__(self, source: sqlite3.Connection, name: str, columns: list[str], key: tuple[str, ...]) -> None:
        self._source = source
        self._select = f"SELECT {', '.join(columns)} FROM {name}"
        self._key = key
        self._at = [columns.index(name) for name in key]

    def rows(self) -> Iterator[Row]:
        """Every row that can be reached, some more than once.

        A damaged page ends a scan. So the table is read from both ends, then from the middle of the gap that is left,
        up and down, and so on with the gaps that this leaves, widest first, until they are closed or it was tried
        often enough.
        """
        bottom, top = "", "\U0010ffff"
        reached = yield from self._scan("ASC", bottom, top)
        if reached is None:
            return
        met = yield from self._scan("DESC", top, reached)
        gaps = deque([(reached, met)] if met is not None else [])
        for _ in range(_MAX_PROBES):
            if not gaps:
                return
            low, high = gaps.popleft()
            middle = _between(low, high)
            if middle is None:
                continue
            below = yield from self._scan("DESC", middle, low)
            above = yield from self._scan("ASC", middle, high)
            gaps.extend([(low, below)] if below is not None else [])
            gaps.extend([(above, high)] if above is not None else [])

    def _scan(self, order: str, start: str, end: str) -> Generator[Row, None, str | None]:
        """The rows from ``start`` to ``end``; the result is None, or the key after which damage ended it.

        A key out of order is damage too: pages may form a ring.
        """
        upwards = order == "ASC"
        condition = f"({', '.join(self._key)}) {'>=' if upwards else '<='} ({', '.join('?' * len(self._key))})"
        select = f"{self._select} WHERE {condition} ORDER BY {ordering(self._key, order)}"
        last, begun = start, False
        try:
            for row in self._source.execute(select, self._split(start)):
                key = "\0".join(row[at] for at in self._at)
                if begun and (key <= last if upwards else key >= last):
                    return last
                if key > end if upwards else key < end:
                    return None
                last, begun = key, True
                yield row
        except (sqlite3.Error, TypeError):
            return last
        return None

    def _split(self, key: str) -> list[str]:
        parts = key.split("\0", len(self._key) - 1)
        return parts + [""] * (len(self._key) - len(parts))


def _between(low: str, high: str) -> str | None:
    """A text about half-way between two, None when they are too close."""
    at = next(
        (i for i, (one, other) in enumerate(zip(low, high, strict=False)) if one != other), min(len(low), len(high))
    )
    half = (_number(low[at:]) + _number(high[at:])) // 2
    middle = low[:at] + "".join(chr(half >> 7 * i & 127) for i in reversed(range(_DIGITS))).rstrip("\0")
    return middle if low < middle < high else None


def _number(text: str) -> int:
    """The first characters as digits to base 128."""
    value = 0
    for character in text[:_DIGITS].ljust(_DIGITS, "\0"):
        value = value << 7 | min(ord(character), 127)
    return value
