"""Members of a JSON object that another replica has sent, each of the kind that it must be. (RFC 8259, section 4.)

Whatever is malformed raises `UpstreamInvalid`, which names the member.
"""

from collections.abc import Mapping
from typing import Any

from mirror.digest import Digest
from mirror.errors import DigestInvalid, UpstreamInvalid

_MAX_TEXT = 255
_MAX_NUMBER = 1 << 62

Members = Mapping[str, Any]


def number(members: Members, name: str, *, least: int) -> int:
    """A whole number from ``least`` on."""
    value = members.get(name)
    if type(value) is not int or not least <= value < _MAX_NUMBER:
        raise malformed(name)
    return value


def time(members: Members, name: str) -> float:
    """Seconds since the epoch."""
    value = members.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _MAX_NUMBER:
        raise malformed(name)
    return float(value)


def text(members: Members, name: str, most: int = _MAX_TEXT) -> str:
    """At most ``most`` printable characters of ASCII."""
    value = members.get(name)
    if not isinstance(value, str) or len(value) > most or not value.isascii() or not value.isprintable():
        raise malformed(name)
    return value


def digest(members: Members, name: str) -> Digest:
    """A digest."""
    try:
        return Digest.parse(text(members, name))
    except DigestInvalid as error:
        raise malformed(name) from error


def malformed(name: str) -> UpstreamInvalid:
    """The error that names a member."""
    return UpstreamInvalid(f"what a replica tells has no valid {name!r}")
