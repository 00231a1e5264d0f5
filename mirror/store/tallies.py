"""The numbers of each worker, in files: so that whichever worker is asked can tell those of all, living and dead.

Each worker has a slot: a lock, which the kernel takes back when the worker dies, and a file of JSON, replaced as a
whole. A worker that is started in place of one that died takes its slot, and goes on from its numbers; so there are no
more slots than workers, and no number goes down while the mirror runs.
"""

import contextlib
import fcntl
import itertools
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mirror.store.leases import try_lock

log = logging.getLogger(__name__)


class Tally:
    """The slot of one worker in ``folder``. Its methods block on the disk, all but `close`: for a thread.

    ``inherited`` is what the last owner of the slot left, None when there was none. A disk that fails costs the other
    workers' view of these numbers, and no request.
    """

    def __init__(self, folder: Path) -> None:
        """Take the first slot that nobody has."""
        self._folder = folder
        self._lock = -1
        self._slot = -1
        self._written = b""
        self.inherited: Any = None
        try:
            folder.mkdir(exist_ok=True)
            for slot in itertools.count():
                lock = try_lock(folder / f"{slot}.lock")
                if lock is not None:
                    self._lock, self._slot = lock, slot
                    self.inherited = _read(self._file(slot))
                    break
        except OSError as error:
            log.error("the disk fails (%s): the metrics are those of one worker", error.strerror or error)

    @property
    def name(self) -> str:
        """What tells this worker's numbers from those of the others: its slot, which outlives it."""
        return str(self._slot) if self._slot >= 0 else f"process {os.getpid()}"

    def write(self, numbers: object) -> None:
        """Replace what this worker tells; nothing is written when that has not changed."""
        content = json.dumps(numbers).encode()
        if self._slot < 0 or content == self._written:
            return
        file = self._file(self._slot)
        draft = file.with_suffix(".draft")
        try:
            draft.write_bytes(content)  # not synced: what a power cut takes is of a run that it has ended
            draft.replace(file)
            self._written = content
        except OSError as error:
            log.debug("the disk fails (%s): other workers do not see the numbers of this one", error.strerror or error)

    def others(self) -> Iterator[tuple[str, Any, bool]]:
        """The names of the other workers, what they told last, and whether they live."""
        with contextlib.suppress(OSError):
            for slot in sorted(int(file.stem) for file in self._folder.glob("*.json") if file.stem.isdecimal()):
                if slot != self._slot and (numbers := _read(self._file(slot))) is not None:
                    yield str(slot), numbers, self._lives(slot)

    def close(self) -> None:
        """Leave the slot with the numbers that were written last."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = self._slot = -1

    def _file(self, slot: int) -> Path:
        return self._folder / f"{slot}.json"

    def _lives(self, slot: int) -> bool:
        """Whether somebody has the slot. To look is to lock it for an instant, together with others who look."""
        try:
            fd = os.open(self._folder / f"{slot}.lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False


def forget_tallies(folder: Path) -> None:
    """Begin at 0: for the start of a mirror, before its workers."""
    with contextlib.suppress(OSError):
        for file in folder.iterdir():
            file.unlink()


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
