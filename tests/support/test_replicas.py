"""Replicas start together, and the tests know which of them is which."""

from pathlib import Path

import httpx
import pytest

from mirror.digest import Digest
from mirror.shared import keys
from tests.support.replicas import replicated

pytestmark = [pytest.mark.integration, pytest.mark.needs("redis-server")]


def test_replicas_know_of_one_another_before_a_test_begins(tmp_path: Path) -> None:
    blob = Digest.of(b"a blob")
    with replicated(tmp_path, own={1: {"workers": 2}}) as (_, redis, replicas):
        first, second, third = replicas
        assert {httpx.get(f"{url}/readyz").status_code for url in replicas.urls} == {200}
        assert replicas.other_than(second) == [first, third]
        with redis.client() as client:
            members = client.hvals(keys.members())
            assert sorted(value.split(" ")[2] for value in members) == sorted([*replicas.urls, second.url])
            client.set(keys.fill_lease(blob), f"token {third.url}")
        assert replicas.holder_of(blob) is third
        assert replicas.holder_of(Digest.of(b"another")) is None
        second.kill()
        replicas.wipe(second)
        replicas.start(second)
        replicas.pause(third)  # and is stopped all the same
