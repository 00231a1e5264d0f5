"""The objects that a Kubernetes API server has of the kinds that may name modules.

Source: Kubernetes API concepts, "Retrieving large results sets in chunks" (``limit``, ``continue``, 410 when a list is
too old to go on with).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from mirror.references import kubeconfig as configured
from mirror.references.named import shown

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

RIGHTS: Final = "charts/wasm-mirror/rbac/prewarm.yaml"
"""The manifest with the rights that this needs."""
PAGE: Final = 100
"""Objects at a time: they have a megabyte and a half each, at most."""

_MAX_PAGE = 160 << 20  # bytes
_MAX_PAGES = 10_000
_MAX_RESTARTS = 5
_WITHIN = (10, 60)  # seconds to connect, and to wait for the next bytes


@dataclass(frozen=True, slots=True)
class ClusterObject:
    """A custom resource, as the API server tells it: plain values, as JSON has them."""

    value: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Listed:
    """What the cluster has, and what it did not tell, a line each."""

    objects: Sequence[ClusterObject]
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind, and the version of it that is asked for where the API server does not say which it prefers."""

    kind: str
    plural: str
    group: str
    version: str

    @property
    def resource(self) -> str:
        """Its name where rights are told."""
        return f"{self.plural}.{self.group}"


KINDS = (
    _Kind("WasmPlugin", "wasmplugins", "extensions.istio.io", "v1alpha1"),
    _Kind("EnvoyFilter", "envoyfilters", "networking.istio.io", "v1alpha3"),
    _Kind("EnvoyExtensionPolicy", "envoyextensionpolicies", "gateway.envoyproxy.io", "v1alpha1"),
)


def listed(
    environment: Mapping[str, str],
    *,
    kubeconfig: Path | None = None,
    context: str | None = None,
    namespace: str | None = None,
    account: Path = configured.ACCOUNT,
) -> Listed:
    """All WasmPlugins, EnvoyFilters and EnvoyExtensionPolicies of the cluster, or of ``namespace``.

    Which cluster, and who one is there: ``kubeconfig``, or ``KUBECONFIG`` of ``environment``, or ``~/.kube/config``, or
    the service account of the pod that this runs in, whose files are in ``account``. Blocks while it asks. Raises
    `ClusterError` when nobody can be asked: there is no client library (``wasm-mirror[cluster]``), no configuration, or
    a wrong one.
    """
    with configured.client(environment, kubeconfig, context, account) as api, configured.errors_logged():
        return _Listing(api, namespace).run()


class _Refused(Exception):
    """An answer that is no list. ``final``: other questions would get the same one."""

    def __init__(self, words: str, status: int = 0, *, final: bool = False) -> None:
        super().__init__(words)
        self.words = words
        self.status = status
        self.final = final


class _Listing:
    """One walk through the kinds."""

    def __init__(self, api: "ApiClient", namespace: str | None) -> None:
        self._api = api
        self._namespace = namespace
        self._server = shown(api.configuration.host)

    def run(self) -> Listed:
        """All objects; a kind that is not installed is passed over, one that cannot be listed is a problem."""
        objects: list[ClusterObject] = []
        problems: list[str] = []
        for kind in KINDS:
            try:
                objects += self._all(kind)
            except _Refused as error:
                if error.status == 404:
                    continue
                problems.append(error.words)
                if error.final:
                    break
        return Listed(objects, problems)

    def _all(self, kind: _Kind) -> list[ClusterObject]:
        """The objects of a kind, as they were at one time."""
        path = f"/apis/{kind.group}/{self._version(kind)}/"
        path += (
            kind.plural if self._namespace is None else f"namespaces/{quote(self._namespace, safe='')}/{kind.plural}"
        )
        for _ in range(_MAX_RESTARTS):
            try:
                return list(self._pages(kind, path))
            except _Refused as error:
                if error.status != 410:
                    raise
        raise _Refused(f"{self._server} cannot list {kind.resource}: the list changes faster than it can be read")

    def _version(self, kind: _Kind) -> str:
        try:
            group = self._get(kind, f"/apis/{kind.group}", [])
        except _Refused as error:
            if error.status == 403:  # a cluster that hides what it has
                return kind.version
            raise
        preferred = group.get("preferredVersion")
        version = preferred.get("version") if isinstance(preferred, dict) else None
        return version if isinstance(version, str) else kind.version

    def _pages(self, kind: _Kind, path: str) -> Iterator[ClusterObject]:
        behind: str | None = None
        for _ in range(_MAX_PAGES):
            more = [] if behind is None else [("continue", behind)]
            page = self._get(kind, path, [("limit", str(PAGE)), *more])
            items, metadata = page.get("items"), page.get("metadata")
            for item in items if isinstance(items, list) else ():
                if isinstance(item, dict):
                    told = {key: item[key] for key in ("metadata", "spec") if key in item}
                    yield ClusterObject({"kind": kind.kind, "apiVersion": f"{kind.group}/{kind.version}", **told})
            behind = metadata.get("continue") if isinstance(metadata, dict) else None
            if not behind:
                return
        raise _Refused(f"{self._server} has more than {_MAX_PAGES * PAGE} {kind.resource}")

    def _get(self, kind: _Kind, path: str, query: list[tuple[str, str]]) -> dict[str, Any]:
        """One answer, as JSON; raises `_Refused`."""
        import urllib3
        from kubernetes.client import ApiException

        asked = self._api.param_serialize(
            "GET", path, query_params=query, header_params={"Accept": "application/json"}, auth_settings=["BearerToken"]
        )
        try:
            answer = self._api.call_api(*asked, _request_timeout=_WITHIN).response
            try:
                content = answer.read(_MAX_PAGE + 1, decode_content=True)
            finally:
                answer.close()
        except (urllib3.exceptions.HTTPError, ApiException, OSError) as error:
            words = f"{self._server} cannot be asked: {shown(_reason(error))}"
            raise _Refused(words, final=True) from None
        told = _json(content)
        if answer.status != 200:
            raise self._refusal(kind, answer.status, told)
        if told is None:
            raise _Refused(f"{self._server} answers with what is no JSON object, or far too large, for {kind.resource}")
        return told

    def _refusal(self, kind: _Kind, status: int, told: dict[str, Any] | None) -> _Refused:
        words = shown(str(told.get("message") or "")) if told else ""
        if status == 401:
            text = f"{self._server} does not take these credentials: {words or 'it answers 401'}"
            return _Refused(text, status, final=True)
        if status == 403:
            where = "in all namespaces" if self._namespace is None else f"in namespace {shown(self._namespace)}"
            return _Refused(
                f"{self._server}: the right to `list {kind.resource}` {where} is lacking; {RIGHTS} gives it", status
            )
        return _Refused(f"{self._server} answers {status} for {kind.resource}: {words or 'without a reason'}", status)


def _json(content: bytes) -> dict[str, Any] | None:
    if len(content) > _MAX_PAGE:
        return None
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _reason(error: BaseException) -> str:
    """What went wrong at the bottom: libraries wrap it, each in its own words."""
    inner = getattr(error, "reason", None)
    while isinstance(inner, BaseException):
        error, inner = inner, getattr(inner, "reason", None)
    return str(inner or error).splitlines()[0] if str(inner or error) else type(error).__name__
