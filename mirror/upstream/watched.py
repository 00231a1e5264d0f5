"""Files that are looked at again while the mirror runs, because Kubernetes changes mounted secrets in place."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

from mirror.errors import UpstreamUnavailable

log = logging.getLogger(__name__)

LOOK_AGAIN_AFTER = 1.0
"""Seconds for which a file is taken to be unchanged."""

T = TypeVar("T")
_Stamps = tuple[tuple[int, int, int], ...]


class Watched(Generic[T]):
    """What ``load`` makes of ``files`` (the keys of the settings that name them, and their paths).

    ``load`` gets the paths, runs in a thread, and raises `OSError` or `ValueError`. Once there is a good value it stays
    in force while a file is missing or wrong: of what belongs together, one file may be replaced before the other.
    """

    def __init__(self, files: Mapping[str, Path], load: Callable[..., T], clock: Callable[[], float]) -> None:
        self._files = dict(files)
        self._load = load
        self._clock = clock
        self._value: T | None = None
        self._stamps: _Stamps | None = None
        self._look_at = float("-inf")
        self._complaint = ""
        self._looking = asyncio.Lock()

    async def get(self) -> T:
        """The value; raises `UpstreamUnavailable` when there was never a good one."""
        if self._clock() >= self._look_at and not (self._value is not None and self._looking.locked()):
            async with self._looking:
                if self._clock() >= self._look_at:
                    self._complain(await asyncio.to_thread(self._look))
                    self._look_at = self._clock() + LOOK_AGAIN_AFTER
        if self._value is None:
            raise UpstreamUnavailable(f"{self._named} cannot be read; the mirror's log says why")
        return self._value

    @property
    def _named(self) -> str:
        return f"the file{'s' if len(self._files) > 1 else ''} of {' and '.join(self._files)}"

    def _look(self) -> str:
        """Load what has changed; the complaint about it, if any."""
        for setting, path in self._files.items():
            try:
                path.stat()
            except OSError as error:
                return f"{setting}: {path}: {error.strerror}"
        try:
            stamps = tuple(_stamp(path) for path in self._files.values())
            if stamps != self._stamps:
                self._value = self._load(*self._files.values())
                self._stamps = stamps
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            return f"{' and '.join(self._files)}: {', '.join(map(str, self._files.values()))}: {why}"
        return ""

    def _complain(self, complaint: str) -> None:
        if complaint and complaint != self._complaint:
            log.error("%s", complaint)
        self._complaint = complaint


def _stamp(path: Path) -> tuple[int, int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
