"""The description of an artifact: what it is, what its module says of itself, and who would take it.

It is one value for all who ask: ``inspect``, ``/modules/…?info``, ``/api/v1/modules``, the log and the metrics.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from mirror.digest import Digest
from mirror.wasm.artifact import Found, Layout, Verdict
from mirror.wasm.module import Import, Module


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

    Of a function there is the ``signature``, such as "i32 i32 -> i32".
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
    }


def grouped(imports: Iterable[Import]) -> dict[str, list[dict[str, str | None]]]:
    """Imports by the module that they are of, ``env`` or ``wasi_snapshot_preview1``, in their order."""
    groups: dict[str, list[dict[str, str | None]]] = {}
    for one in imports:
        groups.setdefault(one.module, []).append({"name": one.name, "kind": one.kind, "signature": one.signature})
    return groups


def _text(digest: Digest | None) -> str | None:
    return None if digest is None else str(digest)
