"""Pulls with the Istio agent's own code (tests/e2e/agent)."""

import json
import subprocess
from dataclasses import dataclass

from tests.support import tools


@dataclass(frozen=True)
class AgentPull:
    """What one agent got: the sha256 (hex) of the module that it would give to Envoy, or an error; in ``seconds``."""

    ok: bool
    error: str
    seconds: float
    sha256: str


def agent_pulls(url: str, *, n: int = 1, checksum: str = "", timeout: float = 30.0) -> list[AgentPull]:
    """``n`` agents pull ``url`` at once, each into a cache of its own; the pulls in the order in which they end.

    ``timeout`` (seconds) and ``checksum`` are as in a WasmPlugin. Skips the test where the agent is not built.
    """
    command = [str(tools.require("agent")), "-url", url, f"-n={n}", f"-checksum={checksum}", f"-timeout={timeout}s"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout + 30)
    assert done.returncode == 0, f"the agent's program failed: {done.stderr[-4000:]}"
    return [AgentPull(**json.loads(line)) for line in done.stdout.splitlines()]
