"""The chart and a real Kubernetes API server, whose namespaces let in only what Pod Security `restricted` does, with
the kinds of Prometheus' operator and of cert-manager: what it takes, what upgrades keep, what the hook may do.
"""

import base64
import copy
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mirror.references.cluster import listed
from tests.support.apiserver import NEEDS, ApiServer
from tests.support.artifacts import publish, raw
from tests.support.helm import CHART, CI, NAMESPACE, RELEASE, helm, one, rendered
from tests.support.process import MirrorProcess, clean_environment
from tests.support.upstream import FaultyUpstream
from tests.wasm.modules import plugin

KINDS = {
    "servicemonitor-crd": "servicemonitors.monitoring.coreos.com",
    "podmonitor-crd": "podmonitors.monitoring.coreos.com",
    "prometheusrule-crd": "prometheusrules.monitoring.coreos.com",
    "certificate-crd": "certificates.cert-manager.io",
    "gateway-crds": "envoyextensionpolicies.gateway.envoyproxy.io",
}
ISTIO = ("wasmplugins.extensions.istio.io", "envoyfilters.networking.istio.io")

pytestmark = [
    pytest.mark.needs(*NEEDS, "helm", *KINDS),
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("chart"),  # all in one process: the API server is started once
]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with ApiServer(tmp_path_factory.mktemp("cluster")) as running:
        for program, name in KINDS.items():
            running.install(program, name)
        running.install("istio-crds", *ISTIO)
        running.apply(*(namespace(name) for name in (NAMESPACE, "installed", "monitoring", "team-a", "team-b")))
        yield running


def namespace(name: str) -> dict[str, Any]:
    """One whose API server refuses Pods that `restricted` does not allow, and warns of templates of such."""
    modes = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": modes}}


