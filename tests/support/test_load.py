"""The load tells what went wrong, and starts its pulls on time whatever becomes of those before."""

from collections.abc import Iterator

import pytest

from tests.support.artifacts import publish, raw, wasm_module
from tests.support.faults import Fault, Gate
from tests.support.load import Load, Want, fetch
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import wait_until

MODULE = wasm_module(300_000)
ARTIFACT = raw(MODULE)
LAYER = Want(f"/v2/team/plugin/blobs/{ARTIFACT.layers[0]}", MODULE)
MANIFEST = Want("/v2/team/plugin/manifests/v1", ARTIFACT.body)


@pytest.fixture
def up() -> Iterator[FaultyUpstream]:
    with FaultyUpstream() as server:
        publish(server, "team/plugin", "v1", ARTIFACT)
        yield server


def test_every_pull_asks_for_all_at_one_server_by_turns(up: FaultyUpstream) -> None:
    with FaultyUpstream() as other:
        publish(other, "team/plugin", "v1", ARTIFACT)
        with Load([up.url, other.url], [MANIFEST, LAYER], per_second=100) as load:
            load.go_on(10)
        assert not load.failures
        assert abs(up.count() - other.count()) <= 2
        assert up.count(path="/manifests/") == up.count(path="/blobs/")
        assert {outcome.digest for outcome in load.results} == {str(ARTIFACT.digest), str(ARTIFACT.layers[0])}


FAULTS = {
    "another status": Fault(status=503),
    "one bit": Fault(flip_at=-1),
    "cut": Fault(cut_after=1000),
    "shorter": Fault(truncate_to=299_999),
    "longer": Fault(pad_to=300_001),
    "no answer": Fault(drop=True),
}


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("want", [LAYER, Want(LAYER.path)], ids=["by body", "by digest"])
async def test_whatever_is_not_as_wanted_is_a_failure(up: FaultyUpstream, want: Want, kind: str) -> None:
    up.inject(FAULTS[kind])
    outcome = await fetch(up.url, want)
    assert not outcome.right
    assert outcome.error
    assert outcome.wrong == (kind in ("one bit", "shorter", "longer"))


async def test_what_refuses_connections_has_no_status(up: FaultyUpstream) -> None:
    up.refuse()
    outcome = await fetch(up.url, LAYER)
    assert (outcome.status, outcome.right, outcome.wrong) == (0, False, False)


async def test_a_body_that_is_what_its_digest_says_is_right(up: FaultyUpstream) -> None:
    assert (await fetch(up.url, Want(MANIFEST.path))).right


def test_a_stall_holds_up_no_pull_but_those_that_meet_it(up: FaultyUpstream) -> None:
    gate = Gate()
    with Load([up.url], [MANIFEST], per_second=100) as load:
        load.go_on(1)
        up.inject(Fault(hold=gate))
        wait_until(lambda: gate.arrived >= 20, what="pulls that start while others wait")
        gate.release()
        load.go_on(20)
    assert not load.failures
    assert load.slowest >= 0.15 - load.lateness
