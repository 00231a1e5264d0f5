"""The chart as Helm renders it, and what Helm says to values that it refuses."""

import copy
import functools
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.tools import KUBERNETES, require

CHART = Path(__file__).parents[2] / "charts" / "wasm-mirror"
CI = sorted((CHART / "ci").glob("*.yaml"))
"""Values for several kinds of installations."""
RELEASE, NAMESPACE = "mirror", "mesh"

Objects = list[dict[str, Any]]

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def rendered(
    values: Mapping[str, object] | None = None, *, file: Path | None = None, namespace: str = NAMESPACE
) -> Objects:
    """All objects of the chart, hooks and tests too, with these values, or those of a file."""
    return copy.deepcopy(_rendered(json.dumps(values or {}), file, namespace))


def one(objects: Objects, kind: str, name: str | None = None) -> dict[str, Any]:
    """The object of a kind, of which there is one only unless it is named."""
    found = [value for value in objects if value["kind"] == kind and name in (None, value["metadata"]["name"])]
    assert len(found) == 1, [(value["kind"], value["metadata"]["name"]) for value in objects]
    return found[0]


def refusal(values: Mapping[str, object]) -> str:
    """What Helm says to values that the chart does not take."""
    done = helm("template", RELEASE, CHART, *_HOW, "--values", "-", stdin=json.dumps(values))
    assert done.returncode != 0, "Helm takes them"
    return done.stderr


def helm(*words: str | Path, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Helm, without anything of the user's: neither plugins nor a cluster."""
    theirs = {name: value for name, value in os.environ.items() if not name.startswith(("HELM_", "KUBE"))}
    nowhere = {f"HELM_{kind}_HOME": "/nonexistent" for kind in ("CACHE", "CONFIG", "DATA")}
    return subprocess.run(
        [require("helm"), *words],
        input=stdin,
        capture_output=True,
        text=True,
        env={**theirs, "KUBECONFIG": "/nonexistent", **nowhere, **environment},
        timeout=60,
    )


_HOW = ("--kube-version", KUBERNETES)


@functools.cache
def _rendered(values: str, file: Path | None, namespace: str) -> Objects:
    files: list[str | Path] = [] if file is None else ["--values", file]
    done = helm("template", RELEASE, CHART, "--namespace", namespace, *_HOW, *files, "--values", "-", stdin=values)
    assert done.returncode == 0, done.stderr
    return [value for value in yaml.load_all(done.stdout, _LOADER) if value]
