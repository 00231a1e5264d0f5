"""Promises of the repository itself, over all the files that belong to it."""

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import mirror

_ROOT = Path(__file__).parents[1]
# Written in two parts, so that this file keeps the promises too.
_REGISTRIES = "|".join(
    re.escape(first + second)
    for first, second in [
        ("pypi.", "org"),
        ("python", "hosted.org"),
        ("npmjs.", "org"),
        ("npmjs.", "com"),
        ("crates.", "io"),
        ("proxy.golang.", "org"),
        ("sum.golang.", "org"),
        ("deb.debian.", "org"),
        ("repo.maven.", "apache.org"),
    ]
)


@cache
def files() -> tuple[Path, ...]:
    """All files under version control."""
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(path for name in listed.split("\0") if name and (path := _ROOT / name).is_file())


def lines() -> Iterator[tuple[str, str]]:
    """Every line of text with its place, ``path:number``."""
    for path in files():
        name = path.relative_to(_ROOT).as_posix()
        content = path.read_bytes()
        if b"\0" in content:
            continue
        for number, line in enumerate(content.decode().splitlines(), 1):
            yield f"{name}:{number}", line


def matches(pattern: str) -> list[str]:
    return [f"{place}: {line.strip()}" for place, line in lines() if re.search(pattern, line)]


def test_no_file_names_a_package_registry() -> None:
    assert matches(_REGISTRIES) == []


def test_no_file_leads_out_of_the_repository_or_into_a_developers_home() -> None:
    homes = "|".join(["/wor" + "k/", "/ro" + "ot/", r"/home/[a-z]", "/Us" + "ers/", r"\.\./sha" + "red"])
    assert matches(rf"(?<![\w.])(?:{homes})") == []


def test_every_open_end_has_a_number() -> None:
    assert matches(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b(?!\(#\d+\))") == []


def test_every_silenced_warning_says_why() -> None:
    silenced = r"#\s*(?:type:\s*ignore|noqa)"
    assert matches(silenced + r"(?!(?:\[[\w, -]+\]|:\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*)\s+(?:#|-|–|because)\s*\w)") == []


@pytest.mark.parametrize("name", ["requirements.lock", "runtime.lock", "docs/requirements.lock", "sbom.lock"])
def test_a_lock_has_versions_and_hashes_and_no_addresses(name: str) -> None:
    lock = (_ROOT / name).read_text()
    requirements = re.split(r"\n(?=[a-z])", re.sub(r"^#.*\n", "", lock, flags=re.MULTILINE).strip())
    assert len(requirements) > 20
    for requirement in requirements:
        assert re.fullmatch(r"[a-z0-9.-]+==[\w.]+(?: ; [^\\]+)?(?: \\\n    --hash=sha256:[0-9a-f]{64})+", requirement)
    assert "://" not in lock
    assert "--index" not in lock


def test_the_locks_of_other_programs_have_versions_and_hashes_and_no_addresses() -> None:
    wheel = (_ROOT / "tests" / "support" / "envoy.lock").read_text()
    assert re.fullmatch(r"#.*\n[a-z-]+==[\d.]+(?: \\\n    --hash=sha256:[0-9a-f]{64})+\n", wheel)
    lock = json.loads((_ROOT / "demo" / "plugin" / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert "node_modules/assemblyscript" in packages
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package, name


def test_the_lock_has_everything_that_the_package_asks_for() -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text())
    asked = [
        *project["build-system"]["requires"],
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["dev"],
    ]
    names = {re.split(r"[<>=!~\[; ]", requirement)[0].lower() for requirement in asked}
    locked = set(re.findall(r"^([a-z0-9.-]+)==", (_ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert names - locked == set()


def test_the_newest_entry_of_the_changelog_is_this_version() -> None:
    versions = re.findall(r"^## \[?(\d[\w.]*)", (_ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == mirror.__version__


def test_every_make_target_says_what_it_does() -> None:
    makefile = (_ROOT / "Makefile").read_text()
    targets = re.findall(r"^([a-z0-9]+):(?!=)(.*)$", makefile, re.MULTILINE)
    assert {"run", "test", "e2e", "setup", "check", "bench"} <= {name for name, _ in targets}
    assert [name for name, rest in targets if " ## " not in rest] == []
