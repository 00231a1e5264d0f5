"""``/api/v1/askers``: who asked for a manifest lately."""

from pydantic import Field

from mirror.edge.api.operation import Asked, Told


class AskersQuery(Asked):
    """Of which manifest."""

    reference: str = Field(min_length=1, max_length=1024, description="By a tag or a digest, as an agent would use it.")


class AskerTold(Told):
    """A client that asked for it, as one program and one user of that address."""

    client: str = Field(description="Its address, as the access log says it.")
    agent: str | None = Field(description="Its User-Agent, the first 128 characters of it; null: it sent none.")
    user: str | None = Field(description="Who it was, where it had to say so.")
    count: int = Field(description="How often it asked.")
    first_at: float = Field(description="When it asked first, in seconds since the epoch.")
    last_at: float = Field(description="When it asked last.")


class AskersTold(Told):
    """Those that asked last, the latest of them first."""

    askers: list[AskerTold]
    total: int = Field(description="How many of them are known.")
