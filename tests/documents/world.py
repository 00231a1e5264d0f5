"""Where the commands of the documents run: a mirror, the registries behind it, and a reader's folder."""

import contextlib
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import yaml

from tests.documents import apart, stand_ins
from tests.documents.blocks import ROOT, Block
from tests.documents.shell import commands, script, steps
from tests.inspector.support import layout
from tests.support.artifacts import compat, publish, tar_gz
from tests.support.process import MirrorProcess, clean_environment
from tests.support.tools import PROGRAMS, require
from tests.support.upstream import FaultyUpstream

MODULE = (ROOT / "demo" / "plugin" / "basic_auth.wasm").read_bytes()

_UPSTREAMS = ("ghcr.io", "corp")
_PUBLISHED = (("team/plugin", "1.0"), ("istio-ecosystem/wasm-extensions/basic_auth", "1.12.0"))
_HOSTS = ("127.0.0.1:8080", "localhost:8080", "wasm-mirror.istio-system:8080")
_REFERENCE = re.compile(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, _UPSTREAMS))})/([\w./-]+?)(?::([\w.-]+)|@sha256:…)")
_JOB = re.compile(r"\b\d{8}-\d{6}-[0-9a-f]{8}\b")
_WRITING = ("cp", "install", "ln", "mkdir", "mv", "rm", "tee")
_WITHIN = 240.0
# What needs no Python: it is quicker.
_QUICK = {
    "wasm-mirror": """\
case "$1 $*" in
"serve "* | "doctor "* | "health "* | *--cluster*) ;;
*) exec "$REAL/wasm-mirror" "$@" ;;
esac
""",
    "curl": """\
for word; do
  case $word in -[a-zA-Z]*f* | -f* | --fail*) exec "$REAL/curl" "$@" ;; esac
done
exec "$REAL/curl" --fail-with-body "$@" # a 404 is a failure
""",
}
_HOME = ("home/.config/fish/completions", "home/.zfunc")
_PLUGIN = """\
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: plugin}
spec: {url: "oci://ghcr.io/team/plugin:1.0"}
"""
_VARYING = tuple(
    re.compile(pattern)
    for pattern in (
        r"\b[0-9a-f]{64}\b",
        r"(?<=ttl=)\d+",
        r"\b20\d\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z| UTC|\+00:00)?",
        r"\b\d+(?:\.\d+)? (?:ms|s)\b",
        _JOB.pattern,
    )
)


@dataclass(frozen=True, slots=True)
class Said:
    """A command, what the page says that it prints, and what came of it."""

    command: str
    shown: str
    status: int
    stdout: str
    stderr: str

    def fault(self) -> str | None:
        """What is wrong; None where all is as the page says. Where output is shown the status may be any."""
        if not self.shown:
            return None if self.status == 0 else f"{self.command}: status {self.status}\n{self.stdout}{self.stderr}"
        wanted = re.compile(re.escape(normal(self.shown)).replace("…", ".*"))
        both = (self.stdout, self.stdout + self.stderr, self.stderr + self.stdout)
        if any(wanted.fullmatch(normal(text)) for text in both):
            return None
        return f"{self.command}: status {self.status}, printed\n{self.stdout}{self.stderr}"


def normal(text: str) -> str:
    """``text`` without what is another each time."""
    for varying in _VARYING:
        text = varying.sub("…", text)
    return text.replace("\r", "").strip()


