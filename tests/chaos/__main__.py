"""``python -m tests.chaos``: chaos for as long as wanted, a line for each event, and what came of it."""

import argparse
import asyncio
import os
import random
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

from tests.chaos.story import Log, told


def main() -> int:
    """Run it; 1 when something was wrong, and then the files stay."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="for how long everything fails (default: 120)")
    parser.add_argument("--seed", type=int, default=os.environ.get("WASM_MIRROR_TEST_SEED"), help="repeat these events")
    parser.add_argument("--replicas", type=int, default=3, help="1: alone, without Redis (default: 3)")
    options = parser.parse_args()
    seed = random.randrange(2**32) if options.seed is None else options.seed
    folder = Path(tempfile.mkdtemp(prefix="wasm-mirror-chaos-"))
    print(f"WASM_MIRROR_TEST_SEED={seed}, files in {folder}", flush=True)
    log = Log(watched=True)
    try:
        print(asyncio.run(told(folder, seed=seed, seconds=options.seconds, log=log, replicas=options.replicas)))
    except (AssertionError, ExceptionGroup) as wrong:
        traceback.print_exception(wrong)
        print(f"\nWRONG: {wrong}")
        print(f"Repeat it: python -m tests.chaos --seconds {options.seconds:g} --seed {seed}; logs in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
