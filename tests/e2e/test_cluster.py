"""``wasm-mirror prewarm --cluster`` and a real Kubernetes API server, with the schemas of Istio and Envoy Gateway."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from mirror.references import cluster as asked
from mirror.references import collect
from mirror.references.cluster import RIGHTS, listed
from tests.support.apiserver import NEEDS, ApiServer
from tests.support.artifacts import publish, raw
from tests.support.process import MirrorProcess, clean_environment
from tests.support.upstream import FaultyUpstream
from tests.wasm.modules import plugin

pytestmark = [pytest.mark.needs(*NEEDS), pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
PLUGINS = "wasmplugins.extensions.istio.io"
FILTERS = "envoyfilters.networking.istio.io"
POLICIES = "envoyextensionpolicies.gateway.envoyproxy.io"


def namespaces(*names: str) -> list[dict[str, Any]]:
    return [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in names]


def wasm_plugin(namespace: str, name: str, url: str) -> dict[str, Any]:
    return {
        "apiVersion": "extensions.istio.io/v1alpha1",
        "kind": "WasmPlugin",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"url": url, "phase": "AUTHN"},
    }


def envoy_filter(namespace: str, uri: str) -> dict[str, Any]:
    code = {"remote": {"http_uri": {"uri": uri, "cluster": "_", "timeout": "10s"}}}
    typed = {"config": {"vm_config": {"vm_id": "x", "runtime": "envoy.wasm.runtime.v8", "code": code}}}
    patch = {"operation": "ADD", "value": {"name": "x", "typed_config": typed}}
    return {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": "filter", "namespace": namespace},
        "spec": {"configPatches": [{"applyTo": "EXTENSION_CONFIG", "patch": patch}]},
    }


def policy(namespace: str, url: str) -> dict[str, Any]:
    image = {"name": "a", "rootID": "a", "code": {"type": "Image", "image": {"url": url}}}
    web = {"name": "b", "code": {"type": "HTTP", "http": {"url": "https://example.com/x.wasm", "sha256": "ab" * 32}}}
    target = {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "route"}
    return {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "EnvoyExtensionPolicy",
        "metadata": {"name": "policy", "namespace": namespace},
        "spec": {"targetRefs": [target], "wasm": [image, web]},
    }


def prewarm(mirror: MirrorProcess, kubeconfig: Path, *more: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit status of the command, and what it told a program."""
    words = ["prewarm", "--cluster", "--kubeconfig", str(kubeconfig), "--mirror", mirror.url, "--json", *more]
    done = subprocess.run(
        [sys.executable, "-m", "mirror.cli", *words], env=clean_environment(), capture_output=True, text=True, cwd=ROOT
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def results(told: list[dict[str, Any]]) -> dict[str, str]:
    return {line["reference"]: line["result"] for line in told if line.get("reference")}


def test_what_a_cluster_names_is_warmed_with_just_the_rights_that_the_documentation_lists(tmp_path: Path) -> None:
    rights = list(yaml.safe_load_all((ROOT / RIGHTS).read_text()))
    account = rights[0]["metadata"]
    nobody: Mapping[str, Any] = rights[0] | {"metadata": {"name": "nobody", "namespace": account["namespace"]}}
    with (
        ApiServer(tmp_path / "cluster") as server,
        FaultyUpstream() as up,
        MirrorProcess(tmp_path / "mirror", {"up": up.url}) as mirror,
    ):
        for tag in ("plugin", "other", "filter", "policy"):
            publish(up, "team/module", tag, raw(plugin()))
        server.install("istio-crds", PLUGINS, FILTERS)
        server.install("gateway-crds", POLICIES)
        server.apply(*namespaces("team-a", "team-b", account["namespace"]), *rights, nobody)
        server.apply(
            wasm_plugin("team-a", "auth", f"oci://{mirror.host}/up/team/module:plugin"),
            wasm_plugin("team-b", "auth", f"{mirror.host}/up/team/module:other"),
            wasm_plugin("team-b", "local", "file:///opt/filters/openid.wasm"),
            envoy_filter("team-b", f"{mirror.url}/modules/up/team/module:filter"),
            policy("team-a", f"{mirror.host}/up/team/module:policy"),
        )
        file = server.kubeconfig(tmp_path / "reader", {"token": server.token_of(account["namespace"], account["name"])})
        status, told = prewarm(mirror, file)
        assert (status, results(told)) == (
            0,
            {f"up/team/module:{tag}": "fetched" for tag in ("plugin", "other", "filter", "policy")},
        )
        before = up.count(path="/blobs/")
        status, told = prewarm(mirror, file, "-n", "team-a")
        assert (status, results(told)) == (
            0,
            {"up/team/module:plugin": "held", "up/team/module:policy": "held"},
        )
        assert up.count(path="/blobs/") == before

        file = server.kubeconfig(tmp_path / "nobody", {"token": server.token_of(account["namespace"], "nobody")})
        status, told = prewarm(mirror, file, "up/team/module:plugin")
        assert (status, results(told)) == (1, {"up/team/module:plugin": "held"})
        lacking = [line["why"] for line in told if line.get("result") == "invalid"]
        for right, words in zip((PLUGINS, FILTERS, POLICIES), lacking, strict=True):
            assert f"`list {right}` in all namespaces is lacking; {RIGHTS} gives it" in words


def test_a_cluster_is_found_and_asked_as_kubectl_does_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ApiServer(tmp_path / "cluster") as server:
        server.apply(
            *namespaces("team-a"),
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot", "namespace": "team-a"}},
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRole",
                "metadata": {"name": "reader"},
                "rules": [{"apiGroups": ["extensions.istio.io"], "resources": ["wasmplugins"], "verbs": ["list"]}],
            },
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": "reader", "namespace": "team-a"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
                "subjects": [{"kind": "ServiceAccount", "name": "robot", "namespace": "team-a"}],
            },
        )
        token = server.token_of("team-a", "robot")
        inline = server.kubeconfig(tmp_path / "inline", {"token": token})
        assert listed({}, kubeconfig=inline) == asked.Listed([], []), "no kind is installed, which is no problem"

        server.install("istio-crds", PLUGINS)
        plugins = [wasm_plugin("team-a", f"p{number}", f"ghcr.io/x/y:{number}") for number in range(7)]
        server.apply(*plugins)
        monkeypatch.setattr(asked, "PAGE", 3)
        (tmp_path / "token").write_text(token)
        credential = {
            "apiVersion": "client.authentication.k8s.io/v1",
            "kind": "ExecCredential",
            "status": {"token": token},
        }
        helper = tmp_path / "helper"
        helper.write_text(f"#!/bin/sh\necho '{json.dumps(credential)}'\n")
        helper.chmod(0o755)
        run = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(helper), "interactiveMode": "Never"}
        certificate: Mapping[str, Any] = {"client-certificate": str(server.certificate), "client-key": str(server.key)}
        users: dict[str, Mapping[str, Any]] = {
            "text": {"token": token},
            "file": {"tokenFile": str(tmp_path / "token")},
            "exec": {"exec": run},
            "certificate": certificate,
        }
        for name, user in users.items():
            file = server.kubeconfig(tmp_path / name, user)
            found = listed({"KUBECONFIG": f"{tmp_path}/nowhere:{file}"}, namespace="team-a")
            assert found.problems == [], name
            assert len(collect([], [], found.objects).references) == 7, name

        found = listed({}, kubeconfig=inline)
        assert len(found.problems) == 1, "of one namespace it may see them, of all it may not"

        monkeypatch.setenv("HOME", str(tmp_path))  # where there is no ~/.kube/config
        account = tmp_path / "account"
        account.mkdir()
        (account / "token").write_text(token)
        (account / "ca.crt").write_text(server.authority.read_text())
        pod = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(server.port)}
        found = listed(pod, namespace="team-a", account=account)
        assert (len(found.objects), found.problems) == (7, [])
