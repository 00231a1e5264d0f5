"""What a reference names on this machine, and ``.wasm`` files."""

import errno
import gzip
import os
import tarfile
from pathlib import Path

import pytest

from mirror.digest import Digest
from mirror.inspector.local import Place, place
from tests.inspector.support import error, inspect, told
from tests.support.artifacts import tar_gz
from tests.wasm.modules import COMPONENT, plugin

MODULE = plugin()


def test_a_file_is_described(tmp_path: Path) -> None:
    file = tmp_path / "plugin.wasm"
    file.write_bytes(MODULE)
    found = told(file)
    assert (found.layout, found.digest, found.accepted) == ("file", None, True)
    assert found.module is not None
    assert (found.module.sha256, found.module.abi) == (Digest.of(MODULE).hex, ("0.2.1",))


def test_a_file_needs_no_ending_when_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("module").write_bytes(MODULE)
    assert told("module").accepted


@pytest.mark.parametrize(
    "content",
    [b"", b"\0as", b"#!/bin/sh\n" * 100, MODULE[: len(MODULE) // 2], MODULE[:-1], COMPONENT],
    ids=["empty", "3 bytes", "script", "half", "one byte short", "component"],
)
def test_what_envoy_would_not_run_is_refused_with_a_reason(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "plugin.wasm"
    file.write_bytes(content)
    found = told(file)
    assert not found.accepted
    assert found.accepted_by.envoy.reason


@pytest.mark.parametrize("reference", ["/", ".", "..", "./x", "../x", "/no/such/x", "x.wasm", "team/x.wasm", "oci:x"])
def test_what_looks_like_a_path_is_one(reference: str) -> None:
    assert place(reference) is not None


@pytest.mark.parametrize(
    "reference",
    ["ghcr.io/team/plugin:1.0", "plugin", "oci://x.wasm", "oci://./x", "https://x/y.wasm", "", "x:y", "a@b"],
)
def test_all_else_is_for_a_mirror(reference: str) -> None:
    assert place(reference) is None


def test_what_is_there_is_a_path_whatever_it_is_called_unless_it_is_written_with_oci(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ghcr.io/a:b").mkdir(parents=True)
    Path("link").symlink_to("nowhere")
    assert place("ghcr.io/a:b") == Place(Path("ghcr.io/a:b"))
    assert place("oci:ghcr.io/a:b:1@2") == Place(Path("ghcr.io/a:b"), "1@2")
    assert place("ghcr.io:x") == Place(Path("ghcr.io"), "x")
    assert place("oci://ghcr.io/a:b") is None
    assert place("link") == Place(Path("link"))


def test_a_file_that_is_not_there_is_said_and_how_a_mirror_would_be_asked(tmp_path: Path) -> None:
    for name in ("nothing.wasm", "nothing/plugin.wasm", "x" * 5000 + ".wasm", "a\0b.wasm"):
        result = inspect(tmp_path / name)
        assert result.exit_code == 2, result.output
        assert error(result)
    assert "oci://" in error(inspect(tmp_path / "nothing.wasm"))


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "plugin.wasm"
    file.write_bytes(MODULE)

    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # root may read what chmod forbids
    result = inspect(file)
    assert result.exit_code == 2
    assert error(result) == f"{file} cannot be read: Permission denied"


def test_what_is_no_plain_file_is_not_waited_for(tmp_path: Path) -> None:
    fifo = tmp_path / "plugin.wasm"
    os.mkfifo(fifo)
    for path in (fifo, Path("/dev/zero")):
        result = inspect(path)
        assert result.exit_code == 2
        assert error(result).startswith(f"{path} is no plain file")


def test_an_archive_is_refused_with_what_is_accepted(tmp_path: Path) -> None:
    saved, packed = tmp_path / "image.tar", tmp_path / "plugin.tar.gz"
    (tmp_path / "manifest.json").write_text("[]")
    with tarfile.open(saved, "w") as archive:
        archive.add(tmp_path / "manifest.json", "manifest.json")
    packed.write_bytes(tar_gz({"plugin.wasm": MODULE}))
    (tmp_path / "x.wasm").write_bytes(gzip.compress(MODULE))
    for file in (saved, packed, tmp_path / "x.wasm"):
        result = inspect(file)
        assert result.exit_code == 2
        assert "inspect reads .wasm files and OCI layout directories" in error(result)
        assert f"skopeo copy docker-archive:{file} oci:DIR:TAG" in error(result)


def test_a_file_of_a_gibibyte_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "plugin.wasm"
    file.write_bytes(MODULE)
    os.truncate(file, 1 << 30)
    result = inspect(file)
    assert result.exit_code == 1
    assert "has 1,073,741,824 bytes, and agents read 268,435,456 of a module" in error(result)
