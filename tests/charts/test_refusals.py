"""What the chart does not take, and the words with which it says so."""

from typing import Any

import pytest

from tests.charts.settings import environment, settings_file
from tests.support.helm import refusal, rendered

pytestmark = [pytest.mark.needs("helm"), pytest.mark.integration]

BUNDLED = {"bundled": {"enabled": True}}


def test_the_schema_names_every_value_that_it_does_not_know_or_that_is_none() -> None:
    words = refusal(
        {
            "replica": 2,
            "persistence": {"sizes": "1Gi", "size": "20GB"},
            "redis": {"url": "http://redis", "bundled": {"image": {"name": "x"}}},
            "replicas": "two",
            "service": {"type": "ExternalName"},
            "drainFor": "15 s",
            "credentials": [{"upstream": "ghcr.io"}],
            "credentialHelpers": [{"name": "ecr-login", "image": "x", "upstreams": []}],
            "auth": {"users": ["a:b"]},
            "config": {"upstreams": ["ghcr.io"]},
        }
    )
    for said in (
        "at '': additional properties 'replica' not allowed",
        "at '/persistence': additional properties 'sizes' not allowed",
        "at '/persistence/size': '20GB' does not match pattern",
        "at '/redis/url': 'http://redis' does not match",
        "at '/redis/bundled/image': additional properties 'name' not allowed",
        "at '/replicas': got string, want integer",
        "at '/service/type': value must be one of 'ClusterIP'",
        "at '/drainFor'",
        "at '/credentials/0': missing property 'existingSecret'",
        "at '/credentialHelpers/0/upstreams'",
        "at '/auth/users/0'",
        "at '/config/upstreams': got array, want object",
    ):
        assert said in words, words


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"replicas": 2}, "Set redis.url, or redis.bundled.enabled=true; or config.hosted.enabled=false"),
        ({"redis": {"url": "redis://redis", **BUNDLED}}, "redis.url and redis.bundled.enabled are both set"),
        ({"redis": {"url": "redis://user:hush@redis"}}, "redis.url holds a user, a password or a query"),
        ({"redis": {**BUNDLED, "usernameKey": "user"}}, "redis.usernameKey is a key of redis.existingSecret"),
        ({"redis": {"tls": {"certificateKey": "tls.crt"}}}, "redis.tls.privateKeyKey belong together"),
        ({"persistence": {"enabled": False, "existingClaim": "x"}}, "persistence.enabled is false"),
        ({"replicas": 2, "redis": BUNDLED, "persistence": {"existingClaim": "x"}}, "each needs a volume of its own"),
        ({"auth": {"existingSecret": "x", "users": ["ci"]}}, "auth.existingSecret and auth.users are both set"),
        ({"tls": {"certManager": {"enabled": True}}}, "tls.certManager.issuerRef.name is missing"),
        (
            {"tls": {"existingSecret": "x", "certManager": {"enabled": True, "issuerRef": {"name": "y"}}}},
            "tls.existingSecret and tls.certManager.enabled are both set",
        ),
        (
            {"config": {"upstreams": {"ghcr.io": {"credentials": {"username": "u", "password": "hush"}}}}},
            "config.upstreams has a password, of ghcr.io",
        ),
        (
            {
                "config": {
                    "upstreams": {"a": {"endpoints": [{"url": "https://a", "credentials": {"password": "hush"}}]}}
                }
            },
            "config.upstreams has a password, of a",
        ),
        ({"config": {"admin": {"listen": "0.0.0.0:9090"}}}, "set admin.port"),
        ({"config": {"metadata": {"url": "redis://redis"}}}, "set redis.url"),
        ({"config": {"tls": {"certificate": "/a"}}}, "set tls.existingSecret"),
        ({"credentials": [{"upstream": "corp", "existingSecret": "x"}]}, "credentials: corp is no host"),
        ({"admin": {"port": 8080}, "service": {"port": 80}}, "admin.port is 8080, which is the registry's own"),
        ({"admin": {"port": 443}, "service": {"port": 443}}, "admin.port is 443, which is the registry's own"),
        ({"config": {"data_dir": "/data"}}, "config.data_dir is where the volume is mounted"),
        ({"extraEnv": [{"name": "WASM_MIRROR_LISTEN", "value": ":80"}]}, "extraEnv must not have WASM_MIRROR_LISTEN"),
        ({"config": {"drain_for": "15 s"}}, "drainFor must be a duration such as 500ms, 15s or 1m30s"),
        ({"persistence": {"size": "50Mi"}}, "persistence.size is 50Mi, which is too little"),
        (
            {
                "config": {"upstreams": {"ghcr.io": {"credentials": {"helper": "gcr"}}}},
                "credentials": [{"upstream": "ghcr.io", "existingSecret": "x"}],
            },
            "the upstream ghcr.io has credentials already",
        ),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:40],
)
def test_what_contradicts_is_refused_with_a_sentence(values: dict[str, Any], said: str) -> None:
    words = refusal(values)
    assert said in words
    assert "hush" not in words


