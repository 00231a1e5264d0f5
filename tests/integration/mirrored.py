"""An upstream and a mirror of it, both in this process."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support.running import running
from tests.support.upstream import FaultyUpstream


@asynccontextmanager
async def mirrored(folder: Path, **settings: object) -> AsyncIterator[tuple[FaultyUpstream, str]]:
    """A registry, and the URL of a mirror that calls it ``up``; ``settings`` are laid over the configuration."""
    with FaultyUpstream() as up:
        async with again(folder, up, **settings) as url:
            yield up, url


@asynccontextmanager
async def again(
    folder: Path, up: FaultyUpstream | str | Mapping[str, object], **settings: object
) -> AsyncIterator[str]:
    """A mirror with the data that an earlier one has left in ``folder``."""
    async with running(folder, {"up": up}, settings) as mirror:
        yield f"http://{mirror.host}"
