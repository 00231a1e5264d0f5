"""What people have pinned, and what came here by import, as records.

There is one for each reference, and of two about the same one the later stands, whatever the order in which they come:
so replicas that have told one another everything agree. What was unpinned leaves a dated tombstone, which wins over the
pin from before at replicas that were away.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mirror import members
from mirror.digest import Digest
from mirror.errors import RequestError
from mirror.oci import Reference, parse_reference

BURIED_FOR = 90 * 86400.0
"""Seconds for which a tombstone is kept."""

PROTECTED = 2
"""Digests that a pin protects: what the tag names now, and what it named before."""

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
    """All records, by their keys."""

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
        news: dict[str, Record] = {}
        for record in records:
            known = news.get(record.key) or self.all.get(record.key)
            merged = _merged(known, record)
            if merged != known:
                news[record.key] = merged
        return Records({**self.all, **news}) if news else self

    def without_old(self, now: float) -> "Records":
        """Without tombstones that have stood for long enough."""
        latest = (now - BURIED_FOR) * 1000
        old = {key for key, one in self.all.items() if one.at <= latest and _is_buried(one)}
        return Records({key: one for key, one in self.all.items() if key not in old}) if old else self


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
