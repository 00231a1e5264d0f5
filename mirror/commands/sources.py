"""Where the references of a ``prewarm`` come from: the command line, files, a cluster."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mirror.errors import ClusterError
from mirror.references import ClusterObject, collect
from mirror.references.cluster import listed

_TYPED = "the command line"
"""How `collect` calls the place of what was typed: whoever did so knows."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Which cluster is asked for its objects; what is None is as kubectl has it. No ``namespaces`` are all of them."""

    kubeconfig: Path | None
    context: str | None
    namespaces: Sequence[str]


@dataclass(frozen=True, slots=True)
class Sources:
    """``texts`` are references; ``files`` are files, folders and ``-``."""

    texts: Sequence[str]
    files: Sequence[str]
    cluster: Cluster | None

    def read(self) -> tuple[Mapping[str, str | None], Sequence[str]]:
        """All references with where they stand, unless they were typed; and a line for each thing that is broken.

        Blocks.
        """
        objects, problems = _of_cluster(self.cluster) if self.cluster is not None else ((), [])
        files: list[Path | Literal["-"]] = ["-" if name == "-" else Path(name) for name in self.files]
        collected = collect(files, self.texts, objects)
        found_at = {named.text: None if named.where == _TYPED else named.where for named in collected.references}
        return found_at, [*problems, *collected.problems]


def _of_cluster(cluster: Cluster) -> tuple[Sequence[ClusterObject], list[str]]:
    objects: list[ClusterObject] = []
    problems: list[str] = []
    for namespace in cluster.namespaces or (None,):
        try:
            found = listed(os.environ, kubeconfig=cluster.kubeconfig, context=cluster.context, namespace=namespace)
        except ClusterError as error:  # nobody can be asked, for none of them
            return objects, [*problems, error.message]
        objects += found.objects
        problems += found.problems
    return objects, problems
