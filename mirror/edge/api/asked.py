"""What a request says, held against what an operation takes: one clear error, that names every field that is wrong."""

import difflib
import functools
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.types import Receive, Scope

from mirror.config.values import shown
from mirror.edge.api.operation import JSON, Operation
from mirror.edge.body import is_empty, whole_of
from mirror.edge.respond import header
from mirror.errors import MediaTypeInvalid, RequestInvalid, UploadInvalid, UploadStalled

MAX_BODY: Final = 1 << 20
"""Bytes of a JSON body."""

_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")
"""What a web page may send to another site without being asked whether it may. Source: WHATWG Fetch, section 2.2.2."""

_MAX_QUERY = 1 << 20
_MAX_FIELDS = 10_000
_MAX_TOLD = 20
"""Faults that one error names."""


def query_of(operation: Operation, scope: Scope) -> BaseModel | None:
    """The query, as the operation's model has it. Raises `RequestInvalid`."""
    raw = scope["query_string"]
    if len(raw) > _MAX_QUERY:
        raise RequestInvalid(f"the query has {len(raw)} bytes, and may have {_MAX_QUERY}")
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict")
    except UnicodeDecodeError:
        raise RequestInvalid("the query is no percent-encoded UTF-8") from None
    except ValueError:
        raise RequestInvalid(f"the query has more than {_MAX_FIELDS} parameters") from None
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    if operation.query is None:
        if found:
            raise RequestInvalid(
                f"{operation.method} {operation.template} takes no query, not {shown(next(iter(found)))}"
            )
        return None
    lists = {name for name, field in _fields(operation.query).items() if _is_list(field)}
    twice = next((name for name, values in found.items() if len(values) > 1 and name not in lists), None)
    if twice is not None:
        raise RequestInvalid(f"{shown(twice)} stands {len(found[twice])} times in the query; give it once")
    given = {name: values if name in lists else values[0] for name, values in found.items()}
    try:
        return operation.query.model_validate(given)
    except ValidationError as error:
        raise _refusal(error, operation.query, "the query") from None


async def body_of(operation: Operation, scope: Scope, receive: Receive) -> BaseModel | None:
    """The body, as the operation's model has it; None where the handler reads it, or there is none.

    Raises `RequestInvalid`, `MediaTypeInvalid` and `SizeInvalid`.
    """
    try:
        return await _body_of(operation, scope, receive)
    except UploadStalled:
        raise RequestInvalid("the body does not come to its end") from None
    except UploadInvalid as error:
        raise RequestInvalid(error.message) from None


async def _body_of(operation: Operation, scope: Scope, receive: Receive) -> BaseModel | None:
    wanted = JSON if operation.body is not None else operation.takes
    given = (header(scope, b"content-type") or "").partition(";")[0].strip().lower()
    if wanted is None:
        if not is_empty(scope) or given in _FORMS:
            raise MediaTypeInvalid(
                f"{operation.method} {operation.template} takes no body: send none, and no Content-Type"
            )
        return None
    if given != wanted:
        raise MediaTypeInvalid(f"send the body as Content-Type: {wanted}, not {shown(given or None)}")
    if operation.body is None:
        return None
    too_large = f"the body is larger than {MAX_BODY} bytes; ask in several calls"
    raw = await whole_of(scope, receive, MAX_BODY, too_large)
    try:
        return operation.body.model_validate_json(raw, strict=True)
    except ValidationError as error:
        raise _refusal(error, operation.body, "the body") from None


def _refusal(error: ValidationError, model: type[BaseModel], what: str) -> RequestInvalid:
    details = error.errors(include_url=False, include_input=False)
    told = [_fault(one, model, what) for one in details[:_MAX_TOLD]]
    more = [f"and {len(details) - _MAX_TOLD} more"] if len(details) > _MAX_TOLD else []
    return RequestInvalid(
        "; ".join([words for _, words in told] + more),
        detail=[{"field": field, "fault": words} for field, words in told],
    )


def _fault(details: ErrorDetails, model: type[BaseModel], what: str) -> tuple[str, str]:
    """The field, and the sentence that names it. What was given is not shown: it may be long, or a secret."""
    field = "".join(f"[{step}]" if isinstance(step, int) else f".{_bounded(step)}" for step in details["loc"])
    field = field.removeprefix(".")
    match details["type"]:
        case "json_invalid":
            return "", f"{what} is no JSON: {_bounded(details['ctx']['error'])}"
        case "extra_forbidden":
            names = list(_fields(model)) if len(details["loc"]) == 1 else []
            near = difflib.get_close_matches(str(details["loc"][-1])[:80], names, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(names)}" if names else ""
            return field, f"{shown(field)} is unknown in {what}{hint}"
        case "missing":
            return field, f"{field} is missing in {what}"
        case "model_type" | "model_attributes_type" if not field:
            return field, f"{what} must be a JSON object"
        case "value_error":
            return field, f"{field}: {details['ctx']['error']}".removeprefix(": ")
        case _:
            words = details["msg"]
            return field, f"{field}: {words[:1].lower()}{words[1:]}".removeprefix(": ")


def _bounded(text: object) -> str:
    plain = str(text)
    plain = plain if len(plain) <= 80 else plain[:80] + "…"
    return plain if plain.isprintable() else repr(plain)[1:-1]


@functools.cache
def _fields(model: type[BaseModel]) -> Mapping[str, Mapping[str, Any]]:
    """The schema of each of the model's fields, by the name that clients use."""
    found: Mapping[str, Mapping[str, Any]] = model.model_json_schema().get("properties", {})
    return found


def _is_list(field: Mapping[str, Any]) -> bool:
    return field.get("type") == "array" or any(one.get("type") == "array" for one in field.get("anyOf", ()))
