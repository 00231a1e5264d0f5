"""Operations on many references: a result for each, in the order given, and none stops at a bad one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Final

from pydantic import Field

from mirror.edge.api.operation import Asked, Told
from mirror.errors import MirrorError
from mirror.oci import Reference

MOST: Final = 10_000
"""References in one call."""

ReferenceTexts = Annotated[
    list[str],
    Field(
        min_length=1,
        max_length=MOST,
        description="References, with or without `oci://`: the upstream first, or one of this mirror's own names.",
    ),
]


class References(Asked):
    """What a call is about."""

    references: ReferenceTexts


class Result(Told):
    """What became of one reference."""

    reference: str = Field(description="As it was given.")
    result: str = Field(description="One word of those that the operation has.")
    digest: str | None = Field(None, description="Of the manifest.")
    bytes: int | None = Field(None, description="Bytes that were fetched, freed or taken in.")
    seconds: float | None = Field(None, description="How long it took.")
    why: str | None = Field(None, description="A sentence, where something went wrong.")
    replica: str | None = Field(None, description="The address of another replica that says so; null: this one.")


class Results(Told):
    """A result for each reference, in the order given."""

    results: list[Result]


async def results_of(
    texts: Sequence[str],
    parse: Callable[[str], Reference],
    act: Callable[[str, Reference], Awaitable[Result]],
    parallel: int = 8,
) -> Results:
    """What ``act`` makes of each reference, ``parallel`` of them at a time.

    What does not parse is ``invalid``, and where ``act`` raises `MirrorError` it ``failed``.
    """
    turns = asyncio.Semaphore(parallel)

    async def one(text: str) -> Result:
        try:
            reference = parse(text)
        except MirrorError as error:
            return Result(reference=text, result="invalid", why=error.message)
        async with turns:
            try:
                return await act(text, reference)
            except MirrorError as error:
                return Result(reference=text, result="failed", why=error.message)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(text)) for text in texts]
    return Results(results=[task.result() for task in tasks])
