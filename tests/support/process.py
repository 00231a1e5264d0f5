"""Programs that tests start and stop: any server, and the mirror itself as a process of its own."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import pytest
import yaml

from tests.support.ports import ReservedPort
from tests.support.waiting import wait_until

WORKERS = [1, pytest.param(2, marks=pytest.mark.integration)]
"""For tests of what is the same whether one process serves or several; `tests/integration/test_workers.py` is about
what they do together.
"""

_ROOT = Path(__file__).parents[2]
_SHOWN = 8000  # characters of a log that an error shows


class ServerProcess:
    """A program that serves HTTP, in a process group of its own, with stdout and stderr in the file ``log``.

    As a context manager it is started, and stopped at the end; an error in between is shown with the log's end.
    ``ready`` is the URL that answers 200 once the program serves.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        ready: str,
        log: Path,
        env: Mapping[str, str] | None = None,
        start_within: float = 20.0,
    ) -> None:
        self.command = [str(word) for word in command]
        self.log = log
        self._ready = ready
        self._env = dict(os.environ) if env is None else dict(env)
        self._start_within = start_within
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The first process; its group has the same number."""
        return self._running().pid

    @property
    def pids(self) -> list[int]:
        """All processes of the group that are alive: the first one, its workers, their children."""
        return process_group(self.pid)

    def log_text(self) -> str:
        """What the program has printed so far, over all its starts."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def start(self, *, wait: bool = True) -> None:
        """Start it, and wait until it answers; ``wait=False``: do not wait."""
        assert self._process is None, f"{self.command[0]} runs already"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, stdout=log, stderr=log, env=self._env, cwd=_ROOT, start_new_session=True
            )
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Wait until it answers; raise `AssertionError` with the log's end when it dies, or takes too long."""
        try:
            with httpx.Client(trust_env=False, verify=False, timeout=2) as client:
                wait_until(lambda: self._answers(client), timeout=self._start_within, what=f"{self._ready} is ready")
        except AssertionError as error:
            error.add_note(self._end_of_log())
            self.kill()
            raise

    def stop(self, within: float = 20.0) -> int:
        """Ask it to stop (SIGTERM), and `wait_exit`."""
        self._running().terminate()
        return self.wait_exit(within)

    def wait_exit(self, within: float = 20.0) -> int:
        """Wait for its end; gives the exit status, negative for a signal.

        Raises `AssertionError`, and kills all, when it takes too long or leaves processes behind.
        """
        process = self._running()
        try:
            status = process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it did not stop within {within:g} s\n{self._end_of_log()}") from None
        orphans = process_group(process.pid)
        self.kill()
        assert not orphans, f"it ended with status {status}, but left processes {orphans}\n{self._end_of_log()}"
        return status

    def kill(self) -> None:
        """Kill it with all its workers (SIGKILL), if it runs."""
        if self._process is None:
            return
        group = self._process.pid
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
        self._process.wait()
        wait_until(lambda: not process_group(group), what=f"the end of process group {group}")
        self._process = None

    def restart(self) -> None:
        """Stop and start again, with the same files at the same port."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:  # a time limit or Ctrl-C, too, leaves nothing behind
            self.kill()
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                error.add_note(self._end_of_log())
                self.kill()
            elif self._process is not None:
                self.stop()
        finally:
            self.close()

    def close(self) -> None:
        """Give back what it holds beside the process; a ``with`` statement does so at its end."""

    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, f"{self.command[0]} does not run"
        return self._process

    def _answers(self, client: httpx.Client) -> bool:
        status = self._running().poll()
        assert status is None, f"{self.command} ended with status {status}"
        try:
            return client.get(self._ready).status_code == 200
        except httpx.TransportError:
            return False

    def _end_of_log(self) -> str:
        return f"--- {self.log}\n{self.log_text()[-_SHOWN:]}\n---"


class MirrorProcess(ServerProcess):
    """``wasm-mirror serve`` with a configuration of its own, under ``folder``: config.yaml, data/, mirror.log.

    ``upstreams`` maps names to an endpoint's URL, or to all the settings of the upstream. ``settings`` are laid over
    the configuration, key by key. It stops without a drain, unless they say otherwise.
    """

    def __init__(
        self,
        folder: Path,
        upstreams: Mapping[str, str | Mapping[str, object]],
        settings: Mapping[str, object] | None = None,
        *,
        env: Mapping[str, str] | None = None,
        start_within: float = 20.0,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._port = ReservedPort()
        self.host = f"127.0.0.1:{self._port.number}"
        self.data_dir = folder / "data"
        self.config_file = folder / "config.yaml"
        own: dict[str, object] = {
            "listen": self.host,
            "data_dir": str(self.data_dir),
            "drain_for": "0s",
            "stop_within": "10s",
            "upstreams": {
                name: {"endpoints": [value]} if isinstance(value, str) else dict(value)
                for name, value in upstreams.items()
            },
        }
        self.settings = merged(own, settings or {})
        self.url = f"{'https' if self._has_tls() else 'http'}://{self.host}"
        self.write_config()
        super().__init__(
            [sys.executable, "-m", "mirror.cli", "serve", "--config", self.config_file],
            ready=f"{self.url}/readyz",
            log=folder / "mirror.log",
            env={**clean_environment(), **(env or {})},
            start_within=start_within,
        )

    def write_config(self) -> None:
        """Write ``settings`` for the next start; needed after a change of them."""
        self.config_file.write_text(yaml.safe_dump(self.settings, sort_keys=False))

    def private_memory(self) -> int:
        """Bytes that belong to this mirror alone, all its workers together."""
        return sum(private_memory(pid) for pid in self.pids)

    def close(self) -> None:
        """Give the port back; a ``with`` statement does so at its end."""
        self._port.close()

    def _has_tls(self) -> bool:
        tls = self.settings.get("tls")
        return isinstance(tls, Mapping) and bool(tls.get("certificate"))


def merged(base: Mapping[str, object], over: Mapping[str, object]) -> dict[str, object]:
    """``base`` with ``over`` laid over it; mappings are merged, all else is replaced."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result


def clean_environment() -> dict[str, str]:
    """The environment of this process without what would change the mirror's settings or its way to an upstream."""
    unwanted = re.compile(r"WASM_MIRROR_.*|(https?|all|no)_proxy", re.IGNORECASE)
    return {name: value for name, value in os.environ.items() if not unwanted.fullmatch(name)}


def private_memory(pid: int) -> int:
    """Bytes of memory that this process shares with no other: neither page cache nor what was there before a fork."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * sum(int(size) for size in re.findall(r"^Private_(?:Clean|Dirty):\s+(\d+) kB$", rollup, re.MULTILINE))


def process_group(group: int) -> list[int]:
    """The processes of a process group that are alive; zombies are not."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            state, _, number = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it has just ended
            continue
        if int(number) == group and state not in ("Z", "X"):
            found.append(int(folder.name))
    return sorted(found)
