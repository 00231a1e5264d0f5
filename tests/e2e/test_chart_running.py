"""What the chart renders, run: the settings by real mirrors, with their Secrets where the pod has them, and the bundled
Redis by a real one.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from redis import AuthenticationError

from tests.charts.settings import secret, secret_paths, settings_file
from tests.support.artifacts import publish, raw
from tests.support.certificates import self_signed
from tests.support.helm import Objects, one, rendered
from tests.support.process import MirrorProcess
from tests.support.redis import RedisServer
from tests.support.scrape import Scrape
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import wait_until
from tests.wasm.modules import plugin

pytestmark = pytest.mark.needs("helm")

SECRETS = "/run/secrets/wasm-mirror"
MANIFEST = "/v2/up/team/module/manifests/1"


class InPod(MirrorProcess):
    """A mirror with the settings and Secrets of a rendered pod, but for its address, its disk and its upstream.

    ``others`` are files that Secrets have which the chart does not make. ``more`` is what the cluster adds.
    """

    def __init__(
        self,
        folder: Path,
        objects: Objects,
        up: FaultyUpstream,
        others: Mapping[str, bytes] | None = None,
        more: Mapping[str, object] | None = None,
    ) -> None:
        made = {value["metadata"]["name"]: value["data"] for value in objects if value["kind"] == "Secret"}
        for path, (name, key) in secret_paths(objects).items():
            file = folder / path.removeprefix("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            known = base64.b64decode(made[name][key]) if name in made else (others or {})[key]
            file.write_bytes(known)
        settings = yaml.safe_load(settings_file(objects).replace(SECRETS, f"{folder}{SECRETS}"))
        for own in ("listen", "data_dir", "upstreams", "names"):
            del settings[own]
        super().__init__(folder, {"up": up.url}, {**settings, **(more or {}), "drain_for": "0s"})


def served(up: FaultyUpstream) -> None:
    publish(up, "team/module", "1", raw(plugin()))


def test_the_settings_of_a_mirror_alone_serve_pulls_and_guard_what_is_the_operators(tmp_path: Path) -> None:
    objects = rendered()
    token = secret(objects, "mirror-wasm-mirror-admin")["token"]
    with FaultyUpstream() as up, InPod(tmp_path, objects, up) as mirror, httpx.Client(base_url=mirror.url) as client:
        served(up)
        assert client.get(MANIFEST).status_code == 200
        assert client.get("/api/v1/modules").status_code == 401
        modules = client.get("/api/v1/modules", headers={"authorization": f"Bearer {token}"})
        assert [row["reference"] for row in modules.json()["modules"]] == ["up/team/module:1"]
        assert client.get("/metrics").status_code == 200, "Prometheus has no token"


@pytest.mark.needs("openssl")
def test_who_has_a_password_that_the_chart_made_may_pull_and_push_over_tls(tmp_path: Path) -> None:
    own = self_signed(tmp_path)
    values = {
        "tls": {"existingSecret": "own", "caKey": ""},
        "auth": {"users": ["ci"]},
        "config": {"auth": {"mode": "htpasswd"}},
    }
    objects = rendered(values)
    password = secret(objects, "mirror-wasm-mirror-htpasswd")["password-ci"]
    files = {"tls.crt": own.certificate.read_bytes(), "tls.key": own.key.read_bytes()}
    with (
        FaultyUpstream() as up,
        InPod(tmp_path / "mirror", objects, up, files) as mirror,
        httpx.Client(base_url=mirror.url, verify=own.for_clients) as client,
    ):
        served(up)
        assert mirror.url.startswith("https://")
        assert client.get(MANIFEST).status_code == 401
        assert client.get(MANIFEST, auth=("ci", password)).status_code == 200
        assert client.get(MANIFEST, auth=("ci", "wrong")).status_code == 401
        assert client.post("/v2/hosted/team/a/blobs/uploads/", auth=("ci", password)).status_code == 202


def redis_of(objects: Objects, folder: Path) -> RedisServer:
    """The bundled Redis, with its arguments as they are, but for the port."""
    (container,) = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    (variable,) = container["env"]
    wanted = variable["valueFrom"]["secretKeyRef"]
    password = secret(objects, wanted["name"])[wanted["key"]]
    arguments = [word.replace(f"$({variable['name']})", password) for word in container["args"]]
    assert arguments[:2] == ["--port", "6379"]
    return RedisServer(folder, arguments[2:])


@pytest.mark.needs("redis-server")
def test_replicas_meet_in_the_bundled_redis_with_the_rights_that_it_gives_them(tmp_path: Path) -> None:
    objects = rendered({"replicas": 2, "redis": {"bundled": {"enabled": True}}})
    token = secret(objects, "mirror-wasm-mirror-admin")["token"]
    (tmp_path / "redis").mkdir()

    def replica(number: int, up: FaultyUpstream, url: str) -> InPod:
        settings: dict[str, Any] = yaml.safe_load(settings_file(objects))
        folder = tmp_path / str(number)
        metadata = {"url": url, "password_file": f"{folder}{settings['metadata']['password_file']}"}
        mirror = InPod(folder, objects, up, more={"metadata": metadata})
        cluster = {"secret_file": f"{folder}{settings['cluster']['secret_file']}", "advertise": mirror.url}
        mirror.settings["cluster"] = cluster
        mirror.write_config()
        return mirror

    with FaultyUpstream() as up, redis_of(objects, tmp_path / "redis") as redis:
        served(up)
        with replica(0, up, redis.url) as first, replica(1, up, redis.url) as second, httpx.Client() as client:

            def known() -> bool:
                asked = client.get(f"{first.url}/api/v1/replicas", headers={"authorization": f"Bearer {token}"})
                return [other["address"] for other in asked.json()["others"]] == [second.url]

            wait_until(known, timeout=30, what="the replicas know of one another")
            for mirror in (first, second):
                layer = client.get(mirror.url + MANIFEST).raise_for_status().json()["layers"][0]
                client.get(f"{mirror.url}/v2/up/team/module/blobs/{layer['digest']}").raise_for_status()
            assert up.count(path=f"/blobs/{layer['digest']}") == 1, "one download for both"
            for mirror in (first, second):
                metrics = Scrape.of(client.get(f"{mirror.url}/metrics").content)
                assert metrics.sum("metadata_up", store="redis") == 1
                assert "NOPERM" not in mirror.log_text()
            with redis.client() as nobody, pytest.raises(AuthenticationError):
                nobody.ping()
