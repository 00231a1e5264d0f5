"""One performance: what it needs is got, the story is told in a folder of its own, and nothing is left of it."""

import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import httpx

from demo.story import tell
from demo.telling import Unexpected
from tests.support.origins import MissingProgram
from tests.support.tools import PROGRAMS


def play() -> int:
    """Tell the story once; gives the exit status, 0 or 1."""
    began = time.monotonic()
    try:
        if not Path("/proc/self").exists():
            raise MissingProgram("The demo starts and watches processes as Linux has them; this is another system.")
        PROGRAMS["envoy"].provide()
        with tempfile.TemporaryDirectory(prefix="wasm-mirror-demo-") as folder:
            try:
                tell(Path(folder))
            finally:
                _sweep()
    except MissingProgram as missing:
        print(missing, flush=True)
        return 1
    except Unexpected:
        print("\nThis was not as it should be.", flush=True)
        return 1
    except (AssertionError, httpx.HTTPError) as error:
        print(f"FAILED  {error}", *getattr(error, "__notes__", ()), sep="\n", flush=True)
        return 1
    print(f"\nAll was as it should be. It took {time.monotonic() - began:.1f} s; nothing of it is left running.")
    return 0


def _sweep() -> None:
    """Kill the programs that an interrupt left to nobody, as it came while they were being started."""
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children")
    for pid in map(int, children.read_text().split() if children.exists() else ()):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
