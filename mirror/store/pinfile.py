"""The file of the records of pins (`mirror.store.pins`): read by all workers, and after any crash.

It has a line for each record, with a checksum of its own, and is written twice. Where one is damaged the other is
taken, and of two damaged ones all lines that are whole.
"""

import contextlib
import errno
import json
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirror.errors import StoreError, UpstreamInvalid
from mirror.store.directory import write_durably
from mirror.store.pins import Record, Records, of_record, to_record

_VERSION = 1


Version = tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class _File:
    records: Records
    whole: bool


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was read. ``damage`` says what was wrong with the files, in words for the log."""

    records: Records
    damage: str | None = None


class PinFile:
    """Reads and writes one file and its backup. All methods block: for a thread, one at a time.

    Lines are made and read once: of ten thousand records one has changed. ``write`` is durable when it returns.
    """

    def __init__(self, path: Path, backup: Path, write: Callable[[Path, bytes], None] = write_durably) -> None:
        self._path = path
        self._backup = backup
        self._write = write
        self._lines: dict[str, tuple[Record, bytes]] = {}
        self._records: dict[bytes, Record] = {}

    def load(self) -> Loaded:
        """What stands in the file, or else in its backup.

        Raises `StoreError` for what a later release has written, and `OSError`.
        """
        first = self._read(self._path)
        if first is not None and first.whole:
            return Loaded(first.records)
        second = self._read(self._backup)
        if first is None and second is None:
            return Loaded(Records())
        what = "is missing" if first is None else "is damaged"
        salvaged = Records()
        for one in (second, first):
            salvaged = salvaged.with_merged(one.records.all.values()) if one is not None else salvaged
        if second is not None and second.whole:
            return Loaded(salvaged, f"{self._path} {what}; the pins are those of its backup")
        return Loaded(
            salvaged,
            f"{self._path} {what}, and so is its backup: {len(salvaged.all)} records could be read of them; pin again "
            "what is not among the pins any more",
        )

    def save(self, records: Records) -> None:
        """Replace the file, and then its backup; durable when this returns. Raises `OSError`.

        On a full disk, on which somebody may want to unpin something, the backup makes room for the file.
        """
        content = self._content(records)
        try:
            self._write(self._path, content)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            self._backup.unlink(missing_ok=True)
            self._write(self._path, content)
            with contextlib.suppress(OSError):
                self._write(self._backup, content)
        else:
            self._write(self._backup, content)

    def version(self) -> Version:
        """What changes whenever the file is replaced; None where there is none. Raises `OSError`."""
        return version(self._path)

    def _content(self, records: Records) -> bytes:
        lines = {}
        for key, record in records.all.items():
            known = self._lines.get(key)
            lines[key] = known if known is not None and known[0] is record else (record, _line(of_record(record)))
        self._lines = lines
        self._records = {line: record for record, line in lines.values()}
        head = _line({"v": _VERSION, "records": len(lines)})
        return b"".join(line + b"\n" for line in (head, *(line for _, line in lines.values())))

    def _read(self, path: Path) -> _File | None:
        try:
            lines = path.read_bytes().split(b"\n")
        except FileNotFoundError:
            return None
        ends_well = lines[-1] == b"" and len(lines) > 1
        first, *rest = lines[:-1] if ends_well else lines
        head = _fields(first)
        if head is not None and isinstance(head.get("v"), int) and head["v"] > _VERSION:
            raise StoreError("the pins were written by a later release of wasm-mirror; run that one")
        found: dict[bytes, Record] = {}
        whole = head is not None and head.get("records") == len(rest) and ends_well
        for line in rest:
            try:
                record = self._records.get(line) or to_record(_fields(line) or {"pin": None})
            except UpstreamInvalid:
                whole = False
            else:
                found.update({line: record} if record is not None else {})
        self._records = found
        self._lines = {record.key: (record, line) for line, record in found.items()}
        return _File(Records().with_merged(found.values()), whole)


def version(path: Path) -> Version:
    """What changes whenever a file is replaced; None where there is none. Blocks. Raises `OSError`."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _line(fields: Mapping[str, object]) -> bytes:
    text = json.dumps(fields, separators=(",", ":")).encode()
    return b"%08x %s" % (zlib.crc32(text), text)


def _fields(line: bytes) -> dict[str, Any] | None:
    checksum, _, text = line.partition(b" ")
    try:
        fields = json.loads(text) if checksum == b"%08x" % zlib.crc32(text) else None
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None
