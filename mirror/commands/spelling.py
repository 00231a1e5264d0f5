"""References as people have them to references as a mirror is asked for them. Pure."""

import json
from collections.abc import Iterable, Iterator, Sequence

_PLAIN = "modules/"
_LARGEST = 900_000  # bytes of references as JSON, of the 1 MiB that a call may have


def asked_for(text: str, mirror: str) -> str:
    """What to ask the mirror at the host ``mirror`` for, where ``text`` names it by that host.

    It may not be among the mirror's own names, as when its port was forwarded. So may an address below ``/modules/``,
    at whatever host. All else the mirror judges.
    """
    scheme, separator, rest = text.partition("://")
    if separator and scheme.lower() in ("http", "https"):
        path = rest.partition("?")[0].partition("/")[2]
        return path.removeprefix(_PLAIN).removesuffix(".wasm") if path.startswith(_PLAIN) else text
    if separator and scheme.lower() != "oci":
        return text
    host, slash, behind = (rest if separator else text).partition("/")
    return behind if slash and host.lower() == mirror.lower() else text


def all_asked_for(texts: Iterable[str], mirror: str) -> list[str]:
    """`asked_for` of each of ``texts``, once."""
    return list(dict.fromkeys(asked_for(text, mirror) for text in texts))


def batches(names: Sequence[str], most: int) -> Iterator[list[str]]:
    """References for one call each: no more than ``most``, and no more bytes than a call may have."""
    batch: list[str] = []
    size = 0
    for name in names:
        length = len(json.dumps(name)) + 2
        if batch and (len(batch) == most or size + length > _LARGEST):
            yield batch
            batch, size = [], 0
        batch.append(name)
        size += length
    if batch:
        yield batch
