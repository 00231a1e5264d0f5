"""What a mirror's answers say, as far as people are shown it; a newer mirror may say more.

Programs get the answers as they came.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mirror.errors import CommandError

Count = Annotated[int, Field(ge=0, le=1 << 63)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Result(_Part):
    """What became of a reference, here or at another ``replica``."""

    reference: str
    result: str
    digest: str | None = None
    bytes: Count | None = None
    seconds: float | None = None
    why: str | None = None
    replica: str | None = None


class Job(_Part):
    """A prewarming, in numbers. Times are Unix seconds."""

    id: str
    state: str
    total: Count
    done: Count
    began_at: float | None = None
    ended_at: float | None = None
    by: str | None = None
    pin: bool = False
    counts: Mapping[str, Count] = {}


class Progress(_Part):
    """How far a download is that a job waits for, in bytes."""

    reference: str
    replica: str | None = None
    bytes: Count
    total: Count | None = None


class Module(_Part):
    """A row of what is held."""

    reference: str
    digest: str
    size: Count
    complete: bool = True
    hits: Count = 0
    used_at: float | None = None
    fetched_at: float | None = None
    fresh: bool = True
    pinned: bool = False
    layout: str | None = None
    verdict: str | None = None
    why: str | None = None


class Pin(_Part):
    """A pin, and what it holds."""

    reference: str
    digests: tuple[str, ...] = ()
    complete: bool = True
    bytes: Count = 0
    pinned_at: float | None = None
    by: str | None = None
    problem: str | None = None


class Swept(_Part):
    """What ``gc`` made go."""

    blobs: Count
    bytes: Count
    uploads: Count = 0
    records: Count = 0


class Scrub(_Part):
    """How far the scrubber is, and what it has found in this turn."""

    state: str
    began_at: float | None = None
    ended_at: float | None = None
    blobs: Count = 0
    read: Count = 0
    bytes_read: Count = 0
    damaged: tuple[str, ...] = ()
    restored: Count = 0
    missing: tuple[str, ...] = ()


M = TypeVar("M", bound=BaseModel)


def read(model: type[M], document: object) -> M:
    """``document`` as what it should be. Raises `CommandError`."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        where = ".".join(str(step) for step in error.errors()[0]["loc"])
        raise CommandError(
            f"the mirror's answer is not understood ({model.__name__.lower()}{': ' + where if where else ''}); is it a "
            "wasm-mirror, and of this release?"
        ) from None


def items(document: Mapping[str, object], name: str) -> Sequence[Mapping[str, object]]:
    """The list of objects that ``document`` has under ``name``. Raises `CommandError`."""
    found = document.get(name)
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise CommandError(f"the mirror's answer has no list of {name}; is it a wasm-mirror, and of this release?")
    return found
