"""The modules that Kubernetes objects name: ``WasmPlugin``, ``EnvoyFilter``, ``EnvoyExtensionPolicy``, and their lists.

All else is passed over, and so is what these take from elsewhere than a registry: a file, a web server. Objects come
as plain values: those of a text know their lines (`documents`), those of a cluster do not.

Sources: Istio's ``extensions/v1alpha1/wasm.proto`` and ``pilot/pkg/model/extensions.go``; Envoy's ``core.v3.HttpUri``;
Envoy Gateway's ``api/v1alpha1/wasm_types.go``.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from mirror.references import urls
from mirror.references.documents import RENDER_FIRST, Fault, Text
from mirror.references.named import Findings, shown

_Object: TypeAlias = Mapping[object, object]


def read(root: object, source: str, findings: Findings) -> None:
    """Note what ``root``, a document of the text or cluster called ``source``, names; without recursion."""
    waiting: list[tuple[object, str | None]] = [(root, None)]
    while waiting:
        value, assumed = waiting.pop()
        if isinstance(value, Fault):
            findings.problem(f"{source}:{value.line}", value.words)
        if not isinstance(value, Mapping):
            continue
        kind, version = value.get("kind") or assumed, value.get("apiVersion")
        for stated in (kind, version):
            if isinstance(stated, Fault):
                findings.problem(f"{source}:{stated.line}", stated.words)
        if not isinstance(kind, str):
            continue
        group = version.partition("/")[0] if isinstance(version, str) else None
        items = value.get("items")
        if kind.endswith("List") and isinstance(items, list):
            waiting += [(item, kind.removesuffix("List") or None) for item in reversed(items)]
        elif isinstance(items, Fault) and kind.endswith("List"):
            waiting.append((items, None))
        elif (known := _KINDS.get(kind)) is not None and group in (known[0], None):
            known[1](_Subject(value, kind, source, findings))


class _Subject:
    """One object of a kind that may name modules, and where it is."""

    def __init__(self, value: _Object, kind: str, source: str, findings: Findings) -> None:
        self.value = value
        self._kind = kind
        self._source = source
        self._findings = findings
        metadata = value.get("metadata")
        names = metadata if isinstance(metadata, Mapping) else {}
        parts = [shown(part) for key in ("namespace", "name") if isinstance(part := names.get(key), str)]
        self._name = f"{kind} {'/'.join(parts)}".rstrip()

    def where(self, value: object) -> str:
        """Where ``value``, a part of it, stands: with the nearest line that is known."""
        for near in (value, self.value.get("kind"), *self.value):
            if isinstance(near, Text | Fault):
                return f"{self._source}:{near.line} ({self._name})"
        return f"{self._source} ({self._name})"

    def problem(self, value: object, words: str) -> None:
        """Note what is wrong with ``value``."""
        self._findings.problem(self.where(value), words)

    def at(self, value: object, *keys: str) -> object:
        """What stands under ``keys`` in ``value``; None where nothing does, or a fault, which is told."""
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
            if isinstance(value, Fault):
                self.problem(value, f"{key}: {value.words}")
                return value
        return value

    def take(self, url: object, field: str, sha256: object = None) -> None:
        """Note the module that ``url`` names, which stands in ``field``."""
        if isinstance(url, Fault):
            return
        if not isinstance(url, str):
            self.problem(url, f"has no {field}")
        elif (words := urls.wrong(url)) is not None:
            hint = f"; {RENDER_FIRST}" if "variable" in words else ""
            self.problem(url, f"{field} {words}: {shown(url)!r}{hint}")
        elif (reference := urls.reference(url)) is not None:
            self._findings.add(reference, self.where(url))
            if isinstance(sha256, str) and (words := urls.contradiction(url, sha256)) is not None:
                self.problem(sha256, words)


def _plugin(subject: _Subject) -> None:
    spec = subject.at(subject.value, "spec")
    if not isinstance(spec, Fault):
        subject.take(subject.at(spec, "url"), "spec.url", subject.at(spec, "sha256"))


def _filter(subject: _Subject) -> None:
    for value in _inside(subject.value.get("spec")):
        if isinstance(value, Fault):
            subject.problem(value, value.words)
        elif isinstance(value, Mapping):
            for field in ("http_uri", "httpUri"):
                uri = value.get(field)
                url = uri.get("uri") if isinstance(uri, Mapping) else None
                if isinstance(url, str) and "://" in url:
                    subject.take(url, f"{field}.uri", value.get("sha256"))


def _policy(subject: _Subject) -> None:
    extensions = subject.at(subject.value, "spec", "wasm")
    for extension in extensions if isinstance(extensions, list) else ():
        code = extension if isinstance(extension, Fault) else subject.at(extension, "code")
        if isinstance(extension, Fault):
            subject.problem(extension, extension.words)
        elif subject.at(code, "type") == "Image":
            image = subject.at(code, "image")
            if not isinstance(image, Fault):
                subject.take(subject.at(image, "url"), "code.image.url", subject.at(image, "sha256"))


def _inside(value: object) -> Iterator[object]:
    """``value`` and all that is in it, at any depth, in the order of the text."""
    waiting = [value]
    while waiting:
        value = waiting.pop()
        yield value
        if isinstance(value, Mapping):
            waiting += reversed(list(value.values()))
        elif isinstance(value, list):
            waiting += reversed(value)


_KINDS: Mapping[str, tuple[str, Callable[[_Subject], None]]] = {
    "WasmPlugin": ("extensions.istio.io", _plugin),
    "EnvoyFilter": ("networking.istio.io", _filter),
    "EnvoyExtensionPolicy": ("gateway.envoyproxy.io", _policy),
}
