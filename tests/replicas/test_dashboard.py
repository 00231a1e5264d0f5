"""A dashboard that is open while its replica's others, or their Redis, come and go."""

from pathlib import Path

import pytest

from tests.support.listening import Fits, all_heard, heard, listening
from tests.support.process import MirrorProcess
from tests.support.replicas import replicated

pytestmark = [pytest.mark.needs("redis-server"), pytest.mark.integration]


def address_of(mirror: MirrorProcess) -> tuple[str, int]:
    host, _, port = mirror.host.rpartition(":")
    return host, int(port)


async def test_it_tells_who_else_is_there_and_whether_redis_answers(tmp_path: Path) -> None:
    with replicated(tmp_path, n=2) as (_, redis, replicas):
        one, other = replicas[0], replicas[1]
        async with listening(address_of(one)) as said:
            first: dict[str, Fits] = {
                "overview": lambda told: bool(told["metadata"] == {"store": "redis", "up": True}),
                "replicas": lambda told: [member["address"] for member in told["others"]] == [other.url],
            }
            told = await all_heard(said, first)
            assert told["overview"]["own"] == told["replicas"]["own"] == one.url
            assert other.stop() == 0
            await heard(said, "replicas", lambda told: told["others"] == [])
            redis.kill()
            await heard(said, "overview", lambda told: not told["metadata"]["up"])
