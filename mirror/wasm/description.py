"""The description of an artifact: what it is, what its module says of itself, and who would take it.

It is one value for all who ask: ``inspect``, ``/modules/…?info``, ``/api/v1/modules``, the log and the metrics.
"""

import itertools
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from mirror.digest import Digest
from mirror.wasm.artifact import Found, Layout, Verdict
from mirror.wasm.module import Export, Import, Module, Producer, Section

_MOST = 500
"""Of each of a module's lists, so many are told; the others are counted."""
_LONGEST_NAME, _LONGEST_SENTENCE = 200, 1000  # characters

_Listed = TypeVar("_Listed", Import, Export, Section, Producer)


@dataclass(frozen=True, slots=True)
class Description:
    """``digest`` is the manifest's (None for a bare file), ``index`` that of the index that led to it.

    ``chosen`` is the module that is described: the one that agents would take, or else the only good one there is;
    ``module`` what it says of itself, or None, and then ``problem`` says in a sentence why not; ``lacking`` what it
    imports and Envoy does not have. Not ``complete``: a layer, or the child of an index, was not at hand, and verdicts
    may change once it is.
    """

    layout: Layout
    agent: Verdict
    gateway: Verdict
    envoy: Verdict
    digest: Digest | None = None
    media_type: str | None = None
    index: Digest | None = None
    found: tuple[Found, ...] = ()
    chosen: Found | None = None
    module: Module | None = None
    module_digest: Digest | None = None
    lacking: tuple[Import, ...] = ()
    problem: str | None = None
    warnings: tuple[str, ...] = ()
    complete: bool = True

    @property
    def accepted(self) -> bool:
        """Whether agents take it, and the Envoy beside them then runs it."""
        return self.agent.accepted and self.envoy.accepted


def bounded(description: Description) -> Description:
    """No more of it than anybody reads: its author is a stranger, and it is kept, logged, and sent to who asks.

    Of a long list of exports those stay that are of Proxy-Wasm, among them the ABI version.
    """
    module = description.module
    if module is not None:
        exports = sorted(module.exports, key=lambda export: not export.name.startswith("proxy_"))
        kept = replace(
            module,
            imports=_few(module.imports),
            exports=_few(module.exports if len(exports) <= _MOST else exports),
            sections=_few(module.sections),
            producers=_few(module.producers),
            name=None if module.name is None else _short(module.name, _LONGEST_NAME),
        )
        lists = (module.imports, module.exports, module.sections, module.producers)
        module = replace(kept, left_out=sum(max(0, len(one) - _MOST) for one in lists))
    return replace(
        description,
        agent=_concise(description.agent),
        gateway=_concise(description.gateway),
        envoy=_concise(description.envoy),
        module=module,
        lacking=_few(description.lacking),
        problem=None if description.problem is None else _short(description.problem, _LONGEST_SENTENCE),
        warnings=tuple(_short(warning, _LONGEST_SENTENCE) for warning in description.warnings),
    )


def _few(listed: Iterable[_Listed]) -> tuple[_Listed, ...]:
    """The first of them, with names that are not too long."""
    return tuple(map(_named_shortly, itertools.islice(listed, _MOST)))


def _named_shortly(one: _Listed) -> _Listed:
    texts = {field: text for field, text in asdict(one).items() if isinstance(text, str) and len(text) > _LONGEST_NAME}
    cut: dict[str, Any] = {field: _short(text, _LONGEST_NAME) for field, text in texts.items()}
    return replace(one, **cut) if cut else one


def _concise(verdict: Verdict) -> Verdict:
    words = (_short(text, _LONGEST_SENTENCE) for text in (verdict.reason, verdict.remedy))
    return Verdict(verdict.accepted, *words)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[:most] + "…"


def as_json(description: Description) -> dict[str, object]:
    """The one JSON form of a description. All fields are always there; a field keeps its name and its meaning.

    ``layout``: one of `Layout`'s values. ``digest``, ``media_type``: of the manifest, null for a bare file; ``index``:
    the digest of the index that led to it, or null. ``found``: what there is in the layers (``layer`` from 0, ``name``
    in the archive or null, ``size`` in bytes, ``wasm``: it begins as a module does). ``module``: what the chosen one
    says of itself, or null, and then ``problem`` says why. ``accepted_by``: a verdict each of ``agents``,
    ``envoy_gateway`` and ``envoy``; ``accepted``: agents take it, and Envoy runs it. ``complete``: false where a layer
    could not be looked at.
    """
    return {
        "layout": description.layout.value,
        "digest": _text(description.digest),
        "media_type": description.media_type,
        "index": _text(description.index),
        "module": _module(description),
        "problem": description.problem,
        "accepted": description.accepted,
        "accepted_by": {
            "agents": asdict(description.agent),
            "envoy_gateway": asdict(description.gateway),
            "envoy": asdict(description.envoy),
        },
        "warnings": list(description.warnings),
        "complete": description.complete,
        "found": [
            {"layer": one.layer, "name": one.name, "size": one.size, "wasm": one.magic} for one in description.found
        ],
    }


def _module(description: Description) -> dict[str, object] | None:
    """``sha256`` in hex; ``size`` and the sections' in bytes; memories in pages of 64 KiB; ``lacking`` as imports.

    Of a function there is the ``signature``, such as "i32 i32 -> i32". Long names are cut, and so are long lists:
    ``left_out`` says how many imports, exports, sections and producers there are beyond those that are told.
    """
    module, chosen = description.module, description.chosen
    if module is None:
        return None
    return {
        "sha256": description.module_digest.hex if description.module_digest is not None else None,
        "layer": chosen.layer if chosen is not None and description.digest is not None else None,
        "file": chosen.name if chosen is not None else None,
        "size": module.size,
        "version": module.version,
        "kind": "component" if module.component else "core module",
        "abi": list(module.abi_versions),
        "name": module.name,
        "imports": grouped(module.imports),
        "lacking": grouped(description.lacking),
        "exports": [asdict(export) for export in module.exports],
        "memories": [asdict(memory) for memory in module.memories],
        "sections": [asdict(section) for section in module.sections],
        "producers": [asdict(producer) for producer in module.producers],
        "left_out": module.left_out,
    }


def grouped(imports: Iterable[Import]) -> dict[str, list[dict[str, str | None]]]:
    """Imports by the module that they are of, ``env`` or ``wasi_snapshot_preview1``, in their order."""
    groups: dict[str, list[dict[str, str | None]]] = {}
    for one in imports:
        groups.setdefault(one.module, []).append({"name": one.name, "kind": one.kind, "signature": one.signature})
    return groups


def _text(digest: Digest | None) -> str | None:
    return None if digest is None else str(digest)
