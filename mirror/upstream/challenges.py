"""``WWW-Authenticate``, parsed.

Source: RFC 9110, section 11.6.1: challenges and their parameters are both separated by commas, and registries send
several challenges in one field, or several fields.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

_MAX_FIELD = 16 * 1024
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))', re.DOTALL)
_SCHEME = re.compile(rf"({_TOKEN})(?=[ \t,]|$)")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))")
_GAP = re.compile(r"[ \t,]+")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge. ``scheme`` and the parameters' names are in lower case."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_challenges(values: Iterable[str]) -> list[Challenge]:
    """All challenges of these ``WWW-Authenticate`` fields, as far as they can be understood; never raises."""
    return [challenge for value in values for challenge in _parse(value[:_MAX_FIELD])]


def _parse(text: str) -> Iterator[Challenge]:
    scheme: str | None = None
    parameters: dict[str, str] = {}
    position = 0
    while position < len(text):
        if gap := _GAP.match(text, position):
            position = gap.end()
        elif found := _PARAMETER.match(text, position):
            quoted, plain = found[2], found[3]
            parameters.setdefault(found[1].lower(), plain if quoted is None else _ESCAPE.sub(r"\1", quoted))
            position = found.end()
        elif found := _SCHEME.match(text, position):
            if scheme is not None:
                yield Challenge(scheme, parameters)
            scheme, parameters = found[1].lower(), {}
            position = found.end()
            if found := _TOKEN68.match(text, position + 1):
                position = found.end()
        else:
            break  # what comes cannot be told apart from what it would belong to
    if scheme is not None:
        yield Challenge(scheme, parameters)
