"""What may stand behind a key: sizes, durations, whole numbers, switches, text. From text, and back to text.

Text comes from the YAML file, the environment and the command line alike, so one parser reads it wherever it stands;
code may pass numbers. Durations are seconds (float), sizes are bytes (int). Every parser raises `ValueError` whose
words follow the name of a key: "must be …, not …".
"""

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Final

from pydantic import BeforeValidator, PlainSerializer

MAX_DURATION: Final = 3650 * 86400.0
MAX_SIZE: Final = 1 << 60

_MAX_TEXT = 40  # characters of a number; longer text is no number, and would only cost time

_SECONDS = {"d": Decimal(86400), "h": Decimal(3600), "m": Decimal(60), "s": Decimal(1), "ms": Decimal("0.001")}
_NUMBER = r"(\d+(?:\.\d+)?)"
_DURATION = re.compile(rf"(?:{_NUMBER}d)?(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s)?(?:{_NUMBER}ms)?", re.ASCII)

_BYTES = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
}
_SIZE = re.compile(rf"{_NUMBER}([A-Za-z]*)", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_SWITCH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}  # those of YAML 1.1


@dataclass(frozen=True, slots=True)
class Kind:
    """Beside a type: what the reference calls a value of it."""

    name: str


def shown(value: object) -> str:
    """``value`` as an error shows it: quoted and bounded; of a list or mapping only what it is."""
    match value:
        case None:
            return "nothing"
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case _:
            text = str(value)
            return repr(text if len(text) <= 80 else text[:80] + "…")


def parse_duration(value: object) -> float:
    """Seconds, from ``10s``, ``1h30m``, ``500ms``, ``1.5h`` or ``0``; a number is seconds already."""
    seconds = _seconds(value)
    if seconds is None:
        hint = f"; write {value}s for seconds" if _WHOLE.fullmatch(str(value)) else ""
        raise ValueError(f"must be a duration such as 500ms, 10s, 1h30m, 30d or 0, not {shown(value)}{hint}")
    if not 0 <= seconds <= MAX_DURATION:
        raise ValueError(f"must be a duration from 0 to {format_duration(MAX_DURATION)}, not {shown(value)}")
    return seconds


def _seconds(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if math.isfinite(value) else None
    if not isinstance(value, str) or not value or len(value) > _MAX_TEXT:
        return None
    if value == "0":
        return 0.0
    match = _DURATION.fullmatch(value)
    if match is None:
        return None
    parts = zip(match.groups(), _SECONDS.values(), strict=True)
    return float(sum((Decimal(number) * unit for number, unit in parts if number is not None), Decimal(0)))


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads as exactly ``seconds``: a whole number of one unit where it can."""
    exact = Decimal(repr(float(seconds)))
    if not exact:
        return "0s"
    for unit, length in _SECONDS.items():
        number = exact / length
        if number == number.to_integral_value():
            return f"{int(number)}{unit}"
    return f"{exact:f}s"


def parse_size(value: object) -> int:
    """Bytes, from ``20GiB``, ``256MiB``, ``1GB`` or plain digits; a number is bytes already."""
    size = _size(value)
    if size is None:
        raise ValueError(f"must be a size such as 256MiB, 20GiB, 1GB or a number of bytes, not {shown(value)}")
    if not 0 <= size <= MAX_SIZE:
        raise ValueError(f"must be a size from 0 to {format_size(MAX_SIZE)}, not {shown(value)}")
    return size


def _size(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) and len(value) <= _MAX_TEXT else None
    if match is None or match[2] not in ("", *_BYTES):
        return None
    size = Decimal(match[1]) * _BYTES.get(match[2], 1)
    return int(size) if size == size.to_integral_value() else None


def format_size(size: int) -> str:
    """The shortest text that `parse_size` reads as exactly ``size`` bytes."""
    whole = [(size // length, unit) for unit, length in _BYTES.items() if size and size % length == 0]
    number, unit = min(whole, default=(0, "B"))
    return str(number) if unit == "B" else f"{number}{unit}"


def parse_whole(value: object) -> int:
    """A whole number, from digits or a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return int(value)
    raise ValueError(f"must be a whole number, not {shown(value)}")


def parse_share(value: object) -> float:
    """A share of a whole, from ``0.9``; more than none and no more than all of it."""
    try:
        share = float(value) if isinstance(value, str | int | float) and len(str(value)) <= _MAX_TEXT else math.nan
    except ValueError:
        share = math.nan
    if isinstance(value, bool) or not 0 < share <= 1:
        raise ValueError(f"must be a share such as 0.9, above 0 and up to 1, not {shown(value)}")
    return share


def parse_switch(value: object) -> bool:
    """``true`` or ``false``, and what YAML 1.1 takes for these."""
    if isinstance(value, bool):
        return value
    switch = _SWITCH.get(value.lower()) if isinstance(value, str) else None
    if switch is None:
        raise ValueError(f"must be true or false, not {shown(value)}")
    return switch


def parse_file(value: object) -> Path:
    """A path, relative to the working directory or absolute."""
    if isinstance(value, str | Path) and str(value) and "\0" not in str(value):
        return Path(value)
    raise ValueError(f"must be a path, not {shown(value)}")


def not_switched_on(value: object) -> object:
    """``off`` where it is one word of several: YAML 1.1 and JSON say ``false`` for it."""
    return "off" if value is False or (isinstance(value, str) and _SWITCH.get(value.lower()) is False) else value


def absent_is_empty(value: object) -> object:
    """A list whose items are all commented out is an empty one."""
    return () if value is None else value


Duration = Annotated[
    float, Kind("duration"), BeforeValidator(parse_duration), PlainSerializer(format_duration, str, when_used="json")
]
Size = Annotated[int, Kind("size"), BeforeValidator(parse_size), PlainSerializer(format_size, str, when_used="json")]
Whole = Annotated[int, Kind("whole number"), BeforeValidator(parse_whole)]
Switch = Annotated[bool, Kind("true or false"), BeforeValidator(parse_switch)]
File = Annotated[Path, Kind("path"), BeforeValidator(parse_file)]
