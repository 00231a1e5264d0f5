"""What is pushed through one replica is what all serve from then on."""

from functools import partial
from pathlib import Path

import pytest

from tests.replicas.agreement import disagreements, given
from tests.support.artifacts import raw, wasm_module
from tests.support.load import Load, Want
from tests.support.pushing import At, Author
from tests.support.replicas import replicated
from tests.support.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.needs("redis-server")]

NAME = "up/team/plugin"
TAG = Want(f"/v2/{NAME}/manifests/v1")
VERSIONS = [raw(wasm_module(2000 + number, seed=number)) for number in range(8)]
DIGESTS = [str(version.digest) for version in VERSIONS]
SETTINGS = {
    "defaults": {"fresh_for": "1h"},
    "upstreams": {"up": {"push": "through", "credentials": {"username": "robot", "password": "secret"}}},
}


def was_given(load: Load, digest: str) -> bool:
    return any(given(outcome) == digest for outcome in load.results)


async def test_what_is_deleted_through_one_replica_is_given_out_by_none(tmp_path: Path) -> None:
    """Until it is pushed again, through whichever."""
    version = VERSIONS[0]
    with replicated(tmp_path, settings=SETTINGS) as (up, _, replicas):
        up.take_pushes()
        authors = [Author(At(url), NAME) for url in replicas.urls]
        layer = version.layers[0]
        for author in (*authors, *authors):
            assert (await author.push(version, "v1")).status == 201
            for other in authors:
                assert (await other.ask("GET", f"manifests/{version.digest}")).body == version.body
                assert (await other.ask("GET", f"blobs/{layer}")).status == 200
            assert (await author.ask("DELETE", f"manifests/{version.digest}")).status == 202
            assert (await author.ask("DELETE", f"blobs/{layer}")).status == 202
            for other in authors:
                assert (await other.ask("GET", f"manifests/{version.digest}")).status == 404
                assert (await other.ask("GET", f"blobs/{layer}")).status == 404


async def test_a_tag_that_is_pushed_through_one_replica_is_served_by_all_at_once(tmp_path: Path) -> None:
    with replicated(tmp_path, settings=SETTINGS) as (up, _, replicas):
        up.take_pushes()
        authors = [Author(At(url), NAME) for url in replicas.urls]
        assert (await authors[0].push(VERSIONS[0], "v1")).status == 201
        with Load(replicas.urls, [TAG], per_second=100) as load:
            await eventually(partial(was_given, load, DIGESTS[0]))
            for number, version in enumerate(VERSIONS[1:]):
                author = authors[number % len(authors)]
                assert (await author.push(version, "v1")).status == 201
                for other in authors:
                    assert (await other.ask("GET", "manifests/v1")).body == version.body
            load.go_on(30)
        assert disagreements(load.results, DIGESTS) == []
        assert up.count(method="GET", path="/manifests/v1") == 0
