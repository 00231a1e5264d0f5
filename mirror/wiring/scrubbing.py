"""Who reads the disk again, and has what has rotted on it."""

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

from mirror.around import run_within
from mirror.mending import Mending
from mirror.scrubbing import Scrubber
from mirror.soundness import Pace, Soundness
from mirror.store.generation import Generation
from mirror.store.leases import Leases
from mirror.wiring.answering import Pulls
from mirror.wiring.ground import Ground


def scrub_within(stack: contextlib.AsyncExitStack, ground: Ground, pulls: Pulls) -> Scrubber:
    """Scrub the disk until ``stack`` ends, as often as the settings say, and when somebody wants it."""
    settings = ground.settings.scrub
    clock = asyncio.get_running_loop().time
    threads = ThreadPoolExecutor(1, thread_name_prefix="scrub")
    stack.callback(threads.shutdown)
    mending = Mending(
        ground.store,
        ground.local,
        ground.upstreams,
        pulls.fills,
        pulls.pull,
        ground.catalogue,
        pulls.together,
        pulls.memories,
    )
    wanted = Generation(ground.directory.scrub_wanted, "that the disk is to be read now")
    stack.callback(wanted.close)
    scrubber = Scrubber(
        ground.directory,
        ground.store,
        Soundness(ground.directory, ground.local, threads, Pace(settings.rate, clock)),
        Leases(ground.directory.leases),
        mending,
        ground.metrics,
        threads,
        settings.every,
        wanted,
        lambda: ground.census.take().blobs,
        clock,
        time.time,
    )
    run_within(stack, scrubber.run())
    return scrubber
