"""Replicas are restarted one after another, as an upgrade does it, while agents pull through a Service."""

import contextlib
import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.programs import Agent, agent
from tests.support.artifacts import publish, raw, wasm_module
from tests.support.balancer import Balancer
from tests.support.replicas import replicated
from tests.support.tools import require
from tests.support.waiting import wait_until

pytestmark = pytest.mark.needs("agent", "redis-server")

MODULE = wasm_module(50_000)
SHA256 = hashlib.sha256(MODULE).hexdigest()
PER_SECOND = 50.0
FOLLOWS = 2.0  # seconds until a Service knows of a change


@pytest.mark.shows("a replica stops (SIGTERM), or replicas are restarted one after another")
def test_a_rolling_restart_fails_no_pull_of_the_agents_own_code(tmp_path: Path) -> None:
    with replicated(tmp_path, settings={"drain_for": "5s"}) as (up, _, replicas):
        publish(up, "team/plugin", "v1", raw(MODULE))
        with Balancer([mirror.host for mirror in replicas], follows=FOLLOWS) as balancer:
            url = f"oci://{balancer.host}/up/team/plugin:v1"
            assert agent(url).sha256 == SHA256
            with steadily(url, tmp_path / "pulls") as pulls:
                for mirror in replicas:
                    assert mirror.stop() == 0
                    wait_until(lambda: len(balancer.targets) == 2, what="the balancer's notice of the end")
                    replicas.start(mirror)
                    wait_until(lambda: len(balancer.targets) == 3, what="the balancer's notice of the start")
            assert [pull for pull in pulls if not pull.ok] == []
            assert {pull.sha256 for pull in pulls} == {SHA256}
            assert len(pulls) > 15 * PER_SECOND, "there was a load all the while"
            assert balancer.turned_away == 0
            assert min(balancer.passed[mirror.host] for mirror in replicas) > 100


@contextlib.contextmanager
def steadily(url: str, output: Path) -> Iterator[list[Agent]]:
    """So many agents pull each second, until the end of the ``with`` statement; then what they got is in the list."""
    got: list[Agent] = []
    command = [str(require("agent")), "-url", url, "-per-second", str(PER_SECOND)]
    with (
        output.open("wb") as file,
        output.with_suffix(".log").open("wb") as log,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file, stderr=log) as program,
    ):
        try:
            yield got
            program.communicate(timeout=60)  # which ends its standard input
        except BaseException:
            program.kill()
            raise
    assert program.returncode == 0
    for line in output.read_text().splitlines():
        one = json.loads(line)
        got.append(Agent(one["ok"], one["error"], one["seconds"], one["sha256"]))
