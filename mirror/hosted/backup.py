"""The backup of the records of hosted content, ``hosted.sqlite.backup``. It is never restored by itself: what was
pushed since it was made would be lost without a word.

It is another database to other replicas: restored, it counts on from where it ended, and they read it from the first
entry on.
"""

import functools
import sqlite3
from pathlib import Path

from mirror.hosted import ledger
from mirror.hosted.database import Database, sound
from mirror.metadata.backups import Backups
from mirror.metadata.recovery import back_up


def backups_of(path: Path) -> Backups:
    """Those of the records in ``path``."""

    def make(backup: Path) -> None:
        if not path.exists():
            raise FileNotFoundError("it is gone")
        database = Database(path)
        try:
            database.read(functools.partial(_copy, backup))
        finally:
            database.close()

    return Backups(path, "the database of hosted content", make)


def _copy(backup: Path, connection: sqlite3.Connection) -> None:
    back_up(connection, backup, sound, ledger.become_another)
