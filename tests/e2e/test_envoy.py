"""The real Envoy gets its plugins from the mirror, as plain modules, and runs them."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.support.artifacts import Artifact, cncf, compat, docker, index, publish, raw, wasm_module
from tests.support.envoy import PASSED, EnvoyProcess, remote_code, wasm_filter
from tests.support.process import MirrorProcess
from tests.support.tools import require
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import wait_until

pytestmark = pytest.mark.needs("envoy")

MODULE = (Path(__file__).parents[2] / "demo" / "plugin" / "basic_auth.wasm").read_bytes()
SHA256 = hashlib.sha256(MODULE).hexdigest()
OTHER = hashlib.sha256(b"another module").hexdigest()
LAYOUTS = {"raw": raw, "compat": compat, "docker": docker, "cncf": cncf}
USER = ("user", "password")
OLD = {"defaults": {"fresh_for": "0s"}}


def address(mirror: MirrorProcess, tag: str = "v1") -> str:
    return f"{mirror.url}/modules/up/team/plugin:{tag}"


def envoy(folder: Path, url: str, sha256: str = SHA256, *, retries: int = 0) -> EnvoyProcess:
    """An Envoy that holds nothing yet, whose pages are for `USER`, by the plugin at ``url``."""
    code = remote_code(url, sha256, retries=retries)
    return EnvoyProcess(
        folder, [wasm_filter(code, root_id="basic_auth", configuration=f"/productpage {':'.join(USER)}")]
    )


def assert_protected(running: EnvoyProcess) -> None:
    refused = httpx.get(f"{running.url}/productpage")
    assert (refused.status_code, refused.headers["www-authenticate"][:5]) == (401, "Basic")
    assert httpx.get(f"{running.url}/productpage", auth=USER).text == PASSED
    assert httpx.get(f"{running.url}/").text == PASSED


def assert_denies_all(running: EnvoyProcess) -> None:
    for path in ("/productpage", "/"):
        assert httpx.get(f"{running.url}{path}", auth=USER).status_code >= 500


def fetched(running: EnvoyProcess) -> int:
    return running.stats("remote_load")["wasm.remote_load_fetch_successes"]


def asked(running: EnvoyProcess, counter: str) -> int:
    """What this counter says of the mirror; 0 where Envoy has no such counter yet, or does not answer yet."""
    try:
        return max(running.stats(rf"^cluster\..*\.{counter}$").values(), default=0)
    except httpx.TransportError:
        return 0


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_an_envoy_runs_the_module_of_each_layout_also_when_upstream_is_gone(
    tmp_path: Path, layout: Callable[[bytes], Artifact]
) -> None:
    with FaultyUpstream() as up, MirrorProcess(tmp_path / "mirror", {"up": up.url}, OLD) as mirror:
        publish(up, "team/plugin", "v1", layout(MODULE))
        with envoy(tmp_path / "first", address(mirror)) as first:
            assert_protected(first)
        up.refuse()
        mirror.restart()
        with envoy(tmp_path / "cold", address(mirror)) as cold:
            assert_protected(cold)
            assert fetched(cold) == 1


def test_an_envoy_runs_the_module_that_an_index_has_for_it(tmp_path: Path) -> None:
    artifact = index(compat(wasm_module()), raw(MODULE), platforms=("linux/arm64", "linux/amd64"))
    with FaultyUpstream() as up, MirrorProcess(tmp_path / "mirror", {"up": up.url}) as mirror:
        publish(up, "team/plugin", "v1", artifact)
        with envoy(tmp_path / "envoy", address(mirror)) as running:
            assert_protected(running)


def test_an_envoy_runs_no_module_with_another_sha256_and_is_told_so_where_it_asks_for_one(tmp_path: Path) -> None:
    with FaultyUpstream() as up, MirrorProcess(tmp_path / "mirror", {"up": up.url}) as mirror:
        publish(up, "team/plugin", "v1", raw(MODULE))
        url = address(mirror)
        with envoy(tmp_path / "plain", url, OTHER) as running:
            assert_denies_all(running)
            assert fetched(running) == 0
        with envoy(tmp_path / "asked", f"{url}?sha256={OTHER}", OTHER) as running:
            assert_denies_all(running)
            assert asked(running, "upstream_rq_409") == 1
        refused = httpx.get(url, params={"sha256": OTHER})
        assert refused.status_code == 409
        assert SHA256 in refused.text
        with envoy(tmp_path / "right", f"{url}?sha256={SHA256}") as running:
            assert_protected(running)


def test_an_envoy_that_starts_before_the_mirror_gets_its_module_from_it(tmp_path: Path) -> None:
    with FaultyUpstream() as up, MirrorProcess(tmp_path / "mirror", {"up": up.url}) as mirror:
        publish(up, "team/plugin", "v1", raw(MODULE))
        mirror.stop()
        with_retries = envoy(tmp_path / "envoy", address(mirror), retries=20)
        try:
            with_retries.start(wait=False)
            wait_until(lambda: asked(with_retries, "upstream_cx_connect_fail"), what="Envoy's first try")
            mirror.start()
            with_retries.wait_ready()
            assert_protected(with_retries)
        finally:
            with_retries.kill()
            with_retries.close()


@pytest.mark.needs("plugin-in-go")
def test_a_module_that_go_made_is_known_for_what_it_is_and_runs(tmp_path: Path) -> None:
    module = require("plugin-in-go").read_bytes()
    with FaultyUpstream() as up, MirrorProcess(tmp_path / "mirror", {"up": up.url}) as mirror:
        publish(up, "team/plugin", "v1", compat(module))
        url = address(mirror)
        info = json.loads(httpx.get(url, params={"info": ""}).raise_for_status().text)
        assert info["module"]["abi"] == ["0.2.1"]
        assert {"role": "language", "name": "Go"}.items() <= info["module"]["producers"][0].items()
        assert info["accepted_by"]["envoy"]["accepted"]
        assert info["module"]["lacking"] == {}
        code = remote_code(url, info["module"]["sha256"])
        with EnvoyProcess(tmp_path / "envoy", [wasm_filter(code)]) as running:
            answer = httpx.get(running.url)
            assert (answer.text, answer.headers["x-plugin"]) == (PASSED, "made with Go")
