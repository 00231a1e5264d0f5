"""Every YAML block of the documents is what it looks like: settings, values of the chart, objects, or another's."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from mirror.config import ConfigurationError, load
from mirror.references import collect
from tests.documents.blocks import ROOT, Block, of_languages

_SCHEMA = json.loads((ROOT / "charts" / "wasm-mirror" / "values.schema.json").read_text())

# What belongs to others, by a key that it has at its top.
_OTHERS = {
    "scrape_configs": "Prometheus",
    "services": "Compose",
    "typed_config": "Envoy",
    "apiGroups": "the rules of a role",
}
# Kinds that name modules.
_NAMING = ("WasmPlugin", "EnvoyFilter", "EnvoyExtensionPolicy")


def documents(block: Block) -> list[Any]:
    """The documents in a block."""
    try:
        return list(yaml.safe_load_all(block.text))
    except yaml.YAMLError as error:
        raise AssertionError(f"{block}: {error}") from None


def kind(block: Block, document: object) -> str:
    """What a document is: ``object``, ``values``, ``settings``, or whose it is."""
    assert isinstance(document, dict), f"{block}: it is no mapping"
    if "kind" in document and "apiVersion" in document:
        return "object"
    for key, whose in _OTHERS.items():
        if key in document or (document.keys() == {"rules"} and key in document["rules"][0]):
            return whose
    return "values" if block.marker.startswith("values") or block.page.startswith("charts/") else "settings"


def of_kind(wanted: str) -> list[tuple[Block, Any]]:
    """All documents of a kind, each with its block."""
    found = [(block, document) for block in of_languages("yaml") for document in documents(block)]
    return [(block, document) for block, document in found if kind(block, document) == wanted]


def test_all_settings_that_are_shown_are_valid(tmp_path: Path) -> None:
    shown = of_kind("settings")
    assert len(shown) >= 8
    for number, (block, document) in enumerate(shown):
        file = tmp_path / f"{number}.yaml"
        file.write_text(yaml.safe_dump(_with_what_they_name(document)))
        try:
            settings = load(file, {}, {})
        except ConfigurationError as error:
            raise AssertionError(f"{block}: {error}") from None
        assert set(document.get("upstreams", {})) <= set(settings.upstreams), block


def _with_what_they_name(document: Mapping[str, Any]) -> dict[str, Any]:
    """Settings together with the upstreams that a part of them takes for granted."""
    taken = {"ghcr.io": {}, "corp": {"endpoints": ["https://registry.corp.example:5000"]}}
    return {**document, "upstreams": document.get("upstreams") or taken}


def test_all_values_that_are_shown_are_known_to_the_chart() -> None:
    for block, document in of_kind("values"):
        try:
            jsonschema.validate(document, _SCHEMA)
        except jsonschema.ValidationError as error:
            raise AssertionError(f"{block}: {error.json_path}: {error.message}") from None


def test_all_objects_that_are_shown_have_names_and_what_they_name_is_found(tmp_path: Path) -> None:
    shown = of_kind("object")
    assert len(shown) >= 5
    for number, (block, document) in enumerate(shown):
        assert document["metadata"]["name"], block
        file = tmp_path / f"{number}.yaml"
        file.write_text(yaml.safe_dump(document))
        found = collect([file], [])
        assert not found.problems, f"{block}: {found.problems}"
        named = [one for one in found.references if "$" not in one.text]
        assert named or document["kind"] not in _NAMING or "http://" in block.text, block


@pytest.mark.parametrize("whose", ["Prometheus", "Envoy", "the rules of a role"])
def test_what_belongs_to_others_is_shown(whose: str) -> None:
    """So that the list above names nothing that is gone; tests of the pages say that it is right."""
    assert of_kind(whose)
