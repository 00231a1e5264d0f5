"""What the embedded database is asked and told of manifests beyond what pulls need, in SQL: what was found of them
(facts), and who asked for them (askers). All of it blocks.

It lies there because there it is for all workers and for the next start, changes row by row, and goes in the same
breath as what else is noted of a blob that is gone. A row that is not what it should be is as good as none: it is
learnt again.
"""

import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from mirror.digest import Digest
from mirror.metadata.statements import Key, marks, typed
from mirror.wasm.facts import VERDICTS, Facts, Verdict

_PORTION = 2_000
"""Rows that are read at once: some milliseconds, for which other readers wait."""

MOST_OF_ONE = 64
"""Askers of one manifest that are kept: those that asked last."""

_MOST_ASKERS = 50_000
"""Askers of all manifests, some 10 MB."""


class Looked(NamedTuple):
    """That a manifest was looked at: what agents make of it, and by which rules that was found."""

    digest: str
    verdict: str
    rules: str


class Asker(NamedTuple):
    """A client that asked for a manifest; ``agent`` and ``user`` are empty where it said none. Times are in seconds
    since the epoch.
    """

    client: str
    agent: str
    user: str
    times: int
    first_at: float
    last_at: float


def facts(connection: sqlite3.Connection, digests: Sequence[str]) -> dict[str, Facts]:
    """What was found of digests, of those that were looked at; up to some hundred."""
    rows = connection.execute(
        f"SELECT digest, layout, abi, verdict, why FROM fact WHERE digest IN ({marks(digests)})", digests
    ).fetchall()
    found = {}
    for row in rows:
        digest, layout, abi, verdict, why = row
        if _is(row, str, str, str, str, str) and verdict in VERDICTS:
            found[digest] = Facts(layout, tuple(abi.split()), cast(Verdict, verdict), why or None)
    return found


def put_facts(connection: sqlite3.Connection, found: Mapping[Digest, Facts], rules: str) -> None:
    """Set what was found of digests, by these ``rules``."""
    connection.executemany(
        "INSERT OR REPLACE INTO fact (digest, layout, abi, verdict, why, rules) VALUES (?, ?, ?, ?, ?, ?)",
        [
            (str(digest), facts.layout, " ".join(facts.abi), facts.verdict, facts.why or "", rules)
            for digest, facts in found.items()
        ],
    )


def looked_after(connection: sqlite3.Connection, after: Key) -> tuple[list[Looked], Key | None]:
    """A portion of what was looked at beyond a digest, and the key to go on from."""
    rows = connection.execute(
        "SELECT digest, verdict, rules FROM fact WHERE digest > ? ORDER BY digest LIMIT ?", (after[0], _PORTION)
    ).fetchall()
    return [Looked(*row) for row in rows if _is(row, str, str, str)], _last(rows)


def put_askers(connection: sqlite3.Connection, asked: Mapping[Digest, Iterable[Asker]]) -> None:
    """Add to what is known of who asked; what is too much of one manifest goes."""
    for digest, askers in asked.items():
        connection.executemany(
            "INSERT INTO asker (digest, client, agent, user, count, first_at, last_at) VALUES (?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (digest, client, agent, user) DO UPDATE SET "
            "count = min(count + excluded.count, 9007199254740992), "
            "first_at = min(first_at, excluded.first_at), last_at = max(last_at, excluded.last_at)",
            [(str(digest), *asker) for asker in askers],
        )
        connection.execute(
            "DELETE FROM asker WHERE digest = ?1 AND (client, agent, user) IN (SELECT client, agent, user FROM asker "
            "WHERE digest = ?1 ORDER BY last_at DESC, client, agent, user LIMIT -1 OFFSET ?2)",
            (str(digest), MOST_OF_ONE),
        )


def prune_askers(connection: sqlite3.Connection, before: float) -> None:
    """Drop those that have not asked since ``before``, and the oldest of too many."""
    connection.execute("DELETE FROM asker WHERE last_at < ?", (before,))
    connection.execute(
        "DELETE FROM asker WHERE last_at <= (SELECT last_at FROM asker ORDER BY last_at DESC LIMIT 1 OFFSET ?)",
        (_MOST_ASKERS,),
    )


def askers(connection: sqlite3.Connection, digest: Digest) -> list[Asker]:
    """Who asked for a manifest, the latest first."""
    rows = connection.execute(
        "SELECT client, agent, user, count, first_at, last_at FROM asker WHERE digest = ? "
        "ORDER BY last_at DESC, client, agent, user",
        (str(digest),),
    ).fetchall()
    return [Asker(*row) for row in rows if _is(row, str, str, str, int, float, float)]


def forget_seen(connection: sqlite3.Connection, digests: Collection[Digest]) -> None:
    """Drop all that was seen of what is gone."""
    for table in ("fact", "asker"):
        connection.execute(
            f"DELETE FROM {table} WHERE digest IN ({marks(digests)})", [str(digest) for digest in digests]
        )


def _is(row: tuple[Any, ...], *types: type) -> bool:
    return tuple(map(type, row)) == types


def _last(rows: Sequence[tuple[Any, ...]]) -> Key | None:
    return typed(rows[-1][:1], str) if len(rows) == _PORTION else None
