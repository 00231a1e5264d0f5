"""``python -m tests.wasm.fuzz``: faulty modules and archives, for a minute; what goes wrong joins the corpus."""

import argparse
import hashlib
import random
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tests.wasm import archives, modules
from tests.wasm.listings import ours
from tests.wasm.memory import little_memory
from tests.wasm.referee import agreed

MEMORY = 64 << 20
_PROCESSOR = 2.0  # seconds for one input
_BATCH = 50  # inputs of a kind, one after the other


@dataclass(frozen=True)
class Kind:
    """Something to read: ``make`` gives an input for each seed, ``read`` raises when it is read wrongly."""

    name: str
    make: Callable[[int], bytes]
    read: Callable[[bytes], object]
    folder: Path
    suffix: str
    then: str


def _read_module(content: bytes) -> None:
    agreed(content, in_detail=True)


def _read_archive(content: bytes) -> None:
    error = ours(content).error
    assert error is None or error.startswith("the archive cannot be read: "), error


KINDS = (
    Kind("modules", modules.mutated, _read_module, modules.CORPUS, ".wasm", "the tests read it from now on"),
    Kind(
        "archives",
        archives.mutated,
        _read_archive,
        archives.CORPUS,
        ".tar.gz",
        "make the listings of the corpus anew: python -m tests.wasm.listings PROGRAM",
    ),
)


def wrong(kind: Kind, content: bytes) -> Exception | None:
    """What goes wrong when ``content`` is read: a wrong answer, an exception, too much time or memory."""
    began = time.process_time()
    try:
        with little_memory(MEMORY):
            kind.read(content)
        assert time.process_time() - began < _PROCESSOR, "it takes too much time"
    except Exception as error:
        return error
    return None


def keep(kind: Kind, content: bytes) -> Path:
    """Put an input into the corpus."""
    file = kind.folder / f"found-{hashlib.sha256(content).hexdigest()[:12]}{kind.suffix}"
    file.write_bytes(content)
    return file


def fuzz(seconds: float, first: int) -> int:
    """Read faulty inputs for so many seconds, from the seed ``first`` on; 1 when something went wrong."""
    ends = time.monotonic() + seconds
    found = False
    for batch in count():
        if time.monotonic() > ends:
            break
        seeds = range(first + batch * _BATCH, first + (batch + 1) * _BATCH)
        for kind in KINDS:
            for seed in seeds:
                error = wrong(kind, kind.make(seed))
                if error is not None:
                    found = True
                    traceback.print_exception(error)
                    print(f"WRONG: {kind.name}, seed {seed}: kept as {keep(kind, kind.make(seed))}; {kind.then}")
    print(f"{batch * _BATCH} faulty modules and as many archives were read, from the seed {first} on")
    return int(found)


def main() -> int:
    """Run it; 1 when something went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.wasm.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long (default: 60)")
    parser.add_argument("--seed", type=int, help="repeat these inputs")
    options = parser.parse_args()
    return fuzz(options.seconds, random.randrange(1 << 48) if options.seed is None else options.seed)


if __name__ == "__main__":
    sys.exit(main())
