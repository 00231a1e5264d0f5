"""Run the demo. Exit status: 0, all was as it should be; 1, something was not; 130, it was interrupted."""

import os
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType

import httpx

from demo.story import tell
from demo.telling import Unexpected
from tests.support.origins import MissingProgram
from tests.support.tools import PROGRAMS

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Tell the story once, in a folder that is gone afterwards."""
    for number in _INTERRUPTS:
        signal.signal(number, _interrupt)
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
    except KeyboardInterrupt:
        print("\nInterrupted; all that was started is stopped.", flush=True)
        return 130
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


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Stop at the first signal; a second one does not disturb the tidying up."""
    for each in _INTERRUPTS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
