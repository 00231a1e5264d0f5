"""How much of the disk the mirror may take."""

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from mirror.config.section import Section
from mirror.config.values import Kind, Size, parse_share, shown

Share = Annotated[float, Kind("share"), BeforeValidator(parse_share)]


class CacheSettings(Section):
    """How much of the disk is taken, and when what was not used for the longest goes."""

    max_size: Size = Field(
        20 << 30,
        gt=0,
        description="What the mirror may take on the disk: what is cached, hosted, and on its way here. Where the disk "
        "has room for less, that counts. What came within the last minute stays for that long, beyond this if need be.",
    )
    high_water: Share = Field(
        0.9,
        description="The share of that above which cached content is evicted, least recently used first, manifests "
        "together with their layers. It is fetched again when it is asked for. Hosted content never goes.",
    )
    low_water: Share = Field(0.8, description="The share down to which it is evicted then.")

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.low_water >= self.high_water:
            raise ValueError(
                f"must have a low_water below its high_water, {shown(self.high_water)}, not {shown(self.low_water)}"
            )
        return self
