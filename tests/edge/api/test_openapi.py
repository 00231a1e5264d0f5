"""The OpenAPI document is a valid one, is the code's own, and says what every operation answers."""

import json
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import BaseModel

from mirror.edge.api.openapi import document
from mirror.edge.api.operation import JSON, Asked
from mirror.edge.api.reference import all_operations, page
from tests.edge.api.stand import Stand
from tests.support.admin import hold, hold_event, operated, the_document
from tests.support.artifacts import compat, publish, wasm_module
from tests.support.running import Running, running
from tests.support.upstream import FaultyUpstream

_PAGE = Path(__file__).parents[3] / "docs" / "api.md"
OPERATIONS = all_operations()
TOKEN = "a-token-of-some-length"


def faults(of: dict[str, Any]) -> list[str]:
    return [str(error) for error in OpenAPIV31SpecValidator(of).iter_errors()]


def test_the_document_is_valid() -> None:
    assert faults(the_document()) == []


def test_a_document_that_is_not_is_found() -> None:
    broken = document(Stand().admin.operations[-1:])
    broken["info"].pop("title")
    assert faults(broken)


def test_the_page_is_the_documents() -> None:
    assert _PAGE.read_text() == page(), "run: python -m mirror.edge.api.reference > docs/api.md"


def test_every_operation_is_told_apart_and_every_model_says_what_it_is() -> None:
    assert len({(one.method, one.template) for one in OPERATIONS}) == len(OPERATIONS)
    ids = [told["operationId"] for at in the_document()["paths"].values() for told in at.values() if "summary" in told]
    assert len(ids) == len(set(ids)) == len(OPERATIONS)
    for name, schema in the_document()["components"]["schemas"].items():
        assert schema.get("description"), f"{name} has no docstring"
    for one in OPERATIONS:
        assert one.method in ("GET", "POST", "PUT", "DELETE"), one.path
        assert one.summary[0].isupper(), one.path
        assert not one.summary.endswith("."), one.path
        assert (one.answer is None) == (one.gives != JSON), one.path
        assert one.body is None or one.takes is None, one.path


@pytest.mark.parametrize("model", [model for one in OPERATIONS for model in (one.query, one.body) if model is not None])
def test_what_is_asked_is_held_to_its_fields(model: type[BaseModel]) -> None:
    assert issubclass(model, Asked)
    assert model.model_config["extra"] == "forbid"


async def walk(mirror: Running, token: str | None) -> dict[str, set[int]]:
    """The statuses of each operation, asked in every wrong way there is, and rightly where that takes nothing.

    `Running.ask` holds each answer against the document.
    """
    seen: dict[str, set[int]] = {}
    for one in OPERATIONS:
        path = one.template
        for name in one.parameters:
            path = path.replace(f"{{{name}}}", "quay.io/nobody:1" if name == "reference" else "nothing")
        wrong = [f"{path}?nothing-like-it=1", f"{path}?{'a=1&' * 200}"]
        body = {"nothing": 1} if one.body is not None else None
        replies = []
        if token or not one.events or one.parameters:  # else the answer has no end
            replies.append(await operated(mirror, one.method, path, body, token="wrong" if token else None))
        replies += [await operated(mirror, one.method, target, body, token=token) for target in wrong]
        if one.method == "GET" and (one.parameters or one.answer is not None):
            replies.append(await operated(mirror, "GET", path, token=token))
            replies.append(await operated(mirror, "HEAD", path, token=token))
            assert replies[-1].status == replies[-2].status
        elif one.parameters:
            replies.append(await operated(mirror, one.method, path, body, token=token))
        if one.changes:
            page = {"Origin": "https://attacker.example", "Sec-Fetch-Site": "cross-site"}
            replies.append(await operated(mirror, one.method, path, body, headers=page))
            assert replies[-1].status == (401 if token else 403)
        seen[f"{one.method} {one.template}"] = {reply.status for reply in replies}
    return seen


async def test_every_operation_of_a_running_mirror_answers_as_the_document_says(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    with FaultyUpstream() as up:
        async with running(tmp_path, {"ghcr.io": up.url}, {"admin": {"token_file": str(file)}}) as mirror:
            told = (await operated(mirror, "GET", "openapi.json", token=TOKEN)).json
            assert told == the_document(), "mirror/wiring/admin.py and mirror/edge/api/reference.py have other areas"
            seen = await walk(mirror, TOKEN)
        async with running(tmp_path, {"ghcr.io": up.url}) as mirror:
            open_to_all = await walk(mirror, None)
    for name, statuses in seen.items():
        assert {400, 401} <= statuses, name
    for name, statuses in open_to_all.items():
        assert 400 in statuses, name
        assert 401 not in statuses, name
    assert 200 in seen["GET openapi.json"]


async def test_a_description_is_what_the_document_says(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", compat(wasm_module()))
        async with running(tmp_path, {"ghcr.io": up.url}) as mirror:
            assert (await operated(mirror, "GET", "modules/ghcr.io/team/plugin:1")).status == 200
            assert (await operated(mirror, "GET", "modules/oci://ghcr.io/team/plugin:1")).status == 200
            assert (await operated(mirror, "GET", "modules/ghcr.io/team/plugin:2")).code == "MANIFEST_UNKNOWN"
            assert (await operated(mirror, "GET", "modules/ghcr.io/team/plugin:~")).code == "TAG_INVALID"
            for path in ("modules/ghcr.io/../../etc/passwd", "modules/%2e%2e/%2e%2e/etc", "modules/ghcr.io/a%00b:1"):
                assert (await operated(mirror, "GET", path)).code == "NAME_INVALID"


def told(status: int, value: object, **headers: str) -> None:
    always = {"content-type": JSON, "cache-control": "no-store", "x-content-type-options": "nosniff"}
    fields = [(name.replace("_", "-"), text) for name, text in {**always, **headers}.items()]
    hold("GET", "/api/v1/modules/ghcr.io/a/b:1", status, fields, json.dumps(value).encode())


def test_an_event_that_is_something_else_is_found() -> None:
    progress = {"reference": "ghcr.io/a/b:1", "replica": None, "bytes": 1, "total": None}
    hold_event("prewarm/1/events", "progress", progress)
    for kind, data in (("result", progress), ("begin", progress), ("progress", {**progress, "bytes": "1"})):
        with pytest.raises(AssertionError):
            hold_event("prewarm/1/events", kind, data)


def test_an_answer_that_is_something_else_is_found() -> None:
    fault = {"code": "NAME_UNKNOWN", "message": "it is unknown"}
    told(404, {"errors": [fault]})
    wrong: list[tuple[int, object, dict[str, str]]] = [
        (200, {"errors": [fault]}, {}),
        (404, {"errors": []}, {}),
        (404, {"errors": [{"code": "NAME_UNKNOWN"}]}, {}),
        (404, {"errors": [{**fault, "code": "BLOB_UNKNOWN"}]}, {}),
        (418, {"errors": [fault]}, {}),
        (404, {"errors": [fault]}, {"content_type": "text/html"}),
        (404, {"errors": [fault]}, {"cache_control": "max-age=60"}),
        (404, {"errors": [fault]}, {"x_content_type_options": ""}),
    ]
    for status, value, headers in wrong:
        with pytest.raises(AssertionError):
            told(status, value, **headers)
