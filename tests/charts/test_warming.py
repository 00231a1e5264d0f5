"""What the mirror keeps warm, and the Job that warms it when it is installed or upgraded."""

from typing import Any

import pytest
import yaml

from tests.charts.settings import settings_file
from tests.support.helm import CHART, Objects, one, refusal, rendered

pytestmark = pytest.mark.needs("helm")

NAME = "mirror-wasm-mirror-prewarm"
A, B = "ghcr.io/team/a:1", "ghcr.io/team/b@sha256:" + "ab" * 32


def pod_of(objects: Objects) -> dict[str, Any]:
    found: dict[str, Any] = one(objects, "Job", NAME)["spec"]["template"]
    return found


def kinds(objects: Objects) -> list[str]:
    """The kinds of objects that give rights."""
    return sorted(value["kind"] for value in objects if value["apiVersion"].startswith("rbac."))


def test_references_are_followed_by_the_mirror_and_warmed_by_a_job_after_each_upgrade() -> None:
    prewarm = {"references": [A, B], "interval": "1m", "hook": {"enabled": True}}
    objects = rendered({"prewarm": prewarm})
    assert yaml.safe_load(settings_file(objects))["prewarm"] == {"references": [A, B], "interval": "1m"}

    job = one(objects, "Job", NAME)
    assert job["metadata"]["annotations"] == {
        "helm.sh/hook": "post-install,post-upgrade",
        "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded",
    }
    assert (job["spec"]["backoffLimit"], job["spec"]["activeDeadlineSeconds"]) == (2, 900)
    template = pod_of(objects)
    assert template["metadata"]["labels"]["sidecar.istio.io/inject"] == "false", "a proxy beside it would never end"
    assert template["metadata"]["annotations"]["linkerd.io/inject"] == "disabled"
    pod = template["spec"]
    (container,) = pod["containers"]
    assert container["args"] == ["prewarm", "--wait", "5m", "--", A, B]
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    assert environment == {
        "WASM_MIRROR_URL": "http://mirror-wasm-mirror.mesh.svc:8080",
        "WASM_MIRROR_TOKEN_FILE": "/run/secrets/admin/token",
    }
    (volume,) = pod["volumes"]
    assert volume["secret"]["secretName"] == "mirror-wasm-mirror-admin"
    assert one(objects, "Secret", "mirror-wasm-mirror-admin")["data"].keys() == {"token"}
    assert volume["secret"]["items"] == [{"key": "token", "path": "token"}]
    assert container["volumeMounts"] == [{"name": "admin", "mountPath": "/run/secrets/admin", "readOnly": True}]

    assert pod["serviceAccountName"] == one(objects, "ServiceAccount", NAME)["metadata"]["name"]
    assert pod["automountServiceAccountToken"] is False
    assert kinds(objects) == []


@pytest.mark.integration
def test_the_job_warms_where_the_admin_api_is_with_the_token_that_there_is() -> None:
    values = {
        "prewarm": {"references": [A], "hook": {"enabled": True, "pin": True, "wait": "0"}},
        "admin": {"port": 9090, "existingSecret": "own", "secretKey": "key"},
        "tls": {"existingSecret": "certificate", "caKey": "authority.pem"},
    }
    pod = pod_of(rendered(values))["spec"]
    (container,) = pod["containers"]
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    assert environment["WASM_MIRROR_URL"] == "https://mirror-wasm-mirror.mesh.svc:9090"
    assert container["args"] == ["prewarm", "--wait", "0", "--pin", "--", A]
    secrets = {volume["name"]: volume["secret"] for volume in pod["volumes"]}
    assert (secrets["admin"]["secretName"], secrets["admin"]["items"]) == ("own", [{"key": "key", "path": "token"}])
    assert secrets["authority"]["secretName"] == "certificate"
    assert secrets["authority"]["items"] == [{"key": "authority.pem", "path": "ca.crt"}]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert environment["SSL_CERT_FILE"] == f"{mounts['authority']}/ca.crt"


@pytest.mark.integration
def test_rights_are_given_for_the_cluster_alone_and_for_namespaces_that_are_named_within_them() -> None:
    cluster: dict[str, Any] = {"enabled": True}
    prewarm = {"cluster": cluster, "hook": {"enabled": True}}
    objects = rendered({"prewarm": prewarm})
    pod = pod_of(objects)["spec"]
    assert pod["automountServiceAccountToken"] is True
    assert pod["containers"][0]["args"] == ["prewarm", "--wait", "5m", "--cluster"]
    assert kinds(objects) == ["ClusterRole", "ClusterRoleBinding"]
    file = list(yaml.safe_load_all((CHART / "rbac" / "prewarm.yaml").read_text()))
    assert one(objects, "ClusterRole")["rules"] == one(file, "ClusterRole")["rules"]
    binding = one(objects, "ClusterRoleBinding")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": NAME, "namespace": "mesh"}]
    assert binding["roleRef"]["name"] == one(objects, "ClusterRole")["metadata"]["name"] == f"mesh-{NAME}"

    cluster["namespaces"] = ["team-a", "team-b"]
    objects = rendered({"prewarm": prewarm})
    assert pod_of(objects)["spec"]["containers"][0]["args"][3:] == [
        *("--cluster", "--namespace", "team-a", "--namespace", "team-b"),
    ]
    assert kinds(objects) == ["Role", "Role", "RoleBinding", "RoleBinding"]
    for kind in ("Role", "RoleBinding"):
        found = [value for value in objects if value["kind"] == kind]
        assert [value["metadata"]["namespace"] for value in found] == ["team-a", "team-b"]
        assert all(value.get("rules", binding["subjects"]) for value in found)
        assert all(value.get("subjects", binding["subjects"]) == binding["subjects"] for value in found)

    own = {"serviceAccountName": "own", "enabled": True}
    objects = rendered({"prewarm": {"cluster": cluster, "hook": own}, "rbac": {"create": False}})
    assert kinds(objects) == []
    assert pod_of(objects)["spec"]["serviceAccountName"] == "own"
    assert NAME not in [value["metadata"]["name"] for value in objects if value["kind"] == "ServiceAccount"]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("prewarm", "words"),
    [
        ({"hook": {"enabled": True}}, "prewarm.hook has nothing to warm: set prewarm.references or"),
        ({"cluster": {"enabled": True}}, "prewarm.cluster is for the hook Job: set prewarm.hook.enabled, too"),
        ({"cluster": {"namespaces": ["a"]}}, "set prewarm.cluster.enabled, too"),
        ({"hook": {"wait": "soon"}}, "wait"),
        ({"hooks": {}}, "hooks"),
    ],
)
def test_values_that_would_do_nothing_are_refused(prewarm: dict[str, Any], words: str) -> None:
    assert words in refusal({"prewarm": prewarm})


@pytest.mark.integration
def test_helm_test_asks_the_mirror_or_has_it_fetch_what_it_is_told() -> None:
    def pod(values: dict[str, Any]) -> dict[str, Any]:
        found = one(rendered({"tests": values}), "Pod")
        assert found["metadata"]["annotations"]["helm.sh/hook"] == "test"
        assert found["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"
        return found

    assert pod({})["spec"]["containers"][0]["args"] == ["ls", "--limit", "1"]
    assert pod({"references": [A]})["spec"]["containers"][0]["args"] == ["prewarm", "--", A]
    assert "Pod" not in {value["kind"] for value in rendered({"tests": {"enabled": False}})}
