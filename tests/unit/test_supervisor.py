"""The supervisor as the first process of a container, which inherits the orphans of all others."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.waiting import wait_until

# prctl(PR_SET_CHILD_SUBREAPER) makes a process inherit orphans without being the first one.
_PROGRAM = """
import ctypes, os, signal, sys
from pathlib import Path
from mirror.supervisor import Supervisor

folder = Path(sys.argv[1])
assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0

def work(parent):
    mark = folder / f"worker-{os.getpid()}"
    if not list(folder.glob("orphan-*")) and os.fork() == 0:
        middle = os.getpid()
        if os.fork() == 0:
            while os.getppid() == middle:
                pass
            (folder / f"orphan-{os.getpid()}").touch()
        os._exit(0)
    mark.touch()
    while True:
        signal.pause()

sys.exit(Supervisor(1, work, lambda: None).run())
"""


def test_an_orphan_that_ends_is_no_worker_that_has_died(tmp_path: Path) -> None:
    def pids(kind: str) -> list[int]:
        return [int(path.name.partition("-")[2]) for path in tmp_path.glob(f"{kind}-*")]

    with subprocess.Popen([sys.executable, "-c", _PROGRAM, str(tmp_path)], start_new_session=True) as supervisor:
        try:
            (orphan,) = wait_until(lambda: pids("orphan"), what="there is an orphan")
            wait_until(lambda: not Path(f"/proc/{orphan}").exists(), what="the orphan's end was heard of")
            (worker,) = wait_until(lambda: pids("worker"), what="there is a worker")
            os.kill(worker, signal.SIGKILL)  # the next word that the supervisor hears
            wait_until(lambda: len(pids("worker")) > 1, what="another worker in its place")
            supervisor.terminate()
            assert supervisor.wait(20) == 0
        finally:
            supervisor.kill()
    assert len(pids("worker")) == 2
