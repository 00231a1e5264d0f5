"""How what another replica knows becomes a part of these records: of two entries for a key the later one stands."""

import sqlite3
from collections.abc import Sequence

from mirror.hosted.entries import Entry
from mirror.hosted.writes import There


def entries(connection: sqlite3.Connection, told: Sequence[Entry], there: There) -> int:
    """Take in entries; how many of them said something new. Raises `StoreError`."""
    return 0
