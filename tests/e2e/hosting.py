"""What tests of pushes with real clients have in common: what is pushed, and where to, with a password or without."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bcrypt
import httpx

from tests.e2e.pushing import PASSWORD, USER
from tests.support.artifacts import cncf, compat, docker, index, raw, wasm_module

MODULE = wasm_module(500_000)
TWO_PLATFORMS = index(compat(MODULE), compat(wasm_module(1000)), platforms=("linux/amd64", "linux/arm64"))
LAYOUTS = {
    "raw": raw(MODULE),
    "docker": docker(MODULE),
    "compat": compat(MODULE),
    "cncf": cncf(MODULE),
    "index": TWO_PLATFORMS,
}
NOWHERE = {"up": "http://127.0.0.1:1"}  # an upstream that nobody asks for
PLAIN = "loopback, no password"
WITH_PASSWORD = "htpasswd"


def rights(folder: Path, how: str) -> dict[str, object]:
    """The settings with which anyone here may push, or only `USER`, who may do anything; ``folder`` is for the file."""
    if how == PLAIN:
        return {}
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "htpasswd"
    file.write_text(f"{USER}:{bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()}\n")
    rule = {"who": [USER], "repositories": ["hosted/**"], "may": ["pull", "push", "overwrite", "delete"]}
    return {"auth": {"mode": "htpasswd", "file": str(file), "rules": [rule]}}


@contextmanager
def registry(url: str, how: str = PLAIN) -> Iterator[httpx.Client]:
    """An HTTP client that keeps nothing to itself, logged in where that is needed."""
    auth = (USER, PASSWORD) if how == WITH_PASSWORD else None
    with httpx.Client(base_url=url, auth=auth, trust_env=False, timeout=30) as client:
        yield client


def tags(client: httpx.Client, repository: str) -> list[str]:
    """The tags of a repository; none where there is no repository."""
    answer = client.get(f"/v2/{repository}/tags/list")
    assert answer.status_code in (200, 404), answer.text
    return list(answer.json()["tags"]) if answer.status_code == 200 else []


def pull_secret(file: Path, host: str, password: str = PASSWORD) -> Path:
    """What Kubernetes gives to an agent."""
    file.write_text(json.dumps({"auths": {host: {"username": USER, "password": password}}}))
    return file
