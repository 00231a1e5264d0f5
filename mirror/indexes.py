"""The way from an index to the image that is taken of it. An index may lead to another one, and agents follow."""

from collections.abc import Awaitable, Callable

from mirror.oci import INDEXES, Descriptor, Manifest
from mirror.wasm.artifact import for_agents

MAX_DEPTH = 4
"""Indexes that are followed one to another, at most. Agents know no limit; there is no reason for a second one."""


async def way_from(
    named: Manifest,
    obtain: Callable[[Descriptor], Awaitable[Manifest]],
    choose: Callable[[Manifest], Descriptor | None] = for_agents,
) -> tuple[Manifest, ...]:
    """``named``, and what indexes lead to from it, each obtained by what the one before says of it.

    The last is the image; or else an index of which ``choose`` takes no child, or that `leads_too_far`.
    """
    way = [named]
    while len(way) <= MAX_DEPTH and way[-1].media_type in INDEXES and (child := choose(way[-1])) is not None:
        way.append(await obtain(child))
    return tuple(way)


def leads_too_far(way: tuple[Manifest, ...]) -> bool:
    """Whether a way ends at an index only because indexes are followed no further."""
    return len(way) > MAX_DEPTH and way[-1].media_type in INDEXES
