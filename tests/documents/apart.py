"""Programs of the documents that a test machine has no use for, each with what is checked of its commands instead.

A check gets the words of a command, from the program on, and gives what is wrong with it, or None.
"""

import itertools
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import yaml

from tests.documents.blocks import ROOT

Check = Callable[[Sequence[str]], str | None]

_OBJECTS = {"apply", "create", "delete", "describe", "diff", "get", "label", "logs", "port-forward", "exec", "rollout"}
_OBJECTS |= {"run", "wait", "annotate", "scale", "top", "cp", "patch", "auth", "api-resources"}
_MAKEFILE = (ROOT / "Makefile").read_text()
_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@dataclass(frozen=True)
class Apart:
    """A program that is not run, and why; what else is known of its commands stands in ``check``."""

    why: str
    check: Check


def _nothing(words: Sequence[str]) -> str | None:
    return None


def _files(words: Sequence[str], *options: str) -> list[str]:
    """What the options name, as files of the repository or of the reader."""
    return [after for option, after in itertools.pairwise(words) if option in options and after != "-"]


def _absent(names: Sequence[str]) -> str | None:
    """What is wrong where a file of the repository does not exist; others are the reader's own."""
    for name in names:
        if name.split("/")[0] in ("config", "charts", "docs", "demo") and not (ROOT / name).exists():
            return f"there is no {name}"
    return None


def _kubectl(words: Sequence[str]) -> str | None:
    verbs = [word for word in words[1:] if word in _OBJECTS]
    return _absent(_files(words, "-f", "--filename")) if verbs else f"kubectl does nothing known: {' '.join(words)}"


def _make(words: Sequence[str]) -> str | None:
    targets = re.findall(r"^([a-z0-9]+):", _MAKEFILE, re.MULTILINE)
    unknown = [word for word in words[1:] if "=" not in word and not word.startswith("-") and word not in targets]
    return f"there is no target {unknown[0]}" if unknown else None


def _compose(words: Sequence[str]) -> str | None:
    if (wrong := _absent(_files(words, "-f", "--file"))) or "compose" not in words:
        return wrong or _absent([word for word in words[1:] if "/" in word])
    files = [file for file in _files(words, "-f", "--file") if (ROOT / file).exists()]
    services = {name for file in files for name in yaml.safe_load((ROOT / file).read_text())["services"]}
    verb = next((n for n, word in enumerate(words) if word in ("up", "logs", "exec", "restart", "stop", "run")), None)
    named = [word for word in words[verb + 1 :] if not word.startswith("-")][:1] if verb is not None else []
    return f"{files} has no service {named[0]}" if files and named and named[0] not in services else None


def _units(words: Sequence[str]) -> str | None:
    units = {file.name for file in (ROOT / "config").rglob("*.service")}
    named = [word for word in words[1:] if "wasm-mirror" in word]
    unknown = [word for word in named if word not in units and f"{word}.service" not in units]
    return f"config/ has no unit {unknown[0]}" if unknown else None


def _python_packages(words: Sequence[str]) -> str | None:
    for extras in re.findall(rf"{_PROJECT['name']}\[([\w,-]+)\]|^\.\[([\w,-]+)\]", " ".join(words)):
        unknown = set(filter(None, ",".join(extras).split(","))) - set(_PROJECT["optional-dependencies"])
        if unknown:
            return f"there is no extra {', '.join(sorted(unknown))}"
    return None


def _installed(words: Sequence[str]) -> str | None:
    return _absent([word for word in words[1:] if not word.startswith("-")])


APART: Final[Mapping[str, Apart]] = {
    "apt-get": Apart("it changes the machine", _nothing),
    "apt": Apart("it changes the machine", _nothing),
    "dnf": Apart("it changes the machine", _nothing),
    "brew": Apart("it changes the machine", _nothing),
    "buildah": Apart("it takes minutes; make e2e builds the image", _compose),
    "cp": Apart("it is copied onto the reader's machine", _installed),
    "docker": Apart("there is no daemon; make e2e builds and runs the image with buildah", _compose),
    "docker-compose": Apart("there is no daemon; a test parses compose.yaml", _compose),
    "git": Apart("the repository is here already", _nothing),
    "install": Apart("it writes into the machine's folders", _installed),
    "journalctl": Apart("no systemd runs here", _units),
    "kubectl": Apart("there is no cluster; make e2e applies the objects to a real API server", _kubectl),
    "make": Apart("each target is run by hand or by .ci/run, and make run by the test of the first minute", _make),
    "pip": Apart("a test installs the package from the repository into a fresh environment", _python_packages),
    "pipx": Apart("as pip", _python_packages),
    "podman": Apart("as docker", _compose),
    "systemctl": Apart("no systemd runs here; a test has systemd-analyze verify the unit", _units),
    "systemd-analyze": Apart("a test has it verify the unit", _installed),
    "systemd-run": Apart("no systemd runs here", _nothing),
    "useradd": Apart("it changes the machine", _nothing),
    "adduser": Apart("it changes the machine", _nothing),
    "uv": Apart("as pip", _python_packages),
}
"""The programs, each with why it is not run."""

BLOCKS: Final[Mapping[tuple[str, str], str]] = {
    ("CONTRIBUTING.md", "conformance"): "it needs a clone of another repository, and is run by hand",
}
"""Blocks that are not run as a whole, by their page and a word in them, each with why."""
