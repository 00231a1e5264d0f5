"""The logs of jobs: a file each, of JSON lines, which one worker appends to and all may read while it grows.

::

    jobs/<id>.jsonl       what is to be done, what became of each part of it, and its end
    jobs/<id>.cancel      somebody wants it to stop; empty
    jobs/<id>.now         what is under way, for the other workers; not durable

A line is there when its end is: what a crash has left of one is passed over, and cut off by who goes on. Everything
here blocks, and is for a thread. Raises `OSError`.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mirror.store.directory import sync_folder, write_whole

_ID = re.compile(r"[0-9a-z][0-9a-z-]{0,63}")
_LOG, _CANCEL, _NOW = ".jsonl", ".cancel", ".now"
_PORTION = 256 << 10
"""Bytes that are read in one go; to make something of the lines in them takes a loop some 10 ms."""

_LAST = 4096
"""Bytes at the end of a log in which its last line lies, where that says that it ended."""

MAX_LINE = 16 << 20
"""Bytes of a line, at most; the first one names ten thousand references."""


def line_of(fields: Mapping[str, object]) -> bytes:
    """A line of a log."""
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


class JobLog:
    """A log that is appended to, by whoever holds the job's lease."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._size = size

    def append(self, lines: Iterable[bytes]) -> None:
        """Add lines; durable when this returns. When it raises `OSError`, the same are to be added again first."""
        content = b"".join(lines)
        os.ftruncate(self._fd, self._size)
        os.lseek(self._fd, self._size, os.SEEK_SET)
        write_whole(self._fd, content)
        os.fsync(self._fd)
        self._size += len(content)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)


class JobFolder:
    """All logs of a data directory, by the ids of their jobs; later jobs have greater ids."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, job: str, first: bytes) -> JobLog:
        """Begin a log with its first line; durable when this returns."""
        if not self._folder.is_dir():
            self._folder.mkdir(exist_ok=True)
            sync_folder(self._folder.parent)
        path = self._path(job)
        log = JobLog(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), 0)
        try:
            log.append([first])
            sync_folder(self._folder)
        except OSError:
            log.close()
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        return log

    def resume(self, job: str) -> JobLog:
        """A log to go on with, after its last whole line."""
        fd = os.open(self._path(job), os.O_RDWR | os.O_CLOEXEC)
        try:
            end = os.fstat(fd).st_size
            while end:
                start = max(0, end - _PORTION)
                if (at := os.pread(fd, end - start, start).rfind(b"\n")) >= 0:
                    return JobLog(fd, start + at + 1)
                end = start
        except OSError:
            os.close(fd)
            raise
        return JobLog(fd, 0)

    def read(self, job: str, offset: int, most: int = _PORTION) -> tuple[Sequence[Mapping[str, Any]], int] | None:
        """The whole lines from ``offset`` on, some ``most`` bytes of them, and where they end; None: no such job."""
        try:
            with self._path(job).open("rb") as file:
                file.seek(offset)
                content = file.read(most)
                if b"\n" not in content:  # a long line, or the beginning of one
                    content += file.read(MAX_LINE)
        except FileNotFoundError:
            return None
        whole = content[: content.rfind(b"\n") + 1]
        return [parsed(line) for line in whole.split(b"\n")[:-1]], offset + len(whole)

    def ids(self) -> list[str]:
        """All jobs that have a log, the latest first."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        return sorted((name.removesuffix(_LOG) for name in names if name.endswith(_LOG)), reverse=True)

    def last(self, job: str) -> Mapping[str, Any]:
        """The last whole line, if it is short; else nothing."""
        try:
            with self._path(job).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(0, size - _LAST))
                whole, _, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return {}
        return parsed(whole.rpartition(b"\n")[2])

    def size(self, job: str) -> int:
        """Bytes of its log; 0 where there is none."""
        try:
            return self._path(job).stat().st_size
        except FileNotFoundError:
            return 0

    def delete(self, job: str) -> None:
        """Forget a job."""
        for suffix in (_CANCEL, _NOW, _LOG):
            self._path(job, suffix).unlink(missing_ok=True)

    def ask_to_cancel(self, job: str) -> None:
        """Have whoever does it stop."""
        self._path(job, _CANCEL).touch(mode=0o600)

    def is_to_be_cancelled(self, job: str) -> bool:
        """Whether somebody has asked for that."""
        return self._path(job, _CANCEL).exists()

    def tell_now(self, job: str, fields: Mapping[str, object]) -> None:
        """Say what is under way."""
        draft = self._path(job, f"{_NOW}.draft")
        draft.write_bytes(line_of(fields))
        draft.replace(self._path(job, _NOW))

    def now(self, job: str) -> Mapping[str, Any]:
        """What is said to be under way; nothing where nobody says so."""
        try:
            return parsed(self._path(job, _NOW).read_bytes())
        except FileNotFoundError:
            return {}

    def tidy(self, job: str) -> None:
        """It has ended: what only running jobs have goes."""
        for suffix in (_CANCEL, _NOW):
            self._path(job, suffix).unlink(missing_ok=True)

    def _path(self, job: str, suffix: str = _LOG) -> Path:
        if not _ID.fullmatch(job):
            raise FileNotFoundError(job)
        return self._folder / f"{job}{suffix}"


def parsed(line: bytes) -> Mapping[str, Any]:
    """A line's fields; none of one that is damaged."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}
