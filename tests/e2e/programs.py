"""Running the real clients, and reading what they say."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

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
) -> list[Agent]:
    """What ``n`` Istio agents get that pull ``url`` at the same time, each for the first time in its life.

    ``pull_secret`` is a file in the form of docker's ``config.json``. Without ``verify`` they take any certificate, as
    with ``WASM_INSECURE_REGISTRIES=*``.
    """
    options = ["-n", str(n), "-checksum", checksum, "-timeout", f"{within}s", f"-verify={str(verify).lower()}"]
    if pull_secret is not None:
        options += ["-pull-secret", str(pull_secret)]
    done = run("agent", "-url", url, *options)
    results = [json.loads(line) for line in done.splitlines()]
    assert len(results) == n
    return [Agent(one["ok"], one["error"], one["seconds"], one["sha256"]) for one in results]


def agent(
    url: str, *, checksum: str = "", within: float = 30.0, pull_secret: Path | None = None, verify: bool = False
) -> Agent:
    """What one Istio agent gets."""
    (one,) = agents(url, checksum=checksum, within=within, pull_secret=pull_secret, verify=verify)
    return one


def run(program: str, *arguments: str | Path) -> str:
    """What a program prints; raises `AssertionError` with its errors when it fails."""
    return run_raw(program, *arguments).decode()


def run_raw(program: str, *arguments: str | Path) -> bytes:
    """`run`, for what is no text."""
    done = attempt(program, *arguments)
    assert done.returncode == 0, f"{program} {' '.join(map(str, arguments))}\n{done.stderr.decode()[-4000:]}"
    return done.stdout


def attempt(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
    """Run a program that may fail."""
    return subprocess.run(
        [require(program), *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=_WITHIN
    )
