"""A small file system for a mirror's data directory, in a mount namespace that only it is in.

Nobody else sees the mount, and it is gone with the last process in there, however the test ends.
"""

import contextlib
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.support.process import MirrorProcess, ServerProcess

_BALLAST = "ballast"
_CHUNK = bytes(1 << 16)


class SmallDisk:
    """The data directory of ``mirror`` lies on a file system of ``size`` bytes from the next start on.

    As a context manager; skips the test where no file system may be mounted, and says what it takes.
    """

    def __init__(self, mirror: MirrorProcess, size: int) -> None:
        self._folder = mirror.data_dir
        self._size = size
        self._own = [] if os.geteuid() == 0 else ["--map-root-user"]
        self._keeper: subprocess.Popen[bytes] | None = None
        self._mirror: ServerProcess = mirror

    def fill(self) -> None:
        """Take all that is free."""
        with (self._inside / _BALLAST).open("ab", buffering=0) as ballast, contextlib.suppress(OSError):
            while ballast.write(_CHUNK) == len(_CHUNK):
                pass
        assert os.statvfs(self._inside).f_bavail == 0

    def leave(self, size: int) -> None:
        """Take all but ``size`` bytes of what is free."""
        found = os.statvfs(self._inside)
        with (self._inside / _BALLAST).open("ab", buffering=0) as ballast:
            for _ in range((found.f_bavail * found.f_frsize - size) // len(_CHUNK)):
                ballast.write(_CHUNK)

    def make_room(self) -> None:
        """Give back what was taken."""
        (self._inside / _BALLAST).unlink()

    @property
    def _mount(self) -> str:
        """The command that mounts it, without where."""
        return f"mount -t tmpfs -o size={self._size} tmpfs"

    @property
    def _inside(self) -> Path:
        """The data directory as who is in there sees it."""
        assert self._keeper is not None
        return Path(f"/proc/{self._keeper.pid}/root{self._folder}")

    @property
    def _entering(self) -> list[str]:
        assert self._keeper is not None
        own = ["--user", "--preserve-credentials"] if self._own else []
        return ["nsenter", "--target", str(self._keeper.pid), *own, "--mount"]

    def __enter__(self) -> Self:
        for program in ("unshare", "nsenter"):
            if shutil.which(program) is None:
                pytest.skip(f"{program} is not on this machine; Debian's package util-linux has it")
        self._folder.mkdir()
        self._keeper = subprocess.Popen(
            [
                "unshare",
                *self._own,
                "--mount",
                "sh",
                "-c",
                f'{self._mount} "$0" && echo mounted && exec cat',
                self._folder,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._keeper.stdout is not None
        assert self._keeper.stderr is not None
        if self._keeper.stdout.readline() != b"mounted\n":
            why = self._keeper.stderr.read().decode(errors="replace").strip()
            self.__exit__(None, None, None)
            pytest.skip(f"no file system may be mounted here ({why}); it takes root, or user namespaces")
        self._mirror.command = [*self._entering, *self._mirror.command]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keeper is not None:
            self._keeper.kill()
            self._keeper.communicate()


class FailingDisk(SmallDisk):
    """Such a file system in a file, of the kind that goes read-only at the first error. Takes root, and ext4."""

    def fail(self) -> None:
        """An error: from now on nothing can be written, also to files that are open."""
        device = Path(self._in_there("findmnt", "--noheadings", "--output", "SOURCE", str(self._folder)).strip()).name
        Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("1")

    def replace(self) -> None:
        """Mount it anew, which takes that nobody uses it; what is there stays."""
        self._in_there("umount", str(self._folder))
        self._in_there("sh", "-c", f'{self._mount} "$0"', str(self._folder))

    def _in_there(self, *command: str) -> str:
        done = subprocess.run(
            [*self._entering, *command],
            check=True,
            timeout=20,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.stdout

    @property
    def _mount(self) -> str:
        return f"mount -t ext4 -o loop,errors=remount-ro '{self._image}'"

    @property
    def _image(self) -> Path:
        return self._folder.with_name("disk.img")

    def __enter__(self) -> Self:
        if os.geteuid() != 0:
            pytest.skip("a disk that fails takes root, for a loop device")
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("mkfs.ext4 is not on this machine; Debian's package e2fsprogs has it")
        with self._image.open("wb") as image:
            image.truncate(self._size)
        subprocess.run(["mkfs.ext4", "-q", "-F", self._image], check=True, timeout=60)
        return super().__enter__()
