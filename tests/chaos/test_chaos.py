"""A short form of the chaos that ``make chaos`` brings about for minutes."""

import os
import random
from pathlib import Path

import pytest

from tests.chaos.story import Log, told


@pytest.mark.integration
@pytest.mark.timeout(240)
@pytest.mark.needs("redis-server")
@pytest.mark.shows("everything of this at once, at random")
async def test_after_chaos_no_wrong_byte_was_delivered_nothing_is_locked_and_all_can_be_pulled(tmp_path: Path) -> None:
    seed = int(os.environ.get("WASM_MIRROR_TEST_SEED") or random.randrange(2**32))
    print(f"WASM_MIRROR_TEST_SEED={seed}")
    print(await told(tmp_path, seed=seed, seconds=20, log=Log(watched=True)))
