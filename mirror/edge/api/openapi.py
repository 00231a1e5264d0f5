"""The OpenAPI document of the admin API, out of its operations and their models.

Source: OpenAPI specification 3.1.1; schemas are JSON Schema, draft 2020-12.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, Field, RootModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

import mirror
from mirror.edge.api.operation import JSON, ROOT, Call, Operation
from mirror.errors import (
    Denied,
    MediaTypeInvalid,
    MirrorError,
    RequestInvalid,
    SizeInvalid,
    Unauthorized,
    UpstreamUnavailable,
)

_ALWAYS: Final = (RequestInvalid, Unauthorized, Denied, MirrorError, UpstreamUnavailable)
_WITH_A_BODY: Final = (MediaTypeInvalid, SizeInvalid)
_METHODS = ("GET", "POST", "PUT", "DELETE")
_REFERENCE = "#/components/schemas/{model}"

_ABOUT: Final = """\
What operators ask of a running mirror. Everything needs the bearer token of `admin.token_file`; without that setting
the API is open to programs on the mirror's own machine, while it listens on a loopback address. What can be read by GET
can be asked by HEAD. Answers are never to be kept (`Cache-Control: no-store`).\
"""


class Document(RootModel[dict[str, Any]]):
    """An OpenAPI document."""


class Fault(BaseModel):
    """One error, in the form of the OCI distribution specification."""

    code: str = Field(description="For programs, such as `NAME_UNKNOWN`.")
    message: str = Field(description="What is wrong, and what to do.")
    detail: Any = Field(None, description="More of it, where there is more.")


class Errors(BaseModel):
    """What every answer says that is not a success."""

    errors: list[Fault] = Field(min_length=1, max_length=1)


def described(operations: Sequence[Operation]) -> Operation:
    """The operation that gives the document of ``operations``, and of itself."""
    made: list[Document] = []

    async def handler(call: Call) -> Document:
        if not made:
            made.append(Document(document([*operations, one])))
        return made[0]

    one = Operation(
        method="GET",
        path="openapi.json",
        summary="This document",
        answer=Document,
        handler=handler,
    )
    return one


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The document of these operations, by their addresses."""
    operations = sorted(operations, key=lambda one: (one.template, _METHODS.index(one.method)))
    schemas, named = _schemas(operations)
    paths: dict[str, Any] = {}
    for one in operations:
        at = paths.setdefault(f"/{one.template}", {})
        at.setdefault("parameters", [_in_path(one, name) for name in one.parameters])
        at[one.method.lower()] = _described(one, named)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "wasm-mirror: the admin API",
            "description": _ABOUT,
            "version": mirror.__version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": ROOT.rstrip("/")}],
        "security": [{"token": []}, {}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


_Named = Mapping[tuple[type[BaseModel], JsonSchemaMode], dict[str, Any]]


def _schemas(operations: Sequence[Operation]) -> tuple[dict[str, Any], _Named]:
    """The schemas by their names, and what each model is in the document."""
    asked = [(model, "validation") for one in operations if (model := one.body) is not None]
    answers = [model for one in operations for model in (one.answer, *one.events.values()) if model is not None]
    told = [(model, "serialization") for model in answers]
    wanted: list[tuple[type[BaseModel], JsonSchemaMode]]
    wanted = list(dict.fromkeys([*asked, *told, (Errors, "serialization")]))  # type: ignore[list-item]  # of literals
    named, found = models_json_schema(wanted, ref_template=_REFERENCE)
    schemas = {name: schema for name, schema in found.get("$defs", {}).items()}
    return schemas, {(model, mode): schema for (model, mode), schema in named.items() if issubclass(model, BaseModel)}


def _described(one: Operation, named: _Named) -> dict[str, Any]:
    words = [one.method.lower(), *one.template.replace("{", "").replace("}", "").replace(".", "/").split("/")]
    told: dict[str, Any] = {
        "operationId": "_".join(words),
        "summary": one.summary,
        "tags": [one.template.partition("/")[0]],
        "parameters": [*([] if one.query is None else _in_query(one.query)), *_in_header(one)],
        "responses": {
            str(one.status): {
                "description": one.summary,
                "headers": {name: _header(words) | {"required": True} for name, words in one.tells.items()},
                "content": {one.gives: _content(one, named)},
            },
            **_failures(one, named),
        },
    }
    if one.body is not None:
        schema = named[one.body, "validation"]
        told["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    elif one.takes is not None:
        told["requestBody"] = {"required": True, "content": {one.takes: {}}}
    return told


def _content(one: Operation, named: _Named) -> dict[str, Any]:
    if one.answer is not None:
        return {"schema": named[one.answer, "serialization"]}
    if not one.events:
        return {}
    told = {name: {"data": named[model, "serialization"]} for name, model in one.events.items()}
    return {"schema": {"type": "string", "description": "Server-sent events, as HTML has them."}, "x-events": told}


def _failures(one: Operation, named: _Named) -> dict[str, Any]:
    """What may go wrong, by status."""
    with_body = _WITH_A_BODY if one.body is not None or one.takes is not None or one.changes else ()
    by_status: dict[int, list[str]] = defaultdict(list)
    for error in failures_of(one.errors, with_body):
        if error.code not in by_status[error.status]:
            by_status[error.status].append(error.code)
    content = {JSON: {"schema": named[Errors, "serialization"]}}
    return {
        str(status): {"description": ", ".join(f"`{code}`" for code in codes), "content": content}
        for status, codes in sorted(by_status.items())
    }


def failures_of(*groups: Iterable[type[MirrorError]]) -> list[type[MirrorError]]:
    """What any operation may answer, and what these are beyond it."""
    return list(dict.fromkeys([*_ALWAYS, *(error for group in groups for error in group)]))


def _in_path(one: Operation, name: str) -> dict[str, Any]:
    whole = f"{{{name}:path}}" in one.path
    words = {"description": "It may hold slashes, as they are."} if whole else {}
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}, **words}


def _in_header(one: Operation) -> list[dict[str, Any]]:
    return [{"name": name, "in": "header", **_header(words)} for name, words in one.reads.items()]


def _header(words: str) -> dict[str, Any]:
    return {"description": words, "schema": {"type": "string"}}


def _in_query(model: type[BaseModel]) -> list[dict[str, Any]]:
    """Each field of a query's model. Raises `ValueError` for one that a query cannot hold."""
    schema = model.model_json_schema()
    if "$defs" in schema:
        raise ValueError(f"{model.__name__}: a field of a query is text, a number, a switch, or a list of these")
    found = []
    for name, field in schema.get("properties", {}).items():
        given = dict(field)
        given.pop("title", None)
        words = {"description": given.pop("description")} if "description" in given else {}
        required = name in schema.get("required", ())
        found.append({"name": name, "in": "query", "required": required, "schema": given, **words})
    return found
