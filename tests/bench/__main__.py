"""``python -m tests.bench``: run the benchmarks, print one table. Exit status 1 when a goal is missed."""

import argparse
import datetime
import os
import platform
import sys
import traceback
from collections.abc import Callable

from tests.bench import cold, eviction, first_byte, herd, memory, metrics, page, push, replicas, warm
from tests.bench.lab import Lab
from tests.bench.table import Row, render

_BENCHMARKS: dict[str, Callable[[Lab, int | None], list[Row]]] = {
    "cold": cold.measure,
    "first-byte": first_byte.measure,
    "herd": herd.measure,
    "warm": warm.measure,
    "metrics": metrics.measure,
    "push": push.measure,
    "replicas": replicas.measure,
    "memory": memory.measure,
    "eviction": eviction.measure,
}


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Benchmarks on loopback, one table.")
    parser.add_argument("--only", action="append", choices=_BENCHMARKS, help="this one; may be repeated")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of each measurement")
    parser.add_argument("--write", action="store_true", help=f"put the figures into docs/{page.PAGE.name} as well")
    chosen = parser.parse_args()
    if chosen.write and chosen.only:
        parser.error("--write takes the place of all figures in the page, and --only measures some")
    rows: list[Row] = []
    with Lab() as lab:
        for name in chosen.only or _BENCHMARKS:
            print(f"{name} …", file=sys.stderr, flush=True)
            try:
                rows += _BENCHMARKS[name](lab, chosen.rounds)
            except Exception as error:  # the others still tell something
                traceback.print_exc()
                said = str(error).partition("\n")[0]
                rows.append(Row(f"{name}: {type(error).__name__}: {said}", goal="to end", met=False))
    print(f"\nPython {platform.python_version()}, {os.cpu_count()} cores, loopback; medians, one worker unless said.\n")
    print(render(rows))
    if chosen.write:
        said = page.machine(datetime.datetime.now(datetime.UTC).date())
        page.PAGE.write_text(page.written(page.PAGE.read_text(), said, rows))
    return 1 if any(row.met is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