@dataclass
class World:
    """A reader's ``folder``, ``mirror`` and ``upstream``; ``replaced`` are words of pages by what they are here."""

    folder: Path
    mirror: MirrorProcess
    upstream: FaultyUpstream
    replaced: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    def check(self, block: Block, stdin: str = "") -> None:
        """Run the commands of a block, and hold them against what the page says. Raises `AssertionError`."""
        faults = [fault for said in self.run(block, stdin) if (fault := said.fault()) is not None]
        assert not faults, f"{block}: " + "\n".join(faults)

    def run(self, block: Block, stdin: str = "") -> list[Said]:
        """Run the commands of a block, those of ``sh`` as one, in this folder."""
        self._prepare(script(block))
        if block.language == "sh":
            done = self._bash(f"set -euo pipefail\n{self.here(block.text)}", stdin)
            return [Said(block.text.strip(), "", done.returncode, done.stdout, done.stderr)]
        pairs = steps(block)
        ends = "printf '\\0%d\\0' $?\nprintf '\\0' >&2\n"
        done = self._bash("set -u\n" + "".join(f"{self.here(command)}\n{ends}" for command, _ in pairs), stdin)
        out, err = done.stdout.split("\0"), done.stderr.split("\0")
        found = zip(pairs, out[::2], out[1::2], err, strict=False)
        said = [Said(command, self.here(shown), int(status), o, e) for (command, shown), o, status, e in found]
        assert len(said) == len(pairs), f"{block}: it ended after {len(said)} commands\n{done.stdout}{done.stderr}"
        return said

    def here(self, text: str) -> str:
        """``text`` with the addresses, paths and names of the pages as they are here."""
        for there, here in self.replaced.items():
            text = text.replace(there, here)
        if _JOB.search(text):
            jobs = httpx.get(f"{self.mirror.url}/api/v1/prewarm", trust_env=False).json()["jobs"]
            text = _JOB.sub(jobs[0]["id"] if jobs else "none", text)
        return text

    def _prepare(self, text: str) -> None:
        """Have what the commands name: artifacts in the registries, programs, and pins that they take away."""
        for repository, tag in _REFERENCE.findall(text):
            publish(self.upstream, repository, tag or None, compat(MODULE))
        for words in commands(self.here(text)):
            if words[0] in PROGRAMS:
                _link(self.folder / "real" / words[0], require(words[0]))
            outside = [word for word in words[1:] if word.startswith("/") and not word.startswith(str(self.folder))]
            assert words[0] not in _WRITING or not outside, f"{' '.join(words)}: it writes to this machine's own files"
        with httpx.Client(base_url=self.mirror.url, trust_env=False, timeout=_WITHIN) as client:
            for pin in client.get("/api/v1/pins").json()["pins"]:
                client.delete(f"/api/v1/pins/{pin['reference']}").raise_for_status()
            for reference in re.findall(r"^wasm-mirror unpin (\S+)", text, re.MULTILINE):
                client.post("/api/v1/pins", json={"references": [reference]}).raise_for_status()
            for name, tag in re.findall(r"^wasm-mirror purge (\S+):(\S+)", text, re.MULTILINE):
                client.get(f"/v2/{name}/manifests/{tag}").raise_for_status()

    def _bash(self, text: str, stdin: str) -> subprocess.CompletedProcess[str]:
        record = self.folder / "record"
        record.unlink(missing_ok=True)
        done = subprocess.run(
            ["bash", "-c", text],
            cwd=self.folder,
            env={**clean_environment(), **self._own_environment(), **self.environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=_WITHIN,
        )
        for line in record.read_text().splitlines() if record.exists() else ():
            (words, given) = json.loads(line)
            fault = apart.APART[words[0]].check(words) if words[0] in apart.APART else None
            assert fault is None, fault
            assert not given or list(yaml.safe_load_all(given)), f"{words} is given nothing"
        return done

    def _own_environment(self) -> dict[str, str]:
        ours = [self.folder / "stand-ins", self.folder / "real", Path(sys.executable).parent]
        return {
            "HOME": str(self.folder / "home"),
            "PATH": os.pathsep.join([*map(str, ours), os.environ["PATH"]]),
            "OWN_CONFIG": str(self.mirror.config_file),
            "PYTHONPATH": str(ROOT),
            "REAL": str(self.folder / "real"),
            "RECORD": str(self.folder / "record"),
            "STAND_INS": str(self.folder / "stand-ins"),
            "TOKEN": "none is asked for",
            "WASM_MIRROR_URL": self.mirror.url,
        }


@contextlib.contextmanager
def world(folder: Path, settings: Mapping[str, object] | None = None, **upstreams: str) -> Iterator[World]:
    """An empty mirror of ``ghcr.io`` and ``corp``, where a few plugins are, and a folder with a reader's files.

    ``settings`` are laid over those of the mirror; ``upstreams`` are URLs of other registries than the common one.
    """
    folder.mkdir()
    _fill(folder)
    with FaultyUpstream() as up:
        for repository, tag in _PUBLISHED:
            publish(up, repository, tag, compat(MODULE))
        registries = {**dict.fromkeys(_UPSTREAMS, up.url), **upstreams}
        with MirrorProcess(folder / "mirror", registries, {"names": [_HOSTS[-1]], **(settings or {})}) as mirror:
            yield World(folder, mirror, up, _replaced(folder, mirror, up))


def _replaced(folder: Path, mirror: MirrorProcess, up: FaultyUpstream) -> dict[str, str]:
    return {
        ".venv/bin/": "",
        "@sha256:…": f"@{compat(MODULE).digest}",
        "/etc/wasm-mirror": str(folder / "etc"),
        "/var/lib/wasm-mirror": str(folder / "var"),
        "/run/secrets": str(folder / "secrets"),
        "/tmp/": f"{folder}/",
        " docker://ghcr.io/": f" --src-tls-verify=false docker://{up.host}/",
        f"http://{_HOSTS[-1]}": mirror.url,
        **dict.fromkeys(_HOSTS[:-1], mirror.host),
    }


def _fill(folder: Path) -> None:
    """The files that the pages name as a reader's own."""
    for name in ("plugins", "mesh/templates", "etc", "var", "secrets", "real", "stand-ins", *_HOME):
        (folder / name).mkdir(parents=True)
    for name in ("config", "charts"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "plugin.wasm").write_bytes(MODULE)
    (folder / "plugin.tar.gz").write_bytes(tar_gz({"plugin.wasm": MODULE}))
    layout(folder / "image", ("1.0", compat(MODULE)))
    layout(folder / "archive", ("ghcr.io/team/imported:1.0", compat(MODULE)))
    with tarfile.open(folder / "plugins.tar", "w") as archive:
        archive.add(folder / "archive", ".")
    for name in ("plugins/plugin.yaml", "more.yaml", "mesh/templates/plugin.yaml"):
        (folder / name).write_text(_PLUGIN)
    (folder / "mesh" / "Chart.yaml").write_text("apiVersion: v2\nname: mesh\nversion: 0.1.0\n")
    (folder / "values.yaml").write_text("replicas: 1\n")
    (folder / "refs.txt").write_text("ghcr.io/team/plugin:1.0\n")
    (folder / "secrets" / "token").write_text("a" * 32 + "\n")
    for name in ("wasm-mirror.yaml", "config.yaml"):
        (folder / "etc" / name).write_text(f"data_dir: {folder / 'var'}\nupstreams: {{ghcr.io: {{}}}}\n")
    _link(folder / "real" / "wasm-mirror", Path(sys.executable).parent / "wasm-mirror")
    names: Sequence[str] = (*apart.APART, "curl", "helm", "ssh", "sudo", "wasm-mirror")
    for name in names:
        stand_in = folder / "stand-ins" / name
        own = f'exec "{sys.executable}" -m {stand_ins.__name__} {name} "$@"'
        stand_in.write_text(f"#!/bin/sh\n{_QUICK.get(name, '')}{own}\n")
        stand_in.chmod(0o755)


def _link(link: Path, target: Path) -> None:
    if not link.exists():
        link.symlink_to(target)
