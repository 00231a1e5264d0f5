"""The chart without any value: one mirror with a volume, as a security team takes it."""

from pathlib import Path
from typing import Any

import pytest

import mirror
from charts.values import read
from mirror.config.values import parse_duration, parse_size
from tests.charts.settings import container, effective, secret, secret_paths
from tests.support.helm import CHART, Objects, one, rendered

pytestmark = pytest.mark.needs("helm")

NAME = "mirror-wasm-mirror"


@pytest.fixture(scope="module")
def objects() -> Objects:
    return rendered()


@pytest.fixture
def pod(objects: Objects) -> dict[str, Any]:
    found: dict[str, Any] = one(objects, "StatefulSet")["spec"]["template"]["spec"]
    return found


def test_one_replica_has_a_volume_and_takes_no_more_than_is_on_it(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = one(objects, "StatefulSet")["spec"]
    assert (spec["replicas"], spec["podManagementPolicy"]) == (1, "Parallel")
    (claim,) = spec["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "20Gi"
    settings = effective(objects, tmp_path, monkeypatch)
    assert parse_size(settings["cache"]["max_size"]) == 0.85 * parse_size("20GiB")
    mounts = {mount["name"]: mount["mountPath"] for mount in container(objects)["volumeMounts"]}
    assert mounts[claim["metadata"]["name"]] == settings["data_dir"]
    assert "metadata" not in settings or settings["metadata"]["url"] == "sqlite"


def test_the_pod_is_given_the_time_that_the_mirror_takes_to_stop(
    objects: Objects, pod: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = effective(objects, tmp_path, monkeypatch)
    needed = parse_duration(settings["drain_for"]) + parse_duration(settings["stop_within"])
    assert needed == 15 + 35
    assert pod["terminationGracePeriodSeconds"] > needed


def test_the_pod_has_no_rights_that_it_does_not_need(objects: Objects, pod: dict[str, Any]) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert one(objects, "ServiceAccount", NAME)["automountServiceAccountToken"] is False
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container(objects)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not [name for name in ("hostNetwork", "hostPID", "hostIPC", "initContainers") if name in pod]
    assert {kind for volume in pod["volumes"] for kind in volume if kind != "name"} == {
        "configMap",
        "projected",
        "emptyDir",
    }


def test_what_it_writes_to_is_a_volume(objects: Objects) -> None:
    writable = {mount["mountPath"] for mount in container(objects)["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/var/lib/wasm-mirror", "/tmp"}


def test_memory_is_limited_and_cpu_is_not(objects: Objects) -> None:
    resources = container(objects)["resources"]
    assert resources["requests"].keys() == {"cpu", "memory"}
    assert resources["limits"].keys() == {"memory"}


def test_probes_ask_what_is_for_them(objects: Objects) -> None:
    mirror_ = container(objects)
    asked = {name: mirror_[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: probe["path"] for name, probe in asked.items()} == {
        "startup": "/healthz",
        "liveness": "/healthz",
        "readiness": "/readyz",
    }
    assert {(probe["scheme"], probe["port"]) for probe in asked.values()} == {("HTTP", "http")}
    assert [(port["name"], port["containerPort"]) for port in mirror_["ports"]] == [("http", 8080)]


def test_no_proxy_of_a_mesh_joins_the_pod(objects: Objects) -> None:
    about = one(objects, "StatefulSet")["spec"]["template"]["metadata"]
    assert about["labels"]["sidecar.istio.io/inject"] == "false"
    assert about["annotations"]["sidecar.istio.io/inject"] == "false"
    assert about["labels"]["istio.io/dataplane-mode"] == "none"
    assert about["annotations"]["linkerd.io/inject"] == "disabled"


def test_services_select_the_mirror_and_nothing_else(objects: Objects) -> None:
    labels = one(objects, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    for name in (NAME, f"{NAME}-peers"):
        spec = one(objects, "Service", name)["spec"]
        assert spec["selector"] == one(objects, "StatefulSet")["spec"]["selector"]["matchLabels"]
        assert spec["selector"].items() <= labels.items()
        assert spec["selector"]["app.kubernetes.io/component"] == "mirror"
        (port,) = spec["ports"]
        assert (port["port"], port["targetPort"], port["appProtocol"]) == (8080, "http", "http")
    headless = one(objects, "Service", f"{NAME}-peers")["spec"]
    assert (headless["clusterIP"], headless["publishNotReadyAddresses"]) == ("None", True)
    assert one(objects, "StatefulSet")["spec"]["serviceName"] == f"{NAME}-peers"


def test_the_names_that_agents_write_are_its_own(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert effective(objects, tmp_path, monkeypatch)["names"] == [
        f"{NAME}:8080",
        f"{NAME}.mesh:8080",
        f"{NAME}.mesh.svc:8080",
        f"{NAME}.mesh.svc.cluster.local:8080",
    ]


def test_what_it_serves_is_what_the_values_say(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (about,) = [value.about for value in read((CHART / "values.yaml").read_text()) if value.name == "config"]
    listed = about.rpartition("these are served: ")[2].removesuffix(".").split(", ")
    assert set(effective(objects, tmp_path, monkeypatch)["upstreams"]) == set(listed)


def test_the_admin_token_is_made_and_kept_and_mounted(objects: Objects) -> None:
    (made,) = [each for each in objects if each["kind"] == "Secret"]
    assert made["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert len(secret(objects, f"{NAME}-admin")["token"]) >= 32
    assert secret_paths(objects) == {"/run/secrets/wasm-mirror/admin-token": (f"{NAME}-admin", "token")}


def test_the_image_is_that_of_this_version(objects: Objects) -> None:
    assert container(objects)["image"] == f"ghcr.io/wasm-mirror/wasm-mirror:{mirror.__version__}"
    assert container(objects)["args"][0] == "serve"


def test_replicas_keep_away_from_one_another_where_they_can(pod: dict[str, Any]) -> None:
    (term,) = pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert term["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"
    (spread,) = pod["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["whenUnsatisfiable"]) == ("topology.kubernetes.io/zone", "ScheduleAnyway")
