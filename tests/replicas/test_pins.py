"""A pin at one replica is a pin at all: on every disk, through outages, and the newest word counts."""

import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.replicas.test_hosted import town
from tests.support.artifacts import Artifact, publish, raw, wasm_module
from tests.support.process import MirrorProcess
from tests.support.pushing import Author
from tests.support.replicas import replicated
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.needs("redis-server")]

ONE, TWO, THREE = (raw(wasm_module(50_000, seed=number)) for number in range(30, 33))
NAME = "up/team/plugin"
WITHIN = 40.0
"""Seconds, generously: who cannot be told is asked every 10 s."""


def ask(mirror: MirrorProcess, method: str, path: str, body: object = None) -> Any:
    with httpx.Client(base_url=mirror.url, trust_env=False, timeout=30) as client:
        reply = client.request(method, f"/api/v1/pins{path}", json=body)
        assert reply.status_code == 200, reply.text
        return reply.json()


def pin(mirror: MirrorProcess, *references: str) -> list[str]:
    return [one["result"] for one in ask(mirror, "POST", "", {"references": references})["results"]]


def unpin(mirror: MirrorProcess, reference: str) -> None:
    ask(mirror, "DELETE", f"/{quote(reference)}")


def pins(mirror: MirrorProcess) -> dict[str, list[str]]:
    return {one["reference"]: one["digests"] for one in ask(mirror, "GET", "")["pins"]}


def pull(mirror: MirrorProcess, tag: str) -> int:
    with httpx.Client(base_url=mirror.url, trust_env=False, timeout=30) as client:
        return client.get(f"/v2/{NAME}/manifests/{tag}").status_code


def digests(*artifacts: Artifact) -> list[str]:
    return [str(one.digest) for one in artifacts]


def has(mirror: MirrorProcess, one: Artifact) -> bool:
    """Whether all of it lies on the disk of a replica."""
    wanted = (one.digest, *one.blobs)
    return all(
        (mirror.data_dir / "blobs" / digest.algorithm / digest.hex[:2] / digest.hex).exists() for digest in wanted
    )


def until_everywhere(replicas: Iterable[MirrorProcess], *artifacts: Artifact) -> None:
    for mirror in replicas:
        for one in artifacts:
            wait_until(partial(has, mirror, one), timeout=WITHIN, what=f"{one.digest} is on the disk of {mirror.url}")


def until_all_say(replicas: Iterable[MirrorProcess], wanted: dict[str, list[str]]) -> None:
    for mirror in replicas:

        def says(mirror: MirrorProcess = mirror) -> bool:
            return pins(mirror) == wanted

        wait_until(says, timeout=WITHIN, what=f"{mirror.url} knows {wanted}")


def test_a_pin_at_one_replica_is_on_every_disk_and_follows_its_tag_there(tmp_path: Path) -> None:
    settings = {"defaults": {"fresh_for": "0s"}, "workers": 2}
    with replicated(tmp_path, settings=settings) as (up, _, replicas):
        publish(up, "team/plugin", "v1", ONE)
        assert pin(replicas[0], f"{NAME}:v1") == ["pinned"]
        until_everywhere(replicas, ONE)
        until_all_say(replicas, {f"{NAME}:v1": digests(ONE)})
        publish(up, "team/plugin", "v1", TWO)
        assert pull(replicas[1], "v1") == 200
        until_everywhere(replicas, TWO)
        until_all_say(replicas, {f"{NAME}:v1": digests(TWO, ONE)})
        assert pin(replicas[2], f"{NAME}:v1") == ["already"]
        unpin(replicas[2], f"{NAME}:v1")
        until_all_say(replicas, {})


async def test_what_is_hosted_and_pinned_lies_on_every_disk(tmp_path: Path) -> None:
    async with town(tmp_path, 3, hosted={"replicas": 1}) as here:
        one, other, _ = here.replicas
        await Author(one).push(ONE, "v1")
        body = json.dumps({"references": ["hosted/team/plugin:v1"]}).encode()
        reply = await other.ask("POST", "/api/v1/pins", {"content-type": "application/json"}, body)
        assert reply.json["results"][0]["result"] == "pinned"
        for mirror in here.replicas:
            for digest in (ONE.digest, *ONE.blobs):
                await mirror.until_held(digest)


@pytest.mark.shows("something is pinned while Redis is away")
def test_pins_wait_for_no_redis_and_nothing_of_it_is_lost(tmp_path: Path) -> None:
    """One replica is away, too; it hears of all of it when it is back, and so does one with a new disk."""
    with replicated(tmp_path) as (up, redis, replicas):
        for number, one in enumerate((ONE, TWO, THREE), 1):
            publish(up, "team/plugin", f"v{number}", one)
        assert pin(replicas[0], f"{NAME}:v1", f"{NAME}:v3") == ["pinned", "pinned"]
        until_everywhere(replicas, ONE, THREE)
        replicas[2].kill()
        replicas.wipe(replicas[2])
        two = [replicas[0], replicas[1]]
        redis.pause()
        assert pin(replicas[0], f"{NAME}:v2") == ["pinned"]
        unpin(replicas[1], f"{NAME}:v1")
        wanted = {f"{NAME}:v2": digests(TWO), f"{NAME}:v3": digests(THREE)}
        until_all_say(two, wanted)
        until_everywhere(two, TWO)
        redis.resume()
        up.refuse()
        replicas.start(replicas[2])
        until_all_say(replicas, wanted)
        until_everywhere(replicas, TWO, THREE)


def test_of_a_pin_and_an_unpin_the_newest_wins_and_no_kill_loses_either(tmp_path: Path) -> None:
    """Two that do not know of one another change the same; all are killed in between, so each has but its own word."""
    with replicated(tmp_path) as (up, _, replicas):
        one, other, third = replicas
        for number, artifact in enumerate((ONE, TWO), 1):
            publish(up, "team/plugin", f"v{number}", artifact)
        pin(one, f"{NAME}:v1", f"{NAME}:v2")
        until_all_say(replicas, {f"{NAME}:v1": digests(ONE), f"{NAME}:v2": digests(TWO)})
        for mirror in replicas:
            mirror.kill()
        one.start()
        unpin(one, f"{NAME}:v1")
        unpin(one, f"{NAME}:v2")
        one.kill()
        other.start()
        unpin(other, f"{NAME}:v2")
        assert pin(other, f"{NAME}:v2") == ["pinned"]
        other.kill()
        replicas.start(one, other, third)
        until_all_say(replicas, {f"{NAME}:v2": digests(TWO)})
