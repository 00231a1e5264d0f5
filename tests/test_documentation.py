"""What the documents say is held against the code: commands run, defaults are the defaults."""

import re
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import click
import yaml

from mirror.cli import main
from mirror.config import load
from mirror.names import Names
from mirror.oci import RegistryPath, parse_path
from tests.documents.blocks import pages
from tests.support.artifacts import compat, publish, wasm_module
from tests.support.process import MirrorProcess
from tests.support.tools import require
from tests.support.upstream import FaultyUpstream
from tests.test_imports import HOUSE, places

_ROOT = Path(__file__).parents[1]
_README = (_ROOT / "README.md").read_text()
_ARCHITECTURE = (_ROOT / "docs" / "architecture.md").read_text()
_EXAMPLE = "http://127.0.0.1:8080"
_PLUGIN = "istio-ecosystem/wasm-extensions/basic_auth"
_TTL = re.compile(r"ttl=\d+")


def block(text: str, marker: str) -> str:
    """The code block behind the comment ``marker``."""
    found = re.search(rf"<!-- {re.escape(marker)} -->\n```\w*\n(.*?)```", text, re.DOTALL)
    assert found is not None, f"there is no block behind <!-- {marker} -->"
    return found[1]


def blocks(text: str, language: str) -> list[str]:
    """All code blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def session(marker: str) -> list[tuple[str, str]]:
    """The commands of a console block of the README, each with what it prints."""
    steps = block(_README, f"run: {marker}").removeprefix("$ ").split("\n$ ")
    return [(command, said.strip()) for command, _, said in (step.partition("\n") for step in steps)]


def run(steps: list[tuple[str, str]], url: str) -> list[tuple[str, str]]:
    """The same commands with what they print when the mirror is at ``url``."""
    require("curl")
    script = "".join(f"{command}\nprintf '\\0'\n" for command, _ in steps).replace(_EXAMPLE, url)
    done = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, timeout=60, check=True)
    said = done.stdout.replace(url, _EXAMPLE).split("\0")
    return [(command, one.strip()) for (command, _), one in zip(steps, said, strict=False)]


def without_ttl(steps: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The steps, whatever the number of seconds is for which something stays fresh."""
    return [(command, _TTL.sub("ttl=N", said)) for command, said in steps]


def test_the_readme_shows_a_miss_and_a_hit_as_they_are(tmp_path: Path) -> None:
    steps = session("a miss and a hit")
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"ghcr.io": up.url}) as mirror:
        publish(up, _PLUGIN, "1.12.0", compat(wasm_module()))
        assert without_ttl(run(steps, mirror.url)) == without_ttl(steps)
        assert up.count(path="/manifests/") == 1


def test_the_readme_shows_an_outage_as_it_is(tmp_path: Path) -> None:
    steps = session("an outage")
    settings = {"defaults": {"fresh_for": "0s"}}
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"ghcr.io": up.url}, settings) as mirror:
        publish(up, _PLUGIN, "1.12.0", compat(wasm_module()))
        run(session("a miss and a hit"), mirror.url)
        up.refuse()
        assert run(steps, mirror.url) == steps


def test_the_readme_shows_the_plain_module_as_it_is(tmp_path: Path) -> None:
    steps = session("the plain module")
    with FaultyUpstream() as up, MirrorProcess(tmp_path, {"ghcr.io": up.url}) as mirror:
        publish(up, _PLUGIN, "1.12.0", compat(wasm_module()))
        assert run(steps, mirror.url) == steps


def test_the_settings_in_the_readme_are_valid(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    examples = [text for text in blocks(_README, "yaml") if "upstreams:" in text]
    assert examples
    for text in examples:
        file.write_text(text)
        assert set(load(file, {}, {}).upstreams) == set(yaml.safe_load(text)["upstreams"])


def test_the_wasm_plugin_in_the_readme_names_an_upstream_of_the_example() -> None:
    (text,) = [text for text in blocks(_README, "yaml") if "kind: WasmPlugin" in text]
    url = yaml.safe_load(text)["spec"]["url"]
    match = re.fullmatch(r"oci://([^/]+)/(.+):([^:/]+)", url)
    assert match is not None
    place = Names(load(_ROOT / "config" / "wasm-mirror.yaml", {}, {})).place(match[2], ns=None, host=match[1])
    assert (place.upstream, place.repository) == ("ghcr.io", _PLUGIN)


def test_all_ways_in_the_readme_to_name_a_repository_name_the_same_one() -> None:
    names = Names(load(_ROOT / "config" / "minimal.yaml", {}, {}))
    rows = re.findall(r"^\| .* \| `(/v2/\S+)`(?:, `Host: (\S+)`)? \|", _README, re.MULTILINE)
    assert len(rows) == 3
    found = set()
    for target, host in rows:
        parts = urlsplit(target)
        path: RegistryPath = parse_path(parts.path)
        place = names.place(path.name, ns=parse_qs(parts.query).get("ns", [None])[0], host=host or "127.0.0.1:8080")
        found.add((place.upstream, place.repository, path.tag))
    assert found == {("ghcr.io", "team/plugin", "1.0")}


def test_the_defaults_in_the_readme_are_the_defaults() -> None:
    reference = (_ROOT / "docs" / "configuration.md").read_text()
    rows = re.findall(r"^\| `([\w.]+)`<br>.*?\| [^|]* \| `([^`]+)` \|", reference, re.MULTILINE)
    defaults = {key.rpartition(".")[2]: default for key, default in rows}
    said = re.findall(r"`(\w+)` \((\d+\w+)[;)]", _README)
    assert len(said) >= 8
    assert [(key, value) for key, value in said if defaults.get(key) != value] == []


def test_every_command_that_a_document_names_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9]+):", (_ROOT / "Makefile").read_text(), re.MULTILINE))
    for name in pages():
        text = (_ROOT / name).read_text()
        assert set(re.findall(r"(?:`|^)make ([a-z0-9]+)", text, re.MULTILINE)) <= targets, name
        assert set(re.findall(r"wasm-mirror ([a-z-]+)(?= --|`)", text)) <= set(
            main.list_commands(click.Context(main))
        ), name


def house() -> list[str]:
    """The files that the architecture lists, in its order, as `tests.test_imports.places` writes them."""
    found, folder = [], ""
    for line in block(_ARCHITECTURE, "the house").splitlines():
        name = line.split()[0]
        if name.endswith("/"):
            folder = name.removesuffix("/").replace("/", ".")
        elif line.startswith("  "):
            found.append(f"{folder}.{name.removesuffix('.py')}")
        else:
            found.append(name.removesuffix(".py"))
    return found


def test_the_architecture_lists_the_house_in_the_order_of_its_imports() -> None:
    folders = {file.parent.name for file in (_ROOT / "mirror").rglob("__init__.py")}
    assert house() == [name for name in places(HOUSE) if name not in folders]


def test_every_file_and_function_that_the_architecture_names_exists() -> None:
    for file, names in re.findall(r"`((?!tests/)(?:\w+/)*\w+\.py)`(?: \((`[^)]*`)\))?", _ARCHITECTURE):
        path = _ROOT / "mirror" / file
        assert path.exists(), file
        for name in re.findall(r"`([\w.]+)`", names):
            last = name.rpartition(".")[2]
            assert re.search(rf"(?:def|class) {last}\b", path.read_text()), f"{file} has no {name}"
