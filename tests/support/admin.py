"""Answers of the admin API, held against its own OpenAPI document: every one that `Running.ask` gets, and any other.

::

    async with running(tmp_path, {"ghcr.io": up.url}) as mirror:
        reply = await operated(mirror, "POST", "pins", {"references": ["ghcr.io/team/plugin:1"]})
"""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator

from mirror.edge.api.openapi import document
from mirror.edge.api.operation import ROOT
from mirror.edge.api.reference import all_operations
from tests.support.asking import Headers, Reply

_ALWAYS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


class Asking(Protocol):
    """A mirror that can be asked: `tests.support.running.Running` is one."""

    async def ask(self, method: str, target: str, headers: Headers = (), body: bytes = b"") -> Reply: ...


async def operated(
    mirror: Asking, method: str, path: str, body: object = None, *, token: str | None = None, headers: Headers = ()
) -> Reply:
    """The answer of the operation at ``path``, which may have a query; ``body`` goes as JSON.

    `Running.ask` holds it against the document.
    """
    fields = list(headers.items() if isinstance(headers, Mapping) else headers)
    if token is not None:
        fields.append(("Authorization", f"Bearer {token}"))
    raw = b""
    if body is not None:
        fields.append(("Content-Type", "application/json"))
        raw = json.dumps(body).encode()
    return await mirror.ask(method, f"{ROOT}{path}", fields, raw)


def hold(method: str, target: str, status: int, headers: Sequence[tuple[str, str]], body: bytes) -> None:
    """Raise `AssertionError` unless this is an answer that the document describes. ``headers`` are in lower case."""
    told = dict(headers)
    media_type = told["content-type"].partition(";")[0]
    for name, value in _ALWAYS.items():
        assert told.get(name) == value, f"{method} {target}: {name} is {told.get(name)}"
    if method == "HEAD":
        assert body == b"", f"HEAD {target} has a body"
        return
    of = _operation(method, urlsplit(target).path)
    if of is None:  # there is nothing, or nothing like that
        assert status in (400, 401, 403, 404, 405), f"{method} {target}: {status}"
        _check({"$ref": "#/components/schemas/Errors"}, json.loads(body), f"{method} {target}")
        return
    assert str(status) in of["responses"], f"{method} {target}: {status} is not in the document; {body[:500]!r}"
    content = of["responses"][str(status)]["content"]
    assert media_type in content, f"{method} {target}: {status} has the type {media_type}, not {list(content)}"
    for name in of["responses"][str(status)].get("headers", {}):
        assert name.lower() in told, f"{method} {target}: {status} has no {name}"
    if media_type == "application/json":
        value = json.loads(body)
        _check(content[media_type]["schema"], value, f"{method} {target}: {status}")
        if status >= 400:
            codes = of["responses"][str(status)]["description"]
            assert f"`{value['errors'][0]['code']}`" in codes, f"{method} {target}: {value} is none of {codes}"


def hold_event(path: str, kind: str, data: object) -> None:
    """Raise `AssertionError` unless the operation at ``path`` may send such an event."""
    of = _operation("GET", f"{ROOT}{path}")
    assert of is not None, path
    events = of["responses"]["200"]["content"]["text/event-stream"]["x-events"]
    assert kind in events, f"{path} sends an event {kind}, and the document has {list(events)}"
    _check(events[kind]["data"], data, f"the event {kind} of {path}")


@functools.cache
def the_document() -> dict[str, Any]:
    """The OpenAPI document that any mirror gives."""
    return document(all_operations())


def _operation(method: str, path: str) -> dict[str, Any] | None:
    for pattern, at in _paths():
        if pattern.fullmatch(path.removeprefix(ROOT)):
            found: dict[str, Any] | None = at.get(method.lower())
            return found
    return None


@functools.cache
def _paths() -> Sequence[tuple[re.Pattern[str], dict[str, Any]]]:
    """What each path of the document has to look like; those without parameters come first, as in the application."""
    patterns = {
        f"/{one.template}": one.pattern() for one in sorted(all_operations(), key=lambda one: len(one.parameters))
    }
    return [(pattern, the_document()["paths"][template]) for template, pattern in patterns.items()]


def _check(schema: Mapping[str, Any], value: object, what: str) -> None:
    whole = {**schema, "components": the_document()["components"]}
    faults = [f"{error.json_path}: {error.message}" for error in Draft202012Validator(whole).iter_errors(value)]
    assert not faults, f"{what} is not what the document says: {'; '.join(faults)[:2000]}"
