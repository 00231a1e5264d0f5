"""Running the real clients, and reading what they say."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.tools import require

_WITHIN = 60  # seconds


@dataclass(frozen=True, slots=True)
class Agent:
    """What one agent got: ``sha256`` is that of the module that it would give to Envoy."""

    ok: bool
    error: str
    seconds: float
    sha256: str


def agents(
    url: str,
    *,
    n: int = 1,
    checksum: str = "",
    within: float = 30.0,
    pull_secret: Path | None = None,
    verify: bool = False,
    env: Mapping[str, str] | None = None,
) -> list[Agent]:
    """What ``n`` Istio agents get that pull ``url`` at the same time, each for the first time in its life.

    ``pull_secret`` is a file in the form of docker's ``config.json``. Without ``verify`` they take any certificate, as
    with ``WASM_INSECURE_REGISTRIES=*``. ``env`` is added to their environment.
    """
    options = ["-n", str(n), "-checksum", checksum, "-timeout", f"{within}s", f"-verify={str(verify).lower()}"]
    if pull_secret is not None:
        options += ["-pull-secret", str(pull_secret)]
    results = [_result(json.loads(line)) for line in run("agent", "-url", url, *options, env=env).splitlines()]
    assert len(results) == n
    return results


def agents_of(
    urls: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    pull_policy: str = "UNSPECIFIED_POLICY",
    gets: int = 1,
) -> dict[str, Agent]:
    """What one Istio agent for each URL gets, all of them at the same time, in a process with ``env`` in addition.

    Each asks ``gets`` times, as for so many versions of its WasmPlugin; the last answer counts.
    """
    options = [f"-pull-policy={pull_policy}", f"-gets={gets}"]
    lines = run("agent", *options, *urls, env=env).splitlines()
    results = {fields["url"]: _result(fields) for fields in map(json.loads, lines)}
    assert results.keys() == set(urls)
    return results


def _result(fields: Mapping[str, Any]) -> Agent:
    return Agent(fields["ok"], fields["error"], fields["seconds"], fields["sha256"])


def agent(
    url: str,
    *,
    checksum: str = "",
    within: float = 30.0,
    pull_secret: Path | None = None,
    verify: bool = False,
    env: Mapping[str, str] | None = None,
) -> Agent:
    """What one Istio agent gets."""
    (one,) = agents(url, checksum=checksum, within=within, pull_secret=pull_secret, verify=verify, env=env)
    return one


def run(program: str, *arguments: str | Path, env: Mapping[str, str] | None = None) -> str:
    """What a program prints; raises `AssertionError` with its errors when it fails."""
    return run_raw(program, *arguments, env=env).decode()


def run_raw(program: str, *arguments: str | Path, env: Mapping[str, str] | None = None) -> bytes:
    """`run`, for what is no text."""
    done = attempt(program, *arguments, env=env)
    assert done.returncode == 0, f"{program} {' '.join(map(str, arguments))}\n{done.stderr.decode()[-4000:]}"
    return done.stdout


def attempt(
    program: str, *arguments: str | Path, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a program that may fail, with ``env`` laid over this environment."""
    return attempt_command([require(program), *arguments], env=env)


def attempt_command(
    command: Sequence[str | Path], env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """`attempt`, for what is not one of `tests.support.tools`."""
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_WITHIN,
        env={**os.environ, **(env or {})},
    )
