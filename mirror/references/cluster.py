"""What a Kubernetes API server has of the objects that name modules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ClusterObject:
    """A custom resource, as the API server tells it: plain values, as JSON has them."""

    value: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Listed:
    """What the cluster has, and what it did not tell, a line each."""

    objects: Sequence[ClusterObject]
    problems: Sequence[str]


def listed(
    environment: Mapping[str, str],
    *,
    kubeconfig: Path | None = None,
    context: str | None = None,
    namespace: str | None = None,
) -> Listed:
    """All WasmPlugins, EnvoyFilters and EnvoyExtensionPolicies of the cluster, or of ``namespace``.

    Which cluster, and who one is there: ``kubeconfig``, or ``KUBECONFIG`` of ``environment``, or ``~/.kube/config``, or
    the service account of the pod that this runs in. Blocks while it asks. Raises `ClusterError` when nobody can be
    asked: there is no client library (``wasm-mirror[cluster]``), no configuration, or a wrong one.
    """
    raise NotImplementedError(environment, kubeconfig, context, namespace)
