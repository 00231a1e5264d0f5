"""The schema of the chart's values: Helm refuses with it what the chart does not know."""

import json
from collections.abc import Iterable

from charts.kinds import Schema, mapping
from charts.values import Value


def document(values: Iterable[Value]) -> str:
    """``values.schema.json``: draft 7, the newest that all Helm 3 read."""
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the chart wasm-mirror"}
    return json.dumps(schema | _mapping(values), indent=2) + "\n"


def _mapping(values: Iterable[Value]) -> Schema:
    return mapping({value.name: _one(value) for value in values})


def _one(value: Value) -> Schema:
    schema = _mapping(value.children) if value.children else value.schema
    return ({"description": value.about} if value.about else {}) | schema
