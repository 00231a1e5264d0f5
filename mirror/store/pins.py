"""What people have pinned, and what came here by import, in a small file: read by all workers, and after any crash.

There is one record for each reference, and of two about the same one the later stands, whatever the order in which they
come: so replicas that have told one another everything agree. What was unpinned leaves a dated tombstone, which wins
over the pin from before at replicas that were away.

The file has a line for each record, with a checksum of its own, and is written twice. Where one is damaged the other is
taken, and of two damaged ones all lines that are whole.
"""

import contextlib
import errno
import json
import os
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mirror import members
from mirror.digest import Digest
from mirror.errors import RequestError, StoreError, UpstreamInvalid
from mirror.oci import Reference, parse_reference
from mirror.store.directory import write_durably

BURIED_FOR = 90 * 86400.0
"""Seconds for which a tombstone is kept."""

PROTECTED = 2
"""Digests that a pin protects: what the tag names now, and what it named before."""

_VERSION = 1
_MAX_REFERENCE = 1024
_MAX_BY = 200


@dataclass(frozen=True, slots=True)
class Named:
    """That a reference has named a digest, from ``since`` on (seconds since the epoch, as upstream was asked)."""

    digest: Digest
    since: float


@dataclass(frozen=True, slots=True)
class Pin:
    """That somebody has pinned a reference, or, where ``stands`` is false, unpinned it.

    ``reference`` is the canonical text, ``at`` when that was, in milliseconds since the epoch, ``by`` who it was.
    ``names`` are the digests that it protects, the latest first.
    """

    reference: str
    at: int
    by: str
    stands: bool = True
    names: tuple[Named, ...] = ()

    @property
    def key(self) -> str:
        """What there is one record of."""
        return f"pin {self.reference}"

    def merged(self, other: "Pin") -> "Pin":
        """The later of the two; of two about one deed the digests that both know of."""
        mine, theirs = _stamp(self), _stamp(other)
        if mine != theirs:
            return self if mine > theirs else other
        return self.naming(*other.names)

    def following(self, named: Named) -> "Pin":
        """As it is once the reference is known to name that. What stands is moved only by what was asked later."""
        current = self.names[0] if self.names else None
        if (
            current is not None
            and current.since >= named.since
            and any(one.digest == named.digest for one in self.names)
        ):
            return self
        return self if current is not None and current.digest == named.digest else self.naming(named)

    def naming(self, *names: Named) -> "Pin":
        """With digests that it names or has named: the latest of all stay."""
        since: dict[Digest, float] = {}
        for one in (*self.names, *names):
            since[one.digest] = max(one.since, since.get(one.digest, one.since))
        latest = sorted(since.items(), key=lambda item: (item[1], item[0]), reverse=True)
        return replace(self, names=tuple(Named(*one) for one in latest[:PROTECTED]))


@dataclass(frozen=True, slots=True)
class Imported:
    """That a reference came by import, at a time (milliseconds since the epoch), and named this digest."""

    reference: str
    at: int
    digest: Digest

    @property
    def key(self) -> str:
        """What there is one record of."""
        return f"import {self.reference}"

    def merged(self, other: "Imported") -> "Imported":
        """The later of the two."""
        return max(self, other, key=lambda one: (one.at, one.digest))


Record = Pin | Imported


def _stamp(pin: Pin) -> tuple[int, bool, str]:
    return pin.at, pin.stands, pin.by


@dataclass(frozen=True, slots=True)
class Records:
    """All records, by their keys, in the order of these."""

    all: Mapping[str, Record] = field(default_factory=dict)

    def pin(self, reference: str) -> Pin | None:
        """What stands of a pin: a tombstone too."""
        found = self.all.get(f"pin {reference}")
        return found if isinstance(found, Pin) else None

    def imported(self, reference: str) -> Imported | None:
        """What is known of an import."""
        found = self.all.get(f"import {reference}")
        return found if isinstance(found, Imported) else None

    def with_merged(self, records: Iterable[Record]) -> "Records":
        """With those too; this very object where they say nothing new."""
        merged = dict(self.all)
        for record in records:
            merged[record.key] = _merged(merged.get(record.key), record)
        return self if merged == self.all else Records(dict(sorted(merged.items())))

    def without_old(self, now: float) -> "Records":
        """Without tombstones that have stood for long enough."""
        latest = (now - BURIED_FOR) * 1000
        return Records({key: one for key, one in self.all.items() if one.at > latest or not _is_buried(one)})


def _merged(known: Record | None, record: Record) -> Record:
    if isinstance(known, Pin):
        return known.merged(record) if isinstance(record, Pin) else record
    return known.merged(record) if known is not None and isinstance(record, Imported) else record


def _is_buried(record: Record) -> bool:
    return isinstance(record, Pin) and not record.stands


def of_record(record: Record) -> dict[str, object]:
    """A record as JSON, for the file and for other replicas."""
    if isinstance(record, Imported):
        return {"import": record.reference, "at": record.at, "digest": str(record.digest)}
    names = [{"digest": str(one.digest), "since": one.since} for one in record.names]
    return {"pin": record.reference, "at": record.at, "by": record.by, "stands": record.stands, "names": names}


def to_record(fields: Mapping[str, Any]) -> Record | None:
    """The same from JSON; None for a kind that this release does not know. Raises `UpstreamInvalid`."""
    if "import" in fields:
        return Imported(
            _reference(fields, "import"), members.number(fields, "at", least=0), members.digest(fields, "digest")
        )
    if "pin" not in fields:
        return None
    stands, names = fields.get("stands"), fields.get("names")
    if not isinstance(stands, bool):
        raise members.malformed("stands")
    if not isinstance(names, list) or not all(isinstance(one, dict) for one in names) or len(names) > PROTECTED:
        raise members.malformed("names")
    return Pin(
        _reference(fields, "pin"),
        members.number(fields, "at", least=0),
        members.text(fields, "by", _MAX_BY),
        stands,
        tuple(Named(members.digest(one, "digest"), members.time(one, "since")) for one in names),
    )


def _reference(fields: Mapping[str, Any], name: str) -> str:
    text = members.text(fields, name, _MAX_REFERENCE)
    try:
        if str(reference_of(text)) == text:
            return text
    except RequestError as error:
        raise members.malformed(name) from error
    raise members.malformed(name)


def reference_of(text: str) -> Reference:
    """The reference with this canonical text (`str`). Raises `RequestError`."""
    named = parse_reference(text)
    upstream, _, repository = named.name.partition("/")
    return Reference(upstream, repository, named.tag, named.digest)


def shown_by(text: str) -> str:
    """Who pinned something, as a record can have it."""
    return "".join(sign if sign.isascii() and sign.isprintable() else "?" for sign in text)[:_MAX_BY]


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
    head, *rest = (_fields(line) for line in lines[:-1] or [b""])
    if head is not None and isinstance(head.get("v"), int) and head["v"] > _VERSION:
        raise StoreError("the pins were written by a later release of wasm-mirror; run that one")
    whole = head is not None and head.get("records") == len(rest) and lines[-1] == b""
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