def pod_of(workload: dict[str, Any]) -> dict[str, Any]:
    """A Pod as its controller would make it, with the volumes of its claims."""
    template = copy.deepcopy(workload["spec"]["template"])
    name, own = workload["metadata"]["name"], template.setdefault("spec", {})
    for claim in workload["spec"].get("volumeClaimTemplates", []):
        volume = claim["metadata"]["name"]
        own["volumes"].append({"name": volume, "persistentVolumeClaim": {"claimName": f"{volume}-{name}-0"}})
    metadata = template["metadata"] | {"name": f"{name}-0", "namespace": workload["metadata"]["namespace"]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": own}


@pytest.mark.parametrize("file", CI, ids=lambda file: file.name.removesuffix("-values.yaml"))
def test_the_api_server_takes_every_object_as_it_is_and_warns_of_none(server: ApiServer, file: Path) -> None:
    name = file.stem
    server.apply(namespace(name))
    objects = rendered(file=file, namespace=name)
    pods = [pod_of(value) for value in objects if "template" in value.get("spec", {})]
    assert {value["kind"] for value in objects} >= {"StatefulSet", "Service", "ConfigMap", "NetworkPolicy", "Pod"}
    assert pods
    assert server.apply_as_they_are(*objects, *pods) == []


def test_pods_that_are_not_restricted_are_refused_here(server: ApiServer) -> None:
    workload = one(rendered(), "StatefulSet")
    del workload["spec"]["template"]["spec"]["containers"][0]["securityContext"]
    workload["metadata"]["name"] = "open"
    assert "would violate PodSecurity" in "".join(server.apply_as_they_are(workload))
    with pytest.raises(AssertionError, match="forbidden: violates PodSecurity"):
        server.apply_as_they_are(pod_of(workload))
    workload["spec"]["unheardOf"] = 1
    with pytest.raises(AssertionError, match="unheardOf"):
        server.apply_as_they_are(workload)


def test_what_was_made_once_is_kept_by_upgrades_and_outlives_the_release(server: ApiServer, tmp_path: Path) -> None:
    kubeconfig = server.kubeconfig(tmp_path / "config", {"token": server.admin})
    homes = {f"HELM_{kind}_HOME": str(tmp_path / kind) for kind in ("CACHE", "CONFIG", "DATA")}
    values = {"replicas": 2, "redis": {"bundled": {"enabled": True}}, "auth": {"users": ["ci"]}}

    def run(*words: str | Path, **more: object) -> None:
        own: list[str | Path] = ["--kubeconfig", kubeconfig, "--namespace", "installed"]
        done = helm(*words, *own, stdin=json.dumps(values | more), **homes)
        assert done.returncode == 0, done.stderr
        assert not re.search(r"^W\d{4} ", done.stderr, re.MULTILINE), done.stderr

    def secrets() -> dict[str, dict[str, str]]:
        names = [f"{RELEASE}-wasm-mirror-{what}" for what in ("admin", "cluster", "redis", "htpasswd")]
        found = {name: server.read("v1", "Secret", "installed", name) for name in names}
        assert all(found.values()), found
        return {name: value["data"] for name, value in found.items() if value}

    new = ("install", RELEASE, CHART, "--no-hooks", "--values", "-")
    run(*new)
    first = secrets()
    token = base64.b64decode(first[f"{RELEASE}-wasm-mirror-admin"]["token"])
    assert len(token) >= 16
    run("upgrade", RELEASE, CHART, "--no-hooks", "--values", "-", auth={"users": ["ci", "anna"]}, replicas=3)
    second = secrets()
    users = f"{RELEASE}-wasm-mirror-htpasswd"
    lines = [base64.b64decode(found[users]["htpasswd"]).decode().splitlines() for found in (first, second)]
    assert (len(lines[1]), lines[1][0]) == (2, lines[0][0]), "ci's password is the same one"
    assert {**second, users: {}} == {**first, users: {}}
    assert first[users]["password-ci"] == second[users]["password-ci"]
    stateful = server.read("apps/v1", "StatefulSet", "installed", f"{RELEASE}-wasm-mirror")
    assert stateful is not None
    assert stateful["spec"]["replicas"] == 3

    run("uninstall", RELEASE, "--no-hooks")
    assert server.read("apps/v1", "StatefulSet", "installed", f"{RELEASE}-wasm-mirror") is None
    assert secrets() == second
    run(*new, auth={"users": ["ci", "anna"]})
    assert secrets() == second, "who installs it anew has them again"


@pytest.mark.parametrize("namespaces", [[], ["team-a"]])
def test_the_hooks_account_may_list_what_it_is_to_warm_and_nothing_else(
    server: ApiServer, tmp_path: Path, namespaces: list[str]
) -> None:
    prewarm = {"hook": {"enabled": True}, "cluster": {"enabled": True, "namespaces": namespaces}}
    name = f"listing-{len(namespaces)}"
    objects = rendered({"prewarm": prewarm, "fullnameOverride": name})
    account = one(objects, "ServiceAccount", f"{name}-prewarm")["metadata"]
    job = one(objects, "Job")["spec"]["template"]["spec"]
    assert (job["serviceAccountName"], job["automountServiceAccountToken"]) == (account["name"], True)
    server.apply_as_they_are(*(o for o in objects if o["kind"] == "ServiceAccount" or "rbac" in o["apiVersion"]))
    token = server.token_of(account["namespace"], account["name"])
    file = server.kubeconfig(tmp_path / "config", {"token": token})
    assert listed({}, kubeconfig=file, namespace="team-a").problems == []
    elsewhere = listed({}, kubeconfig=file).problems
    assert len(elsewhere) == (3 if namespaces else 0), "where namespaces are named, of all it may not"
    assert server.may(token, "list", "secrets", account["namespace"]) is False
    assert server.may(token, "list", "wasmplugins.extensions.istio.io", "team-a") is True
    assert server.may(token, "get", "wasmplugins.extensions.istio.io", "team-a") is False


def test_the_hooks_own_command_line_warms_a_mirror_with_what_the_cluster_names(
    server: ApiServer, tmp_path: Path
) -> None:
    settings = tmp_path / "token"
    settings.write_text("a token of a mirror\n".replace(" ", "-"))
    with FaultyUpstream() as up:
        for tag in ("listed", "named"):
            publish(up, "team/module", tag, raw(plugin()))
        mirror = MirrorProcess(tmp_path / "mirror", {"up": up.url}, {"admin": {"token_file": str(settings)}})
        url = f"oci://{mirror.host}/up/team/module:named"
        server.apply_as_they_are(
            {
                "apiVersion": "extensions.istio.io/v1alpha1",
                "kind": "WasmPlugin",
                "metadata": {"name": "auth", "namespace": "team-b"},
                "spec": {"url": url, "phase": "AUTHN"},
            }
        )
        cluster = {"enabled": True, "namespaces": ["team-b"]}
        prewarm = {"references": ["up/team/module:listed"], "cluster": cluster, "hook": {"enabled": True, "pin": True}}
        objects = rendered({"prewarm": prewarm, "fullnameOverride": "warming", "config": {"upstreams": {"up": {}}}})
        account = one(objects, "ServiceAccount", "warming-prewarm")["metadata"]
        server.apply_as_they_are(*(o for o in objects if o["kind"] == "ServiceAccount" or "rbac" in o["apiVersion"]))
        token = server.token_of(account["namespace"], account["name"])
        file = server.kubeconfig(tmp_path / "config", {"token": token})
        (container,) = one(objects, "Job")["spec"]["template"]["spec"]["containers"]
        environment = {variable["name"]: variable["value"] for variable in container["env"]}
        assert environment.keys() == {"WASM_MIRROR_URL", "WASM_MIRROR_TOKEN_FILE"}
        environment |= {"WASM_MIRROR_URL": mirror.url, "WASM_MIRROR_TOKEN_FILE": str(settings), "KUBECONFIG": str(file)}
        job = subprocess.Popen(
            [sys.executable, "-m", "mirror.cli", *container["args"]],
            env={**clean_environment(), **environment},
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            assert job.stderr is not None
            assert "it is asked again" in job.stderr.readline(), "it begins before the mirror is up"
            with mirror:
                told, complaints = job.communicate(timeout=60)
                assert job.returncode == 0, complaints
                assert "2 fetched" in told
        finally:
            job.kill()
            job.communicate()
            mirror.close()
