"""The OpenAPI document of the admin API, out of its operations and their models. Source: OpenAPI specification 3.1."""

from collections.abc import Sequence
from typing import Any

from pydantic import ConfigDict, RootModel

from mirror.edge.api.operation import Call, Operation


class Document(RootModel[dict[str, Any]]):
    """An OpenAPI document."""

    model_config = ConfigDict(frozen=True)


def described(operations: Sequence[Operation]) -> Operation:
    """The operation that gives the document of ``operations``, and of itself."""
    made: list[Document] = []

    async def handler(call: Call) -> Document:
        if not made:
            made.append(Document(document([*operations, one])))
        return made[0]

    one = Operation(method="GET", path="openapi.json", summary="This document", answer=Document, handler=handler)
    return one


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The document."""
    paths: dict[str, Any] = {}
    for one in operations:
        paths.setdefault(f"/{one.template}", {})[one.method.lower()] = {"summary": one.summary}
    return {"openapi": "3.1.0", "info": {"title": "wasm-mirror", "version": "1"}, "paths": paths}
