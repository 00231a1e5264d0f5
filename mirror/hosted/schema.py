"""The tables of hosted content. As in `mirror.metadata.schema`, ``PRAGMA user_version`` counts the steps.

Nothing in these tables can be had again from elsewhere: a step never drops what an older release wrote.
"""

from collections.abc import Sequence


def _digest(column: str) -> str:
    return f"{column} TEXT NOT NULL CHECK ({column} NOT GLOB 'sha???:*[^0-9a-f]*' AND length({column}) IN (71, 135))"


def _live(table: str, key: str, at: str) -> str:
    """Entries for the rows of a table, with the moments at which they came to be as they are."""
    return f"""
INSERT INTO entry (kind, repository, key, moment, gone, seq)
SELECT '{table}', repository, {key}, CAST(min(max({at}, 0.000001), 4e9) * 1000000 AS INTEGER), 0,
    row_number() OVER (ORDER BY {at}, repository, {key}) + (SELECT coalesce(max(seq), 0) FROM entry)
FROM {table};"""


# `named` is what a manifest names, foreign layers included. `doomed` are digests that have lost a link: whether
# their bytes can go is found out later, and must not be forgotten when the process is killed in between.
_FIRST = f"""
CREATE TABLE meta (
    key TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE blob (
    repository TEXT NOT NULL,
    {_digest("digest")},
    size INTEGER NOT NULL CHECK (typeof(size) = 'integer' AND size >= 0),
    touched_at REAL NOT NULL CHECK (typeof(touched_at) = 'real'),
    PRIMARY KEY (repository, digest)
) WITHOUT ROWID;
CREATE INDEX blob_by_digest ON blob (digest);
CREATE INDEX blob_by_age ON blob (touched_at);

CREATE TABLE manifest (
    repository TEXT NOT NULL,
    {_digest("digest")},
    media_type TEXT NOT NULL,
    size INTEGER NOT NULL CHECK (typeof(size) = 'integer' AND size >= 0),
    subject TEXT,
    artifact_type TEXT NOT NULL,
    annotations TEXT NOT NULL,
    pushed_at REAL NOT NULL CHECK (typeof(pushed_at) = 'real'),
    PRIMARY KEY (repository, digest)
);
CREATE INDEX manifest_by_digest ON manifest (digest);
CREATE INDEX manifest_by_subject ON manifest (repository, subject, digest) WHERE subject IS NOT NULL;

CREATE TABLE named (
    repository TEXT NOT NULL,
    {_digest("manifest")},
    {_digest("child")},
    PRIMARY KEY (repository, manifest, child)
) WITHOUT ROWID;
CREATE INDEX named_by_child ON named (repository, child);

CREATE TABLE tag (
    repository TEXT NOT NULL,
    tag TEXT NOT NULL,
    {_digest("digest")},
    moved_at REAL NOT NULL CHECK (typeof(moved_at) = 'real'),
    serial INTEGER NOT NULL CHECK (typeof(serial) = 'integer' AND serial > 0),
    PRIMARY KEY (repository, tag)
) WITHOUT ROWID;
CREATE INDEX tag_by_digest ON tag (repository, digest);
CREATE INDEX tag_in_order ON tag (repository, lower(tag), tag);

CREATE TABLE doomed (
    {_digest("digest")},
    PRIMARY KEY (digest)
) WITHOUT ROWID;

INSERT INTO meta VALUES ('min_reader', '1');
"""

# `entry` says of each blob, manifest and tag that is or was there when that was decided (`moment`, microseconds since
# the epoch), and in which order these records came to know of it (`seq`). What is gone is only in here. `cursor` says
# how far the entries of other replicas' records were read. A release that knows nothing of entries would change rows
# without them.
_ENTRIES = f"""
CREATE TABLE entry (
    kind TEXT NOT NULL CHECK (kind IN ('blob', 'manifest', 'tag')),
    repository TEXT NOT NULL,
    key TEXT NOT NULL,
    moment INTEGER NOT NULL CHECK (typeof(moment) = 'integer' AND moment > 0),
    gone INTEGER NOT NULL CHECK (gone IN (0, 1)),
    size INTEGER,
    touched_at REAL,
    before REAL,
    seq INTEGER NOT NULL CHECK (typeof(seq) = 'integer' AND seq > 0),
    PRIMARY KEY (kind, repository, key)
) WITHOUT ROWID;
CREATE UNIQUE INDEX entry_in_order ON entry (seq);
CREATE INDEX entry_by_moment ON entry (moment);
CREATE INDEX entry_gone ON entry (moment) WHERE gone;

CREATE TABLE cursor (
    identity TEXT NOT NULL PRIMARY KEY,
    seq INTEGER NOT NULL CHECK (typeof(seq) = 'integer' AND seq >= 0),
    started_at REAL NOT NULL CHECK (typeof(started_at) = 'real'),
    version INTEGER NOT NULL
) WITHOUT ROWID;

{_live("blob", "digest", "touched_at")}
{_live("manifest", "digest", "pushed_at")}
{_live("tag", "tag", "moved_at")}

INSERT INTO meta VALUES ('identity', lower(hex(randomblob(16))));
UPDATE meta SET value = '2' WHERE key = 'min_reader';
"""

STEPS: Sequence[str] = (_FIRST, _ENTRIES)
TABLES = frozenset({"meta", "blob", "manifest", "named", "tag", "doomed", "entry", "cursor"})
