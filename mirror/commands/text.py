"""Words and numbers for people: names that steer no terminal, sizes, times. Pure."""

from datetime import UTC, datetime

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
_SPANS = ((86400, "d"), (3600, "h"), (60, "min"))


def escaped(text: str) -> str:
    """``text`` without what would steer a terminal: authors choose names, and strangers are authors too.

    Control characters, and those that turn the direction of what follows, stand there as Python would write them.
    """
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def size(number: int) -> str:
    """Bytes in the largest unit of which there is one at least: ``1.2 MiB``."""
    value, unit = float(number), _UNITS[0]
    for unit in _UNITS:
        if value < 1024 or unit == _UNITS[-1]:
            break
        value /= 1024
    return f"{value:.1f}".removesuffix(".0") + f" {unit}"


def ago(then: float, now: float) -> str:
    """How long before ``now`` something was, both in seconds: ``3 d``, ``5 min``; ``now`` below a minute."""
    for length, unit in _SPANS:
        if now - then >= length:
            return f"{(now - then) // length:.0f} {unit}"
    return "now"


def moment(seconds: float) -> str:
    """A time as Unix seconds, in words that sort: ``2026-11-21 20:15:04 UTC``."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def seconds(number: float) -> str:
    """A span: ``0.8 s``, ``12 s``, ``3 min 5 s``."""
    if number < 9.95:
        return f"{number:.1f} s"
    whole = round(number)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


def count(number: int, noun: str, plural: str = "") -> str:
    """``1 blob``, ``2 blobs``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def shortened(text: str, room: int) -> str:
    """``text`` in no more than ``room`` signs; of a reference its end says most."""
    return text if len(text) <= room else "…" + text[len(text) - max(room - 1, 0) :]


def listed(parts: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def why(error: Exception) -> str:
    """What the system says of a file that cannot be read or written."""
    return getattr(error, "strerror", None) or "it is no path"
