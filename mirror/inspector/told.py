"""A description as its JSON tells it, whoever wrote that: this program, or a mirror of another release.

Fields and their meaning: `mirror.wasm.description.as_json`. What a newer mirror says beyond them is passed over here.
"""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Number = Annotated[int, Field(ge=0, le=1 << 64)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Verdict(_Part):
    """Whether somebody would take it; if not, why, and what to change."""

    accepted: bool
    reason: str = ""
    remedy: str = ""


class Verdicts(_Part):
    """Those of all who might take it."""

    agents: Verdict
    envoy_gateway: Verdict
    envoy: Verdict


class Item(_Part):
    """An import or an export."""

    name: str
    kind: str = "function"


class Memory(_Part):
    """A linear memory; limits in pages of 64 KiB."""

    minimum: Number
    maximum: Number | None = None
    imported: bool = False
    memory64: bool = False
    shared: bool = False


class Producer(_Part):
    """What made the module."""

    role: str
    name: str
    version: str = ""


class Module(_Part):
    """What the module says of itself; ``lacking`` is what Envoy does not have of its imports.

    ``left_out``: how much is not listed.
    """

    sha256: str | None = None
    layer: Number | None = None
    file: str | None = None
    size: Number
    kind: str
    abi: tuple[str, ...] = ()
    name: str | None = None
    imports: Mapping[str, tuple[Item, ...]] = {}
    lacking: Mapping[str, tuple[Item, ...]] = {}
    exports: tuple[Item, ...] = ()
    memories: tuple[Memory, ...] = ()
    producers: tuple[Producer, ...] = ()
    left_out: Number = 0


class Found(_Part):
    """What there is in a layer, counted from 0."""

    layer: Number
    name: str | None = None
    size: Number
    wasm: bool


class Told(_Part):
    """A whole description."""

    layout: str
    digest: str | None = None
    media_type: str | None = None
    index: str | None = None
    module: Module | None = None
    problem: str | None = None
    accepted: bool
    accepted_by: Verdicts
    warnings: tuple[str, ...] = ()
    complete: bool = True
    found: tuple[Found, ...] = ()

    @classmethod
    def read(cls, value: object) -> Self | None:
        """What ``value``, parsed JSON, tells; None when it is no description."""
        try:
            return cls.model_validate(value)
        except ValidationError:
            return None
