"""References that are kept warm: pulled before anybody asks for them."""

from collections.abc import Collection
from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator

from mirror import oci
from mirror.config.section import Section
from mirror.config.values import Duration, Kind, absent_is_empty, shown
from mirror.errors import MirrorError

_MOST = 10_000
_SHORTEST = 1.0
_SCHEME = "oci://"

Text = Annotated[str, Kind("reference")]


class PrewarmSettings(Section):
    """What is kept warm on the disk of each replica."""

    references: Annotated[tuple[Text, ...], BeforeValidator(absent_is_empty)] = Field(
        (),
        description="References that are pulled before anybody asks for them, as agents would pull them, with or "
        "without `oci://`: `ghcr.io/team/plugin:1.0`. Tags are followed. They may be evicted as others are, which pins "
        "may not.",
    )
    interval: Duration = Field(
        300.0, description="How often they are looked at again. 0: only when the mirror starts; else a second or more."
    )

    @field_validator("references", mode="after")
    @classmethod
    def _not_too_many(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) > _MOST:
            raise ValueError(f"must be {_MOST} references at most, not {len(value)}")
        return value

    @field_validator("interval", mode="after")
    @classmethod
    def _not_too_often(cls, value: float) -> float:
        if 0 < value < _SHORTEST:
            raise ValueError("must be 0, or 1s at least: upstream is asked about each tag that is not fresh")
        return value


def fault_of(
    text: str, names: Collection[str], upstreams: Collection[str], addresses: Collection[str], default: str | None
) -> str | None:
    """What is wrong with a reference, as `mirror.names.Names.of_text` will see it; None if nothing is.

    ``names`` are the mirror's own; ``upstreams`` may come first in it, what is hosted among them, and so may the
    ``addresses`` at which they are. Both in lower case.
    """
    rest = text[len(_SCHEME) :] if text[: len(_SCHEME)].lower() == _SCHEME else text
    first, slash, after = rest.partition("/")
    if slash and _is_own(first.lower(), names) and (first not in upstreams or after.partition("/")[0] in upstreams):
        rest = after
        first, slash, after = rest.partition("/")
    at_address = bool(slash) and first not in upstreams and first.lower().removesuffix(":443") in addresses
    try:
        named = oci.parse_reference(after if at_address else rest)
    except MirrorError as error:
        return f"must be a reference such as ghcr.io/team/plugin:1.0: {error.message}"
    upstream, slash, _ = named.name.partition("/")
    if at_address or (upstream not in upstreams and default is not None):
        return None
    if upstream not in upstreams:
        return f"must begin with one of {', '.join(upstreams)}, not {shown(upstream)}; or add that under upstreams"
    return None if slash else f"names an upstream only; append a repository, such as {upstream}/team/plugin:1.0"


def _is_own(host: str, names: Collection[str]) -> bool:
    name, colon, port = host.rpartition(":")
    return host in names or (bool(colon) and port.isdigit() and name in names)
