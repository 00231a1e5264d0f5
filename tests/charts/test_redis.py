"""The chart's own Redis: how it starts, and what its user may do."""

from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import NoPermissionError

from tests.charts.settings import effective, secret, secret_paths
from tests.support.helm import Objects, one, rendered
from tests.support.redis import RedisServer

pytestmark = [pytest.mark.needs("helm", "redis-server"), pytest.mark.integration]

NAME = "mirror-wasm-mirror-redis"


@pytest.fixture(scope="module")
def objects() -> Objects:
    return rendered({"replicas": 2, "redis": {"bundled": {"enabled": True}}})


@pytest.fixture
def container(objects: Objects) -> dict[str, Any]:
    (found,) = one(objects, "Deployment", NAME)["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def test_it_takes_who_has_the_password_for_what_replicas_do_and_nothing_else(
    objects: Objects, container: dict[str, Any], tmp_path: Path
) -> None:
    assert container["command"] == ["redis-server"]
    assert container["args"][:2] == ["--port", "6379"]
    (variable,) = container["env"]
    asked = variable["valueFrom"]["secretKeyRef"]
    password = secret(objects, asked["name"])[asked["key"]]
    arguments = [word.replace("$(REDIS_PASSWORD)", password) for word in container["args"][2:]]
    with RedisServer(tmp_path, arguments) as server:
        with server.client() as stranger, pytest.raises(redis.AuthenticationError):
            stranger.get("wm1:{tags}:generation")
        with server.client(password=password) as replica:
            replica.hset("wm1:{tags}:tag:up/a:1", "digest", "d")
            assert replica.eval("return redis.call('HGET', KEYS[1], 'digest')", 1, "wm1:{tags}:tag:up/a:1") == "d"
            assert replica.info("memory")["maxmemory"] == 100 * 1024 * 1024
            assert replica.info("memory")["maxmemory_policy"] == "allkeys-lru"
            assert replica.info("persistence")["aof_enabled"] == 0
            with pytest.raises(NoPermissionError):
                replica.set("another", "1")
            for dangerous in ("FLUSHALL", "CONFIG GET save", "ACL LIST", "KEYS *"):
                with pytest.raises(NoPermissionError):
                    replica.execute_command(*dangerous.split())


def test_the_mirror_finds_it_with_that_password(
    objects: Objects, container: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = effective(objects, tmp_path, monkeypatch)["metadata"]
    asked = container["env"][0]["valueFrom"]["secretKeyRef"]
    assert secret_paths(objects)[settings["password_file"]] == (asked["name"], asked["key"])
    service = one(objects, "Service", NAME)["spec"]
    assert settings["url"] == f"redis://{NAME}.mesh.svc:{service['ports'][0]['port']}"
    labels = one(objects, "Deployment", NAME)["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    assert (
        not service["selector"].items() <= one(objects, "StatefulSet")["spec"]["template"]["metadata"]["labels"].items()
    )


def test_it_has_no_disk_and_no_account_of_the_mirrors(objects: Objects) -> None:
    spec = one(objects, "Deployment", NAME)["spec"]
    assert spec["strategy"]["type"] == "Recreate"
    pod = spec["template"]["spec"]
    assert not {"volumes", "serviceAccountName"} & pod.keys()
    assert pod["automountServiceAccountToken"] is False


def test_a_password_of_ones_own_is_for_both_sides() -> None:
    objects = rendered(
        {"replicas": 2, "redis": {"existingSecret": "own", "passwordKey": "pw", "bundled": {"enabled": True}}}
    )
    (container,) = one(objects, "Deployment", NAME)["spec"]["template"]["spec"]["containers"]
    assert container["env"][0]["valueFrom"]["secretKeyRef"] == {"name": "own", "key": "pw"}
    assert ("own", "pw") in secret_paths(objects).values()
    assert NAME not in {each["metadata"]["name"] for each in objects if each["kind"] == "Secret"}
