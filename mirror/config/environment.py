"""Settings from the environment: ``WASM_MIRROR_`` and the path of a key in capitals, its steps joined by ``__``.

A mapping or list stands there as JSON and replaces the file's whole one. Variables that Kubernetes and the commands own
are passed over; an unknown one may belong to another release, and is a warning; what is nearly a key is an error.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from mirror.config import schema
from mirror.config.document import Document
from mirror.config.problems import Location, Origin, Problem

PREFIX: Final = "WASM_MIRROR_"
_UPSTREAM = "UPSTREAMS__"

# Of the commands, and of this project's own tests.
_OWNED = frozenset({"CONFIG", "URL", "TOKEN", "TOKEN_FILE", "TEST_CACHE", "REQUIRE_TOOLS"})
# What a Kubernetes Service, whose name begins with wasm-mirror, puts into every pod beside it.
_INJECTED = re.compile(r"(.*_)?(SERVICE_HOST|SERVICE_PORT(_.*)?|PORT|PORT_[0-9]+_.*)")
_LIKENESS = 0.72  # TLS__CERT is nearly TLS__CERTIFICATE; the keys of later releases are no nearer than 0.71 to any


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
    keys = {_variable(key.path): key for key in schema.all_keys() if schema.ANY not in key.path}
    found: list[_Found] = []
    of_upstreams: list[str] = []
    for variable in sorted(name for name in environ if name.startswith(PREFIX)):
        name = variable.removeprefix(PREFIX)
        if key := keys.get(name):
            found.append(_Found(variable, key.path, key.is_structure, environ[variable]))
        elif name.startswith(_UPSTREAM):
            of_upstreams.append(variable)
        elif name not in _OWNED and not _INJECTED.fullmatch(name):
            warnings += _unknown(variable, name, keys, document)
    _set_all(found, document)
    found = []
    for variable in of_upstreams:  # now that it is known which upstreams there are
        warnings += _of_upstream(variable, environ[variable], document, found)
    _set_all(found, document)
    return warnings


def _variable(path: Iterable[str]) -> str:
    return "__".join(path).upper()


def _unknown(variable: str, tail: str, known: Iterable[str], document: Document) -> list[str]:
    """A warning; or none, and a problem, when the ``tail`` of the variable is nearly a known one."""
    near = difflib.get_close_matches(tail.upper(), known, n=1, cutoff=_LIKENESS)
    if not near:
        return [f"{variable}: unknown variable, passed over; it is no setting of this release"]
    _report(document, variable, (), f"unknown variable; did you mean {variable.removesuffix(tail)}{near[0]}?")
    return []


def _of_upstream(variable: str, text: str, document: Document, found: list[_Found]) -> list[str]:
    """Add to ``found`` what a key of a configured upstream is set to; returns warnings.

    ``WASM_MIRROR_UPSTREAMS__GHCR_IO__OFFLINE`` is ``offline`` of ``ghcr.io``.
    """
    upstreams = document.values.get("upstreams")
    rest = variable.removeprefix(PREFIX + _UPSTREAM)
    forms = {name: _form(name) for name in upstreams} if isinstance(upstreams, dict) else {}
    meant = {name: form for name, form in forms.items() if rest == form or rest.startswith(f"{form}__")}
    longest = max(map(len, meant.values()), default=0)  # a name may itself hold __
    names = [name for name, form in meant.items() if len(form) == longest]
    if not names:
        words = f"names no configured upstream; add it in the file, or set {PREFIX}UPSTREAMS as a whole"
        _report(document, variable, (), words)
        return []
    if len(names) > 1:
        _report(document, variable, (), f"could mean each of the upstreams {', '.join(names)}; set it in the file")
        return []
    tail = rest[longest + 2 :]
    if not tail:
        found.append(_Found(variable, ("upstreams", names[0]), True, text))
        return []
    under = ("upstreams", schema.ANY)
    keys = {
        _variable(key.path[2:]): key
        for key in schema.all_keys()
        if key.path[:2] == under and schema.ANY not in key.path[2:]
    }
    if key := keys.get(tail):
        found.append(_Found(variable, ("upstreams", names[0], *key.path[2:]), key.is_structure, text))
        return []
    return _unknown(variable, tail, keys, document)


def _set_all(found: list[_Found], document: Document) -> None:
    for one in sorted(found, key=lambda one: len(one.location)):  # the whole before its parts
        value: object = one.text or None
        if one.is_structure and one.text:
            try:
                value = _from_json(one.text)
            except (ValueError, RecursionError):
                _report(document, one.variable, one.location, 'must be valid JSON, such as ["a", "b"] or {"a": "b"}')
                continue
        document.put(one.location, value, Origin(one.variable))


def _form(name: object) -> str:
    """How an upstream's name stands in a variable, which can hold neither dots nor dashes."""
    return re.sub(r"[^A-Z0-9_]", "_", str(name).upper())


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
