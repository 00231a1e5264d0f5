"""``Range``, ``If-Range`` and ``If-None-Match``. Source: RFC 9110, sections 13 and 14."""

import re
from dataclasses import dataclass

from mirror.errors import RangeInvalid

_RANGE = re.compile(r"([0-9]{0,1000})-([0-9]{0,1000})")
"""Any number: clients that want all to the end ask for 2⁶³-1 bytes. Python parses no more than 4300 digits."""


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes from ``start`` up to ``end`` of a whole of ``size``."""

    start: int
    end: int
    size: int

    def content_range(self) -> str:
        """For ``Content-Range``, whose last byte counts."""
        return f"bytes {self.start}-{self.end - 1}/{self.size}"


def parse_range(header: str | None, size: int) -> Span | None:
    """The one range that is asked for; None where the whole is to be sent.

    More than one range gives the whole (CVE-2025-62727), as another unit than bytes does. Raises `RangeInvalid` for
    what is malformed or lies outside of ``size`` bytes.
    """
    if header is None:
        return None
    unit, equals, spec = header.partition("=")
    if unit.strip().lower() != "bytes" and equals:
        return None
    if "," in spec:
        return None
    match = _RANGE.fullmatch(spec.strip())
    if not equals or match is None or match[0] == "-":
        raise RangeInvalid("the Range header is malformed; it must be bytes=<first>-<last>", size=size)
    first, last = match[1], match[2]
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < int(first):
            raise RangeInvalid("the Range header ends before it starts", size=size)
    if start >= end:
        raise RangeInvalid(f"the range lies outside the content, which has {size} bytes", size=size)
    return Span(start, end, size)


def matches(header: str | None, etag: str) -> bool:
    """Whether ``If-None-Match`` names the entity tag; weak comparison."""
    if header is None:
        return False
    if header.strip() == "*":
        return True
    return any(candidate.strip().removeprefix("W/") == etag for candidate in header.split(","))


def range_stands(if_range: str | None, etag: str) -> bool:
    """Whether ``If-Range`` lets the range stand; strong comparison, and dates never match."""
    return if_range is None or if_range.strip() == etag
