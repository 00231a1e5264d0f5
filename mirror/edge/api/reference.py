"""``docs/api.md``, from the operations. ``python -m mirror.edge.api.reference`` prints it; a test holds it true."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Sequence
from typing import Any

from mirror.edge import api
from mirror.edge.api.openapi import described, document
from mirror.edge.api.operation import Operation


def all_operations() -> list[Operation]:
    """The operations of any mirror, to be described: there is none behind these, and their handlers cannot be called.

    So what ``operations`` of an area gives may not depend on what it is given. An area is a file of this folder that
    has such a function.
    """
    found: list[Operation] = []
    for file in pkgutil.iter_modules(api.__path__, f"{api.__name__}."):
        if file.name != __name__ and (make := getattr(importlib.import_module(file.name), "operations", None)):
            found += make(*(None for _ in inspect.signature(make).parameters))
    return [*found, described(found)]


def page() -> str:
    """The whole page."""
    return "\n".join(_lines(document(all_operations()))) + "\n"


_INTRODUCTION = """\
# The admin API

<!-- Made by `python -m mirror.edge.api.reference > docs/api.md` from the operations; a test compares them. -->

Under `/api/v1/`, as JSON. The same is in an OpenAPI document, `/api/v1/openapi.json`, out of which clients can be
generated.

**Who may.** With `admin.token_file` in the settings, who brings `Authorization: Bearer <token>`. Without it, programs
on the mirror's own machine, while the port that the API is on listens on a loopback address: the request must be for
such an address by its `Host`, and it must not come from a web page of another site (`Origin`, `Sec-Fetch-Site`). With
`admin.listen` the API has a port of its own, together with `/metrics` and the dashboard.

**What every answer has in common.** `Cache-Control: no-store`. An error is
`{"errors": [{"code", "message", "detail"}]}`, as everywhere, and its message says what to do; a query or a body that is
not what it may be is `REQUEST_INVALID`, whose message names every field that is wrong. Where there is GET, there is
HEAD. Every other method is a change, and the mirror's log has a line for each: who, what, and what became of it.

**References** are what an agent would use, with or without `oci://`: the upstream first, or one of the mirror's own
`names` before it, `ghcr.io/istio-ecosystem/wasm-extensions/basic_auth:1.12.0`. An operation on many takes 10,000 at
most in a body of 1 MiB at most, and answers 200 with a result for each, in the order given; none stops at a bad one.
"""


def _lines(of: dict[str, Any]) -> Iterator[str]:
    yield _INTRODUCTION
    yield "| operation | does |"
    yield "|---|---|"
    for path, method, one in _each(of):
        anchor = f"{method}-{path}".lower()
        yield f"| [`{method} {path.removeprefix('/')}`](#{_anchor(anchor)}) | {one['summary']} |"
    for path, method, one in _each(of):
        yield ""
        yield f"## {method} {path}"
        yield ""
        yield f"{one['summary']}."
        yield from _parameters([*of["paths"][path]["parameters"], *one["parameters"]])
        yield from _body(one)
        yield from _answers(one)
    yield ""
    yield "## What bodies hold"
    for name, schema in of["components"]["schemas"].items():
        yield from _schema(name, schema)


def _each(of: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, at in of["paths"].items():
        for method, one in at.items():
            if method != "parameters":
                yield path, method.upper(), one


def _parameters(parameters: Sequence[dict[str, Any]]) -> Iterator[str]:
    if not parameters:
        return
    yield ""
    yield "| parameter | in | type | default | |"
    yield "|---|---|---|---|---|"
    for one in parameters:
        default = "required" if one.get("required") else _default(one["schema"])
        words = one.get("description", "")
        yield f"| `{one['name']}` | {one['in']} | {_type(one['schema'])} | {default} | {_cell(words)} |"


def _body(one: dict[str, Any]) -> Iterator[str]:
    for media_type, content in one.get("requestBody", {}).get("content", {}).items():
        yield ""
        shape = f": {_type(content['schema'])}" if "schema" in content else ""
        yield f"Takes `{media_type}`{shape}."


def _answers(one: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield "| status | |"
    yield "|---|---|"
    for status, answer in one["responses"].items():
        ((media_type, content),) = answer["content"].items()
        if status < "300":
            shape = _shape(content)
            headers = [f"`{name}`: {_cell(told['description'])}" for name, told in answer["headers"].items()]
            yield f"| {status} | {'; '.join([f'`{media_type}` {shape}'.rstrip(), *headers])} |"
        else:
            yield f"| {status} | {answer['description']} |"


def _shape(content: dict[str, Any]) -> str:
    """What an answer holds: events, JSON, or nothing that has a shape."""
    events = [f"`{name}`: {_type(told['data'])}" for name, told in content.get("x-events", {}).items()]
    if events:
        return f"events {', '.join(events)}"
    return _type(content["schema"]) if "schema" in content else ""


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield f"### {name}"
    yield ""
    if "description" in schema:
        yield _cell(schema["description"])
    if not schema.get("properties"):
        return
    required = schema.get("required", ())
    yield ""
    yield "| field | type | |"
    yield "|---|---|---|"
    for field, one in schema["properties"].items():
        default = "" if field in required else f" (default {_default(one)})"
        yield f"| `{field}` | {_type(one)}{default} | {_cell(one.get('description', ''))} |"


def _type(schema: dict[str, Any]) -> str:
    """A schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{_anchor(name)})"
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        values = schema.get("enum", [schema.get("const")])
        return ", ".join(f"`{value}`" for value in values)
    kind = str(schema.get("type", "anything"))
    if kind == "array":
        return f"list of {_type(schema['items'])}"
    if kind == "object" and isinstance(of := schema.get("additionalProperties"), dict):
        return f"mapping to {_type(of)}"
    bounds = [(word, schema[key]) for key, word in _BOUNDS if key in schema]
    return kind + "".join(f", {word} {value:g}" for word, value in bounds)


_BOUNDS = (
    ("minimum", "at least"),
    ("maximum", "at most"),
    ("exclusiveMinimum", "more than"),
    ("exclusiveMaximum", "less than"),
)


def _default(schema: dict[str, Any]) -> str:
    value = schema.get("default")
    if value is None:
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _anchor(text: str) -> str:
    """As the renderers of Markdown make it of a heading."""
    return "".join(sign for sign in text.lower() if sign.isalnum() or sign in "-_")


def _cell(text: str) -> str:
    return " ".join(text.replace("``", "`").replace("|", "\\|").split())


if __name__ == "__main__":
    print(page(), end="")
