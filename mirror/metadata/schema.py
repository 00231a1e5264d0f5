"""The tables of the embedded database, and how an older one becomes a newer one.

``PRAGMA user_version`` counts the steps that a database has been through. A release that adds to the schema appends a
step and leaves ``min_reader`` alone, so that the release before it can go on with the same file; only a step that an
older release could not read or write raises ``min_reader`` (in the table ``meta``), one release after the one that can.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mirror.errors import StartError

_LAYER = "TEXT NOT NULL CHECK (layer NOT GLOB 'sha???:*[^0-9a-f]*' AND length(layer) IN (71, 135))"
_DIGEST = "TEXT NOT NULL CHECK (digest NOT GLOB 'sha???:*[^0-9a-f]*' AND length(digest) IN (71, 135))"

# Tables are clustered by their primary key (WITHOUT ROWID): a look-up is one descent. Not `kept`, whose rows are large.
# The checks are for salvage and quick_check, which so recognize a row whose bytes were damaged.
_FIRST = f"""
CREATE TABLE meta (
    key TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE tag (
    upstream TEXT NOT NULL,
    repository TEXT NOT NULL,
    tag TEXT NOT NULL,
    digest {_DIGEST},
    media_type TEXT NOT NULL CHECK (typeof(media_type) = 'text'),
    size INTEGER NOT NULL CHECK (typeof(size) = 'integer'),
    fetched_at REAL NOT NULL CHECK (typeof(fetched_at) = 'real'),
    PRIMARY KEY (upstream, repository, tag)
) WITHOUT ROWID;

CREATE TABLE link (
    upstream TEXT NOT NULL,
    repository TEXT NOT NULL,
    digest {_DIGEST},
    media_type TEXT NOT NULL CHECK (typeof(media_type) = 'text'),
    size INTEGER NOT NULL CHECK (typeof(size) = 'integer'),
    PRIMARY KEY (upstream, repository, digest)
) WITHOUT ROWID;

CREATE TABLE negative (
    upstream TEXT NOT NULL,
    repository TEXT NOT NULL,
    reference TEXT NOT NULL,
    until REAL NOT NULL CHECK (typeof(until) = 'real'),
    PRIMARY KEY (upstream, repository, reference)
) WITHOUT ROWID;
CREATE INDEX negative_by_until ON negative (until);

CREATE TABLE kept (
    key TEXT NOT NULL PRIMARY KEY,
    body BLOB NOT NULL CHECK (typeof(body) = 'blob'),
    headers TEXT NOT NULL CHECK (typeof(headers) = 'text'),
    fetched_at REAL NOT NULL CHECK (typeof(fetched_at) = 'real')
);
CREATE INDEX kept_by_age ON kept (fetched_at);

CREATE TABLE blob (
    digest {_DIGEST},
    size INTEGER NOT NULL CHECK (typeof(size) = 'integer'),
    blake3 TEXT NOT NULL CHECK (blake3 NOT GLOB '*[^0-9a-f]*' AND length(blake3) = 64),
    stored_at REAL NOT NULL CHECK (typeof(stored_at) = 'real'),
    PRIMARY KEY (digest)
) WITHOUT ROWID;

CREATE TABLE access (
    digest {_DIGEST},
    at REAL NOT NULL CHECK (typeof(at) = 'real'),
    PRIMARY KEY (digest)
) WITHOUT ROWID;

INSERT INTO meta VALUES ('min_reader', '1');
"""

# No tag moves 2^32 times: a greater serial is a damaged one, which would win over all that replicas know.
_SERIAL = "INTEGER NOT NULL DEFAULT 0 CHECK (typeof(serial) = 'integer' AND serial BETWEEN 0 AND 4294967296)"

# The release before writes and deletes rows of `tag` and knows nothing of what is added here. A row that it wrote has
# the serial 0; `statements.tag` says what that means where there is a tombstone too.
_SERIALS = f"""
ALTER TABLE tag ADD COLUMN serial {_SERIAL};
ALTER TABLE tag ADD COLUMN moving INTEGER NOT NULL DEFAULT 0 CHECK (moving IN (0, 1));

CREATE TABLE tombstone (
    upstream TEXT NOT NULL,
    repository TEXT NOT NULL,
    tag TEXT NOT NULL,
    deleted_at REAL NOT NULL CHECK (typeof(deleted_at) = 'real'),
    serial {_SERIAL},
    PRIMARY KEY (upstream, repository, tag)
) WITHOUT ROWID;
CREATE INDEX tombstone_by_age ON tombstone (deleted_at);
"""

# Keys are texts: a salvage goes through a table in their order.
_UNPACKED = f"""
CREATE TABLE unpacked (
    layer {_LAYER},
    entry TEXT NOT NULL CHECK (length(entry) BETWEEN 1 AND 18 AND entry NOT GLOB '*[^0-9]*'),
    digest {_DIGEST},
    size INTEGER NOT NULL CHECK (typeof(size) = 'integer'),
    PRIMARY KEY (layer, entry)
) WITHOUT ROWID;
"""

# The release before puts rows of `link` with the serial 0, and knows nothing of `dropped`: where both are there, the
# greater serial counts, or else that it was dropped.
_DROPPED = f"""
ALTER TABLE link ADD COLUMN serial {_SERIAL};

CREATE TABLE dropped (
    upstream TEXT NOT NULL,
    repository TEXT NOT NULL,
    digest {_DIGEST},
    dropped_at REAL NOT NULL CHECK (typeof(dropped_at) = 'real'),
    serial {_SERIAL},
    PRIMARY KEY (upstream, repository, digest)
) WITHOUT ROWID;
CREATE INDEX dropped_by_age ON dropped (dropped_at);
"""

# The release before notes when something was asked for, and leaves alone how often.
_HITS = """
ALTER TABLE access ADD COLUMN hits INTEGER NOT NULL DEFAULT 0 CHECK (typeof(hits) = 'integer' AND hits >= 0);
"""

# Both can be learnt again, and so they are not salvaged. In `asker` an empty text stands for what a client did not say,
# for there is no null in a key.
_SEEN = f"""
CREATE TABLE fact (
    digest {_DIGEST},
    layout TEXT NOT NULL CHECK (typeof(layout) = 'text'),
    abi TEXT NOT NULL CHECK (typeof(abi) = 'text'),
    verdict TEXT NOT NULL CHECK (typeof(verdict) = 'text'),
    why TEXT NOT NULL CHECK (typeof(why) = 'text'),
    rules TEXT NOT NULL CHECK (typeof(rules) = 'text'),
    PRIMARY KEY (digest)
) WITHOUT ROWID;

CREATE TABLE asker (
    digest {_DIGEST},
    client TEXT NOT NULL CHECK (typeof(client) = 'text'),
    agent TEXT NOT NULL CHECK (typeof(agent) = 'text'),
    user TEXT NOT NULL CHECK (typeof(user) = 'text'),
    count INTEGER NOT NULL CHECK (typeof(count) = 'integer' AND count > 0),
    first_at REAL NOT NULL CHECK (typeof(first_at) = 'real'),
    last_at REAL NOT NULL CHECK (typeof(last_at) = 'real'),
    PRIMARY KEY (digest, client, agent, user)
) WITHOUT ROWID;
CREATE INDEX asker_by_age ON asker (last_at);
"""

STEPS: Sequence[str] = (_FIRST, _SERIALS, _UNPACKED, _DROPPED, _HITS, _SEEN)


@dataclass(frozen=True, slots=True)
class Salvage:
    """How rows of a table are taken over from a damaged database.

    ``key`` is the primary key; of two rows with one key, that with the greater ``newer`` columns stays, or the first.
    A row that is ``about_content`` is worth nothing when the disk does not hold its ``digest``.
    """

    key: tuple[str, ...]
    newer: tuple[str, ...] = ()
    about_content: bool = False


# Negative answers live for seconds: they are not salvaged, nor is what was seen of modules (`_SEEN`).
SALVAGED: Mapping[str, Salvage] = {
    "tag": Salvage(("upstream", "repository", "tag"), newer=("serial", "fetched_at"), about_content=True),
    "tombstone": Salvage(("upstream", "repository", "tag"), newer=("serial", "deleted_at")),
    "link": Salvage(("upstream", "repository", "digest"), newer=("serial",)),
    "dropped": Salvage(("upstream", "repository", "digest"), newer=("serial", "dropped_at")),
    "kept": Salvage(("key",), newer=("fetched_at",)),
    "blob": Salvage(("digest",), newer=("stored_at",), about_content=True),
    "access": Salvage(("digest",), newer=("at",)),
    "unpacked": Salvage(("layer", "entry"), about_content=True),
}
TABLES = frozenset({"meta", "negative", "fact", "asker", *SALVAGED})


class Damaged(sqlite3.DatabaseError):
    """The database contradicts itself in a way that SQLite did not notice."""


def migrate(connection: sqlite3.Connection, steps: Sequence[str] = STEPS) -> None:
    """Bring a database to the newest schema, each step in a transaction of its own.

    Raises `StartError` for one that a newer release wrote and this one cannot read.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(steps):
        _refuse_unreadable(connection, version, len(steps))
    for number, step in enumerate(steps[version:], version + 1):
        try:
            connection.executescript(f"BEGIN IMMEDIATE; {step}; PRAGMA user_version = {number}; COMMIT;")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.rollback()
            raise


def _refuse_unreadable(connection: sqlite3.Connection, version: int, known: int) -> None:
    row = connection.execute("SELECT value FROM meta WHERE key = 'min_reader'").fetchone()
    if row is None or not row[0].isdecimal() or int(row[0]) > known:
        raise StartError(
            f"the metadata database was written by a newer release: its schema is {version}, this one knows {known}; "
            "start that release, or move metadata.sqlite* away to begin anew"
        )


def links_incomplete(connection: sqlite3.Connection) -> bool:
    """Whether links were lost when this database took the place of a damaged one."""
    return connection.execute("SELECT 1 FROM meta WHERE key = 'links_lost_at'").fetchone() is not None


def note_lost_links(connection: sqlite3.Connection, now: float) -> None:
    """Remember that links were lost.

    It is never taken back: no time brings a link back, only a pull does, link by link. It does no harm where links are
    there, and where one is missing it counts only while upstream does not answer.
    """
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('links_lost_at', ?)", (str(now),))
