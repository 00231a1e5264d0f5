"""The values of `ci/`: what each makes of the mirror."""

import re
from pathlib import Path
from typing import Any

import pytest

from mirror.config.values import parse_duration, parse_size
from tests.charts.settings import container, effective, environment, secret, secret_paths, settings_file
from tests.support.helm import CHART, CI, Objects, helm, one, rendered
from tests.support.tools import KUBERNETES

pytestmark = [pytest.mark.needs("helm"), pytest.mark.integration]

NAME = "mirror-wasm-mirror"
SECRETS = "/run/secrets/wasm-mirror"


def of(name: str) -> Objects:
    return rendered(file=CHART / "ci" / f"{name}-values.yaml")


def pod(objects: Objects) -> dict[str, Any]:
    found: dict[str, Any] = one(objects, "StatefulSet")["spec"]["template"]["spec"]
    return found


def test_there_are_values_for_several_kinds_of_installations() -> None:
    assert len(CI) >= 6


def test_helm_finds_nothing_to_say_about_any() -> None:
    files = [word for file in CI for word in ("--values", file)]
    assert files
    for file in CI:
        done = helm("lint", "--strict", CHART, "--kube-version", KUBERNETES, "--values", file)
        assert done.returncode == 0, f"{file.name}: {done.stdout}{done.stderr}"
        assert "WARNING" not in done.stdout


