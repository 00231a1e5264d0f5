"""The filter that ``docs/agents.md`` has for an Envoy without an agent makes a real Envoy run the module."""

import hashlib
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import yaml

from tests.documents.blocks import of_languages
from tests.support.artifacts import compat, publish
from tests.support.envoy import PASSED, EnvoyProcess
from tests.support.process import MirrorProcess
from tests.support.upstream import FaultyUpstream

_ROOT = Path(__file__).parents[2]
_MODULE = (_ROOT / "demo" / "plugin" / "basic_auth.wasm").read_bytes()


@pytest.mark.needs("envoy")
def test_an_envoy_runs_what_the_page_configures(tmp_path: Path) -> None:
    shown = [one.text for one in of_languages("yaml") if one.page == "docs/agents.md"]
    (example,) = [text for text in shown if text.startswith("name: envoy.filters.http.wasm")]
    wasm = yaml.safe_load(example)
    config = wasm["typed_config"]["config"]
    remote = config["vm_config"]["code"]["remote"]
    uri = urlsplit(remote["http_uri"]["uri"])
    upstream, _, rest = uri.path.removeprefix("/modules/").partition("/")
    repository, _, tag = rest.rpartition(":")
    with FaultyUpstream() as up, MirrorProcess(tmp_path / "mirror", {upstream: up.url}) as mirror:
        publish(up, repository, tag, compat(_MODULE))
        remote["http_uri"] |= {"uri": f"{mirror.url}{uri.path}", "cluster": mirror.host}
        remote["sha256"] = hashlib.sha256(_MODULE).hexdigest()
        config["configuration"]["value"] = "/productpage user:password"  # as our own plugin has it
        config["root_id"] = "basic_auth"
        with EnvoyProcess(tmp_path / "envoy", [wasm]) as envoy:
            assert httpx.get(f"{envoy.url}/productpage").status_code == 401
            assert httpx.get(f"{envoy.url}/productpage", auth=("user", "password")).text == PASSED
