"""Somebody writes what he likes into the Redis of three replicas: what is held is served all the same, and rightly."""

import asyncio
import contextlib
import random
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.artifacts import compat, publish, wasm_module
from tests.support.load import Want, fetch
from tests.support.replicas import replicated

pytestmark = [pytest.mark.integration, pytest.mark.needs("redis-server")]

SEED = 20261121
ROUNDS = 25
SLOWEST = 3.0  # seconds
HELD = compat(wasm_module(50_000))
LAYER = HELD.layers[0]
PULL = [
    Want("/v2/up/team/plugin/manifests/v1", HELD.body),
    Want(f"/v2/up/team/plugin/blobs/{LAYER}", HELD.blobs[LAYER]),
]
FIELDS = [b"v", b"serial", b"fetched_at", b"media_type", b"size", b"junk"]
JUNK: list[Any] = [
    b"", b"\xff\xfe", b"x", b"nan", b"inf", b"-1", b"9" * 400, b"9" * 5000, b"a b c", b"a\r\nb: c", b"x" * 1_000_000,
    b"http://169.254.169.254 x", b"token http://127.0.0.1:1 x", b"99999999999999 0 http://127.0.0.1:1",
]  # fmt: skip


def poison(raw: "redis.Redis", choice: random.Random) -> None:
    """Replace, or change, half of what stands there; nothing of it ever ends."""
    for key in list(raw.scan_iter("wm1:*")):
        if choice.random() < 0.5:
            continue
        name, value = (
            choice.choice([b"v", b"serial", b"fetched_at", b"media_type", b"size", b"junk"]),
            choice.choice(JUNK),
        )
        kind = choice.randrange(6)
        with contextlib.suppress(redis.ResponseError):  # a replica has written there in between
            if kind:
                raw.delete(key)
            match kind:
                case 0 | 1:
                    raw.hset(key, mapping={name: value, value: name})
                    raw.persist(key)
                case 2:
                    raw.set(key, value)
                case 3:
                    raw.rpush(key, value)
                case 4:
                    raw.zadd(key, {value: float("inf"), b"http://127.0.0.1:1": 1e18})
                case 5:
                    raw.sadd(key, value)


def test_no_pull_of_what_is_held_fails_whatever_stands_in_redis(tmp_path: Path) -> None:
    choice = random.Random(SEED)
    settings = {"defaults": {"fresh_for": "100ms"}}
    with replicated(tmp_path, settings=settings) as (up, server, replicas):
        publish(up, "team/plugin", "v1", HELD)
        for url in replicas.urls:
            for want in PULL:
                assert asyncio.run(fetch(url, want)).right

        async def pull_all() -> list[Any]:
            return await asyncio.gather(*(fetch(url, want) for url in replicas.urls for want in PULL))

        with server.client() as raw:
            for number in range(ROUNDS):
                poison(raw, choice)
                told = asyncio.run(pull_all())
                assert all(one.right for one in told), (SEED, number, told)
                assert max(one.ended - one.began for one in told) < SLOWEST, (SEED, number, told)
        for mirror in replicas:
            assert "Traceback" not in mirror.log_text()
