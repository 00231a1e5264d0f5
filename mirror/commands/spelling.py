"""References as people have them to references as a mirror is asked for them. Pure."""

import json
from collections.abc import Iterable, Iterator, Sequence

_PLAIN = "modules/"
_LONGEST = 4096  # characters of a reference
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


def wrong(text: str) -> str | None:
    """What keeps ``text`` from being a reference, whatever the mirror has; None when it may be one."""
    scheme, separator, _ = text.partition("://")
    if not text.strip():
        return "an empty text is no reference"
    if len(text) > _LONGEST:
        return f"{text[:80]}… is no reference: it has {len(text):,} characters"
    if separator and scheme.lower() != "oci":
        return f"{text} is no reference: it begins with its upstream, or with oci://"
    return None


def all_asked_for(texts: Iterable[str], mirror: str) -> tuple[list[str], list[tuple[str, str]]]:
    """`asked_for` of each of ``texts``, once; and those that are no references, each with the words for that."""
    names = dict.fromkeys(asked_for(text, mirror) for text in texts)
    faults = [(name, words) for name in names if (words := wrong(name)) is not None]
    return [name for name in names if wrong(name) is None], faults


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
