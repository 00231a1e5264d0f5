"""Settings from the environment: ``WASM_MIRROR_`` and the path of a key in capitals, its steps joined by ``__``.

A mapping or list stands there as JSON and replaces the file's whole one. Variables that Kubernetes and the commands own
are passed over; an unknown one may belong to another release, and is a warning; what is nearly a key is an error.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mirror.config import schema
from mirror.config.document import Document
from mirror.config.problems import Location, Origin, Problem

PREFIX: Final = "WASM_MIRROR_"
_UPSTREAM = "UPSTREAMS__"

# Of the commands, and of this project's own tests.
_OWNED = frozenset({"URL", "TOKEN", "TOKEN_FILE", "TEST_CACHE", "REQUIRE_TOOLS"})
# What a Kubernetes Service, whose name begins with wasm-mirror, puts into every pod beside it.
_INJECTED = re.compile(r"(.*_)?(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT|PORT_[0-9]+_.*)")
_LIKENESS = 0.85


@dataclass(slots=True)
class _Found:
    """A variable and what it sets."""

    variable: str
    location: Location
    is_structure: bool
    text: str = field(repr=False)


def apply(environ: Mapping[str, str], document: Document) -> list[str]:
    """Set in ``document`` what ``environ`` says, and note problems there; returns warnings."""
    warnings: list[str] = []
    names = {_variable(key.path): key for key in schema.all_keys() if schema.ANY not in key.path}
    later: list[str] = []
    found: list[_Found] = []
    for variable in sorted(name for name in environ if name.startswith(PREFIX)):
        name = variable.removeprefix(PREFIX)
        if key := names.get(name):
            found.append(_Found(variable, key.path, key.is_structure, environ[variable]))
        elif name.startswith(_UPSTREAM):
            later.append(variable)
        elif name in _OWNED or _INJECTED.fullmatch(name):
            continue
        elif near := difflib.get_close_matches(name.upper(), names, n=1, cutoff=_LIKENESS):
            _report(document, variable, (), f"unknown variable; did you mean {PREFIX}{near[0]}?")
        else:
            warnings.append(f"{variable}: unknown variable, passed over; it is no setting of this release")
    _set_all(found, document)
    _set_all(_of_upstreams(later, environ, document), document)
    return warnings


def _variable(path: Iterable[str]) -> str:
    return "__".join(path).upper()


def _of_upstreams(variables: list[str], environ: Mapping[str, str], document: Document) -> list[_Found]:
    """Keys of upstreams that are configured: ``WASM_MIRROR_UPSTREAMS__GHCR_IO__OFFLINE`` for ``ghcr.io``."""
    upstreams = document.values.get("upstreams")
    names = list(upstreams) if isinstance(upstreams, dict) else []
    tails = {
        _variable(key.path[2:]): key
        for key in schema.all_keys()
        if key.path[:2] == ("upstreams", schema.ANY) and schema.ANY not in key.path[2:]
    }
    found: list[_Found] = []
    for variable in variables:
        rest = variable.removeprefix(PREFIX + _UPSTREAM)
        meant = [(len(form), name) for name in names if _begins(rest, form := _form(name))]
        longest = [name for length, name in meant if length == max(meant)[0]]
        if len(longest) != 1:
            words = (
                f"could mean each of the upstreams {', '.join(longest)}; set it in the file"
                if longest
                else f"names no configured upstream; add it in the file, or set {PREFIX}UPSTREAMS as a whole"
            )
            _report(document, variable, (), words)
            continue
        tail = rest[len(_form(longest[0])) + 2 :]
        if not tail:
            found.append(_Found(variable, ("upstreams", longest[0]), True, environ[variable]))
        elif key := tails.get(tail):
            location = ("upstreams", longest[0], *key.path[2:])
            found.append(_Found(variable, location, key.is_structure, environ[variable]))
        else:
            near = difflib.get_close_matches(tail.upper(), tails, n=1)
            hint = f"; did you mean {variable.removesuffix(tail)}{near[0]}?" if near else ""
            _report(document, variable, ("upstreams", longest[0]), f"unknown variable{hint}")
    return found


def _form(name: object) -> str:
    """How an upstream's name stands in a variable, which can hold neither dots nor dashes."""
    return re.sub(r"[^A-Z0-9_]", "_", str(name).upper())


def _begins(rest: str, form: str) -> bool:
    return rest == form or rest.startswith(f"{form}__")


def _set_all(found: list[_Found], document: Document) -> None:
    for one in sorted(found, key=lambda one: len(one.location)):  # the whole before its parts
        value: object = one.text or None
        if one.is_structure and one.text:
            try:
                value = _from_json(one.text)
            except (ValueError, RecursionError):
                _report(document, one.variable, one.location, "must be a mapping or list as valid JSON, in full")
                continue
        put(document, one.location, value, Origin(one.variable))


def put(document: Document, location: Location, value: object, origin: Origin) -> None:
    """Set one key; where the file has something that is no mapping above it, that stays, for its own error."""
    target: Any = document.values
    for step in location[:-1]:
        if target.get(step) is None:
            target[step] = {}
        target = target[step]
        if not isinstance(target, dict):
            return
    target[location[-1]] = value
    depth = len(location)
    for inner in [other for other in document.origins if other[:depth] == location]:
        del document.origins[inner]
    document.origins[location] = origin


def _from_json(text: str) -> object:
    """Values as a YAML file gives them: every scalar but null is text."""
    return json.loads(
        text, parse_int=str, parse_float=str, parse_constant=_refuse_constant, object_pairs_hook=_without_duplicates
    )


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _report(document: Document, variable: str, location: Location, words: str) -> None:
    document.problems.append(Problem(Origin(variable), location, words))