@pytest.mark.parametrize("file", CI, ids=lambda file: file.stem)
def test_the_mirror_takes_its_settings_and_finds_the_files_that_they_name(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = rendered(file=file)
    settings = effective(objects, tmp_path, monkeypatch)
    mounted = secret_paths(objects)
    named = set(re.findall(rf"{SECRETS}/[\w./-]+", settings_file(objects)))
    assert named - mounted.keys() == set()
    assert mounted.keys() - named <= {f"{SECRETS}/tls/ca.crt"}  # that one is for people, too
    own = {each["metadata"]["name"] for each in objects if each["kind"] == "Secret"}
    asked = {name for name, _ in mounted.values()}
    assert own <= asked
    assert all(key in secret(objects, name) for name, key in mounted.values() if name in own)
    needed = parse_duration(settings["drain_for"]) + parse_duration(settings["stop_within"])
    assert pod(objects)["terminationGracePeriodSeconds"] > needed
    assert environment(objects)["WASM_MIRROR_LISTEN"] == settings["listen"]


@pytest.mark.parametrize("file", CI, ids=lambda file: file.stem)
def test_no_secret_is_in_a_config_map_or_in_a_pods_text(file: Path) -> None:
    objects = rendered(file=file)
    words = [
        word
        for each in objects
        if each["kind"] == "Secret"
        for word in secret(objects, each["metadata"]["name"]).values()
    ]
    open_text = repr([each for each in objects if each["kind"] != "Secret"])
    assert not [word for word in words if word in open_text]


@pytest.mark.parametrize("file", CI, ids=lambda file: file.stem)
def test_every_pod_is_as_the_restricted_standard_asks(file: Path) -> None:
    specs = [each["spec"]["template"]["spec"] for each in rendered(file=file) if "template" in each.get("spec", {})]
    for spec in specs:
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["enableServiceLinks"] is False
        for each in [*spec["containers"], *spec.get("initContainers", [])]:
            assert each["securityContext"]["allowPrivilegeEscalation"] is False
            assert each["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert each["securityContext"]["readOnlyRootFilesystem"] is True
            assert each["resources"]["limits"]["memory"]
            assert "cpu" not in each["resources"]["limits"]


def test_replicas_share_a_redis_and_a_secret_and_reach_each_other_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = of("replicas")
    settings = effective(objects, tmp_path, monkeypatch)
    assert one(objects, "StatefulSet")["spec"]["replicas"] == 3
    assert settings["metadata"]["url"] == f"redis://{NAME}-redis.mesh.svc:6379"
    assert settings["cluster"]["advertise"] == f"http://{NAME}-0.{NAME}-peers.mesh.svc.cluster.local:8080"
    assert environment(objects, 2)["WASM_MIRROR_CLUSTER__ADVERTISE"].startswith(f"http://{NAME}-2.{NAME}-peers.mesh.")
    assert len(secret(objects, f"{NAME}-cluster")["secret"]) >= 16
    assert settings["hosted"]["ack"] == "all"
    assert settings["wasm"] == {**settings["wasm"], "check": "enforce", "repackage": "off"}
    assert set(settings["upstreams"]) == {"ghcr.io", "corp"}
    (term,) = pod(objects)["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert pod(objects)["terminationGracePeriodSeconds"] == 60 + 90 + 10
    assert parse_size(settings["cache"]["max_size"]) == pytest.approx(1.5 * 2**40 * 0.85, abs=2**20)
    (claim,) = one(objects, "StatefulSet")["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["storageClassName"] == "fast"


def test_a_redis_of_ones_own_is_reached_with_its_login_and_its_certificates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = of("sentinel")
    settings = effective(objects, tmp_path, monkeypatch)
    assert settings["metadata"] == {
        "url": "rediss+sentinel://sentinel-0.redis:26379,sentinel-1.redis:26379/mymaster/2",
        "username": None,
        "username_file": f"{SECRETS}/redis/username",
        "password_file": f"{SECRETS}/redis/password",
        "ca_file": f"{SECRETS}/redis/ca.crt",
        "client_certificate": f"{SECRETS}/redis/tls.crt",
        "client_key": f"{SECRETS}/redis/tls.key",
    }
    mounted = secret_paths(objects)
    assert mounted[f"{SECRETS}/redis/username"] == ("redis-login", "redis-user")
    assert mounted[f"{SECRETS}/redis/tls.key"] == ("redis-client", "tls.key")
    assert mounted[f"{SECRETS}/cluster-secret"] == ("mirror-peers", "secret")
    assert settings["cluster"]["advertise"].startswith(f"https://{NAME}-0.{NAME}-peers.")
    assert settings["cluster"]["ca_file"] == f"{SECRETS}/tls/ca.crt"
    assert not [each for each in objects if each["kind"] in ("Secret", "Deployment")]


def test_https_comes_of_cert_manager_for_all_its_names_and_users_may_push(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = of("tls-htpasswd")
    settings = effective(objects, tmp_path, monkeypatch)
    assert f"{NAME}.mesh" in settings["names"]  # at port 443 nobody writes it
    assert settings["names"][-1] == "mirror.corp.example"
    certificate = one(objects, "Certificate")["spec"]
    assert certificate["issuerRef"] == {"name": "mesh", "kind": "ClusterIssuer", "group": "cert-manager.io"}
    hosts = {name.partition(":")[0] for name in settings["names"]}
    assert hosts <= set(certificate["dnsNames"])
    assert f"*.{NAME}-peers.mesh.svc.cluster.local" in certificate["dnsNames"]
    assert secret_paths(objects)[settings["tls"]["certificate"]] == (certificate["secretName"], "tls.crt")
    assert settings["auth"]["mode"] == "htpasswd"
    assert {probe["httpGet"]["scheme"] for name, probe in container(objects).items() if name.endswith("Probe")} == {
        "HTTPS"
    }
    (port,) = one(objects, "Service", NAME)["spec"]["ports"]
    assert (port["port"], port["targetPort"], port["appProtocol"]) == (443, "https", "https")


def test_without_a_volume_it_takes_a_part_of_what_the_pod_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = of("emptydir")
    (data,) = [volume for volume in pod(objects)["volumes"] if volume["name"] == "data"]
    assert data["emptyDir"]["sizeLimit"] == "4G"
    assert "volumeClaimTemplates" not in one(objects, "StatefulSet")["spec"]
    settings = effective(objects, tmp_path, monkeypatch)
    assert parse_size(settings["cache"]["max_size"]) == pytest.approx(3_000_000_000, abs=2**20)
    assert settings["hosted"]["enabled"] is False


def test_the_port_and_the_names_of_objects_can_be_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = of("alone")
    settings = effective(objects, tmp_path, monkeypatch)
    assert settings["listen"] == "[::]:8000"
    assert [port["containerPort"] for port in container(objects)["ports"]] == [8000]
    assert "mirror-modules.mesh" in settings["names"]
    labels = one(objects, "StatefulSet")["metadata"]["labels"]
    assert (labels["team"], labels["app.kubernetes.io/part-of"]) == ("mesh", "mesh")
    assert settings["cluster"]["advertise"] is None


def test_upstreams_get_the_logins_of_pull_secrets_and_of_helpers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = of("logins")
    upstreams = effective(objects, tmp_path, monkeypatch)["upstreams"]
    found = {name: upstream["credentials"] for name, upstream in upstreams.items()}
    assert found == {
        "ghcr.io": {"docker_config": f"{SECRETS}/pull/ghcr-pull/config.json"},
        "docker.io": {"docker_config": f"{SECRETS}/pull/hub-pull/config.json"},
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com": {"helper": "ecr-login"},
        "europe-docker.pkg.dev": {"helper": "gcr"},
        "corp.azurecr.io": {"helper": "acr-env"},
    }
    assert upstreams["ghcr.io"]["allow"] == ["corp/**"]
    assert secret_paths(objects)[f"{SECRETS}/pull/hub-pull/config.json"] == ("hub-pull", ".dockerconfigjson")


def test_helpers_are_copied_to_where_the_mirror_looks_for_programs() -> None:
    objects = of("logins")
    ecr, gcr, acr = pod(objects)["initContainers"]
    target = "/helpers/docker-credential-"
    assert ecr["command"] == ["cp", "/usr/local/bin/docker-credential-ecr-login", "$(TARGET)"]
    assert gcr["command"][0] == "/bin/sh"
    assert acr["command"][1] == "/docker-credential-acr-env"
    assert [each["env"] for each in (ecr, gcr, acr)] == [
        [{"name": "TARGET", "value": f"{target}{name}"}] for name in ("ecr-login", "gcr", "acr-env")
    ]
    image = (CHART.parents[1] / "Dockerfile").read_text()
    (path,) = re.findall(r"^ENV PATH=(\S+)", image, re.MULTILINE)
    assert environment(objects)["PATH"] == f"/helpers:{path}"
    mounts = {mount["mountPath"]: mount for mount in container(objects)["volumeMounts"]}
    assert mounts["/helpers"] == {"name": "helpers", "mountPath": "/helpers", "readOnly": True}


def test_images_come_from_a_registry_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = of("airgap")
    redis = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert container(objects)["image"].startswith("registry.inside.example/wasm-mirror/wasm-mirror@sha256:0000")
    assert redis["image"].startswith("registry.inside.example/valkey/valkey:")
    assert pod(objects)["imagePullSecrets"] == [{"name": "inside-pull"}]
    settings = effective(objects, tmp_path, monkeypatch)
    assert settings["cache"]["max_size"] == "5GiB"
    assert settings["upstreams"]["ghcr.io"]["offline"] is True


def test_with_everything_on_the_admin_api_has_a_port_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = of("everything")
    settings = effective(objects, tmp_path, monkeypatch)
    assert settings["admin"] == {"listen": "0.0.0.0:9090", "token_file": f"{SECRETS}/admin-token"}
    assert [(port["name"], port["containerPort"]) for port in container(objects)["ports"]] == [
        ("https", 8080),
        ("admin", 9090),
    ]
    service = one(objects, "Service", "modules")["spec"]["ports"]
    assert [(port["name"], port["port"]) for port in service] == [("https", 8080), ("admin", 9090)]
    assert settings["prewarm"] == {"references": ["ghcr.io/corp/plugin:1.0"], "interval": "10m"}
    assert secret_paths(objects)[f"{SECRETS}/admin-token"] == ("mirror-admin", "admin")
    assert not [each for each in objects if each["kind"] == "Secret"]
    assert pod(objects)["imagePullSecrets"] == [{"name": "corp-pull"}, {"name": "registry-pull"}]
