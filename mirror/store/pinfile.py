"""The file of the records of pins (`mirror.store.pins`): read by all workers, and after any crash.

It has a line for each record, with a checksum of its own, and is written twice. Where one is damaged the other is
taken, and of two damaged ones all lines that are whole.
"""

import contextlib
import errno
import hashlib
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


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was read. ``damage`` says what was wrong with the files, in words for the log."""

    records: Records
    damage: str | None = None


def load(path: Path, backup: Path) -> Loaded:
    """What stands in the file, or else in its backup. Blocks.

    Raises `StoreError` for what a later release has written, and `OSError`.
    """
    first = _read(path)
    if first is not None and first.whole:
        return Loaded(first.records)
    second = _read(backup)
    if first is None and second is None:
        return Loaded(Records())
    what = "is missing" if first is None else "is damaged"
    if second is not None and second.whole:
        salvaged = second.records.with_merged(first.records.all.values() if first is not None else ())
        return Loaded(salvaged, f"{path} {what}; the pins are those of its backup")
    salvaged = Records()
    for one in (second, first):
        salvaged = salvaged.with_merged(one.records.all.values()) if one is not None else salvaged
    return Loaded(
        salvaged,
        f"{path} {what}, and so is its backup: {len(salvaged.all)} records could be read of them; pin again what is "
        "not among the pins any more",
    )


def save(path: Path, backup: Path, records: Records, write: Callable[[Path, bytes], None] = write_durably) -> None:
    """Replace the file, and then its backup; durable when this returns. Blocks. Raises `OSError`.

    On a full disk, on which somebody may want to unpin something, the backup makes room for the file.
    """
    content = _content(records)
    try:
        write(path, content)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        backup.unlink(missing_ok=True)
        write(path, content)
        with contextlib.suppress(OSError):
            write(backup, content)
    else:
        write(backup, content)


def fingerprint(records: Records) -> str:
    """What tells these records from all others. Seconds for many: for a thread."""
    return hashlib.blake2b(_content(records), digest_size=16).hexdigest()


def version(path: Path) -> tuple[int, int] | None:
    """What changes whenever the file is replaced; None where there is none. Blocks. Raises `OSError`."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


@dataclass(frozen=True, slots=True)
class _File:
    records: Records
    whole: bool


def _content(records: Records) -> bytes:
    head: Mapping[str, object] = {"v": _VERSION, "records": len(records.all)}
    return b"".join(_line(fields) for fields in (head, *map(of_record, records.all.values())))


def _line(fields: Mapping[str, object]) -> bytes:
    text = json.dumps(fields, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _read(path: Path) -> _File | None:
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return None
    ends_well = lines[-1] == b"" and len(lines) > 1
    head, *rest = (_fields(line) for line in (lines[:-1] if ends_well else lines))
    if head is not None and isinstance(head.get("v"), int) and head["v"] > _VERSION:
        raise StoreError("the pins were written by a later release of wasm-mirror; run that one")
    whole = head is not None and head.get("records") == len(rest) and ends_well
    records: list[Record] = []
    for fields in rest:
        try:
            record = to_record(fields or {"pin": None})
        except UpstreamInvalid:
            whole = False
        else:
            records += [record] if record is not None else []
    return _File(Records().with_merged(records), whole)


def _fields(line: bytes) -> dict[str, Any] | None:
    checksum, _, text = line.partition(b" ")
    try:
        fields = json.loads(text) if checksum == b"%08x" % zlib.crc32(text) else None
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None
