"""What one of several workers purges, refreshes or scrubs is so for all of them at once."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.artifacts import publish, raw, wasm_module
from tests.support.process import MirrorProcess
from tests.support.rot import rot
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import wait_until
from tests.wasm.modules import plugin

pytestmark = pytest.mark.integration

NAME = "up/team/plugin"
SETTINGS = {"workers": 2, "defaults": {"fresh_for": "1h"}, "scrub": {"every": "0", "rate": "1GiB"}}
MANIFEST = "/v2/team/plugin/manifests/1"


def act(mirror: MirrorProcess, operation: str, *references: str) -> list[dict[str, Any]]:
    """The results; each call is a connection of its own, and so any worker's."""
    reply = httpx.post(f"{mirror.url}/api/v1/{operation}", json={"references": references})
    assert reply.status_code == 200, reply.text
    results: list[dict[str, Any]] = reply.json()["results"]
    return results


def served(mirror: MirrorProcess) -> set[bytes]:
    """What the workers give for the tag: many connections, so that each of them is asked."""
    return {httpx.get(f"{mirror.url}/v2/{NAME}/manifests/1").content for _ in range(16)}


def test_what_one_worker_purges_no_other_goes_on_with(tmp_path: Path) -> None:
    versions = [raw(wasm_module(3_000, seed=seed)) for seed in range(6)]
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}, SETTINGS) as mirror:
        for number, version in enumerate(versions):
            publish(up, "team/plugin", "1", version)
            asked = up.count(method="GET", path=MANIFEST)
            assert served(mirror) == {version.body}
            assert up.count(method="GET", path=MANIFEST) - asked == 1, "one question for all of them"
            digest = f"{NAME}@{version.digest}"
            assert act(mirror, "purge", f"{NAME}:1" if number % 2 else digest)[0]["result"] == "purged"
            up.delete("team/plugin", version.digest)
            for _ in range(8):
                reply = httpx.get(f"{mirror.url}/v2/{NAME}/manifests/{version.digest}")
                assert reply.status_code == 404, "not out of any worker's memory"


def test_what_one_worker_refreshes_all_serve(tmp_path: Path) -> None:
    versions = [raw(wasm_module(3_000, seed=seed)) for seed in range(10, 14)]
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}, SETTINGS) as mirror:
        publish(up, "team/plugin", "1", versions[0])
        assert served(mirror) == {versions[0].body}
        for version in versions[1:]:
            publish(up, "team/plugin", "1", version)
            (result,) = act(mirror, "refresh", f"{NAME}:1")
            assert (result["result"], result["digest"]) == ("moved", str(version.digest))
            assert served(mirror) == {version.body}


def test_any_worker_begins_a_scrub_and_any_tells_of_it_and_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    artifacts = [raw(wasm_module(300_000, seed=seed)) for seed in range(20, 26)]
    settings = {**SETTINGS, "scrub": {"every": "0", "rate": "100KiB"}}
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}, settings) as mirror:
        for number, artifact in enumerate(artifacts):
            publish(up, "team/plugin", f"{number}", artifact)
            assert httpx.get(f"{mirror.url}/v2/{NAME}/manifests/{number}").status_code == 200
            assert httpx.get(f"{mirror.url}/v2/{NAME}/blobs/{artifact.layers[0]}").status_code == 200

        def state() -> dict[str, Any]:
            told: dict[str, Any] = httpx.get(f"{mirror.url}/api/v1/scrub").json()
            return told

        blobs = mirror.data_dir / "blobs"

        def files() -> int:
            return sum(1 for file in blobs.rglob("*") if file.is_file())

        wait_until(lambda: files() == 2 * len(artifacts) + 1, what="all is held")
        last = max(artifact.layers[0] for artifact in artifacts)
        rot(blobs / "sha256" / last.hex[:2] / last.hex)
        assert state()["state"] == "idle"
        reply = httpx.post(f"{mirror.url}/api/v1/scrub")
        assert (reply.status_code, reply.json()["state"]) == (202, "running")
        assert all(state()["state"] == "running" for _ in range(8)), "whichever worker is asked"
        noted = mirror.data_dir / "scrubbed"
        wait_until(lambda: noted.exists() and b'"read": 0' not in noted.read_bytes(), what="some is read", timeout=30)
        mirror.stop()
        before = json.loads((mirror.data_dir / "scrubbed").read_bytes())
        assert not before["ended"]
        mirror.settings = {**mirror.settings, "scrub": {"every": "0", "rate": "1GiB"}}
        mirror.write_config()
        mirror.start()
        wait_until(lambda: state()["state"] == "idle" and state()["restored"] == 1, what="it has ended", timeout=30)
        done = state()
        assert done["began_at"] == before["began"]
        assert (done["damaged"], done["missing"], done["read"]) == ([str(last)], [], done["blobs"])


def test_what_one_worker_has_found_and_who_asked_it_all_tell(tmp_path: Path) -> None:
    artifact = raw(plugin())
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"up": up.url}, SETTINGS) as mirror:
        publish(up, "team/plugin", "1", artifact)
        for number in range(8):  # connections of their own, and so of any worker
            reply = httpx.get(f"{mirror.url}/v2/{NAME}/manifests/1", headers={"User-Agent": f"agent {number % 2}"})
            assert reply.status_code == 200

        def all_tell() -> bool:
            rows = [httpx.get(f"{mirror.url}/api/v1/modules").json()["modules"][0] for _ in range(8)]
            told = [httpx.get(f"{mirror.url}/api/v1/askers?reference={NAME}:1").json() for _ in range(8)]
            counts = [{one["agent"]: one["count"] for one in each["askers"]} for each in told]
            found = [(row["layout"], row["abi"], row["verdict"], row["why"]) for row in rows]
            return (
                found == [("oci raw", ["0.2.1"], "accepted", None)] * 8 and counts == [{"agent 0": 4, "agent 1": 4}] * 8
            )

        wait_until(all_tell, timeout=60, what="all workers tell what each has seen")
