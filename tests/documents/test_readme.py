"""What the README shows of a mirror is what one does, and what it says in passing is so."""

import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from mirror.config import load
from mirror.names import Names
from mirror.oci import RegistryPath, parse_path
from tests.documents.blocks import ROOT, all_blocks, block
from tests.documents.world import world

_NAME = "README.md"
_README = (ROOT / _NAME).read_text()
_PLUGIN = "istio-ecosystem/wasm-extensions/basic_auth"


def test_a_miss_and_a_hit_are_as_they_are_shown(tmp_path: Path) -> None:
    with world(tmp_path / "reader") as reader:
        reader.check(block(_NAME, "run: a miss and a hit"))
        assert reader.upstream.count(path="/manifests/") == 1


@pytest.mark.integration
def test_an_outage_is_as_it_is_shown(tmp_path: Path) -> None:
    with world(tmp_path / "reader", {"defaults": {"fresh_for": "0s"}}) as reader:
        reader.run(block(_NAME, "run: a miss and a hit"))
        reader.upstream.refuse()
        reader.check(block(_NAME, "run: an outage"))


@pytest.mark.integration
def test_the_plain_module_is_as_it_is_shown(tmp_path: Path) -> None:
    with world(tmp_path / "reader") as reader:
        reader.check(block(_NAME, "run: the plain module"))


def test_the_wasm_plugin_names_an_upstream_of_the_example() -> None:
    (text,) = [one.text for one in all_blocks() if one.page == _NAME and "kind: WasmPlugin" in one.text]
    url = yaml.safe_load(text)["spec"]["url"]
    match = re.fullmatch(r"oci://([^/]+)/(.+):([^:/]+)", url)
    assert match is not None
    place = Names(load(ROOT / "config" / "wasm-mirror.yaml", {}, {})).place(match[2], ns=None, host=match[1])
    assert (place.upstream, place.repository) == ("ghcr.io", _PLUGIN)


def test_all_ways_to_name_a_repository_name_the_same_one() -> None:
    names = Names(load(ROOT / "config" / "minimal.yaml", {}, {}))
    rows = re.findall(r"^\| .* \| `(/v2/\S+)`(?:, `Host: (\S+)`)? \|", _README, re.MULTILINE)
    assert len(rows) == 3
    found = set()
    for target, host in rows:
        parts = urlsplit(target)
        path: RegistryPath = parse_path(parts.path)
        place = names.place(path.name, ns=parse_qs(parts.query).get("ns", [None])[0], host=host or "127.0.0.1:8080")
        found.add((place.upstream, place.repository, path.tag))
    assert found == {("ghcr.io", "team/plugin", "1.0")}


def test_the_defaults_are_the_defaults() -> None:
    reference = (ROOT / "docs" / "configuration.md").read_text()
    rows = re.findall(r"^\| `([\w.]+)`<br>.*?\| [^|]* \| `([^`]+)` \|", reference, re.MULTILINE)
    defaults = {key.rpartition(".")[2]: default for key, default in rows}
    said = re.findall(r"`(\w+)` \((\d+\w+)[;)]", _README)
    assert len(said) >= 8
    assert [(key, value) for key, value in said if defaults.get(key) != value] == []
