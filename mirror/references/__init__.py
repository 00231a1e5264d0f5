"""Where the references come from that ``wasm-mirror prewarm`` warms: arguments, files, a cluster.

::

    named        a reference and where it stands; all that were found, and what is broken
    documents    YAML and JSON as plain values with lines, bounded
    urls         the URL by which an object names a module, as agents read it
    kinds        the modules that Kubernetes objects name
    lines        references, one a line
    files        texts out of files, folders and standard input, bounded
    kubeconfig   which Kubernetes API server is asked, and who one is there
    cluster      the objects that it has
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Literal

from mirror.references import documents, kinds, lines
from mirror.references.cluster import ClusterObject
from mirror.references.files import Files
from mirror.references.named import Collected, Findings, Named

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
    findings = Findings()
    for text in texts:
        findings.add(lines.as_asked(text), "the command line")
    own = sys.stdin.buffer if sys.stdin is not None else None  # None: whoever started this has closed it
    for text, source, named in Files(findings, stdin or own).texts(files):
        if named and lines.are_references(text):
            lines.read(text, source, findings)
        else:
            for document in documents.read(text):
                kinds.read(document, source, findings)
    for resource in cluster or ():
        kinds.read(resource.value, "the cluster", findings)
    return findings.collected()
