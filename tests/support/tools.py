"""The programs that tests run and Python's packages do not bring: where they are, or how to get them.

`require` gives a program's path. Where it is absent the test is skipped, and the reason says how to get it; with
``WASM_MIRROR_REQUIRE_TOOLS=1`` (``make e2e``, ``.ci/run``) what Go can build is built, and what is absent is a failure.
Built programs are kept in ``WASM_MIRROR_TEST_CACHE``, by default ``wasm-mirror-tests`` in the user's cache folder.

As a program: ``python -m tests.support.tools build`` builds all, ``… debian`` lists the missing Debian packages.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_AGENT = Path(__file__).parents[1] / "e2e" / "agent"
_BUILD_WITHIN = 1200  # seconds


class MissingProgram(Exception):
    """A program is not here; the message says how to get it."""


@dataclass(frozen=True)
class Packaged:
    """A program of a Debian package."""

    name: str
    package: str

    def find(self) -> Path | None:
        """Where it is, if it is here."""
        # Debian keeps servers where a user's PATH does not look.
        found = shutil.which(self.name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin")
        return Path(found) if found else None

    def provide(self) -> Path:
        """Where it is; raise `MissingProgram`."""
        found = self.find()
        if found is None:
            raise MissingProgram(f"{self.name} is not installed; on Debian: apt-get install {self.package}")
        return found


@dataclass(frozen=True)
class Built:
    """A program that Go builds: a module's command, ``path@version``, or the module in the folder ``source``."""

    name: str
    command: str = "."
    source: Path | None = None

    def find(self) -> Path | None:
        """Where it is, if it was built before."""
        path = self._place()
        return path if path.exists() else None

    def provide(self) -> Path:
        """Where it is, built if it was not; raise `MissingProgram` when it cannot be built."""
        path = self._place()
        path.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(path.with_suffix(".lock")):  # tests run in several processes
            if not path.exists():
                self._build(path)
        return path

    def _place(self) -> Path:
        """A place of its own for each version of the source."""
        key = hashlib.sha256(self.command.encode())
        if self.source is not None:
            for file in ("go.mod", "go.sum", "main.go"):
                key.update((self.source / file).read_bytes())
        return cache_folder() / f"{self.name}-{key.hexdigest()[:12]}"

    def _build(self, path: Path) -> None:
        go = shutil.which("go")
        if go is None:
            raise MissingProgram(f"{self.name} is built with Go, which is not installed (go.dev/doc/install)")
        print(f"building {self.name} into {path.parent}; the first time takes minutes", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            if self.source is not None:
                command, environment = [go, "build", "-o", folder, self.command], {}
            else:
                command, environment = [go, "install", self.command], {"GOBIN": folder}
            done = subprocess.run(
                command,
                cwd=self.source or folder,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_BUILD_WITHIN,
            )
            if done.returncode != 0:
                raise MissingProgram(f"{self.name} cannot be built: {' '.join(command)}\n{done.stderr[-4000:]}")
            (Path(folder) / self.name).rename(path)


PROGRAMS: dict[str, Packaged | Built] = {
    program.name: program
    for program in (
        Packaged("docker-registry", "docker-registry"),
        Packaged("openssl", "openssl"),
        Packaged("skopeo", "skopeo"),
        Packaged("curl", "curl"),
        Packaged("containerd", "containerd"),
        Packaged("ctr", "containerd"),
        Packaged("redis-server", "redis-server"),
        Packaged("redis-sentinel", "redis-sentinel"),
        Packaged("redis-cli", "redis-tools"),
        Built("crane", "github.com/google/go-containerregistry/cmd/crane@v0.21.6"),
        Built("agent", source=_AGENT),
    )
}


def require(name: str) -> Path:
    """The path of a program that the running test needs; skips or fails the test where it is absent."""
    program = PROGRAMS[name]
    if must_be_complete():
        try:
            return program.provide()
        except MissingProgram as missing:
            pytest.fail(str(missing), pytrace=False)
    found = program.find()
    if found is None and isinstance(program, Built):
        pytest.skip(f"{name} is not built; make e2e builds it, where Go is installed")
    try:
        return found or program.provide()
    except MissingProgram as missing:
        pytest.skip(str(missing))


def must_be_complete() -> bool:
    """Whether a test that is left out is a failure of the run."""
    return os.environ.get("WASM_MIRROR_REQUIRE_TOOLS") == "1"


def cache_folder() -> Path:
    """Where built programs are kept; outside the repository."""
    own = os.environ.get("WASM_MIRROR_TEST_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wasm-mirror-tests"


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def main(what: str) -> int:
    """``build``: provide all programs, say what is missing; ``debian``: print the packages that are."""
    if what == "debian":
        print(*(p.package for p in PROGRAMS.values() if isinstance(p, Packaged) and p.find() is None))
        return 0
    status = 0
    for program in PROGRAMS.values():
        try:
            program.provide()
        except MissingProgram as missing:
            print(missing, file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
