"""A module that one replica has given out, another gives out without upstream."""

import hashlib
from pathlib import Path

import pytest

from tests.integration.client import get
from tests.support.artifacts import compat, publish, wasm_module
from tests.unit.test_wiring import NAME, town

pytestmark = pytest.mark.needs("redis-server")

MODULE = wasm_module(100_000, seed=3)


async def test_a_module_comes_from_another_replica_while_upstream_is_away(tmp_path: Path) -> None:
    with town(tmp_path) as here:
        publish(here.up, "team/plugin", "v3", compat(MODULE))
        async with here.two() as (first, second):
            path = f"/modules/{NAME}:v3?sha256={hashlib.sha256(MODULE).hexdigest()}"
            assert (await get(first, path)).body == MODULE
            here.up.refuse()
            assert (await get(second, path)).body == MODULE
