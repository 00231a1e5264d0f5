"""The disk of the tests: what is done to it, in which order, and errors on demand."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mirror.store.directory import DataDirectory


def data_in(folder: Path) -> DataDirectory:
    """A data directory, prepared, whose lock nobody holds."""
    DataDirectory.open(folder).close()
    return DataDirectory.attach(folder)


def record(patch: pytest.MonkeyPatch, root: Path) -> list[str]:
    """From now on, what becomes durable or visible below ``root``, in this order."""
    events: list[str] = []
    fsync, replace = os.fsync, os.replace

    def name(path: str | os.PathLike[str]) -> str:
        return str(Path(path).relative_to(root))

    def recorded_fsync(fd: int) -> None:
        events.append(f"sync {name(os.readlink(f'/proc/self/fd/{fd}'))}")
        fsync(fd)

    def recorded_replace(source: Path, target: Path) -> None:
        events.append(f"rename {name(source)} -> {name(target)}")
        replace(source, target)

    patch.setattr(os, "fsync", recorded_fsync)
    patch.setattr(os, "replace", recorded_replace)
    return events


def fail(patch: pytest.MonkeyPatch, name: str, number: int = errno.EIO, *, after: int = 0) -> None:
    """Let a call of `os` fail, after it has worked ``after`` times."""
    call: Callable[..., object] = getattr(os, name)
    left = [after]

    def failing(*arguments: object, **options: object) -> object:
        left[0] -= 1
        if left[0] >= 0:
            return call(*arguments, **options)
        raise OSError(number, os.strerror(number))

    patch.setattr(os, name, failing)
