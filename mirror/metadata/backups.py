"""The hourly backup of a database, beside it: made by one worker for all, and replaced only by one that is sound."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from mirror.errors import StoreError
from mirror.metadata.recovery import backup_of, beside, locked

log = logging.getLogger(__name__)

_LOOK_AFTER = 60.0  # seconds until a backup that failed, or that another worker makes, is looked at again


class Backups:
    """Renews the backup of the database ``path``. ``make`` makes one at the path that it is given, or raises `OSError`
    or `StoreError`; it blocks, and is called in a thread. ``what`` names the database in logs and errors.
    """

    def __init__(self, path: Path, what: str, make: Callable[[Path], None]) -> None:
        self._path = path
        self._what = what
        self._make = make

    async def renew(self) -> None:
        """Make it now, unless another worker is at it. Raises `StoreError`."""
        await asyncio.to_thread(self._renew)

    async def run(self, interval: float = 3600.0) -> None:
        """Renew it whenever it is older than ``interval`` seconds, until cancelled.

        For each worker process: whichever comes first makes it, for all.
        """
        while True:
            try:
                due_in = await asyncio.to_thread(self.renew_when_due, interval)
            except StoreError as error:
                log.warning("%s was not backed up: %s", self._what, error)
                due_in = 0.0
            await asyncio.sleep(max(due_in, min(_LOOK_AFTER, interval)))

    def renew_when_due(self, interval: float) -> float:
        """Renew it when it is older than ``interval`` seconds; in how many it is due again. Blocks."""
        backup = backup_of(self._path)
        if _age(backup) >= interval:
            self._renew()
        return interval - _age(backup)

    def _renew(self) -> None:
        try:
            with locked(beside(self._path, ".backup.lock"), wait=False):
                self._make(backup_of(self._path))
        except BlockingIOError:
            return
        except OSError as error:
            raise StoreError(f"{self._what} cannot be backed up: {error.strerror or error}") from error


def _age(path: Path) -> float:
    """Seconds since a file was written, infinite when there is none; a clock that was set back makes none younger."""
    try:
        return abs(time.time() - path.stat().st_mtime)
    except FileNotFoundError:
        return float("inf")
