"""The table, and the lines of JSON."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import click
import pytest
from click.testing import CliRunner

from mirror.cli import main
from mirror.digest import Digest
from mirror.inspector import local, report
from mirror.inspector.told import Told
from mirror.wasm.artifact import Found, Layout, Verdict
from mirror.wasm.description import Description, as_json
from mirror.wasm.module import Export, Import, Memory, Module, Producer
from tests.inspector.support import inspect
from tests.wasm.modules import custom, name, plugin

TAKEN = Verdict(True)
MODULE = Module(
    size=2_500_000,
    version=1,
    component=False,
    imports=(
        Import("env", "proxy_log", "function"),
        Import("env", "proxy_done", "function"),
        Import("wasi_snapshot_preview1", "path_open", "function"),
    ),
    exports=(
        Export("memory", "memory"),
        Export("proxy_abi_version_0_2_1", "function"),
        Export("proxy_on_vm_start", "function"),
        Export("proxy_on_configure", "function"),
    ),
    memories=(Memory(17, 32, imported=False),),
    producers=(Producer("language", "Rust", "1.80"), Producer("sdk", "proxy-wasm-rust-sdk", "0.2.2")),
    name="basic_auth.wasm",
)
FOUND = Found(2, "bin/plugin.wasm", 2_500_000, magic=True)
WHOLE = Description(
    layout=Layout.COMPAT,
    agent=TAKEN,
    gateway=TAKEN,
    envoy=TAKEN,
    digest=Digest.of(b"manifest"),
    media_type="application/vnd.oci.image.manifest.v1+json",
    index=Digest.of(b"index"),
    found=(FOUND,),
    chosen=FOUND,
    module=MODULE,
    module_digest=Digest.of(b"module"),
    lacking=MODULE.imports[2:],
    warnings=("the archive has two files plugin.wasm",),
)


def told(description: Description) -> Told:
    found = Told.read(json.loads(json.dumps(as_json(description))))
    assert found is not None
    return found


def table(description: Description, width: int = 110) -> list[str]:
    return click.unstyle(report.as_table("up/team/plugin:1.0", told(description), width)).splitlines()


def rows(description: Description) -> dict[str, str]:
    """The texts by their labels, each in one line."""
    found: dict[str, str] = {}
    label = ""
    for line in table(description)[1:]:
        label = line[2:15].strip() or label
        found[label] = f"{found.get(label, '')} {line[17:].strip()}".strip()
    return found


def test_the_table_has_all_that_people_ask_for() -> None:
    assert table(WHOLE)[0] == "up/team/plugin:1.0"
    assert rows(WHOLE) == {
        "layout": "oci tar+gzip (application/vnd.oci.image.manifest.v1+json)",
        "digest": str(WHOLE.digest),
        "index": str(WHOLE.index),
        "module": "bin/plugin.wasm in layer 3, 2,500,000 bytes (2.4 MiB)",
        "sha256": Digest.of(b"module").hex,
        "kind": "core module, Proxy-Wasm ABI 0.2.1",
        "name": "basic_auth.wasm",
        "made with": "Rust 1.80, SDK proxy-wasm-rust-sdk 0.2.2",
        "memory": "1.1 MiB at first, 2 MiB at most",
        "imports": "env 2, wasi_snapshot_preview1 1",
        "not in Envoy": "wasi_snapshot_preview1.path_open",
        "exports": "1 memory, 3 functions; 2 of them proxy_on_…",
        "Istio agents": "accepted",
        "Envoy Gateway": "accepted",
        "Envoy": "accepted",
        "warning": "the archive has two files plugin.wasm",
    }


def test_a_bare_module_that_says_nothing_has_a_short_table() -> None:
    bare = Description(
        Layout.FILE, TAKEN, TAKEN, TAKEN, chosen=Found(0, None, 8, magic=True), module=Module(8, 1, component=False)
    )
    said = rows(bare)
    assert list(said) == ["layout", "module", "kind", "Istio agents", "Envoy Gateway", "Envoy"]
    assert (said["layout"], said["module"]) == ("file", "8 bytes")
    assert said["kind"] == "core module, which exports no Proxy-Wasm ABI version"


def test_a_refusal_has_its_reason_and_what_to_change_once_for_all_whom_it_helps() -> None:
    refused = Verdict(False, "the last of 3 layers is the config", "push it with two layers")
    description = dataclasses.replace(
        WHOLE, agent=refused, gateway=refused, envoy=Verdict(False, "it is a component", "build a core module")
    )
    said = rows(description)
    assert said["Istio agents"] == "refused: the last of 3 layers is the config -> push it with two layers"
    assert said["Envoy Gateway"] == "refused: the last of 3 layers is the config"
    assert said["Envoy"] == "refused: it is a component -> build a core module"


def test_where_there_is_no_module_it_is_said_what_there_is_and_why() -> None:
    refused = Verdict(False, "there is no plugin.wasm", "call it so")
    found = (Found(0, "app.wasm", 5, magic=True), Found(1, None, 6, magic=False))
    nothing = Description(
        Layout.OTHER, refused, refused, refused, Digest.of(b""), found=found, problem="no module", complete=False
    )
    said = rows(nothing)
    assert said["found"] == "app.wasm in layer 1 (5 bytes), layer 2 (6 bytes, no Wasm)"
    assert said["problem"] == "no module"
    assert "may change" in said["incomplete"]
    assert "module" not in said


def test_of_a_file_that_is_no_module_the_size_is_said_and_the_reason_once() -> None:
    refused = Verdict(False, "it is cut short", "compile it anew")
    found = (Found(0, None, 5, magic=True),)
    said = rows(Description(Layout.FILE, TAKEN, TAKEN, refused, found=found, problem="it is cut short"))
    assert list(said) == ["layout", "found", "Istio agents", "Envoy Gateway", "Envoy"]
    assert (said["found"], said["Envoy"]) == ("5 bytes", "refused: it is cut short -> compile it anew")


def test_memories_are_told_with_what_is_unusual_of_them() -> None:
    memories = (Memory(0, None, imported=True), Memory(1, 1 << 20, imported=False, memory64=True, shared=True))
    said = rows(dataclasses.replace(WHOLE, module=dataclasses.replace(MODULE, memories=memories)))
    assert said["memory"] == "0 bytes at first, no maximum, imported; 64 KiB at first, 64 GiB at most, 64 bit, shared"


@pytest.mark.parametrize("width", [60, 80, 110])
def test_no_line_is_wider_than_the_terminal_but_for_what_people_copy(width: int) -> None:
    reason = "the last of the layers is the config, and agents read only the last one of a tar+gzip image; " * 3
    description = dataclasses.replace(WHOLE, agent=Verdict(False, reason, reason), warnings=(reason,))
    for line in table(description, width):
        assert len(line) <= width or " " not in line[17:].strip(), line


def test_a_table_is_as_wide_as_its_terminal_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    for of_terminal, wide in ((20, 60), (90, 90), (400, 110)):
        monkeypatch.setenv("COLUMNS", str(of_terminal))
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        assert report.columns() == wide
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    assert report.columns() == 110


EVIL = "a\x1b[2Jb\x07c\x9bd\u202ee\nf\rg\x00h"


def test_no_name_in_a_module_steers_the_terminal() -> None:
    module = dataclasses.replace(
        MODULE,
        name=EVIL,
        imports=(Import(EVIL, EVIL, "function"),),
        exports=(Export(EVIL, "function"), Export(f"proxy_abi_version_{EVIL}", "function")),
        producers=(Producer(EVIL, EVIL, EVIL),),
    )
    found = Found(0, EVIL, 5, magic=True)
    evil = Verdict(False, EVIL, EVIL)
    for description in (
        dataclasses.replace(WHOLE, module=module, chosen=found, lacking=module.imports, agent=evil, warnings=(EVIL,)),
        dataclasses.replace(WHOLE, module=None, found=(found,), problem=EVIL, media_type=EVIL),
    ):
        shown = click.unstyle(report.as_table(EVIL, told(description)))
        assert all(sign.isprintable() or sign == "\n" for sign in shown)
        assert "a\\x1b[2Jb\\x07c\\x9bd\\u202ee\\nf\\rg\\x00h" in shown
        line = report.as_line(EVIL, as_json(description))
        assert all(" " <= sign <= "~" for sign in line)
        assert json.loads(line)["reference"] == EVIL


def test_a_real_module_with_such_names_is_shown_as_text(tmp_path: Path) -> None:
    file = tmp_path / "plugin.wasm"
    evil = "\x1b]0;owned\x07"
    file.write_bytes(plugin([("env", evil, "void -> void")], customs=[custom("name", b"\0" + name(name(evil)))]))
    result = inspect(file)
    assert "\x1b" not in result.output
    assert "\\x1b]0;owned\\x07" in result.stdout


def test_signs_that_the_terminal_has_not_are_escaped(tmp_path: Path) -> None:
    file = tmp_path / "plugin.wasm"
    file.write_bytes(plugin([("env", "проверка", "void -> void")]))
    result = CliRunner(charset="latin-1").invoke(main, ["inspect", str(file)])
    assert (result.exit_code, result.stderr) == (1, "")
    assert "env.\\u043f\\u0440" in result.stdout


def test_long_lists_and_long_names_are_cut() -> None:
    many = tuple(Import(f"m{number}", "x" * 1000, "function") for number in range(2000))
    description = dataclasses.replace(WHOLE, module=dataclasses.replace(MODULE, imports=many), lacking=many)
    assert rows(description)["imports"].endswith("m7 1 and 1,992 more")
    assert rows(description)["not in Envoy"].endswith(" and 1,992 more")
    assert len("".join(table(description))) < 5000


def test_a_line_of_json_is_all_that_is_known() -> None:
    line = report.as_line("x", as_json(WHOLE))
    assert json.loads(line) == {"reference": "x", **as_json(WHOLE)}


def test_what_a_newer_mirror_says_beyond_is_passed_over_and_what_is_no_description_is_none() -> None:
    assert Told.read({**as_json(WHOLE), "news": 1}) == told(WHOLE)
    others: list[object] = [
        None,
        7,
        [],
        {},
        {"layout": "x"},
        {**as_json(WHOLE), "module": 7},
        {**as_json(WHOLE), "accepted": {}},
        {**as_json(WHOLE), "found": [{"layer": 0, "size": 10**400, "wasm": True}]},
    ]
    for value in others:
        assert Told.read(value) is None


def test_nothing_of_the_json_is_lost_on_the_way_to_the_table() -> None:
    """But for what the table counts, or does not show: signatures, sections, the version."""
    said = as_json(WHOLE)
    kept = told(WHOLE).model_dump(mode="json")
    assert set(said) == set(kept)
    module = said["module"]
    assert isinstance(module, dict)
    assert set(module) - set(kept["module"]) == {"version", "sections"}


def test_several_references_have_a_table_each_a_summary_and_the_worst_status(tmp_path: Path) -> None:
    good, bad, missing = (str(tmp_path / f"{one}.wasm") for one in ("good", "bad", "missing"))
    Path(good).write_bytes(plugin())
    Path(bad).write_bytes(b"x")
    for references, status, last in (
        ((good, good), 0, "2 accepted, 0 refused."),
        ((good, bad), 1, "1 accepted, 1 refused."),
        ((missing, bad, good), 2, "1 accepted, 1 refused, 1 without a description."),
    ):
        result = inspect(*references)
        assert result.exit_code == status
        assert result.stdout.splitlines()[-1] == last
        assert [one for one in references if f"{one}\n  layout" in result.stdout] == [
            one for one in references if one != missing
        ]
        assert (missing in result.stderr) == (missing in references)


def test_in_json_each_reference_has_a_line_also_one_that_cannot_be_described(tmp_path: Path) -> None:
    good, missing = str(tmp_path / "good.wasm"), str(tmp_path / "missing.wasm")
    Path(good).write_bytes(plugin())
    result = inspect("--json", missing, good)
    first, second = (json.loads(line) for line in result.stdout.splitlines())
    assert set(first) == {"reference", "error"}
    assert first["error"] in result.stderr
    assert (second["reference"], second["accepted"]) == (good, True)
    assert result.exit_code == 2


def test_without_a_reference_it_is_wrong_use() -> None:
    assert inspect().exit_code == 2


def test_an_output_that_cannot_be_written_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "plugin.wasm").write_bytes(plugin())
    program = [sys.executable, "-m", "mirror.cli", "inspect", str(tmp_path / "plugin.wasm")]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (
        2,
        "wasm-mirror: the output cannot be written: No space left on device\n",
    )


def test_a_closed_output_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "plugin.wasm").write_bytes(plugin())
    words = [sys.executable, "-m", "mirror.cli", "inspect", str(tmp_path / "plugin.wasm")]
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *words], stderr=subprocess.PIPE, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_an_interrupted_command_has_a_status_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugin.wasm").write_bytes(plugin())

    def interrupted(_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(local, "describe", interrupted)
    result = inspect(tmp_path / "plugin.wasm")
    assert (result.exit_code, result.output) == (130, "")
