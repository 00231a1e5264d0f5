"""The tables of hosted content. As in `mirror.metadata.schema`, ``PRAGMA user_version`` counts the steps.

Nothing in these tables can be had again from elsewhere: a step never drops what an older release wrote.
"""

from collections.abc import Sequence


def _digest(column: str) -> str:
    return f"{column} TEXT NOT NULL CHECK ({column} NOT GLOB 'sha???:*[^0-9a-f]*' AND length({column}) IN (71, 135))"


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

STEPS: Sequence[str] = (_FIRST,)
TABLES = frozenset({"meta", "blob", "manifest", "named", "tag", "doomed"})