def test_values_of_another_chart_and_the_clusters_global_ones_are_taken() -> None:
    assert rendered({"global": {"domain": "mesh.example", "storage": {"class": "fast"}}})


@pytest.mark.parametrize(
    ("size", "max_size"),
    [("20Gi", "17408MiB"), ("1Ti", "891289MiB"), ("10G", "8106MiB"), ("512Mi", "435MiB"), ("2.5Gi", "2176MiB")],
)
def test_the_cache_may_take_a_part_of_the_volume_whatever_its_unit(size: str, max_size: str) -> None:
    assert f"max_size: {max_size}\n" in settings_file(rendered({"persistence": {"size": size}}))


@pytest.mark.parametrize(
    ("drain", "stop", "seconds"),
    [("0", "0", 10), ("1m30s", "1h", 3700), ("500ms", "1.5s", 13), ("2m", "35s", 165)],
)
def test_the_pods_end_is_reckoned_from_any_durations(drain: str, stop: str, seconds: int) -> None:
    objects = rendered({"drainFor": drain, "stopWithin": stop})
    (pod,) = [each["spec"]["template"]["spec"] for each in objects if each["kind"] == "StatefulSet"]
    assert pod["terminationGracePeriodSeconds"] == seconds


def test_config_wins_over_what_is_derived_and_large_numbers_stay_numbers() -> None:
    config = {
        "drain_for": "20s",
        "hosted": {"max_blob_size": 20000000000, "enabled": False},
        "upstreams": {"ghcr.io": None, "corp": {"endpoints": ["https://a"], "max_requests": 8}},
        "cache": {"high_water": 0.8},
        "names": ["mirror.example"],
    }
    objects = rendered({"config": config, "extraEnv": [{"name": "WASM_MIRROR_LOG__LEVEL", "value": "debug"}]})
    text = settings_file(objects)
    assert "drain_for: 20s\n" in text
    assert "max_blob_size: 20000000000\n" in text
    assert "high_water: 0.8\n  max_size: 17408MiB\n" in text
    assert "enabled: false" in text
    assert "- mirror-wasm-mirror:8080\n" in text
    assert "- mirror.example\n" in text
    assert environment(objects)["WASM_MIRROR_LOG__LEVEL"] == "debug"


def test_a_claim_that_exists_is_taken_in_place_of_a_new_one() -> None:
    objects = rendered({"persistence": {"existingClaim": "old", "size": "1Ti"}})
    (spec,) = [each["spec"] for each in objects if each["kind"] == "StatefulSet"]
    assert "volumeClaimTemplates" not in spec
    volumes = {volume["name"]: volume for volume in spec["template"]["spec"]["volumes"]}
    assert volumes["data"]["persistentVolumeClaim"] == {"claimName": "old"}
    assert "max_size: 891289MiB\n" in settings_file(objects)


def test_a_change_of_the_settings_rolls_the_pods_and_another_version_of_the_chart_alone_does_not() -> None:
    def checksum(values: dict[str, Any]) -> str:
        objects = rendered(values)
        (template,) = [each["spec"]["template"] for each in objects if each["kind"] == "StatefulSet"]
        assert "helm.sh/chart" not in template["metadata"]["labels"]
        found: str = template["metadata"]["annotations"]["checksum/config"]
        return found

    one = checksum({})
    assert checksum({"service": {"annotations": {"a": "b"}}}) == one
    assert checksum({"config": {"workers": 2}}) != one
    assert checksum({"persistence": {"size": "30Gi"}}) != one
