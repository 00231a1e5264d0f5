"""How much memory something takes at its worst, as the kernel counts it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def little_memory(most: int) -> Iterator[None]:
    """Assert that the process does not grow by more than ``most`` bytes, not even for a moment; on Linux only."""
    if not Path("/proc/self/clear_refs").exists():
        yield
        return
    Path("/proc/self/clear_refs").write_text("5")  # its peak is now what it has
    before = _peak()
    yield
    assert _peak() - before < most


def _peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (kilobytes,) = (int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return kilobytes << 10
