"""The real Envoy runs the plugins that tests give it, and says what became of them."""

import hashlib
from pathlib import Path

import httpx
import pytest

from tests.support.envoy import PASSED, EnvoyProcess, local_code, remote_code, wasm_filter
from tests.support.ports import ReservedPort

pytestmark = pytest.mark.needs("envoy")

BASIC_AUTH = Path(__file__).parents[2] / "demo" / "plugin" / "basic_auth.wasm"


def test_requests_pass_where_no_plugin_says_no(tmp_path: Path) -> None:
    with EnvoyProcess(tmp_path) as envoy:
        assert httpx.get(f"{envoy.url}/any").text == PASSED


def test_a_plugin_in_a_file_runs_with_its_configuration(tmp_path: Path) -> None:
    plugin = wasm_filter(local_code(BASIC_AUTH), root_id="basic_auth", configuration="/productpage user:password")
    with EnvoyProcess(tmp_path, [plugin]) as envoy:
        assert httpx.get(f"{envoy.url}/productpage").status_code == 401
        assert httpx.get(f"{envoy.url}/productpage", auth=("user", "password")).text == PASSED
        assert httpx.get(f"{envoy.url}/index").text == PASSED
        assert envoy.stats("wasm_vm_count")["wasm.wasm_vm_count"] > 0


def test_an_envoy_that_cannot_fetch_its_plugin_is_ready_and_denies_all(tmp_path: Path) -> None:
    with ReservedPort() as dead:
        code = remote_code(f"http://127.0.0.1:{dead.number}/plugin.wasm", hashlib.sha256(b"").hexdigest(), retries=1)
        with EnvoyProcess(tmp_path, [wasm_filter(code)]) as envoy:
            assert httpx.get(envoy.url).status_code >= 500
            assert envoy.stats("remote_load_fetch")["wasm.remote_load_fetch_failures"] == 1
