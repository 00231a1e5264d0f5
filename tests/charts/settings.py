"""What the mirror in a rendered pod would read: its file, and its environment."""

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from mirror.cli import main
from tests.support.helm import Objects, one


def container(objects: Objects) -> dict[str, Any]:
    """The mirror's own container."""
    pod = one(objects, "StatefulSet")["spec"]["template"]["spec"]
    found: dict[str, Any] = next(each for each in pod["containers"] if each["name"] == "mirror")
    return found


def environment(objects: Objects, ordinal: int = 0) -> dict[str, str]:
    """Its variables, as Kubernetes expands them in one pod."""
    name = f"{one(objects, 'StatefulSet')['metadata']['name']}-{ordinal}"
    pairs = {each["name"]: each.get("value", name) for each in container(objects)["env"]}
    return {key: value.replace("$(POD_NAME)", name) for key, value in pairs.items()}


def settings_file(objects: Objects) -> str:
    """The file that is mounted."""
    files = [each["data"] for each in objects if each["kind"] == "ConfigMap"]
    (found,) = [data["wasm-mirror.yaml"] for data in files if "wasm-mirror.yaml" in data]
    assert isinstance(found, str)
    return found


def effective(objects: Objects, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `wasm-mirror check-config` prints in the first pod; fails the test when it does not take the settings."""
    file = folder / "wasm-mirror.yaml"
    file.write_text(settings_file(objects))
    # The image's own, as Dockerfile has it: the environment wins over the file.
    variables = {"WASM_MIRROR_DATA_DIR": "/var/lib/wasm-mirror", "WASM_MIRROR_LISTEN": "0.0.0.0:8080"}
    with monkeypatch.context() as patch:
        for name, value in (variables | environment(objects)).items():
            if name.startswith("WASM_MIRROR_"):
                patch.setenv(name, value)
        done = CliRunner().invoke(main, ["check-config", "--config", str(file)])
    assert done.exit_code == 0, done.output
    shown: dict[str, Any] = yaml.safe_load(done.stdout)
    return shown


def secret(objects: Objects, name: str) -> dict[str, str]:
    """What a Secret that the chart makes holds."""
    data: dict[str, str] = one(objects, "Secret", name)["data"]
    return {key: base64.b64decode(value).decode() for key, value in data.items()}


def secret_paths(objects: Objects) -> dict[str, tuple[str, str]]:
    """The files under the folder of secrets: the Secret and the key of each."""
    volumes = one(objects, "StatefulSet")["spec"]["template"]["spec"]["volumes"]
    (volume,) = [each["projected"] for each in volumes if each["name"] == "secrets"]
    assert volume["defaultMode"] == 0o440
    (mount,) = [each["mountPath"] for each in container(objects)["volumeMounts"] if each["name"] == "secrets"]
    sources = [source["secret"] for source in volume["sources"]]
    found = [
        (f"{mount}/{item['path']}", (source["name"], item["key"])) for source in sources for item in source["items"]
    ]
    assert len(found) == len(dict(found)), "two of them have one place"
    return dict(found)
