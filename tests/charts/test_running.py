"""Two pods as the chart renders them, run as processes.

What Kubernetes would mount lies in folders, and names of pods and Services are ports of this machine. All else is as it
was rendered: the settings, the environment, the Secrets, the Redis.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.auth.support import basic
from tests.charts.settings import container, environment, secret, secret_paths, settings_file
from tests.support.artifacts import compat, publish, wasm_module
from tests.support.helm import Objects, one, rendered
from tests.support.ports import ReservedPort
from tests.support.process import ServerProcess, clean_environment
from tests.support.pushing import At, Author, whole
from tests.support.redis import RedisServer
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

pytestmark = [pytest.mark.needs("helm", "redis-server"), pytest.mark.integration]

NAME = "mirror-wasm-mirror"
ROOT = Path(__file__).parents[2]


class Pod(ServerProcess):
    """The mirror's container in the pod of this ordinal."""

    def __init__(self, objects: Objects, ordinal: int, folder: Path, redis_url: str) -> None:
        self._ports = contextlib.ExitStack()
        port, admin = (self._ports.enter_context(ReservedPort()).number for _ in range(2))
        self.url, self.admin = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin}"
        folder.mkdir()
        for path, (name, key) in secret_paths(objects).items():
            file = folder / path.removeprefix("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(secret(objects, name)[key])
        headless = one(objects, "StatefulSet")["spec"]["serviceName"]
        here = {
            "/run/secrets/wasm-mirror": f"{folder}/run/secrets/wasm-mirror",
            "/var/lib/wasm-mirror": f"{folder}/data",
            "/etc/wasm-mirror": f"{folder}",
            "0.0.0.0:8080": f"127.0.0.1:{port}",
            "0.0.0.0:9090": f"127.0.0.1:{admin}",
            f"{NAME}-{ordinal}.{headless}.mesh.svc.cluster.local:8080": f"127.0.0.1:{port}",
            "http://localhost:9090": self.admin,
            f"redis://{NAME}-redis.mesh.svc:6379": redis_url,
        }

        def moved(text: str) -> str:
            for there, place in here.items():
                text = text.replace(there, place)
            return text

        (folder / "wasm-mirror.yaml").write_text(moved(settings_file(objects)))
        self.environment = {
            **clean_environment(),
            **{name: moved(value) for name, value in environment(objects, ordinal).items()},
        }
        words = [moved(word) for word in container(objects)["args"]]
        super().__init__(
            [sys.executable, "-m", "mirror.cli", *words],
            ready=f"{self.url}/readyz",
            log=folder / "log",
            start_within=60,
            env=self.environment,
        )

    def run(self, *words: str) -> str:
        """What a command prints that somebody runs in the container."""
        command = [sys.executable, "-m", "mirror.cli", *words]
        done = subprocess.run(command, env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def close(self) -> None:
        """Give its ports back."""
        self._ports.close()


@contextlib.contextmanager
def pods(objects: Objects, folder: Path) -> Iterator[tuple[Pod, Pod]]:
    deployment = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    password = secret(objects, f"{NAME}-redis")["password"]
    arguments = [word.replace("$(REDIS_PASSWORD)", password) for word in deployment["args"][2:]]
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(RedisServer(folder / "redis", arguments))
        both = [Pod(objects, ordinal, folder / f"pod-{ordinal}", redis.url) for ordinal in range(2)]
        for pod in both:
            stack.callback(pod.close)
            stack.enter_context(pod)
        yield both[0], both[1]


async def test_two_pods_are_one_mirror(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        artifact = compat(wasm_module())
        publish(up, "team/module", "1", artifact)
        objects = rendered(
            {
                "replicas": 2,
                "redis": {"bundled": {"enabled": True}},
                "auth": {"users": ["ci"]},
                "admin": {"port": 9090},
                "drainFor": "100ms",
                "config": {"upstreams": {"up": {"endpoints": [up.url]}}},
            }
        )
        with pods(objects, tmp_path) as (first, second):
            token = {"authorization": f"Bearer {secret(objects, f'{NAME}-admin')['token']}"}

            async def knows_the_other() -> bool:
                reply = await At(first.admin).ask("GET", "/api/v1/replicas", token)
                return [each["address"] for each in json.loads(reply.body)["others"]] == [second.url]

            # the admin API is at its own port, and probes are answered at both
            assert (await At(first.admin).ask("GET", "/readyz")).status == 200
            assert (await At(first.admin).ask("GET", "/api/v1/replicas")).status == 401
            known: bool = await eventually(knows_the_other, timeout=30, what="a pod knows the other")
            assert known
            # one download is for both
            for pod in (first, second):
                assert await whole(At(pod.url), "up/team/module", "1")
            assert all(up.count(method="GET", path=f"/blobs/{digest}") == 1 for digest in artifact.blobs)
            # who has the password that the chart made may push, and what was pushed is everywhere
            login = basic("ci", secret(objects, f"{NAME}-htpasswd")["password-ci"])
            assert (await Author(At(first.url), headers=login).push(compat(wasm_module(seed=1)), "1")).status == 201
            assert (await At(second.url).ask("POST", "/v2/hosted/team/plugin/blobs/uploads/")).status == 401
            assert await whole(At(second.url), "hosted/team/plugin", "1")
            # commands in the pod need no options
            assert "up/team/module:1" in await asyncio.to_thread(first.run, "ls")
