"""What the chart renders for HTTPS and users, run by a real mirror, with its Secrets where the pod has them."""

import base64
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
import yaml

from tests.charts.settings import secret, secret_paths, settings_file
from tests.support.artifacts import publish, raw
from tests.support.certificates import self_signed
from tests.support.helm import Objects, rendered
from tests.support.process import MirrorProcess
from tests.support.upstream import FaultyUpstream
from tests.wasm.modules import plugin

pytestmark = pytest.mark.needs("helm")

SECRETS = "/run/secrets/wasm-mirror"
MANIFEST = "/v2/up/team/module/manifests/1"


class InPod(MirrorProcess):
    """A mirror with the settings and Secrets of a rendered pod, but for its address, its disk and its upstream.

    ``others`` are files that Secrets have which the chart does not make.
    """

    def __init__(self, folder: Path, objects: Objects, up: FaultyUpstream, others: Mapping[str, bytes]) -> None:
        made = {value["metadata"]["name"]: value["data"] for value in objects if value["kind"] == "Secret"}
        for path, (name, key) in secret_paths(objects).items():
            file = folder / path.removeprefix("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            known = base64.b64decode(made[name][key]) if name in made else others[key]
            file.write_bytes(known)
        settings = yaml.safe_load(settings_file(objects).replace(SECRETS, f"{folder}{SECRETS}"))
        for own in ("listen", "data_dir", "upstreams", "names"):
            del settings[own]
        super().__init__(folder, {"up": up.url}, {**settings, "drain_for": "0s"})


@pytest.mark.needs("openssl")
def test_who_has_a_password_or_the_token_that_the_chart_made_may_what_it_is_for_over_tls(tmp_path: Path) -> None:
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
        publish(up, "team/module", "1", raw(plugin()))
        assert mirror.url.startswith("https://")
        assert client.get(MANIFEST).status_code == 401
        assert client.get(MANIFEST, auth=("ci", password)).status_code == 200
        assert client.get(MANIFEST, auth=("ci", "wrong")).status_code == 401
        assert client.post("/v2/hosted/team/a/blobs/uploads/", auth=("ci", password)).status_code == 202
        assert client.get("/api/v1/modules").status_code == 401
        token = secret(objects, "mirror-wasm-mirror-admin")["token"]
        modules = client.get("/api/v1/modules", headers={"authorization": f"Bearer {token}"})
        assert [row["reference"] for row in modules.json()["modules"]] == ["up/team/module:1"]
        assert client.get("/metrics").status_code == 200, "Prometheus has neither"
