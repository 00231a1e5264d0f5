"""What ``docs/agents.md`` tells the operators of agents: its examples name what the mirror has, its errors are real."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

import mirror.errors
from mirror.config import load
from mirror.names import Names
from mirror.oci import parse_reference
from tests.documents.blocks import ROOT, all_blocks
from tests.e2e.agent_errors import READ, SCENES
from tests.test_failures_page import tables

_PAGE = (ROOT / "docs" / "agents.md").read_text()
_EXAMPLES = [one.text for one in all_blocks() if (one.page, one.language) == ("docs/agents.md", "yaml")]
_HOST = "wasm-mirror.istio-system:8080"
_URL = re.compile(rf"(?:oci://|http://|\b){re.escape(_HOST)}/[^\s`]+")
_ERRORS = "What an agent's error means"


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Names:
    """The mirror of the page."""
    file = tmp_path_factory.mktemp("agents") / "config.yaml"
    file.write_text('upstreams: {ghcr.io: {}, corp: {endpoints: ["https://registry.corp.example:5000"]}}')
    return Names(load(file, {}, {}))


def place(names: Names, url: str) -> str:
    """Where a URL leads, as an upstream and a repository."""
    parts = urlsplit(url if "://" in url else f"oci://{url}")
    named = parse_reference(parts.path.removeprefix("/").removeprefix("modules/").removesuffix(".wasm"))
    found = names.place(named.name, ns=None, host=parts.netloc)
    return f"{found.upstream}/{found.repository}"


def test_every_url_in_the_page_leads_to_an_upstream(names: Names) -> None:
    found = [url for url in _URL.findall(_PAGE) if "…" not in url]
    assert len(found) >= 6
    assert {place(names, url) for url in found} == {
        "ghcr.io/istio-ecosystem/wasm-extensions/basic_auth",
        "corp/team/filter",
    }


def test_modules_are_asked_for_over_http_and_artifacts_as_images() -> None:
    for url in _URL.findall(_PAGE):
        assert url.startswith(f"http://{_HOST}/modules/") == url.startswith("http://"), url


def test_every_example_is_one_object_of_a_kind_that_is_explained() -> None:
    objects = [one for one in map(yaml.safe_load, _EXAMPLES) if "upstreams" not in one]
    kinds = [one.get("kind", one.get("name")) for one in objects]
    assert kinds == [
        *("WasmPlugin", "Pod", "WasmPlugin", "EnvoyFilter", "envoy.filters.http.wasm", "EnvoyExtensionPolicy"),
    ]


def test_the_settings_in_the_page_are_valid(tmp_path: Path) -> None:
    (text,) = [text for text in _EXAMPLES if "upstreams:" in text]
    (tmp_path / "config.yaml").write_text(text)
    settings = load(tmp_path / "config.yaml", {}, {})
    assert settings.wasm.repackage == "agents"
    assert f"filter:1.2.0{settings.wasm.repackage_suffix}" in _PAGE


def test_what_the_agent_puts_in_the_place_of_a_plugin_is_a_type_that_the_envoy_filter_allows() -> None:
    (example,) = [yaml.safe_load(text) for text in _EXAMPLES if "kind: EnvoyFilter" in text]
    listener, extension = (patch["patch"]["value"] for patch in example["spec"]["configPatches"])
    assert listener["name"] == extension["name"]
    types = listener["config_discovery"]["type_urls"]
    assert extension["typed_config"]["type_url"] in types
    assert "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC" in types


def test_every_error_that_is_explained_is_one_that_an_agent_gives() -> None:
    """`tests/e2e/test_agent_errors.py` has the agent's own code say each of them."""
    (table,) = [table for heading, table in tables(_PAGE).items() if heading == _ERRORS]
    explained = [row[0].strip("`") for row in table[1:] if not row[0].startswith("---")]
    assert sorted(explained) == sorted({*SCENES, *READ})
    assert all(len(row) == 3 and all(row) for row in table)


def test_every_code_in_capitals_is_one_of_the_mirrors() -> None:
    codes = {one.code for one in vars(mirror.errors).values() if isinstance(one, type) and hasattr(one, "code")}
    named = set(re.findall(r"^\| `([A-Z]+(?:_[A-Z]+)*)` \|", _PAGE, re.MULTILINE))
    assert len(named) >= 6
    assert named <= codes


def test_the_defaults_in_the_page_are_the_defaults() -> None:
    reference = (ROOT / "docs" / "configuration.md").read_text()
    rows = re.findall(r"^\| `([\w.]+)`<br>.*?\| [^|]* \| `([^`]+)` \|", reference, re.MULTILINE)
    defaults = {key.rpartition(".")[2]: default for key, default in rows}
    said = re.findall(r"`(\w+)` \((\d+s)\)", _PAGE)
    assert said
    assert [(key, value) for key, value in said if defaults.get(key) != value] == []
